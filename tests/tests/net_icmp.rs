//! What a router owes (RFC 1812): it says so when a packet goes no further, and why; big packets find their way.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use netdp_tests::ask::{Transport, answered, ask, echo_bulk};
use netdp_tests::capture::Capture;
use netdp_tests::lab::{HOST, Lab, UPLINK, WORLD, WORLD_LINK};
use netdp_tests::netns::Netns;
use netdp_tests::server::Server;
use netdp_tests::told::{Fragments, Prober, Told, trace};
use netdp_tests::with_and_without_offloads;

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;
/// A port where nobody listens.
const CLOSED: u16 = 33_434;

const TIME_EXCEEDED: (u8, u8) = (11, 0);
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
const HOST_UNREACHABLE: (u8, u8) = (3, 1);

/// Behind the world, on a smaller link.
const FAR: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const FAR_MTU: u32 = 1300;
/// More than any link here carries.
const LARGE: usize = 6000;
const BULK: usize = 4 << 20;

with_and_without_offloads!(
    a_hop_that_is_the_last_is_told_of,
    a_traceroute_shows_the_host_once,
    a_smaller_uplink,
    a_smaller_uplink_without_df,
    a_smaller_link_behind_the_uplink,
    an_endpoint_with_a_smaller_mtu,
    datagrams_larger_than_every_link,
    nobody_at_the_next_hop,
    answers_are_rate_limited,
);

fn a_hop_that_is_the_last_is_told_of(lab: &Lab) {
    let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}/udp -p {PUBLISHED}:{PORT}"));
    let client = lab.container("client", "");
    let told = |netns: &Netns, to: (Ipv4Addr, u16)| {
        let prober = Prober::new(netns, to, Fragments::Allowed).with_ttl(1);
        prober.send(1000).expect("sending");
        prober.told().map(|told| (told.by, told.what))
    };
    assert_eq!(told(&client.netns, (WORLD, PORT)), Some((client.gateway, TIME_EXCEEDED)));
    assert_eq!(told(&client.netns, (HOST, PUBLISHED)), Some((client.gateway, TIME_EXCEEDED)), "hairpin");
    assert_eq!(told(&lab.world, (HOST, PUBLISHED)), Some((HOST, TIME_EXCEEDED)), "from outside");
    let output = client.netns.try_sh(&format!("ping -n -c 1 -W 2 -t 1 {WORLD}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains(&format!("From {} icmp_seq=1 Time to live exceeded", client.gateway)), "{text}");
    assert_eq!(lab.netdp.counter("icmp_time_exceeded"), 4, "{}", lab.netdp.json("stats"));
    // Neighbours are on one link: nobody routes between them.
    let _udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    let near = Prober::new(&client.netns, (web.address, PORT), Fragments::Allowed).with_ttl(1);
    near.ask(10).expect("an answer");
}

fn a_traceroute_shows_the_host_once(lab: &Lab) {
    let _far = far_away(lab);
    let client = lab.container("client", &format!("-p {CLOSED}:{CLOSED}/udp"));
    assert_eq!(trace(&client.netns, (FAR, CLOSED)), [client.gateway, WORLD, FAR]);
    assert_eq!(trace(&client.netns, (WORLD, CLOSED)), [client.gateway, WORLD]);
    // With DNAT, whoever answers does so by the published address.
    assert_eq!(trace(&lab.world, (HOST, CLOSED)), [HOST, HOST]);
    let hops = (1..=3).map(|ttl| {
        let output = client.netns.try_sh(&format!("ping -n -c 1 -W 2 -t {ttl} {FAR}"));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let word = if ttl == 3 { "from " } else { "From " };
        let from = text.split(word).nth(1).and_then(|rest| rest.split([' ', ':']).next());
        from.unwrap_or_else(|| panic!("no answer at hop {ttl}: {text}")).to_owned()
    });
    assert_eq!(hops.collect::<Vec<_>>(), [client.gateway, WORLD, FAR].map(|hop| hop.to_string()));
}

/// Both ends of the uplink's link have the smaller MTU, the containers don't.
fn a_smaller_uplink(lab: &Lab) {
    const MTU: u32 = 1400;
    let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}/udp -p {PUBLISHED}:{PORT}"));
    lab.host.sh(&format!("ip link set {UPLINK} mtu {MTU}"));
    lab.world.sh(&format!("ip link set {WORLD_LINK} mtu {MTU}"));
    let _inside = servers(&web.netns, "web", web.address);
    let _outside = servers(&lab.world, "world", WORLD);

    let prober = Prober::new(&web.netns, (WORLD, PORT), Fragments::Forbidden);
    assert_learns(&prober, web.gateway, MTU);
    echo_bulk(&web.netns, (WORLD, PORT), BULK);
    echo_bulk(&lab.world, (HOST, PUBLISHED), BULK);

    // Or else the container's own kernel would fragment.
    web.netns.sh("ip route flush cache");
    let capture = Capture::start(&lab.world, WORLD_LINK);
    let prober = Prober::new(&web.netns, (WORLD, PORT), Fragments::Allowed);
    // The answer is a little longer than the question, and fragmented too.
    assert!(prober.ask(1450).expect("fragmented both ways") > 1450);
    // From outside. The server's first answer has DF and is lost; then it knows.
    let prober = Prober::new(&lab.world, (HOST, PUBLISHED), Fragments::Allowed);
    assert_eq!(prober.ask(1450).map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
    assert!(prober.ask(1450).expect("fragmented by the server") > 1450);
    let leaked: Vec<_> =
        capture.finish().into_iter().filter(|packet| *packet.src.ip() == web.address).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert_eq!(lab.netdp.counter("stack_fragmented"), 1, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.counter("untranslated"), 0, "{}", lab.netdp.json("stats"));
}

/// Where nobody sets DF, the host fragments, TCP too.
fn a_smaller_uplink_without_df(lab: &Lab) {
    const MTU: u32 = 1400;
    let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}/udp -p {PUBLISHED}:{PORT}"));
    web.netns.set_sysctl("net/ipv4/ip_no_pmtu_disc", "1");
    lab.host.sh(&format!("ip link set {UPLINK} mtu {MTU}"));
    lab.world.sh(&format!("ip link set {WORLD_LINK} mtu {MTU}"));
    let _inside = servers(&web.netns, "web", web.address);
    let _outside = servers(&lab.world, "world", WORLD);
    let capture = Capture::start(&lab.world, WORLD_LINK);
    for (netns, to) in [(&web.netns, (WORLD, PORT)), (&lab.world, (HOST, PUBLISHED))] {
        let prober = Prober::new(netns, to, Fragments::Allowed);
        for _ in 0..10 {
            assert!(prober.ask(1450).expect("fragmented") > 1450);
        }
        echo_bulk(netns, to, BULK / 8);
    }
    let leaked: Vec<_> =
        capture.finish().into_iter().filter(|packet| *packet.src.ip() == web.address).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(lab.netdp.counter("stack_fragmented") >= 20, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.counter("too_big"), 0, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.counter("untranslated"), 0, "{}", lab.netdp.json("stats"));
}

