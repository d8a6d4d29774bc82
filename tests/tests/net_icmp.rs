//! What a router owes (RFC 1812): it says so when a packet goes no further, and why; big packets find their way.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use netdp_tests::ask::{Transport, answered, ask, echo_bulk};
use netdp_tests::capture::Capture;
use netdp_tests::counters::counter;
use netdp_tests::lab::{HOST, Lab, UPLINK, WORLD, WORLD_3, WORLD_LINK};
use netdp_tests::netns::Netns;
use netdp_tests::on_ebpf_only;
use netdp_tests::server::Server;
use netdp_tests::told::{Fragments, Prober, Told, What, trace};
use netdp_tests::variant::Family;

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;
/// A port where nobody listens.
const CLOSED: u16 = 33_434;

const TIME_EXCEEDED: What = What { v4: (11, 0), v6: (3, 0) };
const TOO_BIG: What = What { v4: (3, 4), v6: (2, 0) };
const HOST_UNREACHABLE: What = What { v4: (3, 1), v6: (1, 3) };

/// Behind the world, on a smaller link.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
/// The world's end of that link.
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const FAR_MTU: u32 = 1300;
/// Fits the containers' links, and is too big for the others here; an answer is some bytes longer.
const LARGE: usize = 1410;
/// More than any link carries.
const HUGE: usize = 6000;
const BULK: usize = 4 << 20;

on_ebpf_only!(
    a_hop_that_is_the_last_is_told_of: "the kernel answers, and netdp counts nothing",
    an_answer_to_an_unfinished_checksum: "the kernel answers",
    a_traceroute_shows_the_host_once: "the kernel answers",
    a_smaller_uplink: "the kernel answers and fragments, and netdp counts nothing",
    a_smaller_uplink_without_df: "the kernel fragments, and netdp counts nothing",
    a_smaller_link_behind_the_uplink: "conntrack translates what the router says",
    an_endpoint_with_a_smaller_mtu: "the kernel answers",
    datagrams_larger_than_every_link: "conntrack puts them together",
    nobody_at_the_next_hop: "the kernel answers",
    answers_are_rate_limited: "the kernel has limits of its own (icmp_ratelimit)",
);

fn a_hop_that_is_the_last_is_told_of(lab: &Lab) {
    let web = lab.container("web", &published());
    let client = lab.container("client", "");
    let told = |netns: &Netns, to: (IpAddr, u16)| {
        let prober = Prober::new(netns, to, Fragments::Allowed).with_ttl(1);
        prober.send(1000).expect("sending");
        prober.told().map(|told| (told.by, told.what))
    };
    let (world, host, what) = (lab.at(WORLD), lab.at(HOST), TIME_EXCEEDED.of(lab));
    assert_eq!(told(&client.netns, (world, PORT)), Some((client.gateway, what)));
    assert_eq!(told(&client.netns, (host, PUBLISHED)), Some((client.gateway, what)), "hairpin");
    assert_eq!(told(&lab.world, (host, PUBLISHED)), Some((host, what)), "from outside");
    assert_eq!(pinged(&client.netns, world, 1), client.gateway.to_string());
    assert_eq!(lab.netdp.counter("icmp_time_exceeded"), 4, "{}", lab.netdp.json("stats"));
    // Neighbours are on one link: nobody routes between them.
    let _udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    let near = Prober::new(&client.netns, (web.address, PORT), Fragments::Allowed).with_ttl(1);
    near.ask(10).expect("an answer");
}

/// What comes in with a checksum that is left to the device goes back by one that does no such thing.
fn an_answer_to_an_unfinished_checksum(lab: &Lab) {
    lab.host.sh(&format!("ethtool -K {UPLINK} tx off"));
    let _web = lab.container("web", &published());
    for bytes in [0, 1, 3, 100, 1001, 1300] {
        let prober = Prober::new(&lab.world, (lab.at(HOST), PUBLISHED), Fragments::Allowed).with_ttl(1);
        prober.send(bytes).expect("sending");
        let told = prober.told().map(|told| (told.by, told.what));
        assert_eq!(told, Some((lab.at(HOST), TIME_EXCEEDED.of(lab))), "{bytes}");
    }
    assert_eq!(counter(&lab.world, "snmp", "Icmp", "InCsumErrors"), 0);
}

