//! Odd and malformed frames on traffic, from a container and from outside: nothing leaves untranslated, nothing comes in
//! that no flow and no published port allows, and what was there before goes on (G6, G16).

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use etherparse::{EtherType, LaxNetSlice, LaxSlicedPacket};
use netdp_common::family::{V4, V6};
use netdp_common::header::{ethernet, icmp, sctp, tcp, udp};
use netdp_model::plan::Place;
use netdp_tests::consistent::contradictions;
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2, WORLD_LINK};
use netdp_tests::netns::Netns;
use netdp_tests::odd::{self, Ends};
use netdp_tests::on_ebpf_only_in_both_families;
use netdp_tests::packet::Seen;
use netdp_tests::server::Server;
use netdp_tests::variant::Family;
use netdp_tests::wire::{self, Tap};

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8080;
/// The port that the published one leads to.
const INNER: u16 = 80;
/// Nobody publishes it.
const CLOSED: u16 = 8081;
/// How long the last frame may be on its way.
const SETTLED: Duration = Duration::from_millis(100);
/// Time to live of most frames, one hop on.
const ROUTED: u8 = 63;
/// Of thousands of frames, so many must be right enough to go on, or else nothing is tested.
const SOME: usize = 20;
/// A tap holds so many frames at least.
const BATCH: usize = 2_000;

on_ebpf_only_in_both_families!(
    odd_frames: "conntrack leaves what it takes for invalid untranslated",
    captured_frames: "conntrack leaves what it takes for invalid untranslated",
);

fn odd_frames(lab: &Lab) {
    run(lab, |ends, from_inside| {
        let mut frames = odd::frames(ends);
        let places = places(ends, from_inside);
        frames.extend(match lab.variant.family {
            Family::V4 => odd::found::frames::<V4>(ends, from_inside, &places),
            Family::V6 => odd::found::frames::<V6>(ends, from_inside, &places),
        });
        frames
    });
}

fn captured_frames(lab: &Lab) {
    run(lab, odd::captured::frames);
}

/// Who stands for whom of the fuzzer's model: the frames' sender, its neighbour, the host, remotes.
fn places(ends: &Ends, from_inside: bool) -> Vec<(Place, IpAddr)> {
    let [first, second, ..] = ends.to.as_slice() else { panic!("two destinations") };
    match from_inside {
        true => vec![
            (Place::A, ends.from.ip()),
            (Place::Remote(9), first.ip()),
            (Place::Remote(10), second.ip()),
            (Place::Host, ends.to[2].ip()),
            (Place::GatewayAb, ends.to[3].ip()),
            (Place::B, ends.to[4].ip()),
        ],
        false => vec![(Place::Remote(9), ends.from.ip()), (Place::Host, first.ip()), (Place::A, second.ip())],
    }
}

/// A lab in which odd frames are sent.
struct Scene<'a> {
    lab: &'a Lab,
    a: Container,
    b: Container,
}

/// Sends the frames that `frames` makes for these ends, from inside and from outside.
fn run(lab: &Lab, frames: impl Fn(&Ends, bool) -> Vec<Vec<u8>>) {
    let publish = format!("-p {PUBLISHED}:{INNER} -p {PUBLISHED}:{INNER}/udp");
    let scene = Scene { lab, a: lab.container("a", &publish), b: lab.container("b", "") };
    // What slips past netdp leaves.
    lab.set_forwarding("1");
    let _servers = [
        Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]),
        Server::tcp(&scene.a.netns, "a", scene.a.address, &[INNER]),
        Server::udp(&scene.a.netns, "a", scene.a.address, &[INNER]),
    ];
    let mut old = OldFlows::open(&scene);
    let attached = lab.host.sh(&format!("ip -d link show {UPLINK}"));
    scene.send_from_inside(&frames(&scene.inside(), true));
    old.are_alive();
    scene.send_from_outside(&frames(&scene.outside(), false));
    old.are_alive();
    assert_eq!(attached, lab.host.sh(&format!("ip -d link show {UPLINK}")));
    assert_eq!(contradictions(lab), [] as [String; 0]);
    let stats = lab.netdp.json("stats");
    assert!(stats["flows"].as_u64() <= stats["flows_max"].as_u64(), "{stats}");
}

