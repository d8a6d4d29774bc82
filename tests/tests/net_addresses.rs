//! External addresses: several of them, the one that the route prefers, and what becomes of flows when one goes (issue 6,
//! line 1; RFC 4787 REQ-2).

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use netdp_tests::ask::{Transport, answered, ask};
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2};
use netdp_tests::on_every_datapath_in_both_families;
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use netdp_tests::variant::Family;

const PORT: u16 = 7000;

/// The host's addresses besides [`HOST`].
const MORE: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 99, 0, 11), Ipv4Addr::new(10, 99, 0, 13)];

/// How long something may take that is noticed within a second.
const PATIENCE: Duration = Duration::from_secs(5);

/// Ports of each address where there are few.
const EACH: u16 = 16;

on_every_datapath_in_both_families!(an_endpoint_keeps_its_address);

netdp_tests::in_variants! {
    /// Not on iptables: netfilter drops what finds no port at its address (G2).
    capacity_adds_up: ebpf EBPF, ebpf_v6 EBPF_V6;
    /// Not on iptables: MASQUERADE takes the uplink's first address, whatever the route says.
    the_source_that_the_route_prefers: ebpf EBPF, ebpf_v6 EBPF_V6;
    /// Not on iptables: of a vanished address, netfilter forgets MASQUERADE's flows, and tells nobody.
    an_address_that_vanishes: ebpf EBPF, ebpf_v6 EBPF_V6;
    /// Not on iptables: its rules don't see which addresses there are.
    one_of_several_vanishes: ebpf EBPF, ebpf_v6 EBPF_V6;
}

/// Gives the host [`MORE`] addresses, and makes a network that is translated to all of them; returns them.
fn network_with_addresses(lab: &Lab, options: &str) -> [IpAddr; 3] {
    let all = [HOST, MORE[0], MORE[1]].map(|addr| lab.at(addr));
    add_addresses(lab);
    let to = all.map(|addr| format!("--snat-to {addr}")).join(" ");
    lab.netdp.ok(&format!("network create pool {} {to} {options}", lab.subnet("10.57.0.0/24")));
    all
}

fn add_addresses(lab: &Lab) {
    for addr in MORE {
        let addr = lab.variant.family.with_prefix(addr, 24);
        lab.host.sh(&format!("ip addr replace {addr} dev {UPLINK} nodad"));
    }
}

/// A question from a socket that stays open; whom the server saw.
fn asked(container: &Container, source: u16, to: SocketAddr) -> Result<SocketAddr, ErrorKind> {
    container.netns.enter(|| {
        let socket = UdpSocket::bind((container.address, source)).expect("a socket");
        socket.connect(to).expect("connecting UDP");
        socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let mut buffer = [0; 256];
        let mut result = Err(ErrorKind::WouldBlock);
        for _ in 0..3 {
            // A machine that floods its queues may lose one.
            result = socket.send(b"who").and_then(|_| socket.recv(&mut buffer)).map_err(|error| error.kind());
            if result != Err(ErrorKind::WouldBlock) {
                break;
            }
        }
        let text = String::from_utf8_lossy(&buffer[..result?]).into_owned();
        let peer = text.split(' ').nth(1).and_then(|peer| peer.parse().ok());
        Ok(peer.unwrap_or_else(|| panic!("no peer: {text}")))
    })
}

/// Not silence.
#[track_caller]
fn assert_told(result: Result<SocketAddr, ErrorKind>) {
    assert!(matches!(result, Err(kind) if kind != ErrorKind::WouldBlock), "{result:?}");
}

