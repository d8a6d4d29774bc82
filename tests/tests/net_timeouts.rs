//! Networks whose idle flows live for different times (`network create --timeout`).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use serde_json::{Value, json};

const PORT: u16 = 7000;
/// In seconds; the programs' clock has steps of one.
const BRIEF: u64 = 6;

netdp_tests::in_variants! {
    each_network_has_its_own: ebpf EBPF, ebpf_v6 EBPF_V6;
    a_published_port_forgets_its_clients: ebpf EBPF, ebpf_v6 EBPF_V6;
    they_are_shown: ebpf EBPF;
    netfilter_has_its_own: iptables IPTABLES;
}

fn create_brief(lab: &Lab) {
    let udp = ["udp", "udp-answered", "udp-stream"].map(|key| format!("--timeout {key}={BRIEF}s")).join(" ");
    lab.netdp.ok(&format!("network create brief {} {udp}", lab.subnet("10.57.0.0/24")));
}

/// A socket that waits for a second.
fn socket(bind: impl FnOnce() -> UdpSocket) -> UdpSocket {
    let socket = bind();
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    socket
}

fn asking(container: &Container, to: SocketAddr) -> UdpSocket {
    socket(|| {
        container.netns.enter(|| {
            let socket = UdpSocket::bind((container.address, 5000)).expect("a client");
            socket.connect(to).expect("connected");
            socket
        })
    })
}

/// Sends until it is received, unlike a single packet, which may get lost; returns from where it came.
fn reaches(send: impl Fn() -> io::Result<usize>, to: &UdpSocket) -> Option<SocketAddr> {
    (0..3).find_map(|_| {
        // Refused: somebody was told that the one before was not wanted.
        let _lost_then = send();
        to.recv_from(&mut [0; 16]).ok().map(|(_, from)| from)
    })
}

fn flows_of(lab: &Lab, endpoint: &str) -> Vec<Value> {
    lab.netdp.json(&format!("flows --endpoint {endpoint}")).as_array().expect("an array").clone()
}

/// Longer than the brief flows live, shorter than others.
fn pause() {
    std::thread::sleep(Duration::from_secs(BRIEF + 2));
}

fn each_network_has_its_own(lab: &Lab) {
    create_brief(lab);
    lab.netdp.ok(&format!("network create usual {}", lab.subnet("10.58.0.0/24")));
    let to = SocketAddr::new(lab.at(WORLD), PORT);
    let server = socket(|| lab.world.enter(|| UdpSocket::bind(to)).expect("a server"));
    let containers = ["brief", "usual"]
        .map(|network| lab.container(&format!("on-{network}"), &format!("--network {network}")));
    let asked = containers.map(|container| {
        let client = asking(&container, to);
        let mapped = reaches(|| client.send(b"question"), &server).expect("a question");
        reaches(|| server.send_to(b"in time", mapped), &client).expect("an answer in time");
        (client, mapped)
    });
    let left = |endpoint| flows_of(lab, endpoint).first().and_then(|flow| flow["expires_s"].as_u64());
    // It may be over by now, where commands take long.
    assert!(left("on-brief").is_none_or(|left| left <= BRIEF), "{:?}", left("on-brief"));
    assert!(left("on-usual").is_some_and(|left| left > 60), "{:?}", left("on-usual"));
    pause();
    let [(brief, late), (usual, mapped)] = &asked;
    assert_eq!(reaches(|| server.send_to(b"late", *late), brief), None, "an answer after the end");
    reaches(|| server.send_to(b"late", *mapped), usual).expect("an answer on the other network");
    assert_eq!(flows_of(lab, "on-brief"), Vec::<Value>::new());
    assert_eq!(flows_of(lab, "on-usual").len(), 1);
    // It starts anew.
    let mapped = reaches(|| brief.send(b"again"), &server).expect("another question");
    reaches(|| server.send_to(b"in time", mapped), brief).expect("its answer");
}

/// What an endpoint sends after the end is no answer any more: it leaves as a flow of its own.
fn a_published_port_forgets_its_clients(lab: &Lab) {
    create_brief(lab);
    let web = lab.container("web", &format!("--network brief -p 8053:{PORT}/udp"));
    let server = socket(|| web.netns.enter(|| UdpSocket::bind((web.address, PORT))).expect("a server"));
    let published = SocketAddr::new(lab.at(HOST), 8053);
    let own = SocketAddr::new(lab.at(WORLD), 5001);
    let client = socket(|| lab.world.enter(|| UdpSocket::bind(own)).expect("a client"));
    let seen = reaches(|| client.send_to(b"question", published), &server).expect("a question");
    assert_eq!(seen, own, "the client's own address and port");
    let from = reaches(|| server.send_to(b"in time", seen), &client).expect("an answer");
    assert_eq!(from, published);
    pause();
    let from = reaches(|| server.send_to(b"late", seen), &client).expect("a packet of another flow");
    assert_eq!(from.ip(), published.ip());
    assert_ne!(from.port(), published.port(), "translated by a flow that has expired");
}

fn they_are_shown(lab: &Lab) {
    let (net, outcome) =
        ("network create a --subnet 10.57.0.0/24", "--timeout udp=1m --timeout tcp-established=1h");
    let created = lab.netdp.run(&format!("{net} {outcome}"));
    assert_eq!(created.code, 0, "{}", created.stderr);
    let warned: Vec<&str> = created.stderr.lines().collect();
    assert_eq!(warned.len(), 2, "{warned:?}");
    assert!(warned[0].starts_with("warning: --timeout udp=1m is less than 2m: RFC 4787"), "{warned:?}");
    assert!(warned[1].starts_with("warning: --timeout tcp-established=1h is less than 2h 4m"), "{warned:?}");
    let expected = json!({
        "tcp_half_open": 240, "tcp_transitory": 240, "tcp_established": 3600, "tcp_closed": 60,
        "udp": 60, "udp_answered": 120, "udp_stream": 300, "icmp": 60
    });
    assert_eq!(lab.netdp.json("network inspect a")["timeouts_s"], expected);
    let text = lab.netdp.ok("network inspect a");
    assert!(text.contains("tcp-established 1h, ") && text.contains(", udp 1m, udp-answered 2m, "), "{text}");
    let usual = lab.netdp.run("network create b --subnet 10.58.0.0/24 --timeout icmp=2h");
    assert_eq!((usual.code, usual.stderr.as_str()), (0, ""));
}

fn netfilter_has_its_own(lab: &Lab) {
    let error = lab.netdp.refused(2, "network create a --subnet 10.57.0.0/24 --timeout udp=3m");
    assert!(error.contains("--timeout") && error.contains("--datapath ebpf"), "{error}");
    lab.netdp.ok("network create a --subnet 10.57.0.0/24");
    assert_eq!(lab.netdp.json("network inspect a")["timeouts_s"], Value::Null);
    assert!(lab.netdp.ok("network inspect a").contains("sysctl net.netfilter"));
}