impl Scene<'_> {
    fn inside(&self) -> Ends {
        let (lab, at) = (self.lab, SocketAddr::new);
        Ends {
            macs: [wire::mac(&self.a.netns, "eth0"), wire::mac_of(&lab.host, self.a.gateway)],
            from: at(self.a.address, 4321),
            to: vec![
                at(lab.at(WORLD), PORT),
                at(lab.at(WORLD_2), CLOSED),
                at(lab.at(HOST), PUBLISHED),
                at(self.a.gateway, 22),
                at(self.b.address, INNER),
            ],
            strangers: self.strangers(),
        }
    }

    fn outside(&self) -> Ends {
        let (lab, at) = (self.lab, SocketAddr::new);
        Ends {
            macs: [wire::mac(&lab.world, WORLD_LINK), wire::mac(&lab.host, UPLINK)],
            from: at(lab.at(WORLD_2), 5432),
            to: vec![
                at(lab.at(HOST), PUBLISHED),
                at(self.a.address, INNER),
                at(self.b.address, INNER),
                at(lab.at(HOST), CLOSED),
            ],
            strangers: self.strangers(),
        }
    }

    fn strangers(&self) -> Vec<SocketAddr> {
        let others: &[IpAddr] = match self.lab.variant.family {
            Family::V4 => &[
                Ipv4Addr::UNSPECIFIED.into(),
                Ipv4Addr::LOCALHOST.into(),
                Ipv4Addr::BROADCAST.into(),
                IpAddr::V4(Ipv4Addr::new(224, 0, 0, 1)),
                IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
                IpAddr::V4(Ipv4Addr::new(240, 1, 1, 1)),
            ],
            Family::V6 => &["::", "::1", "ff02::1", "fe80::1", "::ffff:10.99.0.2", "2001:db8::1"]
                .map(|address| address.parse().expect("an address")),
        };
        let ours = [self.b.address, self.a.gateway, self.lab.at(WORLD_2)];
        others.iter().chain(&ours).map(|address| SocketAddr::new(*address, INNER)).collect()
    }

    /// What leaves has the host's address.
    fn send_from_inside(&self, frames: &[Vec<u8>]) {
        let sender = Tap::open(&self.a.netns, "eth0");
        let outside = Tap::open(&self.lab.world, WORLD_LINK);
        assert!(frames.len() > 5_000, "only {} frames", frames.len());
        let mut left = 0;
        for batch in frames.chunks(BATCH) {
            send_all(&sender, batch);
            for frame in outside.collect(SETTLED) {
                let Some([source, destination]) = addresses(&frame) else { continue };
                assert!(!self.is_private(source), "untranslated: {frame:02x?}");
                // The host's own stack answers whatever it is sent, with another time to live.
                let routed = Seen::of_frame(&frame).is_some_and(|seen| seen.ttl == ROUTED);
                if source == self.lab.at(HOST) && routed {
                    left += 1;
                    assert!(is_one_host(destination) || is_discovery(destination), "to nobody: {frame:02x?}");
                }
            }
        }
        assert!(left > SOME, "{left} of {} frames left at all", frames.len());
    }

    /// What comes in belongs to a flow, or is for a published port.
    fn send_from_outside(&self, frames: &[Vec<u8>]) {
        let sender = Tap::open(&self.lab.world, WORLD_LINK);
        let inside = [&self.a, &self.b].map(|container| (container, Tap::open(&container.netns, "eth0")));
        let bridge = wire::mac_of(&self.lab.host, self.a.gateway);
        assert!(frames.len() > 5_000, "only {} frames", frames.len());
        let mut came = Vec::new();
        for batch in frames.chunks(BATCH) {
            send_all(&sender, batch);
            for (container, tap) in &inside {
                // Not what neighbours send each other.
                let from_outside =
                    tap.collect(SETTLED / 2).into_iter().filter(|frame| frame[6..12] == bridge);
                came.extend(from_outside.map(|frame| (container.address, frame)));
            }
        }
        let allowed = self.allowed();
        for (to, frame) in &came {
            assert!(self.is_allowed(&allowed, *to, frame), "reached {to}: {frame:02x?}\n{allowed:?}");
        }
        let published = came.iter().filter(|(to, _)| *to == self.a.address).count();
        assert!(published > SOME, "{published} of {} frames came in at all", frames.len());
    }

    fn is_private(&self, address: IpAddr) -> bool {
        [self.a.address, self.b.address].contains(&address)
    }

    /// Remote and endpoint of every flow.
    fn allowed(&self) -> HashSet<(u8, SocketAddr, SocketAddr)> {
        let flows = self.lab.netdp.json("flows");
        let flows = flows.as_array().expect("an array").iter();
        let address = |value: &serde_json::Value| value.as_str().and_then(|text| text.parse().ok());
        let ends = flows.filter_map(|flow| {
            let proto = match flow["proto"].as_str()? {
                "tcp" => tcp::PROTO,
                "udp" => udp::PROTO,
                "sctp" => sctp::PROTO,
                "gre" => GRE,
                "esp" => ESP,
                "icmp" | "icmpv6" => ICMP,
                number => number.parse().expect("a protocol's number"),
            };
            let inner = [&flow["src"], &flow["dst"]].map(address);
            Some(match flow["kind"].as_str()? {
                "snat" => (proto, inner[1]?, inner[0]?),
                _ => (proto, inner[0]?, inner[1]?),
            })
        });
        ends.collect()
    }

    fn is_allowed(&self, flows: &HashSet<(u8, SocketAddr, SocketAddr)>, to: IpAddr, frame: &[u8]) -> bool {
        let Some(seen) = Seen::of_frame(frame) else { return is_of_link(frame) };
        let source = seen.src.ip();
        // The host itself: neighbour discovery, and what it answers its own endpoints.
        if !is_one_host(source) {
            return false;
        }
        let link_local = matches!(source, IpAddr::V6(address) if address.is_unicast_link_local());
        if link_local || source == self.a.gateway || source == self.lab.at(HOST) {
            return true;
        }
        let belongs = |proto, src: SocketAddr, dst: SocketAddr| {
            let published =
                dst == SocketAddr::new(self.a.address, INNER) && matches!(proto, tcp::PROTO | udp::PROTO);
            published || flows.contains(&(proto, src, dst))
        };
        let about = seen.icmp.and_then(|_| seen.quoted());
        match (seen.first_fragment, about) {
            // The others of a datagram whose first one was let in.
            (Some(false), _) => to == self.a.address,
            (_, Some(quoted)) => belongs(proto_of(&quoted), quoted.dst, quoted.src),
            (_, None) => seen.dst.ip() == to && belongs(proto_of(&seen), seen.src, seen.dst),
        }
    }
}