fn a_traceroute_shows_the_host_once(lab: &Lab) {
    let _far = far_away(lab);
    let client = lab.container("client", &format!("-p {CLOSED}:{CLOSED}/udp"));
    let (world, host, far) = (lab.at(WORLD), lab.at(HOST), lab.at(FAR));
    assert_eq!(trace(&client.netns, (far, CLOSED)), [client.gateway, router(lab), far]);
    assert_eq!(trace(&client.netns, (world, CLOSED)), [client.gateway, world]);
    // With DNAT, whoever answers does so by the published address.
    assert_eq!(trace(&lab.world, (host, CLOSED)), [host, host]);
    let hops: Vec<String> = (1..=3).map(|ttl| pinged(&client.netns, far, ttl)).collect();
    assert_eq!(hops, [client.gateway, router(lab), far].map(|hop| hop.to_string()));
}

/// Both ends of the uplink's link have the smaller MTU, the containers don't.
fn a_smaller_uplink(lab: &Lab) {
    let web = lab.container("web", &published());
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    let mtu = narrow_uplink(lab);
    let _inside = servers(&web.netns, "web", web.address);
    let _outside = servers(&lab.world, "world", world);

    let prober = Prober::new(&web.netns, (world, PORT), Fragments::Forbidden);
    assert_learns(lab, &prober, web.gateway, mtu);
    forget_paths(&web.netns);
    echo_bulk(&web.netns, (world, PORT), BULK);
    forget_paths(&web.netns);
    echo_bulk(&lab.world, (host, PUBLISHED), BULK);

    // Or else the container's own kernel would fragment.
    forget_paths(&web.netns);
    let capture = Capture::start(&lab.world, WORLD_LINK);
    let prober = Prober::new(&web.netns, (world, PORT), Fragments::Allowed);
    if lab.variant.family == Family::V6 {
        // Nobody else fragments in IPv6: the first one is lost, and tells the sender.
        prober.ask(LARGE).expect_err("too big");
    }
    assert!(prober.ask(LARGE).expect("fragmented both ways") > LARGE);
    // From outside. The server's first answer must not be fragmented and is lost; then it knows.
    forget_paths(&web.netns);
    let prober = Prober::new(&lab.world, (host, PUBLISHED), Fragments::Allowed);
    assert_eq!(prober.ask(LARGE).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    assert!(prober.ask(LARGE).expect("fragmented by the server") > LARGE);
    assert_private(capture, web.address);
    let fragmented = u64::from(lab.variant.family == Family::V4);
    assert_eq!(lab.netdp.counter("stack_fragmented"), fragmented, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.counter("untranslated"), 0, "{}", lab.netdp.json("stats"));
}

/// Where nobody sets DF, the host fragments, TCP too; in IPv6, nobody but the sender ever does.
fn a_smaller_uplink_without_df(lab: &Lab) {
    let web = lab.container("web", &published());
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    web.netns.set_sysctl("net/ipv4/ip_no_pmtu_disc", "1");
    narrow_uplink(lab);
    let _inside = servers(&web.netns, "web", web.address);
    let _outside = servers(&lab.world, "world", world);
    let capture = Capture::start(&lab.world, WORLD_LINK);
    for (netns, to) in [(&web.netns, (world, PORT)), (&lab.world, (host, PUBLISHED))] {
        let prober = Prober::new(netns, to, Fragments::Allowed);
        if lab.variant.family == Family::V6 {
            forget_paths(&web.netns);
            prober.ask(LARGE).expect_err("too big, one way or the other");
        }
        for _ in 0..10 {
            assert!(prober.ask(LARGE).expect("fragmented") > LARGE);
        }
        echo_bulk(netns, to, BULK / 8);
    }
    assert_private(capture, web.address);
    if lab.variant.family == Family::V4 {
        assert!(lab.netdp.counter("stack_fragmented") >= 20, "{}", lab.netdp.json("stats"));
        assert_eq!(lab.netdp.counter("too_big"), 0, "{}", lab.netdp.json("stats"));
    }
    assert_eq!(lab.netdp.counter("untranslated"), 0, "{}", lab.netdp.json("stats"));
}

/// The error comes from a router outside and is translated.
fn a_smaller_link_behind_the_uplink(lab: &Lab) {
    let netns = far_away(lab);
    let client = lab.container("client", &published());
    let (host, far) = (lab.at(HOST), lab.at(FAR));
    let _outside = servers(&netns, "far", far);
    let _inside = servers(&client.netns, "client", client.address);
    let prober = Prober::new(&client.netns, (far, PORT), Fragments::Forbidden);
    assert_learns(lab, &prober, router(lab), FAR_MTU);
    forget_paths(&client.netns);
    echo_bulk(&client.netns, (far, PORT), BULK);
    forget_paths(&client.netns);
    echo_bulk(&netns, (host, PUBLISHED), BULK);
    let prober = Prober::new(&netns, (host, PUBLISHED), Fragments::Allowed);
    assert_eq!(prober.ask(LARGE).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock), "lost, and told");
    assert!(prober.ask(LARGE).expect("a large question and answer") > LARGE);
}

