//! Several uplinks: which way packets take, and what becomes of them when an uplink comes, changes or goes (issue 6,
//! line 2).

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use netdp_tests::ask::{Transport, answered, ask};
use netdp_tests::capture::Capture;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::on_every_datapath_in_both_families;
use netdp_tests::server::Server;
use netdp_tests::variant::{Datapath, Family};

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;

/// Behind the world: reached by either uplink.
const FAR: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 97, 0, 2), Ipv4Addr::new(10, 97, 0, 3)];
/// The host's and the world's end of the second uplink's link.
const SECOND: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 98, 0, 2)];
/// Its interfaces.
const SECOND_LINKS: [&str; 2] = ["up1", "w1"];

on_every_datapath_in_both_families!(
    a_policy_route_is_taken,
    paths_of_a_multipath_route_share,
    answers_come_by_either_uplink,
);

netdp_tests::in_variants! {
    /// Not on iptables: netfilter routes them by the container's address.
    answers_leave_by_the_address_that_was_dialled: ebpf EBPF, ebpf_v6 EBPF_V6;
    /// Not on iptables: netfilter's rules are about every interface.
    an_uplink_that_appears_is_hooked_by_the_next_command: ebpf EBPF, clsact CLSACT, ebpf_v6 EBPF_V6;
    an_uplink_is_renamed_goes_down_and_comes_back:
        ebpf EBPF, clsact CLSACT, ebpf_v6 EBPF_V6, iptables IPTABLES, iptables_v6 IPTABLES_V6;
}

/// Connects the second uplink, and gives the world its far addresses.
fn connect(lab: &Lab) {
    let family = lab.variant.family;
    for far in FAR {
        lab.world.sh(&format!("ip addr add {}/{} dev lo nodad", lab.at(far), host_prefix(family)));
    }
    connect_second(lab);
}

fn connect_second(lab: &Lab) {
    let [host_end, world_end] = SECOND_LINKS;
    lab.world
        .sh(&format!("ip link add {world_end} type veth peer name {host_end} netns {}", lab.host.name()));
    for (netns, link, address) in [(&lab.host, host_end, SECOND[0]), (&lab.world, world_end, SECOND[1])] {
        netns.sh(&format!("ip addr add {} dev {link} nodad", lab.variant.family.with_prefix(address, 24)));
        netns.sh(&format!("ip link set {link} up"));
    }
}

const fn host_prefix(family: Family) -> u8 {
    match family {
        Family::V4 => 32,
        Family::V6 => 128,
    }
}

/// Whom the far server sees.
#[track_caller]
fn peer(container: &Container, transport: Transport, far: IpAddr) -> IpAddr {
    answered(&container.netns, transport, (far, PORT), "far").peer.ip()
}

fn far_servers(lab: &Lab) -> Vec<Server> {
    let far = FAR.map(|addr| lab.at(addr));
    let tcp = far.map(|addr| Server::tcp(&lab.world, "far", addr, &[PORT]));
    let udp = far.map(|addr| Server::udp(&lab.world, "far", addr, &[PORT]));
    tcp.into_iter().chain(udp).collect()
}

fn route(lab: &Lab, far: IpAddr, rest: &str) {
    lab.host.sh(&format!("ip route replace {far}/{} {rest}", host_prefix(lab.variant.family)));
}

/// By source and by interface; each with the address of its uplink.
fn a_policy_route_is_taken(lab: &Lab) {
    connect(lab);
    lab.netdp.ok(&format!("network create other {}", lab.subnet("10.57.0.0/24")));
    let (a, b) = (lab.container("a", ""), lab.container("b", "--network other"));
    let far = lab.at(FAR[0]);
    let _servers = far_servers(lab);
    let version = if far.is_ipv4() { "-4" } else { "-6" };
    lab.host.sh(&format!("ip {version} route add default via {} table 100", lab.at(SECOND[1])));
    assert_eq!(peer(&a, Transport::Udp, far), lab.at(HOST));
    for rule in [format!("from {}", a.address), format!("iif {}", bridge(lab, "a"))] {
        lab.host.sh(&format!("ip {version} rule add {rule} table 100 priority 100"));
        for transport in [Transport::Tcp, Transport::Udp] {
            assert_eq!(peer(&a, transport, far), lab.at(SECOND[0]), "{rule}");
            assert_eq!(peer(&b, transport, far), lab.at(HOST), "{rule}");
        }
        lab.host.sh(&format!("ip {version} rule del priority 100"));
    }
    assert_eq!(peer(&a, Transport::Tcp, far), lab.at(HOST));
}

