//! One side of the comparison: a NAT with two endpoints and a published port, and taps on both ends of it.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use netdp_common::header::ethernet;

use crate::backlog::unless_dropped;
use crate::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2, WORLD_3, WORLD_LINK};
use crate::masquerade::Masquerade;
use crate::netns::Netns;
use crate::packet::{Carries, Packet, Seen};
use crate::variant::{Family, Variant};
use crate::wire::{self, Tap};

/// The remotes' port.
pub(super) const PORT: u16 = 7000;
/// The host's port that leads to A's [`INNER`], UDP and TCP.
pub(super) const PUBLISHED: u16 = 8053;
/// A's port.
pub(super) const INNER: u16 = 53;
/// The port of the flows that [`Side::receive`] knows to work.
const FENCE: u16 = 9999;
/// How long a packet may take, on a machine with much else to do.
const PATIENCE: Duration = Duration::from_secs(3);
/// How much later than another one a packet may come that was sent before it, if by another CPU.
const GRACE: Duration = Duration::from_millis(200);
/// The ports of the endpoint that has but few: see [`Side::few`].
const FEW: &str = "30000-30003";

/// Who translates.
#[derive(Debug)]
pub enum Nat<'a> {
    /// netdp.
    Netdp(&'a Lab),
    /// MASQUERADE and DNAT.
    Netfilter(Masquerade<'a>),
}

/// An end of the NAT: an endpoint, or the world.
#[derive(Debug)]
pub struct Node {
    /// Its address; the world's first.
    pub address: IpAddr,
    tap: Tap,
    /// Where its packets go first.
    gateway_mac: [u8; 6],
    /// A flow of an endpoint's: the first remote, and as whom that knows the endpoint.
    fence: Cell<Option<(SocketAddr, SocketAddr)>>,
}

/// A NAT, its endpoints, and the world.
#[derive(Debug)]
pub struct Side<'a> {
    /// Where.
    pub lab: &'a Lab,
    /// Who translates.
    pub nat: Nat<'a>,
    /// An endpoint with a published port.
    pub a: Node,
    /// Another endpoint.
    pub b: Node,
    /// An endpoint for whose flows there are four ports.
    pub few: Node,
    /// The remotes.
    pub world: Node,
    marks: Cell<u64>,
    ports: Cell<u16>,
    /// When the last packet was sent.
    sent: Cell<Instant>,
}

impl<'a> Side<'a> {
    /// netdp in a lab.
    pub fn netdp(lab: &'a Lab) -> Self {
        let ports = format!("-p {PUBLISHED}:{INNER} -p {PUBLISHED}:{INNER}/udp");
        let (a, b) = (lab.container("a", &ports), lab.container("b", ""));
        lab.netdp.ok(&format!("network create few {} --snat-ports {FEW}", lab.subnet("10.77.0.0/24")));
        let few = lab.container("few", "--network few");
        Self::new(lab, Nat::Netdp(lab), [&a, &b, &few])
    }

    /// Netfilter in a lab.
    pub fn netfilter(lab: &'a Lab) -> Self {
        let masquerade = Masquerade::new(lab, "");
        let [a, b, few] = ["a", "b", "few"].map(|name| masquerade.container(name));
        for proto in ["udp", "tcp"] {
            masquerade.publish(&a, proto, PUBLISHED, INNER);
        }
        let rule = format!("-s {} -o {UPLINK} -p udp -j MASQUERADE --to-ports {FEW}", few.address);
        masquerade.iptables(&format!("-t nat -I POSTROUTING {rule}"));
        Self::new(lab, Nat::Netfilter(masquerade), [&a, &b, &few])
    }

    /// How both labs run: every frame as it would be on a wire.
    pub const fn variant(family: Family) -> Variant {
        Variant { family, ..Variant::EBPF_PLAIN }
    }