fn an_endpoint_with_a_smaller_mtu(lab: &Lab) {
    const MTU: u32 = 1300;
    lab.netdp.ok(&format!("network create narrow {} --mtu {MTU}", lab.subnet("10.53.0.0/24")));
    let web = lab.container("web", &format!("--network narrow {}", published()));
    let client = lab.container("client", "");
    let to = (lab.at(HOST), PUBLISHED);
    let _inside = servers(&web.netns, "web", web.address);
    for (netns, by) in [(&client.netns, client.gateway), (&lab.world, to.0)] {
        assert_learns(lab, &Prober::new(netns, to, Fragments::Forbidden), by, MTU);
        forget_paths(netns);
        echo_bulk(netns, to, BULK);
        forget_paths(netns);
        let prober = Prober::new(netns, to, Fragments::Allowed);
        if lab.variant.family == Family::V6 {
            prober.ask(LARGE).expect_err("too big");
        }
        assert!(prober.ask(LARGE).expect("delivered as it is, or fragmented") > LARGE);
    }
}

/// Fragmented by who sends them: only the first fragment has ports.
fn datagrams_larger_than_every_link(lab: &Lab) {
    let web = lab.container("web", &published());
    let client = lab.container("client", "");
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    let _outside = servers(&lab.world, "world", world);
    let _inside = servers(&web.netns, "web", web.address);
    for (netns, to) in [
        (&client.netns, (world, PORT)),
        (&lab.world, (host, PUBLISHED)),
        (&client.netns, (host, PUBLISHED)),
        (&web.netns, (host, PUBLISHED)),
        (&client.netns, (web.address, PORT)),
    ] {
        let prober = Prober::new(netns, to, Fragments::Allowed);
        for _ in 0..20 {
            let answer = prober.ask(HUGE);
            let answer = answer.unwrap_or_else(|error| panic!("{} to {to:?}: {error}", netns.name()));
            assert!(answer > HUGE);
        }
    }
    client.netns.sh(&format!("ping -n -c 2 -i 0.2 -W 2 -s {HUGE} {world}"));
    assert_eq!(lab.netdp.counter("fragment"), 0, "{}", lab.netdp.json("stats"));
}

fn nobody_at_the_next_hop(lab: &Lab) {
    const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 77);
    let (client, nobody) = (lab.container("client", ""), lab.at(NOBODY));
    let started = Instant::now();
    let prober = Prober::new(&client.netns, (nobody, PORT), Fragments::Allowed);
    let told = loop {
        assert!(started.elapsed() < Duration::from_secs(6), "nobody says anything");
        // An error may be pending.
        let _ = prober.send(10);
        if let Some(told) = prober.told_within(Duration::from_millis(200)) {
            break told;
        }
    };
    assert_eq!((told.by, told.what), (client.gateway, HOST_UNREACHABLE.of(lab)));
    assert_eq!(told.errno, libc::EHOSTUNREACH);
    // A TCP connection is told by its SYN's retransmission at the latest.
    let error = client.netns.enter(|| TcpStream::connect((nobody, PORT)));
    assert_eq!(error.expect_err("nobody there").kind(), ErrorKind::HostUnreachable);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    // Somebody comes: the kernel is made to ask again.
    let address = lab.variant.family.with_prefix(NOBODY, 24);
    lab.world.sh(&format!("ip addr add {address} dev {WORLD_LINK} nodad"));
    let _tcp = Server::tcp(&lab.world, "late", nobody, &[PORT]);
    let started = Instant::now();
    while ask(&client.netns, Transport::Tcp, (nobody, PORT)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(8), "the next hop is there and is not asked for");
    }
    answered(&client.netns, Transport::Tcp, (nobody, PORT), "late");
}