/// Three addresses with 16 ports each carry 48 flows to one remote, and not one more; each is answered.
fn capacity_adds_up(lab: &Lab) {
    let addresses = network_with_addresses(lab, &format!("--snat-ports 40000-{}", 40_000 + EACH - 1));
    let only = lab.container("only", "--network pool");
    let (world, world_2) = (lab.at(WORLD), lab.at(WORLD_2));
    let _servers = [world, world_2].map(|addr| Server::udp(&lab.world, "world", addr, &[PORT]));
    let to = SocketAddr::new(world, PORT);
    let all = EACH * 3;
    let seen: Vec<SocketAddr> = (0..all)
        .map(|number| {
            asked(&only, 20_000 + number, to).unwrap_or_else(|error| panic!("flow {number}: {error:?}"))
        })
        .collect();
    let distinct: BTreeSet<&SocketAddr> = seen.iter().collect();
    assert_eq!(distinct.len(), usize::from(all), "no two flows are the same outside: {seen:?}");
    let mut order: Vec<IpAddr> = seen.iter().map(SocketAddr::ip).collect();
    order.dedup();
    assert_eq!(order.len(), 3, "one after the other, each until its ports are spent: {order:?}");
    assert!(addresses.iter().all(|addr| order.contains(addr)), "{order:?}");
    assert_eq!(lab.netdp.counter("ports_exhausted"), 0, "{}", lab.netdp.json("stats"));
    // One more is told so at once.
    assert_told(asked(&only, 20_000 + all, to));
    assert_eq!(lab.netdp.counter("ports_exhausted"), 1, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.counter("snat_exhausted"), 1);
    // Another remote sees the first address.
    let elsewhere =
        asked(&only, 20_001 + all, SocketAddr::new(world_2, PORT)).expect("ports towards another remote");
    assert_eq!(elsewhere.ip(), order[0]);
    // The flows of all of them go on.
    for (number, before) in (0..all).zip(&seen) {
        assert_eq!(asked(&only, 20_000 + number, to), Ok(*before), "flow {number}");
    }
    // What one gives back, serves again.
    lab.netdp.ok("flows flush");
    assert_eq!(asked(&only, 20_000, to).map(|peer| peer.ip()), Ok(order[0]));
}

/// Whatever the remote and the protocol; and neighbours have different ones.
fn an_endpoint_keeps_its_address(lab: &Lab) {
    let addresses = network_with_addresses(lab, "");
    let containers = ["a", "b", "c"].map(|name| lab.container(name, "--network pool"));
    let remotes = [lab.at(WORLD), lab.at(WORLD_2)];
    let _tcp = remotes.map(|addr| Server::tcp(&lab.world, "world", addr, &[PORT, PORT + 1]));
    let _udp = remotes.map(|addr| Server::udp(&lab.world, "world", addr, &[PORT, PORT + 1]));
    let of = |container: &Container| {
        let mut seen = BTreeSet::new();
        for (remote, port) in remotes.into_iter().flat_map(|addr| [(addr, PORT), (addr, PORT + 1)]) {
            for transport in [Transport::Tcp, Transport::Udp] {
                seen.insert(answered(&container.netns, transport, (remote, port), "world").peer.ip());
            }
        }
        container.netns.sh(&format!("ping -c 1 -W 3 {}", remotes[0]));
        assert_eq!(seen.len(), 1, "{} has several: {seen:?}", container.name);
        seen
    };
    let all: BTreeSet<IpAddr> = containers.iter().flat_map(of).collect();
    assert_eq!(all, BTreeSet::from(addresses), "three neighbours and three addresses");
}

/// Without `--snat-to`; the route may change its mind.
fn the_source_that_the_route_prefers(lab: &Lab) {
    add_addresses(lab);
    let world = lab.at(WORLD);
    let prefer = |addr: Ipv4Addr| {
        lab.host.sh(&format!(
            "ip route replace {}/{} dev {UPLINK} src {}",
            lab.at(WORLD),
            host_prefix(lab),
            lab.at(addr)
        ));
    };
    let a = lab.container("a", "");
    let _world = Server::tcp(&lab.world, "world", world, &[PORT]);
    let seen = || answered(&a.netns, Transport::Tcp, (world, PORT), "world").peer.ip();
    for addr in [MORE[1], MORE[0], HOST] {
        prefer(addr);
        assert_eq!(seen(), lab.at(addr));
    }
    assert_eq!(lab.netdp.processes(), Vec::<String>::new());
}