    fn new(lab: &'a Lab, nat: Nat<'a>, containers: [&Container; 3]) -> Self {
        // Everybody knows everybody's MAC before the stacks fall silent.
        for container in containers {
            for peer in [container.gateway, lab.at(WORLD), lab.at(WORLD_2), lab.at(WORLD_3)] {
                container.netns.sh(&format!("ping -c 1 -W 3 {peer}"));
            }
        }
        let [a, b, few] = containers.map(|container| {
            silence(&container.netns);
            Node {
                address: container.address,
                tap: Tap::open(&container.netns, "eth0"),
                gateway_mac: wire::mac_of(&lab.host, container.gateway),
                fence: Cell::new(None),
            }
        });
        silence(&lab.world);
        // The kernel's own errors are seldom, and the script makes many of them in a second.
        lab.host.set_sysctl("net/ipv4/icmp_ratelimit", "0");
        lab.host.set_sysctl("net/ipv6/icmp/ratelimit", "0");
        let world = Node {
            address: lab.at(WORLD),
            tap: Tap::open(&lab.world, WORLD_LINK),
            gateway_mac: wire::mac(&lab.host, UPLINK),
            fence: Cell::new(None),
        };
        let side = Self {
            lab,
            nat,
            a,
            b,
            few,
            world,
            marks: Cell::new(0),
            ports: Cell::new(20_000),
            sent: Cell::new(Instant::now()),
        };
        for node in [&side.a, &side.b, &side.few] {
            let packet = side.to_fence(node);
            side.send(node, &packet);
            let seen =
                side.await_packet(&side.world, Instant::now() + PATIENCE, |seen| seen.dst == packet.dst);
            node.fence.set(Some((packet.dst, seen.expect("a flow that works").src)));
        }
        side
    }

    fn to_fence(&self, from: &Node) -> Packet {
        let to = SocketAddr::new(self.remote(0), FENCE);
        Packet::new(SocketAddr::new(from.address, FENCE), to, Carries::Udp, &self.mark())
    }

    /// IPv4.
    pub fn is_v4(&self) -> bool {
        self.lab.variant.family == Family::V4
    }

    /// The host's address on the uplink.
    pub fn host(&self) -> IpAddr {
        self.lab.at(HOST)
    }

    /// A remote's address: 0, 1 or 2.
    pub fn remote(&self, number: usize) -> IpAddr {
        self.lab.at([WORLD, WORLD_2, WORLD_3][number])
    }

    /// A port that no earlier row has used; every other one is even.
    pub fn fresh_port(&self) -> u16 {
        self.ports.replace(self.ports.get() + 1)
    }

    /// A payload that no other packet has.
    pub fn mark(&self) -> Vec<u8> {
        let number = self.marks.replace(self.marks.get() + 1);
        format!("<netdp {number:06}>").into_bytes()
    }

    /// Sends a packet from an end.
    #[track_caller]
    pub fn send(&self, from: &Node, packet: &Packet) {
        self.send_bytes(from, &packet.bytes());
    }

    /// Sends a packet as it is.
    #[track_caller]
    pub fn send_bytes(&self, from: &Node, packet: &[u8]) {
        let ethertype = if self.is_v4() { ethernet::IPV4 } else { ethernet::IPV6 };
        let frame = [&from.gateway_mac[..], &from.tap.mac, &ethertype.to_be_bytes(), packet].concat();
        self.sent.set(Instant::now());
        from.tap.send(&frame).expect("sending a frame");
    }

    /// The packet that an end gets; none: it does not. Another one is sent after it that will come: when that has, what
    /// was to come has come.
    #[track_caller]
    pub fn receive(&self, at: &Node, is_it: impl Fn(&Seen) -> bool) -> Option<Seen> {
        let fence = self.send_fence(at);
        let deadline = Instant::now() + PATIENCE;
        let seen = self.await_packet(at, deadline, |seen| seen.carries(&fence) || is_it(seen))?;
        if seen.carries(&fence) { self.receive_within(at, GRACE, is_it) } else { Some(seen) }
    }

    /// The packet that an end gets within a given time.
    pub fn receive_within(
        &self,
        at: &Node,
        patience: Duration,
        is_it: impl Fn(&Seen) -> bool,
    ) -> Option<Seen> {
        self.await_packet(at, Instant::now() + patience, is_it)
    }

    /// Forgets what an end has got so far.
    pub fn forget(&self, at: &Node) {
        while at.tap.receive(Instant::now()).is_some() {}
    }

    /// Everything that an end gets, in its order.
    pub fn collect(&self, at: &Node) -> Vec<Seen> {
        let fence = self.send_fence(at);
        let deadline = Instant::now() + PATIENCE;
        let next = || self.await_packet(at, deadline, |_| true).filter(|seen| !seen.carries(&fence));
        let mut seen: Vec<_> = std::iter::from_fn(next).collect();
        seen.extend(at.tap.collect(GRACE).iter().filter_map(|frame| Seen::of_frame(frame)));
        seen
    }

    /// A packet to an end that is known to come; its mark.
    fn send_fence(&self, to: &Node) -> Vec<u8> {
        let (from, packet) = match to.fence.get() {
            Some((remote, node)) => (&self.world, Packet::new(remote, node, Carries::Udp, &self.mark())),
            None => (&self.a, self.to_fence(&self.a)),
        };
        self.send(from, &packet);
        packet.payload
    }