/// The error comes from a router outside and is translated.
fn a_smaller_link_behind_the_uplink(lab: &Lab) {
    let far = far_away(lab);
    let client = lab.container("client", &format!("-p {PUBLISHED}:{PORT}/udp -p {PUBLISHED}:{PORT}"));
    let _outside = servers(&far, "far", FAR);
    let _inside = servers(&client.netns, "client", client.address);
    assert_learns(&Prober::new(&client.netns, (FAR, PORT), Fragments::Forbidden), WORLD, FAR_MTU);
    client.netns.sh("ip route flush cache");
    echo_bulk(&client.netns, (FAR, PORT), BULK);
    client.netns.sh("ip route flush cache");
    echo_bulk(&far, (HOST, PUBLISHED), BULK);
    let prober = Prober::new(&far, (HOST, PUBLISHED), Fragments::Allowed);
    assert!(prober.ask(1450).expect("a large question and answer") > 1450);
}

fn an_endpoint_with_a_smaller_mtu(lab: &Lab) {
    const MTU: u32 = 1300;
    lab.netdp.ok(&format!("network create narrow --subnet 10.53.0.0/24 --mtu {MTU}"));
    let web =
        lab.container("web", &format!("--network narrow -p {PUBLISHED}:{PORT}/udp -p {PUBLISHED}:{PORT}"));
    let client = lab.container("client", "");
    let _inside = servers(&web.netns, "web", web.address);
    assert_learns(&Prober::new(&client.netns, (HOST, PUBLISHED), Fragments::Forbidden), client.gateway, MTU);
    assert_learns(&Prober::new(&lab.world, (HOST, PUBLISHED), Fragments::Forbidden), HOST, MTU);
    for netns in [&client.netns, &lab.world] {
        netns.sh("ip route flush cache");
        echo_bulk(netns, (HOST, PUBLISHED), BULK);
        netns.sh("ip route flush cache");
        let prober = Prober::new(netns, (HOST, PUBLISHED), Fragments::Allowed);
        assert!(prober.ask(1400).expect("delivered as it is") > 1400);
    }
}

