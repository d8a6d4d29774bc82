//! Kinds of uplinks (G17): what carries the host's addresses instead of a plain Ethernet interface.

use netdp_tests::ask::{Transport, answered, echo_bulk, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD};
use netdp_tests::server::Server;
use netdp_tests::variant::{Datapath, Family};

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;
const BULK: usize = 1 << 20;
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

/// Gives the uplink's addresses and routes to another link of the host.
fn move_to(lab: &Lab, link: &str) {
    for family in [Family::V4, Family::V6] {
        let address = family.with_prefix(HOST, 24);
        on_host(
            lab,
            &[
                &format!("ip addr del {address} dev {UPLINK}"),
                &format!("ip addr add {address} dev {link} nodad"),
            ],
        );
    }
    route(lab, link);
}

/// By that link; the kernel forgets routes with their link's addresses, and when it goes down.
fn route(lab: &Lab, link: &str) {
    let (v4, v6) = (WORLD, Family::V6.with_prefix(WORLD, 24));
    let v6 = v6.split('/').next().expect("an address");
    for via in [v4.to_string().as_str(), v6] {
        lab.host.sh(&format!("ip route replace default via {via} dev {link}"));
    }
}

/// An endpoint that publishes a port, and servers at both ends of the way.
struct Site<'a> {
    lab: &'a Lab,
    a: Container,
    _servers: [Server; 4],
}

impl<'a> Site<'a> {
    fn new(lab: &'a Lab) -> Self {
        let a = lab.container("a", &format!("-p {PUBLISHED}:{PORT} -p {PUBLISHED}:{PORT}/udp"));
        let servers = [
            Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]),
            Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]),
            Server::tcp(&a.netns, "a", a.address, &[PORT]),
            Server::udp(&a.netns, "a", a.address, &[PORT]),
        ];
        Self { lab, a, _servers: servers }
    }

    /// Reaches out, and is reached at its published port, as by any uplink.
    fn works(&self) {
        let Self { lab, a, .. } = self;
        a.netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(WORLD)));
        for transport in Transport::ALL {
            let out = answered(&a.netns, transport, (lab.at(WORLD), PORT), "world");
            assert_eq!(out.peer.ip(), lab.at(HOST), "the outside sees the host");
            let inward = answered(&lab.world, transport, (lab.at(HOST), PUBLISHED), "a");
            assert_eq!(inward.peer, inward.local, "the endpoint sees who asks");
            answered(&lab.host, transport, (lab.at(HOST), PUBLISHED), "a");
        }
        echo_bulk(&a.netns, (lab.at(WORLD), PORT), BULK);
        echo_bulk(&lab.world, (lab.at(HOST), PUBLISHED), BULK);
        // What is not published is not reached by it (G16).
        lab.world.sh(&format!("ip route replace {} via {}", a.address, lab.at(HOST)));
        unanswered(&lab.world, Transport::Udp, (a.address, PORT));
    }
}

/// As virtual machines' hosts have it.
fn a_bridge(lab: &Lab) {
    add(lab, "type bridge");
    move_to(lab, LINK);
    lab.host.sh(&format!("ip link set {UPLINK} master {LINK}"));
    Site::new(lab).works();
}

fn a_macvlan(lab: &Lab) {
    add(lab, &format!("link {UPLINK} type macvlan mode bridge"));
    move_to(lab, LINK);
    Site::new(lab).works();
}

/// Hooked by the next command; nothing leaves by it untranslated until then.
fn one_that_comes_later(lab: &Lab) {
    let site = Site::new(lab);
    add(lab, "type bridge");
    move_to(lab, LINK);
    lab.host.sh(&format!("ip link set {UPLINK} master {LINK}"));
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