/// Connections that used it are reset, datagrams refused, and what is new uses another.
fn an_address_that_vanishes(lab: &Lab) {
    add_addresses(lab);
    let (world, gone) = (lab.at(WORLD), lab.at(MORE[0]));
    lab.host.sh(&format!("ip route replace {world}/{} dev {UPLINK} src {gone}", host_prefix(lab)));
    let a = lab.container("a", "");
    let to = SocketAddr::new(world, PORT);
    let _tcp = Server::tcp(&lab.world, "world", world, &[PORT]);
    let _udp = Server::udp(&lab.world, "world", world, &[PORT]);
    let seen = || answered(&a.netns, Transport::Tcp, (world, PORT), "world").peer.ip();
    assert_eq!(seen(), gone);
    let mut stream = a.netns.enter(|| TcpStream::connect(to)).expect("a connection");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
    stream.read_exact(&mut [0; 5]).expect("the greeting");
    assert_eq!(asked(&a, 20_000, to).map(|peer| peer.ip()), Ok(gone));
    remove_address(lab, gone);
    // In IPv6, the kernel chooses among the others.
    let other = seen();
    assert_ne!(other, gone, "a new connection has another address at once");
    let started = Instant::now();
    loop {
        let read = stream.write_all(b"x").and_then(|()| stream.read(&mut [0; 64]));
        match read.map_err(|error| error.kind()) {
            Err(ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => break,
            Err(ErrorKind::WouldBlock) | Ok(_) => {}
            Err(kind) => panic!("not reset: {kind:?}"),
        }
        assert!(started.elapsed() < PATIENCE, "not reset: {}", lab.netdp.json("stats"));
    }
    // Its first packet in a tick is told so, and the next one is another flow.
    let started = Instant::now();
    while asked(&a, 20_000, to).map(|peer| peer.ip()) != Ok(other) {
        assert!(started.elapsed() < PATIENCE, "no other address: {}", lab.netdp.json("stats"));
    }
    assert!(lab.netdp.counter("address_gone") >= 2, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.processes(), Vec::<String>::new());
}

/// Of several, another is taken; where all have, whoever wants one is told so, until it is back.
fn one_of_several_vanishes(lab: &Lab) {
    let addresses = network_with_addresses(lab, "");
    let containers = ["a", "b", "c"].map(|name| lab.container(name, "--network pool"));
    let world = lab.at(WORLD);
    let _world = Server::tcp(&lab.world, "world", world, &[PORT]);
    let seen =
        |container: &Container| answered(&container.netns, Transport::Tcp, (world, PORT), "world").peer.ip();
    let before: Vec<IpAddr> = containers.iter().map(seen).collect();
    assert_eq!(before.iter().collect::<BTreeSet<_>>(), addresses.iter().collect());
    remove_address(lab, lab.at(MORE[0]));
    for (container, before) in containers.iter().zip(&before) {
        let now = seen(container);
        assert_ne!(now, lab.at(MORE[0]));
        assert!(
            *before == lab.at(MORE[0]) || now == *before,
            "{} had {before} and has {now}",
            container.name
        );
    }
    lab.netdp.ok(&format!("network create one {} --snat-to {}", lab.subnet("10.58.0.0/24"), lab.at(MORE[1])));
    let only = lab.container("only", "--network one");
    assert_eq!(seen(&only), lab.at(MORE[1]));
    remove_address(lab, lab.at(MORE[1]));
    let refused =
        only.netns.enter(|| TcpStream::connect(SocketAddr::new(world, PORT))).expect_err("no address");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert!(lab.netdp.counter("address_gone") > 0);
    add_addresses(lab);
    // In IPv6, the kernel takes its time to make an address the host's.
    eventually("the address is back", || ask(&only.netns, Transport::Tcp, (world, PORT)).is_ok());
    assert_eq!(seen(&only), lab.at(MORE[1]));
}

fn remove_address(lab: &Lab, addr: IpAddr) {
    let prefix = if lab.variant.family == Family::V4 { 24 } else { 64 };
    lab.host.sh(&format!("ip addr del {addr}/{prefix} dev {UPLINK}"));
}

fn host_prefix(lab: &Lab) -> u8 {
    if lab.variant.family == Family::V4 { 32 } else { 128 }
}