/// Stands for both families' ICMP.
const ICMP: u8 = 1;
/// RFC 2784.
const GRE: u8 = 47;
/// RFC 4303.
const ESP: u8 = 50;

fn proto_of(seen: &Seen) -> u8 {
    if matches!(seen.proto, icmp::PROTO_V4 | icmp::PROTO_V6) { ICMP } else { seen.proto }
}

/// ARP.
fn is_of_link(frame: &[u8]) -> bool {
    frame.get(ethernet::LEN - 2..ethernet::LEN) == Some(&EtherType::ARP.0.to_be_bytes())
}

/// Source and destination of an IP packet, behind tags too.
fn addresses(frame: &[u8]) -> Option<[IpAddr; 2]> {
    match LaxSlicedPacket::from_ethernet(frame).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            Some([header.source_addr().into(), header.destination_addr().into()])
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            Some([header.source_addr().into(), header.destination_addr().into()])
        }
        LaxNetSlice::Arp(_) => None,
    }
}

/// Not an address that nobody or everybody has (RFC 1812 5.3.7).
fn is_one_host(address: IpAddr) -> bool {
    let broadcast = address == Ipv4Addr::BROADCAST;
    !(address.is_unspecified() || address.is_loopback() || address.is_multicast() || broadcast)
}

/// Of IPv6 neighbours.
fn is_discovery(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_multicast())
}

/// The kernel takes no frame without an Ethernet header, and none that its link can't carry: all others.
fn send_all(tap: &Tap, frames: &[Vec<u8>]) {
    use nix::errno::Errno;
    for frame in frames {
        match tap.send(frame) {
            Ok(()) | Err(Errno::EINVAL | Errno::EMSGSIZE) => {}
            Err(error) => panic!("sending {frame:02x?}: {error}"),
        }
    }
}

/// Flows from before the odd frames: both transports, out and in.
struct OldFlows {
    connections: Vec<TcpStream>,
    datagrams: UdpSocket,
}

impl OldFlows {
    fn open(scene: &Scene<'_>) -> Self {
        let (lab, to_world) = (scene.lab, SocketAddr::new(scene.lab.at(WORLD), PORT));
        let published = SocketAddr::new(lab.at(HOST), PUBLISHED);
        let connect = |netns: &Netns, to: SocketAddr| {
            let stream = netns.enter(|| TcpStream::connect(to)).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
            let mut greeting = String::new();
            let mut byte = [0];
            while !greeting.ends_with('\n') {
                (&stream).read_exact(&mut byte).expect("the greeting");
                greeting.push(byte[0].into());
            }
            stream
        };
        let connections = vec![connect(&scene.a.netns, to_world), connect(&lab.world, published)];
        let source = lab.at(WORLD);
        let datagrams = lab.world.enter(|| {
            let socket = UdpSocket::bind((source, 0))?;
            socket.connect(published)?;
            socket.set_read_timeout(Some(Duration::from_secs(5)))?;
            Ok::<_, std::io::Error>(socket)
        });
        let mut flows = Self { connections, datagrams: datagrams.expect("a socket") };
        flows.are_alive();
        flows
    }

    fn are_alive(&mut self) {
        for connection in &mut self.connections {
            connection.write_all(b"alive").expect("an old connection");
            let mut echo = [0; 5];
            connection.read_exact(&mut echo).expect("an old connection");
            assert_eq!(&echo, b"alive");
        }
        self.datagrams.send(b"alive").expect("an old flow");
        let mut answer = [0; 256];
        let length = self.datagrams.recv(&mut answer).expect("an old flow");
        assert!(answer[..length].ends_with(b"alive"));
    }
}
