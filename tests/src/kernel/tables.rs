//! What the programs and the model are told: the same maps' contents for both.

use netdp_common::family::{Address, Be16};
use netdp_common::flow::{
    EVERYBODY, Endpoint, FLOW_INITIATOR, FLOW_TO_ENDPOINT, Flow, Kind, Network, PortSpans, Published,
    PublishedKey, SourceList, TimeoutSet, Timeouts, Tuple, Uplink,
};
use netdp_common::meta::{Meta, ticks};
use nix::time::{ClockId, clock_gettime};

use super::plan::Plan;
use super::site::{BRIDGE_MAC, ENDPOINT_MACS, MTU, Site};

/// One direction of a flow.
pub type FlowEntry<A> = (Tuple<A>, Flow<A>);

/// A run of published ports that is one prefix of the trie.
#[derive(Clone, Copy, Debug)]
pub struct Publication<A> {
    /// With the first host port.
    pub key: PublishedKey<A>,
    /// How many of the port's bits are fixed.
    pub port_bits: u32,
    /// Where it leads.
    pub value: Published<A>,
}

/// All maps' contents.
#[derive(Clone, Debug)]
pub struct Tables<A> {
    /// Endpoints.
    pub endpoints: Vec<Endpoint<A>>,
    /// Host veth, address and prefix length of what endpoints may send from besides; by veth 0, what of it stays inside.
    pub allowed: Vec<(u32, A, u32)>,
    /// The network, by its bridge.
    pub network: (u32, Network<A>),
    /// Uplinks.
    pub uplinks: Vec<(u32, Uplink<A>)>,
    /// Published ports.
    pub published: Vec<Publication<A>>,
    /// Address and prefix length of what is in the lists of sources.
    pub sources: Vec<(SourceList, A, u32)>,
    /// By number: the usual timeouts, and those of the network.
    pub timeouts: [TimeoutSet; 2],
    /// Flows.
    pub flows: Vec<FlowEntry<A>>,
}

/// The published TCP and UDP port, on every address of the host, and the port of endpoint 0 that it leads to.
pub const PUBLISHED: (u16, u16) = (8080, 80);

/// A published range of 8 ports, TCP, to endpoint 1's ports from the second number on.
pub const PUBLISHED_RANGE: (u16, u16) = (9000, 7000);

/// The only port for mappings: what is chosen is known.
pub const ONLY_PORT: u16 = 50_000;

/// Those of the network.
pub const OWN_TIMEOUTS: Timeouts =
    Timeouts { udp: 20, udp_answered: 20, icmp: 10, tcp_established: 600, ..Timeouts::DEFAULT };

impl<A: Address> Tables<A> {
    /// Two endpoints on one network, one uplink, some published ports, no flow.
    pub fn of<F: Plan<Addr = A>>(site: &Site) -> Self {
        let endpoint = |number: usize| Endpoint {
            addr: F::ENDPOINTS[number],
            ifindex: site.endpoints[number],
            network: site.bridge,
            max_flows: 0,
            mac: ENDPOINT_MACS[number],
            bridge_mac: BRIDGE_MAC,
        };
        let network = Network {
            gateway: F::GATEWAY,
            ports: PortSpans::new(ONLY_PORT, ONLY_PORT, (1, 1)),
            timeouts: 1,
            ..Network::default()
        };
        let publication = |proto, (host_port, port), port_bits, to: usize| Publication {
            key: PublishedKey { addr: A::default(), proto, pad: 0, port: Be16::new(host_port) },
            port_bits,
            value: Published { endpoint: F::ENDPOINTS[to], host_port, port, moved: 0, sources: EVERYBODY },
        };
        Self {
            endpoints: vec![endpoint(0), endpoint(1)],
            allowed: [site.endpoints[0], 0].map(|veth| (veth, F::ALLOWED, u32::from(F::PREFIX))).to_vec(),
            network: (site.bridge, network),
            uplinks: vec![(site.uplink, Uplink { addr: F::HOST, flags: 0 })],
            published: vec![
                publication(TCP, PUBLISHED, 16, 0),
                publication(UDP, PUBLISHED, 16, 0),
                publication(TCP, PUBLISHED_RANGE, 13, 1),
            ],
            sources: Vec::new(),
            timeouts: [Timeouts::DEFAULT, OWN_TIMEOUTS].map(|timeouts| TimeoutSet::of(&timeouts)),
            flows: Vec::new(),
        }
    }

