//! Datagrams whose fragments come in whatever order arrive whole, and a flood of fragments harms nobody else.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use netdp_common::header::ethernet;
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2, WORLD_LINK};
use netdp_tests::netns::Netns;
use netdp_tests::packet::{Carries, Packet};
use netdp_tests::variant::Datapath;
use netdp_tests::wire::{self, Tap};
use netdp_tests::{on_ebpf_only_in_both_families, on_every_datapath_in_both_families};

on_every_datapath_in_both_families!(datagrams_in_fragments_of_any_order_arrive);
on_ebpf_only_in_both_families!(
    a_flood_of_fragments_ends_the_waiting_of_its_own: "netfilter has one queue for everybody",
);

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8053;
const INNER: u16 = 53;
/// Every order of three.
const ORDERS: [[usize; 3]; 6] = [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]];
/// Bytes of a fragment; the last one is shorter.
const PART: usize = 1024;
const DATAGRAM: usize = 3 * PART - 100;
/// For every packet that is lost on a busy machine: one more try.
const TRIES: u16 = 3;
/// How long a datagram may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// More than can wait: twice 64 and some.
const FLOOD: u16 = 200;

/// Somebody who sends fragments past its own stack.
struct Fragmenter {
    tap: Tap,
    gateway_mac: [u8; 6],
}

impl Fragmenter {
    fn inside(lab: &Lab, container: &Container) -> Self {
        let tap = Tap::open(&container.netns, "eth0");
        Self { tap, gateway_mac: wire::mac_of(&lab.host, container.gateway) }
    }

    fn outside(lab: &Lab) -> Self {
        Self { tap: Tap::open(&lab.world, WORLD_LINK), gateway_mac: wire::mac(&lab.host, UPLINK) }
    }

    fn send(&self, packet: &[u8]) {
        let ethertype = if packet[0] >> 4 == 4 { ethernet::IPV4 } else { ethernet::IPV6 };
        let frame = [&self.gateway_mac[..], &self.tap.mac, &ethertype.to_be_bytes(), packet].concat();
        self.tap.send(&frame).expect("sending a frame");
    }
}

fn socket(netns: &Netns, address: IpAddr, port: u16) -> UdpSocket {
    let socket = netns.enter(|| UdpSocket::bind((address, port))).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

fn datagram(src: SocketAddr, dst: SocketAddr, identification: u16) -> Packet {
    let payload: Vec<u8> = (0..DATAGRAM).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
    Packet { identification, ..Packet::new(src, dst, Carries::Udp, &payload) }
}

/// Whether what a socket receives next is this datagram.
fn arrives(at: &UdpSocket, packet: &Packet) -> bool {
    let mut buffer = [0; 2 * DATAGRAM];
    at.recv(&mut buffer).is_ok_and(|len| buffer[..len] == packet.payload)
}

/// A datagram in fragments of every order.
#[track_caller]
fn in_every_order(from: &Fragmenter, (src, dst): (SocketAddr, SocketAddr), to: &UdpSocket) {
    for (number, order) in (0u16..).zip(ORDERS) {
        let whole = (0..TRIES).any(|again| {
            let packet = datagram(src, dst, number * TRIES + again + 1);
            let fragments = packet.fragments(PART);
            for part in order {
                from.send(&fragments[part]);
            }
            arrives(to, &packet)
        });
        assert!(whole, "{src} to {dst}, {order:?}");
    }
}

fn datagrams_in_fragments_of_any_order_arrive(lab: &Lab) {
    let a = lab.container("a", &format!("-p {PUBLISHED}:{INNER}/udp"));
    let b = lab.container("b", "");
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    let server = socket(&lab.world, world, PORT);
    let (published, own) = (socket(&a.netns, a.address, INNER), socket(&a.netns, a.address, PORT));
    let hosts = socket(&lab.host, host, PORT);
    // A flow, whose mapping is known then.
    own.send_to(b"netdp", (world, PORT)).expect("sent");
    let (_, mapped) = server.recv_from(&mut [0; 8]).expect("received");
    let remote = SocketAddr::new(world, PORT);
    let to_published = SocketAddr::new(host, PUBLISHED);
    let (inside, outside) = (Fragmenter::inside(lab, &a), Fragmenter::outside(lab));
    let neighbour = Fragmenter::inside(lab, &b);

    in_every_order(&inside, (SocketAddr::new(a.address, PORT), remote), &server);
    in_every_order(&inside, (SocketAddr::new(a.address, PORT + 1), remote), &server);
    in_every_order(&outside, (remote, mapped), &own);
    in_every_order(&outside, (SocketAddr::new(world, PORT + 1), to_published), &published);
    in_every_order(&neighbour, (SocketAddr::new(b.address, PORT), to_published), &published);
    // The host's own.
    in_every_order(&outside, (SocketAddr::new(world, PORT + 2), SocketAddr::new(host, PORT)), &hosts);
    if lab.variant.datapath == Datapath::Ebpf {
        assert_ne!(lab.netdp.counter("fragments_held"), 0, "{}", lab.netdp.json("stats"));
    }
    assert_eq!(lab.netdp.counter("fragment"), 0, "{}", lab.netdp.json("stats"));
}

/// One that waits goes on waiting while another endpoint, and somebody outside, send fragments that wait in vain.
fn a_flood_of_fragments_ends_the_waiting_of_its_own(lab: &Lab) {
    let (a, b) = (lab.container("a", ""), lab.container("b", ""));
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    let server = socket(&lab.world, world, PORT);
    let own = socket(&a.netns, a.address, PORT);
    own.send_to(b"netdp", (world, PORT)).expect("sent");
    let (_, mapped) = server.recv_from(&mut [0; 8]).expect("received");
    let (inside, outside) = (Fragmenter::inside(lab, &a), Fragmenter::outside(lab));
    let neighbour = Fragmenter::inside(lab, &b);
    let (src, remote) = (SocketAddr::new(a.address, PORT), SocketAddr::new(world, PORT));
    let (stranger, dst) = (SocketAddr::new(lab.at(WORLD_2), 9), SocketAddr::new(host, 9));
    let flood = || {
        for identification in 0..FLOOD {
            outside.send(&datagram(stranger, dst, identification).fragments(PART)[1]);
            let in_vain = datagram(SocketAddr::new(b.address, 9), remote, identification);
            neighbour.send(&in_vain.fragments(PART)[1]);
        }
    };
    for (from, (src, dst), to) in [(&inside, (src, remote), &server), (&outside, (remote, mapped), &own)] {
        let whole = (0..TRIES).any(|again| {
            let packet = datagram(src, dst, again + 1);
            let fragments = packet.fragments(PART);
            fragments[1..].iter().for_each(|part| from.send(part));
            flood();
            from.send(&fragments[0]);
            arrives(to, &packet)
        });
        assert!(whole, "{src} to {dst}");
    }
    assert_ne!(lab.netdp.counter("fragment"), 0, "{}", lab.netdp.json("stats"));
}
