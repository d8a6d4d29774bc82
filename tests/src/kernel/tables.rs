//! What the programs and the model are told: the same maps' contents for both.

use std::net::Ipv4Addr;

use netdp_common::family::{Be16, Family as _, Ipv4Addr as Addr, V4};
use netdp_common::flow::{
    Endpoint, FLOW_INITIATOR, FLOW_TO_ENDPOINT, Flow, Kind, Network, PortSpans, Published, PublishedKey,
    Tuple, Uplink,
};
use netdp_common::meta::{Meta, ticks};
use nix::time::{ClockId, clock_gettime};

use super::site::{BRIDGE_MAC, ENDPOINT_MACS, ENDPOINTS, GATEWAY, HOST, NEXT_HOP, Site};

/// One direction of a flow.
pub type FlowEntry = (Tuple<Addr>, Flow<Addr>);

/// A run of published ports that is one prefix of the trie.
#[derive(Clone, Copy, Debug)]
pub struct Publication {
    /// With the first host port.
    pub key: PublishedKey<Addr>,
    /// How many of the port's bits are fixed.
    pub port_bits: u32,
    /// Where it leads.
    pub value: Published<Addr>,
}

/// All maps' contents.
#[derive(Clone, Debug)]
pub struct Tables {
    /// Endpoints.
    pub endpoints: Vec<Endpoint<Addr>>,
    /// The network, by its bridge.
    pub network: (u32, Network<Addr>),
    /// Uplinks.
    pub uplinks: Vec<(u32, Uplink<Addr>)>,
    /// Published ports.
    pub published: Vec<Publication>,
    /// Flows.
    pub flows: Vec<FlowEntry>,
}

/// The published TCP and UDP port, on every address of the host, and the port of endpoint 0 that it leads to.
pub const PUBLISHED: (u16, u16) = (8080, 80);

/// A published range of 8 ports, TCP, to endpoint 1's ports from the second number on.
pub const PUBLISHED_RANGE: (u16, u16) = (9000, 7000);

/// The only port for mappings: what is chosen is known.
pub const ONLY_PORT: u16 = 50_000;

impl Tables {
    /// Two endpoints on one network, one uplink, some published ports, no flow.
    pub fn of(site: &Site) -> Self {
        let endpoint = |number: usize| Endpoint {
            addr: ENDPOINTS[number].into(),
            ifindex: site.endpoints[number],
            network: site.bridge,
            flags: 0,
            mac: ENDPOINT_MACS[number],
            bridge_mac: BRIDGE_MAC,
        };
        let network = Network {
            gateway: GATEWAY.into(),
            snat_to: Addr::default(),
            flags: 0,
            ports: PortSpans::new(ONLY_PORT, ONLY_PORT, (1, 1)),
        };
        let publication = |proto, (host_port, port), port_bits, to: usize| Publication {
            key: PublishedKey { addr: Addr::default(), proto, pad: 0, port: Be16::new(host_port) },
            port_bits,
            value: Published { endpoint: ENDPOINTS[to].into(), host_port, port },
        };
        Self {
            endpoints: vec![endpoint(0), endpoint(1)],
            network: (site.bridge, network),
            uplinks: vec![(site.uplink, Uplink { addr: HOST.into(), flags: 0 })],
            published: vec![
                publication(TCP, PUBLISHED, 16, 0),
                publication(UDP, PUBLISHED, 16, 0),
                publication(TCP, PUBLISHED_RANGE, 13, 1),
            ],
            flows: Vec::new(),
        }
    }

    /// Lets mappings take any port above 1023.
    #[must_use]
    pub fn with_all_ports(mut self) -> Self {
        self.network.1.ports = PortSpans::new(1024, 65_535, (32_768, 60_999));
        self
    }

    /// The subnet's prefix digest.
    pub fn prefix_digest(&self) -> u16 {
        V4::prefix_digest(&GATEWAY.into())
    }
}

