//! Kinds of uplinks (G17): what carries the host's addresses instead of a plain Ethernet interface.

use netdp_tests::ask::{Transport, unanswered};
use netdp_tests::lab::{HOST, Lab, UPLINK, WORLD};
use netdp_tests::uplink::{PORT, Site, enslave, move_host, route};
use netdp_tests::variant::{Datapath, Family};

/// What carries the addresses.
const LINK: &str = "ext0";

netdp_tests::in_variants! {
    a_bridge: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
    a_macvlan: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
    one_that_comes_later: ebpf EBPF, iptables IPTABLES;
    one_that_is_renamed: ebpf EBPF, iptables_v6 IPTABLES_V6;
    one_that_goes_down_for_a_while: ebpf_v6 EBPF_V6, iptables IPTABLES;
}

fn on_host(lab: &Lab, lines: &[&str]) {
    for line in lines {
        lab.host.sh(line);
    }
}

/// A link of that kind, up.
fn add(lab: &Lab, kind: &str) {
    on_host(lab, &[&format!("ip link add {LINK} {kind}"), &format!("ip link set {LINK} up")]);
}

/// As virtual machines' hosts have it.
fn a_bridge(lab: &Lab) {
    add(lab, "type bridge");
    move_host(lab, UPLINK, LINK);
    enslave(lab, LINK);
    Site::new(lab).works();
}

fn a_macvlan(lab: &Lab) {
    add(lab, &format!("link {UPLINK} type macvlan mode bridge"));
    move_host(lab, UPLINK, LINK);
    Site::new(lab).works();
}

/// Hooked by the next command; nothing leaves by it untranslated until then.
fn one_that_comes_later(lab: &Lab) {
    let site = Site::new(lab);
    add(lab, "type bridge");
    move_host(lab, UPLINK, LINK);
    enslave(lab, LINK);
    if lab.variant.datapath == Datapath::Ebpf {
        unanswered(&site.a.netns, Transport::Tcp, (lab.at(WORLD), PORT));
        assert!(lab.netdp.counter("uplink_not_attached") > 0, "{}", lab.netdp.json("stats"));
    }
    lab.netdp.ok("repair");
    site.works();
}

fn one_that_is_renamed(lab: &Lab) {
    let site = Site::new(lab);
    on_host(
        lab,
        &[
            &format!("ip link set {UPLINK} down"),
            &format!("ip link set {UPLINK} name {LINK}"),
            &format!("ip link set {LINK} up"),
        ],
    );
    restore_v6(lab, LINK);
    route(lab, LINK);
    if lab.variant.datapath == Datapath::Iptables {
        // Its rules and sysctls go by name.
        lab.netdp.ok("repair");
    }
    site.works();
}

fn one_that_goes_down_for_a_while(lab: &Lab) {
    let site = Site::new(lab);
    lab.host.sh(&format!("ip link set {UPLINK} down"));
    unanswered(&site.a.netns, Transport::Tcp, (lab.at(WORLD), PORT));
    lab.host.sh(&format!("ip link set {UPLINK} up"));
    restore_v6(lab, UPLINK);
    route(lab, UPLINK);
    site.works();
}

/// IPv6 addresses go when a link does.
fn restore_v6(lab: &Lab, link: &str) {
    let address = Family::V6.with_prefix(HOST, 24);
    lab.host.sh(&format!("ip addr replace {address} dev {link} nodad"));
}
