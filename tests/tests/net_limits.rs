//! What there is goes to those who talk, and nobody takes it all (G2, G5, G12): ports towards a remote, the flow table, an
//! endpoint's share of it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_common::flow::Timeouts;
use netdp_tests::ask::{Transport, answered};
use netdp_tests::counters::Retransmissions;
use netdp_tests::lab::{Container, HOST, Lab, WORLD, WORLD_2};
use netdp_tests::netns::Netns;
use netdp_tests::on_ebpf_only_in_both_families;
use netdp_tests::race::Clash;
use netdp_tests::server::Server;
use netdp_tests::{socket, timeouts};

const PORT: u16 = 7000;

on_ebpf_only_in_both_families!(
    the_last_port_is_found_without_searching_anew: "netfilter drops what finds no port (G2)",
    a_full_table_keeps_conversations: "the table is nf_conntrack's, and the host's",
    one_endpoint_leaves_half_to_the_others: "netfilter has no limits (G12)",
    max_flows_is_the_most: "netfilter has no limits (G12)",
    a_syn_flood_of_a_neighbour_leaves_ports: "netfilter has no limits (G12)",
    a_syn_flood_from_outside_stops_nobody: "the table is nf_conntrack's, and the host's",
);

netdp_tests::in_variants! {
    short_lived_sockets_are_not_refused: ebpf EBPF, ebpf_v6 EBPF_V6;
}

/// A network with these options, and endpoints on it.
fn containers<const N: usize>(lab: &Lab, options: &str, each: [(&str, &str); N]) -> [Container; N] {
    lab.netdp.ok(&format!("network create limits {} {options}", lab.subnet("10.57.0.0/24")));
    each.map(|(name, options)| lab.container(name, &format!("--network limits {options}")))
}

fn connect(netns: &Netns, to: (IpAddr, u16)) -> std::io::Result<TcpStream> {
    netns.enter(move || TcpStream::connect(to))
}

/// A connection that has greeted.
fn talk(netns: &Netns, to: (IpAddr, u16)) -> TcpStream {
    let mut stream = connect(netns, to).unwrap_or_else(|e| panic!("{} to {to:?}: {e}", netns.name()));
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    let mut byte = [0];
    while byte != *b"\n" {
        stream.read_exact(&mut byte).expect("the greeting");
    }
    stream
}

fn assert_talks(stream: &mut TcpStream) {
    stream.write_all(b"x").expect("writing to a connection");
    let mut byte = [0];
    stream.read_exact(&mut byte).expect("the echo");
    assert_eq!(byte, *b"x");
}

/// Refused by a reset, which a blocking socket is told at once: without a second SYN.
fn assert_refused(container: &Container, to: (IpAddr, u16)) {
    let before = Retransmissions::of([&container.netns]);
    let error = connect(&container.netns, to).expect_err("more than it may have");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    assert_eq!(Retransmissions::of([&container.netns]).since(before).syn, 0);
}

/// Datagrams from `count` sources, unanswered.
fn one_shots(container: &Container, to: (IpAddr, u16), count: usize) {
    let any = if to.0.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    container.netns.enter(move || {
        for _ in 0..count {
            let socket = UdpSocket::bind(any).expect("binding UDP");
            // Whoever has its share is told so.
            let _ = socket.send_to(b"x", to);
        }
    });
}

/// SYNs whose answers are never acknowledged, from an address that hears nothing.
fn half_open(netns: &Netns, from: IpAddr, to: (IpAddr, u16), count: usize) -> Vec<TcpStream> {
    socket::allow_files(count).expect("open files");
    let tables = if from.is_ipv4() { "iptables" } else { "ip6tables" };
    netns.sh(&format!("{tables} -I INPUT -d {from} -p tcp -j DROP"));
    let (from, to) = (SocketAddr::from((from, 0)), SocketAddr::from(to));
    netns.enter(move || (0..count).filter_map(|_| socket::tcp_connecting(from, to).ok()).collect())
}

fn flows_of(lab: &Lab, name: &str) -> usize {
    lab.netdp.json(&format!("flows --endpoint {name}")).as_array().map_or(0, Vec::len)
}

