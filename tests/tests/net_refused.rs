//! What can't be done is said at once: errors from outside come back translated, refusals are resets (G2, G14).

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use netdp_tests::ask::{Transport, answered, ask};
use netdp_tests::counters::Retransmissions;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use netdp_tests::told::{Fragments, Prober, What};
use netdp_tests::{on_ebpf_only, with_and_without_offloads};

const PORT: u16 = 7000;
/// Mappings that the small network has towards one remote.
const RANGE: usize = 16;

with_and_without_offloads!(a_closed_udp_port_is_refused_through_every_translation);
on_ebpf_only!(
    a_spent_range_refuses_at_once: "netfilter drops what finds no port, and says nothing (G2)",
    a_segment_without_a_flow_is_reset: "netfilter takes it for the middle of a new connection (G2)",
    refused_datagrams_are_told_of: "netfilter drops what finds no port, and says nothing (G2)",
);

fn refused(netns: &Netns, transport: Transport, to: (Ipv4Addr, u16)) {
    let error = ask(netns, transport, to).expect_err("nobody listens");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{} to {to:?}: {error}", netns.name());
}

fn connect(netns: &Netns, to: (IpAddr, u16)) -> std::io::Result<TcpStream> {
    netns.enter(move || TcpStream::connect(to))
}

/// RFC 5508: the quoted packet is the one that the sender knows, or its socket would not be told.
fn a_closed_udp_port_is_refused_through_every_translation(lab: &Lab) {
    let web = lab.container("web", &format!("-p 8088:{PORT}/udp"));
    let client = lab.container("client", "");
    refused(&client.netns, Transport::Udp, (WORLD, PORT));
    refused(&lab.world, Transport::Udp, (HOST, 8088));
    refused(&client.netns, Transport::Udp, (HOST, 8088));
    refused(&web.netns, Transport::Udp, (HOST, 8088));
    let _udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    answered(&lab.world, Transport::Udp, (HOST, 8088), "web");
}

fn a_spent_range_refuses_at_once(lab: &Lab) {
    lab.netdp.ok(&format!("network create small {} --snat-ports 40000-40015", lab.subnet("10.53.0.0/24")));
    let client = lab.container("client", "--network small");
    let (world, flows) = (lab.at(WORLD), format!("--dst {}:{PORT} --state closed", lab.in_spec(WORLD)));
    let _tcp = Server::tcp(&lab.world, "world", world, &[PORT, PORT + 1]);
    let mut open: Vec<_> = (0..RANGE)
        .map(|n| connect(&client.netns, (world, PORT)).unwrap_or_else(|e| panic!("flow {n} of {RANGE}: {e}")))
        .collect();
    let before = Retransmissions::of([&client.netns]);
    // A socket with a timeout would be non-blocking, and told sooner.
    let error = connect(&client.netns, (world, PORT)).expect_err("no port is left");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    assert_eq!(Retransmissions::of([&client.netns]).since(before).syn, 0, "told by the second SYN only");
    assert_eq!(lab.netdp.counter("snat_exhausted"), 1, "{}", lab.netdp.json("stats"));
    answered(&client.netns, Transport::Tcp, (world, PORT + 1), "world");
    for stream in &mut open {
        stream.write_all(b"x").expect("the others go on");
    }

    drop(open.pop());
    eventually("both sides closed", || {
        let flows = lab.netdp.json(&format!("flows {flows}"));
        flows.as_array().is_some_and(|flows| flows.len() == 1)
    });
    lab.netdp.ok(&format!("flows flush {flows}"));
    connect(&client.netns, (world, PORT)).expect("the freed port");
}

/// Without a reset the container would wait for its own timeout.
fn a_segment_without_a_flow_is_reset(lab: &Lab) {
    let client = lab.container("client", "");
    let world = lab.at(WORLD);
    let _tcp = Server::tcp(&lab.world, "world", world, &[PORT]);
    let mut stream = connect(&client.netns, (world, PORT)).expect("connect");
    stream.set_read_timeout(Some(Duration::from_secs(3))).expect("read timeout");
    stream.read_exact(&mut [0; 5]).expect("the greeting");
    lab.netdp.ok("flows flush");
    stream.write_all(b"x").expect("it is only queued");
    let mut rest = Vec::new();
    let error = stream.read_to_end(&mut rest).expect_err("no flow");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
    assert!(lab.netdp.counter("no_flow") > 0, "{}", lab.netdp.json("stats"));
}

/// What TCP is told by a reset, UDP is told by ICMP.
fn refused_datagrams_are_told_of(lab: &Lab) {
    const PROHIBITED: What = What { v4: (3, 13), v6: (1, 1) };
    lab.netdp.ok(&format!("network create small {} --snat-ports 40000-40015", lab.subnet("10.53.0.0/24")));
    lab.netdp.ok(&format!("network create inner {} --internal", lab.subnet("10.54.0.0/24")));
    let small = lab.container("small", "--network small");
    let inner = lab.container("inner", "--network inner");
    // It has no way out by itself, and may try.
    inner.netns.sh(&format!("ip route add default via {}", inner.gateway));
    let assert_told = |container: &Container, to: (IpAddr, u16)| {
        let prober = Prober::new(&container.netns, to, Fragments::Allowed);
        prober.send(100).expect("sending");
        let errno = if to.0.is_ipv4() { libc::EHOSTUNREACH } else { libc::EACCES };
        let told = prober.told().map(|told| (told.by, told.what, told.errno));
        assert_eq!(
            told,
            Some((container.gateway, PROHIBITED.of(lab), errno)),
            "{} to {to:?}",
            container.name
        );
    };
    let world = lab.at(WORLD);
    assert_told(&inner, (world, PORT));
    assert_told(&inner, (small.address, PORT));
    let _udp = Server::udp(&lab.world, "world", world, &[PORT, PORT + 1]);
    let open: Vec<_> =
        (0..RANGE).map(|_| Prober::new(&small.netns, (world, PORT), Fragments::Allowed)).collect();
    for (n, prober) in open.iter().enumerate() {
        prober.ask(10).unwrap_or_else(|error| panic!("flow {n} of {RANGE}: {error}"));
    }
    assert_told(&small, (world, PORT));
    answered(&small.netns, Transport::Udp, (world, PORT + 1), "world");
    assert_eq!(lab.netdp.counter("icmp_prohibited"), 3, "{}", lab.netdp.json("stats"));
}