/// TCP's protocol number.
pub const TCP: u8 = netdp_common::header::tcp::PROTO;
/// UDP's protocol number.
pub const UDP: u8 = netdp_common::header::udp::PROTO;
/// ICMP's protocol number.
pub const ICMP: u8 = netdp_common::header::icmp::PROTO_V4;

/// A key of the flow table.
pub fn tuple(proto: u8, src: (Ipv4Addr, u16), dst: (Ipv4Addr, u16)) -> Tuple<Addr> {
    let (sport, dport) = (Be16::new(src.1), Be16::new(dst.1));
    Tuple { src: src.0.into(), dst: dst.0.into(), sport, dport, proto, pad: [0; 3] }
}

/// Both entries of an established flow by which endpoint `number` reaches a remote: `first` becomes `translated`.
pub fn snat(site: &Site, number: usize, first: Tuple<Addr>, translated: Tuple<Addr>) -> [FlowEntry; 2] {
    let own = Ends { to_endpoint: true, ..Ends::of(site, number) };
    let out = Ends { to_endpoint: false, ..own };
    pair(first, translated, Kind::Snat, (out.iif, out), (0, own))
}

/// Both entries of an established flow by which a remote reaches endpoint `number`.
pub fn dnat(site: &Site, number: usize, first: Tuple<Addr>, translated: Tuple<Addr>) -> [FlowEntry; 2] {
    let own = Ends { to_endpoint: true, ..Ends::of(site, number) };
    let out = Ends { to_endpoint: false, ..own };
    pair(first, translated, Kind::Dnat, (0, own), (own.iif, out))
}

/// Where a direction leads.
#[derive(Clone, Copy)]
struct Ends {
    to_endpoint: bool,
    iif: u32,
    uplink: u32,
    mac: [u8; 6],
}

impl Ends {
    fn of(site: &Site, number: usize) -> Self {
        let mac = ENDPOINT_MACS[number];
        Self { to_endpoint: true, iif: site.endpoints[number], uplink: site.uplink, mac }
    }

    fn write(&self, flow: &mut Flow<Addr>) {
        if self.to_endpoint {
            let mut macs = [0u8; 16];
            macs[..6].copy_from_slice(&self.mac);
            macs[6..12].copy_from_slice(&BRIDGE_MAC);
            flow.oif = self.iif;
            flow.via = bytemuck::cast(macs);
            flow.flags |= FLOW_TO_ENDPOINT;
        } else {
            flow.oif = self.uplink;
            flow.via = [Addr::from(NEXT_HOP).0, 0, 0, 0];
        }
    }
}

fn pair(
    first: Tuple<Addr>,
    translated: Tuple<Addr>,
    kind: Kind,
    forward: (u32, Ends),
    reverse: (u32, Ends),
) -> [FlowEntry; 2] {
    let entry = |key: Tuple<Addr>, to: Tuple<Addr>, (iif, ends): (u32, Ends), flags: u8| {
        let mut flow = direction(key, to, kind);
        flow.iif = iif;
        flow.flags = flags;
        ends.write(&mut flow);
        (key, flow)
    };
    [
        entry(first, translated, forward, FLOW_INITIATOR),
        entry(translated.reversed(), first.reversed(), reverse, 0),
    ]
}

fn direction(key: Tuple<Addr>, to: Tuple<Addr>, kind: Kind) -> Flow<Addr> {
    let meta = Meta::new(GENERATION, Meta::ACTIVE | Meta::ACK, now());
    Flow {
        meta: meta.0,
        tag: meta.tag(),
        src: to.src,
        dst: to.dst,
        sport: to.sport,
        dport: to.dport,
        own_src: key.src,
        own_dst: key.dst,
        own_sport: key.sport,
        own_dport: key.dport,
        kind: kind as u8,
        ..Flow::default()
    }
}

/// The generation of the flows that are entered here.
pub const GENERATION: u32 = 0xabcd;

/// The programs' clock.
pub fn now() -> u32 {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("the coarse clock");
    ticks(time.tv_sec().unsigned_abs() * 1_000_000_000 + time.tv_nsec().unsigned_abs())
}