/// 1000 ports outside of `ip_local_port_range` and 1001 inside: looking at all of the former for each of the latter
/// would be a million look-ups.
fn the_last_port_is_found_without_searching_anew(lab: &Lab) {
    const EACH: u16 = 500;
    lab.host.set_sysctl("net/ipv4/ip_local_port_range", "32768 60999");
    let options = "--snat-ports 31768-33768";
    let clients = containers(lab, options, [("a", ""), ("b", ""), ("c", ""), ("d", ""), ("e", "")]);
    let to = (lab.at(WORLD), PORT);
    let _world = Server::udp(&lab.world, "world", to.0, &[PORT]);
    let source_ports = 20_000..20_000 + EACH;
    let clash = Clash { clients: &clients[..4], source_ports, to, transport: Transport::Udp };
    let report = clash.run(&lab.world);
    assert_eq!((report.answered, report.duplicates), (4 * usize::from(EACH), 0), "{report:?}");
    answered(&clients[4].netns, Transport::Udp, to, "world");
    // While none has expired: where ports are short, answered questions do after 10 s.
    one_shots(&clients[0], to, 1);
    assert_eq!(lab.netdp.counter("snat_exhausted"), 1, "{report:?}");
    let ports = lab.netdp.json("flows --proto udp");
    assert_eq!(ports.as_array().map(Vec::len), Some(2001));
    let collisions = lab.netdp.counter("snat_collisions");
    assert!(collisions < 100_000, "{collisions} ports were looked at in vain");
}

/// A resolver's or a metrics sink's clients: each question from a new socket, all to one remote. First beside each
/// other, then round after round in a range that one round nearly fills.
/// (`netdp bench --only dns` compares their rate with netfilter's.)
fn short_lived_sockets_are_not_refused(lab: &Lab) {
    /// How long an answered question keeps its port in the small range, in ticks: about a second each.
    const ANSWERED: u32 = 2;
    /// How many sockets each container opens first.
    const MANY: u16 = 2000;
    let names = ["a", "b", "c", "d"];
    let many = containers(lab, "", names.map(|name| (name, "")));
    lab.netdp.ok(&format!("network create few {} --snat-ports 40000-40255", lab.subnet("10.58.0.0/24")));
    let few = ["e", "f", "g", "h"].map(|name| lab.container(name, "--network few"));
    let to = SocketAddr::new(lab.at(WORLD), PORT);
    let _world = Server::udp(&lab.world, "world", to.ip(), &[PORT]);
    let round = |containers: &[Container], sources: std::ops::Range<u16>| {
        std::thread::scope(|scope| {
            for container in containers {
                let mut sources = sources.clone();
                scope.spawn(move || {
                    container.netns.enter(|| sources.all(|source| ask_once((container.address, source), to)))
                });
            }
        });
    };
    round(&many, 20_000..20_000 + MANY);
    lab.netdp.ok("flows flush");
    timeouts::set(&lab.netdp, Timeouts { udp_answered: ANSWERED, ..Timeouts::DEFAULT.in_ticks() });
    for again in 0..3 {
        if again > 0 {
            std::thread::sleep(Duration::from_secs(u64::from(ANSWERED) + 2));
        }
        let first = 30_000 + again * 60;
        round(&few, first..first + 60);
    }
    for refusal in ["ports_exhausted", "table_full", "flow_limit", "snat_exhausted"] {
        assert_eq!(lab.netdp.counter(refusal), 0, "{refusal}: {}", lab.netdp.json("stats"));
    }
    assert_eq!(
        lab.netdp.counter("snat_allocated"),
        u64::from(4 * (MANY + 3 * 60)),
        "{}",
        lab.netdp.json("stats")
    );
}

/// A question from a new socket; a machine that floods its queues may lose one, and whoever is refused is told so.
fn ask_once(from: (IpAddr, u16), to: SocketAddr) -> bool {
    let socket = UdpSocket::bind(from).expect("binding UDP");
    socket.connect(to).expect("connecting UDP");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    let answered = (0..3).any(|_| match socket.send(b"who").and_then(|_| socket.recv(&mut [0; 256])) {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => panic!("from {from:?}: {error}"),
    });
    assert!(answered, "from {from:?}: no answer");
    answered
}

fn a_full_table_keeps_conversations(lab: &Lab) {
    const TABLE: usize = 64;
    let [only] = containers(lab, &format!("--flows-max {TABLE}"), [("only", "")]);
    let to = (lab.at(WORLD), PORT);
    let _world = Server::tcp(&lab.world, "world", to.0, &[PORT]);
    let mut talking: Vec<_> = (0..TABLE / 2).map(|_| talk(&only.netns, to)).collect();
    // Ten tables full of questions.
    one_shots(&only, (to.0, 9), 10 * TABLE);
    assert_eq!(lab.netdp.counter("table_full"), 0, "{}", lab.netdp.json("stats"));
    talking.extend((0..TABLE / 2).map(|_| talk(&only.netns, to)));
    talking.iter_mut().for_each(assert_talks);
    assert_eq!(flows_of(lab, "only"), TABLE);
    assert_refused(&only, to);
    assert_eq!(lab.netdp.counter("table_full"), 1, "{}", lab.netdp.json("stats"));
    one_shots(&only, (to.0, 9), 3);
    assert_eq!(lab.netdp.counter("table_full"), 4);
    talking.iter_mut().for_each(assert_talks);
}

