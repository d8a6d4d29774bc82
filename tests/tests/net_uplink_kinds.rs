//! Kinds of uplinks (G17): what carries the host's addresses instead of a plain Ethernet interface.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use aya::programs::{SchedClassifier, TcAttachType};
use netdp_common::header::ethernet;
use netdp_tests::ask::{Transport, unanswered};
use netdp_tests::backlog::unless_dropped;
use netdp_tests::lab::{HOST, Lab, UPLINK, WORLD, WORLD_LINK};
use netdp_tests::packet::{Carries, Packet};
use netdp_tests::uplink::{PORT, PUBLISHED, Site, enslave, move_host, route};
use netdp_tests::variant::{Datapath, Family};
use netdp_tests::wire::Tap;

/// What carries the addresses.
const LINK: &str = "ext0";

netdp_tests::in_variants! {
    a_bridge: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
    a_macvlan: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
    one_that_comes_later: ebpf EBPF, iptables IPTABLES;
    one_that_is_renamed: ebpf EBPF, iptables_v6 IPTABLES_V6;
    one_that_goes_down_for_a_while: ebpf_v6 EBPF_V6, iptables IPTABLES;
    frames_with_a_tag_are_left_alone: ebpf EBPF, ebpf_v6 EBPF_V6;
    the_loopback_is_none: ebpf EBPF, clsact CLSACT;
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

/// They are a VLAN interface's, whether there is one or not: not even an established flow's are taken.
fn frames_with_a_tag_are_left_alone(lab: &Lab) {
    const TAG: u16 = 0x8100;
    let a = lab.container("a", &format!("-p {PUBLISHED}:{PORT}/udp"));
    let inside = a.netns.enter(|| UdpSocket::bind((a.address, PORT))).expect("binding");
    inside.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    let (tap, host_mac) = (Tap::open(&lab.world, WORLD_LINK), Tap::open(&lab.host, UPLINK).mac);
    let ethertype = if a.address.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
    let from = SocketAddr::new(lab.at(WORLD), 20_000);
    let packet = |to: (IpAddr, u16), payload: &[u8]| {
        Packet::new(from, SocketAddr::new(to.0, to.1), Carries::Udp, payload).bytes()
    };
    let published = (lab.at(HOST), PUBLISHED);
    let plain = |payload: &'static [u8]| {
        let sent = || {
            tap.send_packet(host_mac, ethertype, &packet(published, payload)).expect("sending");
            receive(&inside)
        };
        assert_eq!(
            unless_dropped(sent, |received| received.as_deref() == Ok(payload)).as_deref(),
            Ok(payload)
        );
    };
    plain(b"opens a flow");
    let before = lab.netdp.json("stats");
    // In a VLAN, with and without a priority; to the published port, and to the endpoint itself.
    for tag in [7u16, 0xe007] {
        for to in [published, (a.address, PORT)] {
            let tagged = [&tag.to_be_bytes()[..], &ethertype.to_be_bytes(), &packet(to, b"tagged")].concat();
            tap.send_packet(host_mac, TAG, &tagged).expect("sending");
        }
    }
    // They are behind us when this one has come.
    plain(b"goes on");
    let after = lab.netdp.json("stats");
    assert_eq!(before["drops"], after["drops"], "nothing is refused, either");
}

/// What a socket gets, or the kind of its error.
fn receive(socket: &UdpSocket) -> Result<Vec<u8>, ErrorKind> {
    let mut buffer = [0; 512];
    socket.recv(&mut buffer).map(|length| buffer[..length].to_vec()).map_err(|error| error.kind())
}

/// Whatever addresses it has, and by whichever command.
fn the_loopback_is_none(lab: &Lab) {
    lab.host.sh("ip link set lo up");
    lab.host.sh("ip addr add 10.98.0.1/32 dev lo");
    let site = Site::new(lab);
    lab.netdp.ok("repair");
    assert_eq!(hooks_on(lab, "lo"), 0);
    assert_eq!(hooks_on(lab, UPLINK), 2, "in and out");
    site.works();
}

/// How many programs an interface of the host carries.
fn hooks_on(lab: &Lab, link: &str) -> usize {
    let count = |(side, name): (TcAttachType, &str)| {
        if lab.variant.tcx {
            let (_, programs) =
                lab.host.enter(|| SchedClassifier::query_tcx(link, side)).expect("asking TCX");
            programs.len()
        } else {
            let filters = lab.host.try_sh(&format!("tc filter show dev {link} {name}"));
            String::from_utf8_lossy(&filters.stdout).matches(" id ").count()
        }
    };
    [(TcAttachType::Ingress, "ingress"), (TcAttachType::Egress, "egress")].into_iter().map(count).sum()
}