/// RFC 1812 4.3.2.8, RFC 4443 2.4(f).
fn answers_are_rate_limited(lab: &Lab) {
    const PROBES: u64 = 3000;
    let client = lab.container("client", "");
    let prober = Prober::new(&client.netns, (lab.at(WORLD), CLOSED), Fragments::Allowed).with_ttl(1);
    let started = Instant::now();
    for _ in 0..PROBES {
        // An error may be pending.
        let _ = prober.send(10);
    }
    let elapsed = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (sent, kept) = (lab.netdp.counter("ttl_exceeded"), lab.netdp.counter("answers_suppressed"));
    let told = lab.netdp.counter("icmp_time_exceeded");
    assert_eq!(sent, kept + told, "{}", lab.netdp.json("stats"));
    // A hundred at once, one more each millisecond.
    assert!(told >= 100 && told <= 101 + elapsed, "{told} of {sent} in {elapsed} ms");
    assert!(kept > 0, "{sent} in {elapsed} ms");
}

/// A namespace behind the world, which routes to it over a link with a smaller MTU.
fn far_away(lab: &Lab) -> Netns {
    let (netns, family) = (lab.netns("far"), lab.variant.family);
    lab.world.set_sysctl("net/ipv4/ip_forward", "1");
    lab.world.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    let peer = format!("peer name f0 mtu {FAR_MTU} netns {}", netns.name());
    lab.world.sh(&format!("ip link add w1 mtu {FAR_MTU} type veth {peer}"));
    lab.world.sh(&format!("ip addr add {} dev w1 nodad", family.with_prefix(NEAR, 24)));
    lab.world.sh("ip link set w1 up");
    netns.sh(&format!("ip addr add {} dev f0 nodad", family.with_prefix(FAR, 24)));
    netns.sh("ip link set f0 up");
    netns.sh(&format!("ip route add default via {}", lab.at(NEAR)));
    lab.apply_offloads(&lab.world, "w1");
    lab.apply_offloads(&netns, "f0");
    netns
}

/// By which of its addresses the world reports: in IPv6, the one that it got last.
fn router(lab: &Lab) -> IpAddr {
    lab.at(if lab.variant.family == Family::V4 { WORLD } else { WORLD_3 })
}

fn narrow_uplink(lab: &Lab) -> u32 {
    const MTU: u32 = 1400;
    lab.host.sh(&format!("ip link set {UPLINK} mtu {MTU}"));
    lab.world.sh(&format!("ip link set {WORLD_LINK} mtu {MTU}"));
    MTU
}

fn published() -> String {
    format!("-p {PUBLISHED}:{PORT}/udp -p {PUBLISHED}:{PORT}")
}

fn servers(netns: &Netns, name: &str, address: IpAddr) -> [Server; 2] {
    [Server::udp(netns, name, address, &[PORT]), Server::tcp(netns, name, address, &[PORT])]
}

/// What a kernel has learnt about paths' MTUs.
fn forget_paths(netns: &Netns) {
    netns.sh("ip route flush cache");
    netns.sh("ip -6 route flush cache");
}

/// Who answers an echo request with this time to live.
#[track_caller]
fn pinged(netns: &Netns, to: IpAddr, ttl: u32) -> String {
    let output = netns.try_sh(&format!("ping -n -c 1 -W 2 -t {ttl} {to}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().find(|line| line.contains("icmp_seq=1"));
    let line = line.unwrap_or_else(|| panic!("no answer at hop {ttl}: {text}"));
    let from = line.split_whitespace().skip_while(|word| !word.eq_ignore_ascii_case("from")).nth(1);
    from.expect("an address").trim_end_matches(':').to_owned()
}

#[track_caller]
fn assert_private(capture: Capture, address: IpAddr) {
    let packets = capture.finish();
    let leaked: Vec<_> = packets.iter().filter(|packet| packet.src.ip() == address).collect();
    assert!(!packets.is_empty() && leaked.is_empty(), "{leaked:?}");
}

/// A socket that may not fragment is told the MTU, believes it, and what fits is answered.
#[track_caller]
fn assert_learns(lab: &Lab, prober: &Prober, by: IpAddr, mtu: u32) {
    prober.send(LARGE).expect("it fits the first link");
    let told = Told { by, what: TOO_BIG.of(lab), mtu, errno: libc::EMSGSIZE };
    assert_eq!(prober.told(), Some(told));
    assert_eq!(prober.path_mtu(), mtu);
    let error = prober.send(LARGE).expect_err("too big for the path");
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert!(prober.ask(1100).expect("an answer") > 1100);
}