    fn await_packet(&self, at: &Node, deadline: Instant, is_it: impl Fn(&Seen) -> bool) -> Option<Seen> {
        loop {
            let seen = Seen::of_frame(&at.tap.receive(deadline)?);
            if let Some(seen) = seen.filter(|seen| is_it(seen)) {
                return Some(seen);
            }
        }
    }

    /// Sends a packet with a mark of its own and receives it at the other end, with right checksums.
    #[track_caller]
    pub fn carry(&self, from: &Node, to: &Node, mut packet: Packet) -> Option<Seen> {
        let once = || {
            packet.payload = self.mark();
            self.send(from, &packet);
            self.receive(to, |seen| seen.icmp.is_none_or(is_query) && seen.carries(&packet.payload))
        };
        let seen = unless_dropped(once, Option::is_some)?;
        assert_eq!(seen.checksums_are_right(), Some(true), "{seen:?}");
        Some(seen)
    }

    /// Opens a flow from an endpoint, and says how the world sees it.
    #[track_caller]
    pub fn open(&self, from: &Node, port: u16, remote: (usize, u16), carries: Carries) -> Option<Seen> {
        let to = SocketAddr::new(self.remote(remote.0), remote.1);
        let to = if carries == Carries::EchoRequest { SocketAddr::new(to.ip(), 0) } else { to };
        let packet = Packet::new(SocketAddr::new(from.address, port), to, carries, &[]);
        let seen = self.carry(from, &self.world, packet)?;
        assert_eq!((seen.src.ip(), seen.dst), (self.host(), to), "translated: {seen:?}");
        Some(seen)
    }

    /// The same for what must work on every side.
    #[track_caller]
    pub fn must_open(&self, from: &Node, port: u16, remote: (usize, u16), carries: Carries) -> Seen {
        self.open(from, port, remote, carries)
            .unwrap_or_else(|| panic!("{carries:?} from {port} to {remote:?}"))
    }

    /// Seconds until the flow of an endpoint's address and port is forgotten, as the NAT lists it.
    #[track_caller]
    pub fn expires(&self, proto: u8, src: SocketAddr) -> u64 {
        self.timer(proto, src).0
    }

    /// Seconds that it lives after a packet: the last one that was sent is its.
    #[track_caller]
    pub fn lifetime(&self, proto: u8, src: SocketAddr) -> u64 {
        let (expires, idle) = self.timer(proto, src);
        expires + idle
    }

    /// Seconds until it is forgotten, and since its last packet.
    #[track_caller]
    fn timer(&self, proto: u8, src: SocketAddr) -> (u64, u64) {
        let timer = match &self.nat {
            Nat::Netdp(lab) => {
                let flows = lab.netdp.json(&format!("flows --proto {proto}"));
                let own = |flow: &&serde_json::Value| flow["src"].as_str() == Some(&src.to_string());
                let flow = flows.as_array().and_then(|flows| flows.iter().find(own));
                flow.and_then(|flow| Some((flow["expires_s"].as_u64()?, flow["idle_s"].as_u64()?)))
            }
            Nat::Netfilter(_) => {
                let list = self.lab.host.enter(netdp::net::conntrack::list).expect("listing connections");
                let own = |found: &&netdp::net::conntrack::Connection| {
                    found.proto == proto && found.original.src == (src.ip(), src.port())
                };
                let idle = self.sent.get().elapsed().as_secs();
                list.iter().find(own).map(|found| (u64::from(found.expires_s), idle))
            }
        };
        timer.unwrap_or_else(|| panic!("no flow of {src}, protocol {proto}"))
    }

    /// Another address on the uplink, which only lives as long as `work`.
    pub fn with_second_address<T>(&self, work: impl FnOnce() -> T) -> T {
        let second = self.lab.variant.family.with_prefix(Ipv4Addr::new(10, 99, 0, 9), 24);
        let dad = if self.is_v4() { "" } else { " nodad" };
        self.lab.host.sh(&format!("ip addr add {second} dev {UPLINK}{dad}"));
        let done = work();
        self.lab.host.sh(&format!("ip addr del {second} dev {UPLINK}"));
        done
    }
}

fn is_query((kind, _code): (u8, u8)) -> bool {
    matches!(kind, 0 | 8 | 13 | 128 | 129)
}

/// Its stack answers nothing but neighbours: what arrives is for the tap only.
fn silence(netns: &Netns) {
    netns.sh("iptables -w -t raw -A PREROUTING -j DROP");
    for kind in ["neighbour-solicitation", "neighbour-advertisement"] {
        netns.sh(&format!("ip6tables -w -t raw -A PREROUTING -p icmpv6 --icmpv6-type {kind} -j ACCEPT"));
    }
    netns.sh("ip6tables -w -t raw -A PREROUTING -j DROP");
}