    /// Lets mappings take any port above 1023.
    #[must_use]
    pub fn with_all_ports(mut self) -> Self {
        self.network.1.ports = PortSpans::new(1024, 65_535, (32_768, 60_999));
        self
    }
}

/// TCP's protocol number.
pub const TCP: u8 = netdp_common::header::tcp::PROTO;
/// UDP's protocol number.
pub const UDP: u8 = netdp_common::header::udp::PROTO;
/// A key of the flow table.
pub fn tuple<A>(proto: u8, src: (A, u16), dst: (A, u16)) -> Tuple<A> {
    let (sport, dport) = (Be16::new(src.1), Be16::new(dst.1));
    Tuple { src: src.0, dst: dst.0, sport, dport, proto, pad: [0; 3] }
}

/// Both entries of an established flow by which endpoint `number` reaches a remote: `first` becomes `translated`.
pub fn snat<F: Plan>(
    site: &Site,
    number: usize,
    first: Tuple<F::Addr>,
    translated: Tuple<F::Addr>,
) -> [FlowEntry<F::Addr>; 2] {
    let own = Ends { to_endpoint: true, ..Ends::of(site, number) };
    let out = Ends { to_endpoint: false, ..own };
    pair::<F>(first, translated, Kind::Snat, (out.iif, out), (0, own))
}

/// Both entries of an established flow by which a remote reaches endpoint `number`.
pub fn dnat<F: Plan>(
    site: &Site,
    number: usize,
    first: Tuple<F::Addr>,
    translated: Tuple<F::Addr>,
) -> [FlowEntry<F::Addr>; 2] {
    let own = Ends { to_endpoint: true, ..Ends::of(site, number) };
    let out = Ends { to_endpoint: false, ..own };
    pair::<F>(first, translated, Kind::Dnat, (0, own), (own.iif, out))
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

    fn write<F: Plan>(&self, flow: &mut Flow<F::Addr>) {
        if self.to_endpoint {
            let mut macs = [0u8; 16];
            macs[..6].copy_from_slice(&self.mac);
            macs[6..12].copy_from_slice(&BRIDGE_MAC);
            flow.oif = self.iif;
            flow.via = bytemuck::cast(macs);
            flow.flags |= FLOW_TO_ENDPOINT;
        } else {
            flow.oif = self.uplink;
            let next_hop = F::NEXT_HOP;
            let words = next_hop.words();
            flow.via[..words.len()].copy_from_slice(words);
        }
    }
}

fn pair<F: Plan>(
    first: Tuple<F::Addr>,
    translated: Tuple<F::Addr>,
    kind: Kind,
    forward: (u32, Ends),
    reverse: (u32, Ends),
) -> [FlowEntry<F::Addr>; 2] {
    let entry = |key: Tuple<F::Addr>, to: Tuple<F::Addr>, (iif, ends): (u32, Ends), flags: u8| {
        let mut flow = direction(key, to, kind);
        flow.iif = iif;
        flow.flags = flags;
        ends.write::<F>(&mut flow);
        (key, flow)
    };
    [
        entry(first, translated, forward, FLOW_INITIATOR),
        entry(translated.reversed(), first.reversed(), reverse, 0),
    ]
}

fn direction<A: Address>(key: Tuple<A>, to: Tuple<A>, kind: Kind) -> Flow<A> {
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
        mtu: MTU,
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
