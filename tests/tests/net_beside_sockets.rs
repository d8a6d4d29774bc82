//! A mapping and a socket of the host never share a tuple, whichever came first (G4).

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_tests::ask::seen_port;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::server::Server;
use netdp_tests::socket::{tcp_bound, tcp_connect};
use netdp_tests::variant::Datapath;
use netdp_tests::{on_ebpf_only_in_both_families, process};
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

netdp_tests::in_variants! {
    sockets_on_the_ports_of_mappings:
        ebpf EBPF, ebpf_without_offloads EBPF_PLAIN, ebpf_v6 EBPF_V6,
        ebpf_v6_without_offloads EBPF_V6_PLAIN, iptables IPTABLES;
    pings_on_the_identifiers_of_mappings: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
}

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

/// The host takes the port of a living mapping, and sends to that mapping's remote: both talk on.
fn sockets_on_the_ports_of_mappings(lab: &Lab) {
    let world = SocketAddr::new(lab.at(WORLD), PORT);
    let _servers = [
        Server::udp(&lab.world, "world", world.ip(), &[PORT]),
        Server::tcp(&lab.world, "world", world.ip(), &[PORT]),
    ];
    let [client, _] = endpoints(lab);
    let from = |port| SocketAddr::new(client.address, port);
    let at_host = |port| SocketAddr::new(lab.at(HOST), port);

    for connected in [true, false] {
        let inside = datagrams(&client.netns, from(20_000 + u16::from(connected)), world);
        let mapped = inside.ask();
        let own = SocketAddr::new(if connected { lab.at(HOST) } else { any(world.ip()) }, mapped);
        let own = Datagrams { to: (!connected).then_some(world), ..datagrams(&lab.host, own, world) };
        let seen = own.ask();
        assert_ne!(seen, mapped, "one tuple for two");
        for _ in 0..3 {
            assert_eq!((inside.ask(), own.ask()), (mapped, seen), "both stay what they are");
        }
    }

    let mut inside = Connection::open(&client.netns, from(20_000), world);
    let own = at_host(inside.seen);
    let mut own = Connection::open(&lab.host, own, world);
    assert_ne!(inside.seen, own.seen, "one tuple for two");
    for text in ["one\n", "two\n"] {
        own.echo(text);
        inside.echo(text);
    }
    // What is large leaves in one piece and is cut by the link.
    own.echo(&format!("{}\n", "x".repeat(50_000)));
    inside.echo(&format!("{}\n", "y".repeat(50_000)));

    let seen = SocketAddr::new(lab.at(HOST), own.seen).to_string();
    own.close();
    // (netfilter forgets what it tracks of the host.)
    if lab.variant.datapath == Datapath::Ebpf {
        process::eventually("the host's connection counts as closed", || {
            let flows = lab.netdp.json("flows ls");
            let closed = |flow: &serde_json::Value| flow["ext_src"] == *seen && flow["state"] == "closed";
            flows.as_array().expect("an array").iter().any(closed)
        });
    }
    inside.echo("three\n");
}

/// A UDP socket, and whom it sends to if it is not connected.
struct Datagrams {
    socket: UdpSocket,
    to: Option<SocketAddr>,
}

fn datagrams(netns: &Netns, from: SocketAddr, world: SocketAddr) -> Datagrams {
    let socket = netns.enter(|| UdpSocket::bind(from)).unwrap_or_else(|error| panic!("{from}: {error}"));
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
    if !from.ip().is_unspecified() {
        netns.enter(|| socket.connect(world)).expect("connecting");
    }
    Datagrams { socket, to: None }
}

impl Datagrams {
    /// The port that the world sees; a machine that floods its queues may lose a packet.
    fn ask(&self) -> u16 {
        let mut answer = [0; 256];
        let once = || match self.to {
            Some(to) => self.socket.send_to(b"who", to),
            None => self.socket.send(b"who"),
        };
        let length = (0..3).find_map(|_| once().and_then(|_| self.socket.recv(&mut answer)).ok());
        let length = length.unwrap_or_else(|| panic!("{:?} is not answered", self.socket));
        seen_port(&String::from_utf8_lossy(&answer[..length]))
    }
}

/// A connection to a server that greets, with the port that it sees.
struct Connection {
    stream: BufReader<TcpStream>,
    seen: u16,
}

impl Connection {
    fn open(netns: &Netns, from: SocketAddr, world: SocketAddr) -> Self {
        let stream = netns.enter(|| tcp_connect(tcp_bound(from, SockFlag::empty())?, world));
        let stream = stream.unwrap_or_else(|error| panic!("connecting from {from}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream.read_line(&mut greeting).expect("a greeting");
        Self { stream, seen: seen_port(&greeting) }
    }

    /// This side first, then the other.
    fn close(mut self) {
        self.stream.get_mut().shutdown(Shutdown::Write).expect("a connection");
        let mut rest = String::new();
        self.stream.read_to_string(&mut rest).expect("its end");
        assert_eq!(rest, "");
    }

    fn echo(&mut self, text: &str) {
        self.stream.get_mut().write_all(text.as_bytes()).expect("a connection");
        let mut echo = String::new();
        self.stream.read_line(&mut echo).expect("a connection");
        assert_eq!(echo, text);
    }
}

/// Pings have an identifier instead of a port, and no socket that could be looked up.
fn pings_on_the_identifiers_of_mappings(lab: &Lab) {
    let to = lab.at(WORLD);
    let [client, _] = endpoints(lab);
    let ping = |netns: &Netns, identifier: u16| {
        netns.try_sh(&format!("ping -c 5 -i 0.2 -W 1 -e {identifier} {to}")).status.success()
    };
    let identifiers = || {
        let flows = lab.netdp.json("flows ls --endpoint a");
        let flows = flows.as_array().expect("an array").iter();
        let seen = |flow: &serde_json::Value| flow["ext_src"].as_str()?.parse::<SocketAddr>().ok();
        flows.filter_map(seen).map(|seen| seen.port()).collect::<BTreeSet<u16>>()
    };
    // The mapping first.
    assert!(ping(&client.netns, 77));
    let mapped = identifiers().pop_first().expect("a mapping");
    let (inside, own) = std::thread::scope(|scope| {
        let inside = scope.spawn(|| ping(&client.netns, 77));
        (ping(&lab.host, mapped), inside.join().expect("a ping"))
    });
    assert!(inside && own, "a ping was answered to the wrong one: {inside} inside, {own} of the host");
    // The host first.
    let own = *PORTS.start() + u16::from(mapped == *PORTS.start());
    assert!(ping(&lab.host, own));
    for identifier in 0..FLOWS {
        client.netns.try_sh(&format!("ping -c 1 -W 1 -e {} {to}", 1000 + identifier));
    }
    assert!(lab.variant.datapath == Datapath::Iptables || identifiers().len() > PORTS.len() / 2);
    assert!(
        !identifiers().contains(&own) || lab.variant.datapath == Datapath::Iptables,
        "{own} was the host's"
    );
    assert!(ping(&lab.host, own) && ping(&client.netns, 77));
}