/// Fragmented by who sends them: only the first fragment has ports.
fn datagrams_larger_than_every_link(lab: &Lab) {
    let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}/udp"));
    let client = lab.container("client", "");
    let _outside = servers(&lab.world, "world", WORLD);
    let _inside = servers(&web.netns, "web", web.address);
    for (netns, to) in [
        (&client.netns, (WORLD, PORT)),
        (&lab.world, (HOST, PUBLISHED)),
        (&client.netns, (HOST, PUBLISHED)),
        (&web.netns, (HOST, PUBLISHED)),
        (&client.netns, (web.address, PORT)),
    ] {
        let prober = Prober::new(netns, to, Fragments::Allowed);
        for _ in 0..20 {
            let answer = prober.ask(LARGE);
            let answer = answer.unwrap_or_else(|error| panic!("{} to {to:?}: {error}", netns.name()));
            assert!(answer > LARGE);
        }
    }
    client.netns.sh(&format!("ping -n -c 2 -i 0.2 -W 2 -s {LARGE} {WORLD}"));
    assert_eq!(lab.netdp.counter("fragment"), 0, "{}", lab.netdp.json("stats"));
}

fn nobody_at_the_next_hop(lab: &Lab) {
    const NOBODY: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 77);
    let client = lab.container("client", "");
    let started = Instant::now();
    let prober = Prober::new(&client.netns, (NOBODY, PORT), Fragments::Allowed);
    let told = loop {
        assert!(started.elapsed() < Duration::from_secs(6), "nobody says anything");
        // An error may be pending.
        let _ = prober.send(10);
        if let Some(told) = prober.told_within(Duration::from_millis(200)) {
            break told;
        }
    };
    assert_eq!((told.by, told.what), (client.gateway, HOST_UNREACHABLE));
    assert_eq!(told.errno, libc::EHOSTUNREACH);
    // Others are told at once now, a TCP connection by its SYN's retransmission at the latest.
    let error = client.netns.enter(|| TcpStream::connect(SocketAddrV4::new(NOBODY, PORT)));
    assert_eq!(error.expect_err("nobody there").kind(), ErrorKind::HostUnreachable);
    assert!(started.elapsed() < Duration::from_secs(12), "{:?}", started.elapsed());
    // Somebody comes: the kernel is made to ask again.
    lab.world.sh(&format!("ip addr add {NOBODY}/24 dev {WORLD_LINK}"));
    let _tcp = Server::tcp(&lab.world, "late", NOBODY, &[PORT]);
    let started = Instant::now();
    while ask(&client.netns, Transport::Tcp, (NOBODY, PORT)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(8), "the next hop is there and is not asked for");
    }
    answered(&client.netns, Transport::Tcp, (NOBODY, PORT), "late");
}

/// RFC 1812 4.3.2.8.
fn answers_are_rate_limited(lab: &Lab) {
    const PROBES: u64 = 3000;
    let client = lab.container("client", "");
    let prober = Prober::new(&client.netns, (WORLD, CLOSED), Fragments::Allowed).with_ttl(1);
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
    let far = lab.netns("far");
    lab.world.set_sysctl("net/ipv4/ip_forward", "1");
    lab.world.sh(&format!(
        "ip link add w1 mtu {FAR_MTU} type veth peer name f0 mtu {FAR_MTU} netns {}",
        far.name()
    ));
    lab.world.sh("ip addr add 10.98.0.1/24 dev w1");
    lab.world.sh("ip link set w1 up");
    far.sh(&format!("ip addr add {FAR}/24 dev f0"));
    far.sh("ip link set f0 up");
    far.sh("ip route add default via 10.98.0.1");
    lab.apply_offloads(&lab.world, "w1");
    lab.apply_offloads(&far, "f0");
    far
}

fn servers(netns: &Netns, name: &str, address: Ipv4Addr) -> [Server; 2] {
    [Server::udp(netns, name, address, &[PORT]), Server::tcp(netns, name, address, &[PORT])]
}

/// A socket that may not fragment is told the MTU, believes it, and what fits is answered.
#[track_caller]
fn assert_learns(prober: &Prober, by: Ipv4Addr, mtu: u32) {
    prober.send(1450).expect("it fits the first link");
    let told = Told { by, what: FRAGMENTATION_NEEDED, mtu, errno: libc::EMSGSIZE };
    assert_eq!(prober.told(), Some(told));
    assert_eq!(prober.path_mtu(), mtu);
    let error = prober.send(1450).expect_err("too big for the path");
    assert_eq!(error.raw_os_error(), Some(libc::EMSGSIZE));
    assert!(prober.ask(1200).expect("an answer") > 1200);
}
