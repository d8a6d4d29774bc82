//! A mapping never takes a port with which a socket of the host already talks, or waits, to the same remote (G4).

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::on_ebpf_only_in_both_families;
use netdp_tests::server::Server;
use netdp_tests::socket::{tcp_bound, tcp_connect};
use nix::sys::socket::SockFlag;

const PORT: u16 = 7000;
/// The ports for mappings.
const PORTS: std::ops::RangeInclusive<u16> = 40_000..=40_015;
/// Flows that each endpoint tries to open: more than there are ports.
const FLOWS: u16 = 20;

on_ebpf_only_in_both_families!(
    connections_of_the_host: "netfilter tracks the host's connections itself",
    datagrams_of_the_host: "netfilter tracks the host's connections itself",
);

/// Every other port is the host's.
fn of_host() -> impl Iterator<Item = u16> {
    PORTS.filter(|port| port % 2 == 0)
}

fn endpoints(lab: &Lab) -> [Container; 2] {
    let (first, last) = PORTS.into_inner();
    lab.netdp.ok(&format!("network create few {} --snat-ports {first}-{last}", lab.subnet("10.57.0.0/24")));
    ["a", "b"].map(|name| lab.container(name, "--network few"))
}

fn any(like: IpAddr) -> IpAddr {
    if like.is_ipv4() { [0; 4].into() } else { [0; 16].into() }
}

fn assert_apart(mapped: &BTreeSet<u16>) {
    assert!(mapped.len() >= 4, "hardly any mapping: {mapped:?}");
    assert!(mapped.iter().all(|port| PORTS.contains(port) && port % 2 == 1), "a host's port: {mapped:?}");
}

fn connections_of_the_host(lab: &Lab) {
    let world = SocketAddr::new(lab.at(WORLD), PORT);
    let _server = Server::tcp(&lab.world, "world", world.ip(), &[PORT]);
    let clients = endpoints(lab);
    let connect = |netns: &Netns, from: SocketAddr| {
        let stream = netns.enter(|| tcp_connect(tcp_bound(from, SockFlag::empty())?, world))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut reader = BufReader::new(stream);
        let mut greeting = String::new();
        reader.read_line(&mut greeting)?;
        Ok::<_, std::io::Error>((reader, greeting))
    };
    let own = of_host()
        .map(|port| connect(&lab.host, SocketAddr::new(lab.at(HOST), port)).expect("the host's own").0);
    let mut own: Vec<BufReader<TcpStream>> = own.collect();
    let mut mapped = BTreeSet::new();
    let mut opened = Vec::new();
    for source in 0..FLOWS {
        for client in &clients {
            if let Ok((stream, greeting)) =
                connect(&client.netns, SocketAddr::new(client.address, 20_000 + source))
            {
                assert!(mapped.insert(seen_port(&greeting)), "two connections are one: {greeting}");
                opened.push(stream);
            }
        }
    }
    assert_apart(&mapped);
    for stream in own.iter_mut().chain(&mut opened) {
        stream.get_mut().write_all(b"still\n").expect("a connection");
        let mut echo = String::new();
        stream.read_line(&mut echo).expect("a connection");
        assert_eq!(echo, "still\n");
    }
}

/// Connected sockets, and such that only wait.
fn datagrams_of_the_host(lab: &Lab) {
    let world = SocketAddr::new(lab.at(WORLD), PORT);
    let _server = Server::udp(&lab.world, "world", world.ip(), &[PORT]);
    let clients = endpoints(lab);
    let open = |netns: &Netns, from: SocketAddr, connected: bool| {
        let socket = netns.enter(|| UdpSocket::bind(from)).expect("binding");
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        if connected {
            netns.enter(|| socket.connect(world)).expect("connecting");
        }
        socket
    };
    let asked = |socket: &UdpSocket| {
        let sent =
            if socket.peer_addr().is_ok() { socket.send(b"who") } else { socket.send_to(b"who", world) };
        let mut answer = [0; 256];
        let length = sent.and_then(|_| socket.recv(&mut answer))?;
        Ok::<_, std::io::Error>(seen_port(&String::from_utf8_lossy(&answer[..length])))
    };
    let own: Vec<UdpSocket> = of_host()
        .map(|port| match port % 4 {
            0 => open(&lab.host, SocketAddr::new(lab.at(HOST), port), true),
            _ => open(&lab.host, SocketAddr::new(any(lab.at(HOST)), port), false),
        })
        .collect();
    let mut mapped = BTreeSet::new();
    for source in 0..FLOWS {
        for client in &clients {
            let socket = open(&client.netns, SocketAddr::new(client.address, 20_000 + source), true);
            if let Ok(port) = asked(&socket) {
                assert!(mapped.insert(port), "two flows are one: {port}");
            }
        }
    }
    assert_apart(&mapped);
    for (socket, port) in own.iter().zip(of_host()) {
        assert_eq!(asked(socket).expect("the host's own"), port);
    }
}

/// Of `NAME PEER …`.
fn seen_port(answer: &str) -> u16 {
    let peer = answer.split_whitespace().nth(1).and_then(|peer| peer.parse::<SocketAddr>().ok());
    peer.unwrap_or_else(|| panic!("not an answer: {answer:?}")).port()
}