/// An endpoint's bridge.
fn bridge(lab: &Lab, endpoint: &str) -> String {
    let network =
        lab.netdp.json(&format!("inspect {endpoint}"))["network"].as_str().expect("a network").to_owned();
    lab.netdp.json(&format!("network inspect {network}"))["bridge"].as_str().expect("a bridge").to_owned()
}

/// Connections are shared out by addresses; none is torn apart.
fn paths_of_a_multipath_route_share(lab: &Lab) {
    connect(lab);
    let family = if lab.variant.family == Family::V4 { "ipv4" } else { "ipv6" };
    // By ports, too.
    lab.host.set_sysctl(&format!("net/{family}/fib_multipath_hash_policy"), "1");
    let a = lab.container("a", "");
    let far = lab.at(FAR[0]);
    let _servers = far_servers(lab);
    route(lab, far, &format!("nexthop via {} nexthop via {}", lab.at(WORLD), lab.at(SECOND[1])));
    let mut seen = BTreeSet::new();
    for _ in 0..40 {
        seen.insert(peer(&a, Transport::Tcp, far));
        seen.insert(peer(&a, Transport::Udp, far));
        if seen.len() == 2 {
            break;
        }
    }
    assert_eq!(seen, BTreeSet::from([lab.at(HOST), lab.at(SECOND[0])]), "each has its share");
    netdp_tests::ask::echo_bulk(&a.netns, (far, PORT), 1 << 20);
}

/// Asymmetric: what a remote sends comes by another uplink than what it gets.
fn answers_come_by_either_uplink(lab: &Lab) {
    connect(lab);
    lab.host.set_sysctl("net/ipv4/conf/all/rp_filter", "0");
    for link in ["up0", SECOND_LINKS[0]] {
        lab.host.set_sysctl(&format!("net/ipv4/conf/{link}/rp_filter"), "0");
    }
    let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}"));
    let far = lab.at(FAR[0]);
    let _servers = far_servers(lab);
    let _web = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    let prefix = host_prefix(lab.variant.family);
    lab.world.sh(&format!("ip route add {}/{prefix} via {} src {far}", lab.at(HOST), lab.at(SECOND[0])));
    assert_eq!(peer(&web, Transport::Tcp, far), lab.at(HOST));
    assert_eq!(answered(&lab.world, Transport::Tcp, (lab.at(HOST), PUBLISHED), "web").peer.ip(), far);
}

/// A host with two uplinks, each with its provider's address: what was dialled decides, as it does for the host's own
/// servers.
fn answers_leave_by_the_address_that_was_dialled(lab: &Lab) {
    connect(lab);
    let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}"));
    let _web = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    let (far, family) = (lab.at(FAR[0]), lab.variant.family);
    let version = if family == Family::V4 { "-4" } else { "-6" };
    lab.host.sh(&format!("ip {version} route add default via {} table 100", lab.at(SECOND[1])));
    lab.host.sh(&format!("ip {version} rule add from {} table 100 priority 100", lab.at(SECOND[0])));
    lab.world.sh(&format!(
        "ip route add {}/{} dev {} src {far}",
        lab.at(SECOND[0]),
        host_prefix(family),
        SECOND_LINKS[1]
    ));
    let capture = Capture::start(&lab.world, SECOND_LINKS[1]);
    let dialled = SocketAddr::new(lab.at(SECOND[0]), PUBLISHED);
    let mut stream = lab.world.enter(|| TcpStream::connect(dialled)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    stream.read_exact(&mut [0; 4]).expect("the greeting");
    // Also when the way is looked for again.
    std::thread::sleep(Duration::from_millis(1200));
    stream.write_all(b"x").expect("a connection");
    stream.read_exact(&mut [0; 1]).expect("the rest of the greeting or the echo");
    let captured = capture.finish();
    let answers = captured.iter().filter(|packet| packet.incoming && packet.src == dialled).count();
    let questions = captured.iter().filter(|packet| !packet.incoming && packet.dst == dialled).count();
    assert!(answers >= 3 && questions >= 3, "{questions} questions and {answers} answers: {captured:?}");
}

