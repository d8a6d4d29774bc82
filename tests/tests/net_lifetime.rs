//! Flows live and end while nobody looks after them: no netdp process, only packets (G7, G2).

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_common::flow::Timeouts;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::maps;
use netdp_tests::server::Server;
use netdp_tests::socket::udp_bound;
use netdp_tests::timeouts;

const PORT: u16 = 7000;

netdp_tests::in_variants! {
    idle_flows_end_and_make_room: ebpf EBPF, ebpf_v6 EBPF_V6;
    a_full_table_gives_way_to_new_flows: ebpf EBPF, ebpf_v6 EBPF_V6;
    every_port_serves_one_remote: ebpf EBPF, ebpf_v6 EBPF_V6;
}

/// Sends one datagram from a source port.
fn question(container: &Container, source: u16, to: SocketAddr) -> std::io::Result<UdpSocket> {
    container.netns.enter(|| {
        let socket = UdpSocket::bind((container.address, source))?;
        socket.connect(to)?;
        socket.send(b"x")?;
        Ok(socket)
    })
}

/// Entries of the flow table, read without netdp.
fn entries(lab: &Lab) -> usize {
    let table = if lab.at(WORLD).is_ipv4() { "FLOWS_V4" } else { "FLOWS_V6" };
    maps::dump(&lab.netdp.pins().join("v1/maps").join(table)).len()
}

fn idle_flows_end_and_make_room(lab: &Lab) {
    /// In ticks, hardly more than seconds.
    const IDLE: u32 = 3;
    const FLOWS: u16 = 200;
    /// Entries, and places to look at.
    const TABLE: u16 = 1024;
    lab.netdp.ok(&format!("network create small {} --flows-max {}", lab.subnet("10.57.0.0/24"), TABLE / 2));
    let only = lab.container("only", "--network small");
    let brief = Timeouts { udp: IDLE, udp_answered: IDLE, udp_stream: IDLE, ..Timeouts::DEFAULT.in_ticks() };
    timeouts::set(&lab.netdp, brief);
    let to = SocketAddr::new(lab.at(WORLD), PORT);
    let server = lab.world.enter(|| UdpSocket::bind(to)).expect("a server");
    server.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let receive = || server.recv_from(&mut [0; 8]).map(|(_, from)| from);
    let client = question(&only, 20_000, to).expect("sent");
    client.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let mapped = receive().expect("a question");
    server.send_to(b"in time", mapped).expect("sent");
    client.recv(&mut [0; 8]).expect("an answer in time");
    for source in 0..FLOWS {
        question(&only, 30_000 + source, to).expect("sent");
        receive().expect("a question");
    }
    assert!(entries(lab) > usize::from(FLOWS), "{} entries", entries(lab));
    std::thread::sleep(Duration::from_secs(u64::from(IDLE) + 2));
    // Expired is not there, whether somebody has removed it or not.
    server.send_to(b"late", mapped).expect("sent");
    assert!(client.recv(&mut [0; 8]).is_err(), "an answer after the end");
    // Each new flow looks at four places in the table: these at all of them.
    for source in 0..TABLE / 4 {
        question(&only, 40_000 + source, to).expect("sent");
    }
    let left = entries(lab);
    assert!(left <= 2 * usize::from(TABLE / 4), "{left} entries are left");
    // The one that went on meanwhile starts anew.
    client.send(b"again").expect("sent");
    while receive().is_ok() {}
    assert!(lab.netdp.counter("flows_expired") > u64::from(FLOWS), "{}", lab.netdp.json("stats"));
}

/// One-shot questions give way to new ones, and never to them who talks.
fn a_full_table_gives_way_to_new_flows(lab: &Lab) {
    const TABLE: usize = 64;
    const QUESTIONS: u16 = 1000;
    lab.netdp.ok(&format!("network create small {} --flows-max {TABLE}", lab.subnet("10.57.0.0/24")));
    let only = lab.container("only", "--network small");
    let to = SocketAddr::new(lab.at(WORLD), PORT);
    let server = lab.world.enter(|| UdpSocket::bind(to)).expect("a server");
    server.set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
    let _tcp = Server::tcp(&lab.world, "world", to.ip(), &[PORT]);
    let mut talking: Vec<TcpStream> = (0..TABLE / 4)
        .map(|_| {
            let mut stream = only.netns.enter(|| TcpStream::connect(to)).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
            let mut byte = [0];
            while byte != *b"\n" {
                stream.read_exact(&mut byte).expect("the greeting");
            }
            stream
        })
        .collect();
    for source in 0..QUESTIONS {
        // A machine that floods its queues may lose one.
        let asked = (0..3)
            .any(|_| question(&only, 20_000 + source, to).is_ok() && server.recv_from(&mut [0; 8]).is_ok());
        assert!(asked, "question {source} found no room");
    }
    for stream in &mut talking {
        stream.write_all(b"x").expect("a connection that has not given way");
        stream.read_exact(&mut [0]).expect("an echo");
    }
    assert!(entries(lab) <= 2 * TABLE, "{} entries", entries(lab));
    assert_eq!(lab.netdp.processes(), Vec::<String>::new());
    assert_eq!(lab.netdp.counter("table_full"), 0, "{}", lab.netdp.json("stats"));
}

/// All 64 512 ports of the default range towards one remote, and not one more.
fn every_port_serves_one_remote(lab: &Lab) {
    const PORTS: std::ops::RangeInclusive<u16> = 1024..=u16::MAX;
    lab.netdp.ok(&format!("network create wide {} --flows-max 131072", lab.subnet("10.57.0.0/24")));
    let only = lab.container("only", "--network wide");
    // However long it takes.
    timeouts::set(&lab.netdp, Timeouts { udp: 600, ..Timeouts::DEFAULT.in_ticks() });
    let to = SocketAddr::new(lab.at(WORLD), PORT);
    let server = lab.world.enter(|| udp_bound(to)).expect("a server");
    server.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let client = &only;
    let seen = std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            client.netns.enter(|| {
                for source in PORTS {
                    let socket = UdpSocket::bind((client.address, source)).expect("a source port");
                    socket.send_to(b"x", to).expect("sent");
                }
            });
        });
        let mut seen = HashSet::new();
        while seen.len() < PORTS.len() {
            let Ok((_, from)) = server.recv_from(&mut [0; 8]) else { break };
            seen.insert(from);
        }
        sender.join().expect("the sender");
        seen
    });
    assert_eq!(seen.len(), PORTS.len(), "{}", lab.netdp.json("stats"));
    let host: IpAddr = lab.at(HOST);
    assert!(seen.iter().all(|from| from.ip() == host && PORTS.contains(&from.port())));
    assert_eq!(lab.netdp.counter("ports_exhausted"), 0);
    // The next one is told so at once; another remote has ports for it.
    let refused = question(&only, 1000, to).expect("sent");
    refused.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
    let told = refused.recv(&mut [0; 8]).expect_err("no port is left");
    assert_ne!(told.kind(), std::io::ErrorKind::WouldBlock, "told at once");
    assert_eq!(lab.netdp.counter("ports_exhausted"), 1, "{}", lab.netdp.json("stats"));
}