fn one_endpoint_leaves_half_to_the_others(lab: &Lab) {
    const TABLE: usize = 256;
    let [greedy, other] = containers(lab, &format!("--flows-max {TABLE}"), [("greedy", ""), ("other", "")]);
    let to = (lab.at(WORLD), PORT);
    let _world = Server::tcp(&lab.world, "world", to.0, &[PORT]);
    let mut talking: Vec<_> = (0..TABLE / 2).map(|_| talk(&greedy.netns, to)).collect();
    assert_refused(&greedy, to);
    one_shots(&greedy, (to.0, 9), TABLE);
    assert_eq!(flows_of(lab, "greedy"), TABLE / 2);
    assert_eq!(lab.netdp.counter("table_full"), 0);
    assert_eq!(lab.netdp.counter("flow_limit"), TABLE as u64 + 1, "{}", lab.netdp.json("stats"));
    let others: Vec<_> = (0..TABLE / 4).map(|_| talk(&other.netns, to)).collect();
    assert_refused(&other, to);
    talking.iter_mut().for_each(assert_talks);
    // Whoever is alone may have it all; what has been removed counts no more.
    drop(others);
    lab.netdp.ok("detach other");
    talking.extend((0..TABLE / 2).map(|_| talk(&greedy.netns, to)));
    assert_refused(&greedy, to);
}

fn max_flows_is_the_most(lab: &Lab) {
    const MOST: usize = 8;
    let limited = format!("--max-flows {MOST}");
    let [few, other] = containers(lab, "", [("few", limited.as_str()), ("other", "")]);
    let to = (lab.at(WORLD), PORT);
    let _world =
        [Server::tcp(&lab.world, "world", to.0, &[PORT]), Server::udp(&lab.world, "world", to.0, &[PORT])];
    // Questions give way to questions.
    for _ in 0..3 * MOST {
        answered(&few.netns, Transport::Udp, to, "world");
        assert!(flows_of(lab, "few") <= MOST);
    }
    let mut talking: Vec<_> = (0..MOST).map(|_| talk(&few.netns, to)).collect();
    assert_eq!(lab.netdp.counter("flow_limit"), 0);
    assert_refused(&few, to);
    assert_eq!(lab.netdp.counter("flow_limit"), 1);
    talking.iter_mut().for_each(assert_talks);
    for _ in 0..3 * MOST {
        talk(&other.netns, to);
    }
    let error = lab.netdp.refused(2, &format!("attach {} --max-flows 0", lab.netns("none").name()));
    assert!(error.contains("--max-flows 0"), "{error}");
}

fn a_syn_flood_of_a_neighbour_leaves_ports(lab: &Lab) {
    const PORTS: usize = 1000;
    let [flooder, other] = containers(lab, "--snat-ports 40000-40999", [("flooder", ""), ("other", "")]);
    let to = (lab.at(WORLD), PORT);
    let _world = Server::tcp(&lab.world, "world", to.0, &[PORT]);
    let mut early = talk(&other.netns, to);
    let _flood = half_open(&flooder.netns, flooder.address, to, 2 * PORTS);
    assert!(lab.netdp.counter("ports_exhausted") > 0, "no flood: {}", lab.netdp.json("stats"));
    let mut late: Vec<_> = (0..20).map(|_| talk(&other.netns, to)).collect();
    late.iter_mut().chain([&mut early]).for_each(assert_talks);
}

fn a_syn_flood_from_outside_stops_nobody(lab: &Lab) {
    const TABLE: usize = 1024;
    let published = format!("-p 8088:{PORT}");
    let options = format!("--flows-max {TABLE}");
    let [web, other] = containers(lab, &options, [("web", published.as_str()), ("other", "")]);
    web.netns.set_sysctl("net/ipv4/tcp_syncookies", "2");
    let world = lab.at(WORLD);
    let _servers = [
        Server::tcp(&web.netns, "web", web.address, &[PORT]),
        Server::tcp(&lab.world, "world", world, &[PORT]),
    ];
    let mut early = talk(&other.netns, (world, PORT));
    let published = (lab.at(HOST), 8088);
    let mut client = talk(&lab.world, published);
    let _flood = half_open(&lab.world, lab.at(WORLD_2), published, 3 * TABLE);
    assert!(flows_of(lab, "web") <= TABLE / 2, "{}", lab.netdp.json("stats"));
    let mut late: Vec<_> = (0..20).map(|_| talk(&other.netns, (world, PORT))).collect();
    let mut visitors: Vec<_> = (0..20).map(|_| talk(&lab.world, published)).collect();
    late.iter_mut().chain(&mut visitors).chain([&mut early, &mut client]).for_each(assert_talks);
    assert_eq!(lab.netdp.counter("table_full"), 0, "{}", lab.netdp.json("stats"));
}