/// Until then, whoever sends there is told so, and nothing leaves.
fn an_uplink_that_appears_is_hooked_by_the_next_command(lab: &Lab) {
    let family = lab.variant.family;
    for far in FAR {
        lab.world.sh(&format!("ip addr add {}/{} dev lo nodad", lab.at(far), host_prefix(family)));
    }
    let a = lab.container("a", &format!("-p {PUBLISHED}:{PORT}"));
    let far = lab.at(FAR[0]);
    let _servers = far_servers(lab);
    assert_eq!(peer(&a, Transport::Tcp, far), lab.at(HOST));
    connect_second(lab);
    route(lab, far, &format!("via {}", lab.at(SECOND[1])));
    let capture = Capture::start(&lab.world, SECOND_LINKS[1]);
    let refused = ask(&a.netns, Transport::Tcp, (far, PORT)).expect_err("an uplink without programs");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    let refused = ask(&a.netns, Transport::Udp, (far, PORT)).expect_err("an uplink without programs");
    assert_ne!(refused.kind(), ErrorKind::WouldBlock, "{refused}");
    let leaked: Vec<_> = capture.finish().into_iter().filter(|packet| packet.dst.ip() == far).collect();
    assert_eq!(leaked, []);
    assert!(lab.netdp.counter("uplink_not_attached") >= 2, "{}", lab.netdp.json("stats"));
    lab.netdp.ok("repair");
    for transport in [Transport::Tcp, Transport::Udp] {
        assert_eq!(peer(&a, transport, far), lab.at(SECOND[0]));
    }
}

/// Each as it happens to a host: by a cable, by udev, by a driver that is loaded anew.
fn an_uplink_is_renamed_goes_down_and_comes_back(lab: &Lab) {
    connect(lab);
    let a = lab.container("a", &format!("-p {PUBLISHED}:{PORT}"));
    let far = lab.at(FAR[0]);
    let _servers = far_servers(lab);
    let _web = Server::tcp(&a.netns, "web", a.address, &[PORT]);
    let second = lab.at(SECOND[1]);
    let works_by = |address: Ipv4Addr| {
        let started = Instant::now();
        while ask(&a.netns, Transport::Udp, (far, PORT)).ok().map(|answer| answer.peer.ip())
            != Some(lab.at(address))
        {
            assert!(
                started.elapsed() < Duration::from_secs(10),
                "not by {address}: {}",
                lab.netdp.json("stats")
            );
        }
        assert_eq!(peer(&a, Transport::Tcp, far), lab.at(address));
        answered(&lab.world, Transport::Tcp, (lab.at(address), PUBLISHED), "web");
    };
    route(lab, far, &format!("via {second}"));
    works_by(SECOND[0]);
    let [up, _] = SECOND_LINKS;
    // Interfaces that are up can be renamed since Linux 6.2.
    lab.host.sh(&format!("ip link set {up} name wan9"));
    works_by(SECOND[0]);
    lab.netdp.ok("repair");
    works_by(SECOND[0]);
    lab.host.sh("ip link set wan9 down");
    // Its routes are gone with it.
    works_by(HOST);
    lab.host.sh("ip link set wan9 up");
    if lab.variant.family == Family::V6 {
        let address = Family::V6.with_prefix(SECOND[0], 24);
        lab.host.sh(&format!("ip addr replace {address} dev wan9 nodad"));
    }
    route(lab, far, &format!("via {second}"));
    works_by(SECOND[0]);
    lab.host.sh("ip link del wan9");
    works_by(HOST);
    connect_second(lab);
    route(lab, far, &format!("via {second}"));
    if lab.variant.datapath == Datapath::Ebpf {
        let refused = ask(&a.netns, Transport::Tcp, (far, PORT)).expect_err("an uplink without programs");
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    }
    lab.netdp.ok("repair");
    works_by(SECOND[0]);
}
