//! A host for the core, in plain Rust: what the maps and helpers of the kernel answer, from values that a test sets.

pub mod checksum;
pub mod cpu;
pub mod early;
pub mod extensions;
pub mod frame;
pub mod hook;
pub mod plan;
pub mod table;
pub mod waiting;
pub mod watch;

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use netdp_common::family::{Address, Be16};
use netdp_common::flow::{
    Config, EVERYBODY, Endpoint, FragmentKey, FragmentWay, Network, NextHop, PortSpans, Probing, Published,
    PublishedKey, SourceList, TimeoutSet, Timeouts, Uplink,
};
use netdp_common::tables::Route;

use crate::plan::{Place, Plan};

/// Interfaces of the host.
pub mod ifindex {
    /// Towards the world.
    pub const UPLINK: u32 = 2;
    /// Towards another part of the world, without netdp's programs.
    pub const UNHOOKED: u32 = 3;
    /// Of A and B.
    pub const BRIDGE_AB: u32 = 10;
    /// To A.
    pub const VETH_A: u32 = 11;
    /// To B.
    pub const VETH_B: u32 = 12;
    /// Of C.
    pub const BRIDGE_C: u32 = 20;
    /// To C.
    pub const VETH_C: u32 = 21;
    /// Not of this host: the one at the other end of the uplink.
    pub const NEIGHBOUR: u32 = 0xee;
}

/// MTU of every interface, unless a test says otherwise.
pub const MTU: u16 = 1500;

/// The next hop of every remote, as the route look-up tells it.
pub const NEXT_HOP: [u32; 4] = [0xfe00_0202, 0, 0, 0];

/// Ticks after which flows of each state expire: different, so that a test can tell them apart.
pub const TIMEOUTS: Timeouts = Timeouts {
    tcp_half_open: 20,
    tcp_transitory: 20,
    tcp_established: 1000,
    tcp_closed: 10,
    udp: 30,
    udp_answered: 30,
    udp_stream: 300,
    icmp: 15,
};

/// What the control plane has set up: two networks (A and B on one, C on the other), one uplink with our hooks.
pub struct World<A> {
    /// By address.
    pub endpoints: HashMap<A, Endpoint<A>>,
    /// The same by host veth.
    pub senders: HashMap<u32, Endpoint<A>>,
    /// Host veth, address and prefix length of what endpoints may send from besides; by veth 0, what of it stays inside.
    pub allowed: Vec<(u32, A, u32)>,
    /// By bridge.
    pub networks: HashMap<u32, Network<A>>,
    /// With the last port of each range.
    pub published: Vec<(PublishedKey<A>, u16, Published<A>)>,
    /// Address and prefix length of what is in the lists of sources.
    pub sources: Vec<(SourceList, A, u32)>,
    /// The tick in which a published port was last moved, or given another list.
    pub moved_at: u32,
    /// Interfaces with our hooks.
    pub uplinks: HashMap<u32, Uplink<A>>,
    /// Ports that mappings must not take, by protocol.
    pub reserved: HashSet<(u8, u16)>,
    /// Local ports of the host's own sockets.
    pub sockets: HashSet<(u8, u16)>,
    /// Everything else goes to the uplink.
    pub routes: HashMap<A, Route<A>>,
    /// Of interfaces whose MTU is not [`MTU`].
    pub mtus: HashMap<u32, u16>,
    /// What user space has set.
    pub config: Config,
    /// There are IPsec policies.
    pub has_policies: bool,
    /// Whether conntrack takes TCP segments that it can not place.
    pub is_tracked_liberally: bool,
    /// By number: the usual ones, and those of networks that have their own.
    pub timeouts: Vec<TimeoutSet>,
    /// Fragments that wait.
    pub waiting: waiting::Places<A>,
    /// What packets leave behind besides flows.
    pub(crate) traces: Mutex<Traces<A>>,
}

/// See [`World::traces`].
pub(crate) struct Traces<A> {
    /// Of next hops that are not resolved.
    pub(crate) probing: HashMap<NextHop, Probing>,
    /// Of first fragments.
    pub(crate) fragments: Vec<(FragmentKey<A>, FragmentWay<A>)>,
    /// By interface: when the next answer is due.
    pub(crate) turns: HashMap<u32, u64>,
    /// By host veth: how many flows its endpoint has.
    pub(crate) held: HashMap<u32, i32>,
}

impl<A: Address + std::hash::Hash> World<A> {
    /// The usual host; mappings take `ports`.
    pub fn new<F: Plan<Addr = A>>(ports: PortSpans) -> Self {
        let mut world = Self::empty();
        world.uplinks.insert(ifindex::UPLINK, Uplink { addr: F::at(Place::Host), flags: 0 });
        world.add_network::<F>(ifindex::BRIDGE_AB, Place::GatewayAb, ports);
        world.add_network::<F>(ifindex::BRIDGE_C, Place::GatewayC, ports);
        world.add_endpoint::<F>(Place::A, ifindex::VETH_A, ifindex::BRIDGE_AB);
        world.add_endpoint::<F>(Place::B, ifindex::VETH_B, ifindex::BRIDGE_AB);
        world.add_endpoint::<F>(Place::C, ifindex::VETH_C, ifindex::BRIDGE_C);
        world.routes.insert(F::at(Place::Host), Route::Local);
        world.routes.insert(F::at(Place::Nowhere), Route::None);
        world.routes.insert(F::at(Place::Unhooked), out::<F>(ifindex::UNHOOKED));
        world
    }

    /// The same host in a family that its networks do not serve: endpoints without address.
    pub fn unserved<F: Plan<Addr = A>>() -> Self {
        let mut world = Self::empty();
        for veth in [ifindex::VETH_A, ifindex::VETH_B, ifindex::VETH_C] {
            world.senders.insert(veth, endpoint(F::at(Place::Unspecified), veth, bridge_of(veth)));
        }
        world
    }

    fn empty() -> Self {
        Self {
            endpoints: HashMap::new(),
            senders: HashMap::new(),
            allowed: Vec::new(),
            networks: HashMap::new(),
            published: Vec::new(),
            sources: Vec::new(),
            moved_at: 0,
            uplinks: HashMap::new(),
            reserved: HashSet::new(),
            sockets: HashSet::new(),
            routes: HashMap::new(),
            mtus: HashMap::new(),
            waiting: waiting::Places::default(),
            traces: Mutex::new(Traces {
                probing: HashMap::new(),
                fragments: Vec::new(),
                turns: HashMap::new(),
                held: HashMap::new(),
            }),
            config: Config {
                secret: [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908],
                host_netns_cookie: 1,
                ring_slots: 64,
                trace: 0,
                flows_max: 1 << 20,
                honours_firewall: 0,
            },
            has_policies: false,
            is_tracked_liberally: true,
            timeouts: vec![timeout_set(TIMEOUTS)],
        }
    }

    fn add_network<F: Plan<Addr = A>>(&mut self, bridge: u32, gateway: Place, ports: PortSpans) {
        let gateway = F::at(gateway);
        self.networks.insert(bridge, Network { gateway, ports, ..Network::default() });
        self.routes.insert(gateway, Route::Local);
    }

    fn add_endpoint<F: Plan<Addr = A>>(&mut self, place: Place, veth: u32, bridge: u32) {
        let addr = F::at(place);
        let endpoint = endpoint(addr, veth, bridge);
        self.endpoints.insert(addr, endpoint);
        self.senders.insert(veth, endpoint);
        let (via, src) = ([0; 4], addr);
        let route = Route::Out { oif: bridge, via, via_v6: false, src, resolved: true, mtu: MTU };
        self.routes.insert(addr, route);
    }

    /// Lets the endpoint behind a host veth send from the addresses of a prefix, which are not to be seen outside.
    pub fn allow(&mut self, veth: u32, addr: A, prefix: u32) {
        self.allowed.extend([(veth, addr, prefix), (0, addr, prefix)]);
    }

    /// Publishes the ports `host_ports` of every host address as the ports from `port` on of an endpoint.
    pub fn publish<F: Plan<Addr = A>>(
        &mut self,
        proto: u8,
        host_ports: std::ops::RangeInclusive<u16>,
        endpoint: Place,
        port: u16,
    ) {
        let (first, last) = host_ports.into_inner();
        let key = PublishedKey { addr: F::at(Place::Unspecified), proto, pad: 0, port: Be16::new(first) };
        let published =
            Published { endpoint: F::at(endpoint), host_port: first, port, moved: 0, sources: EVERYBODY };
        self.published.push((key, last, published));
        self.reserved.extend((first..=last).map(|port| (proto, port)));
    }

    /// Lets a published port lead to another endpoint, as user space does at tick `now`.
    pub fn move_port<F: Plan<Addr = A>>(&mut self, proto: u8, host_port: u16, endpoint: Place, now: u32) {
        for (key, _, published) in &mut self.published {
            if (key.proto, published.host_port) == (proto, host_port) {
                (published.endpoint, published.moved) = (F::at(endpoint), 1);
            }
        }
        self.moved_at = now;
    }

    /// Gives a published port a list of sources, as user space does at tick `now`: a prefix each.
    pub fn take_from(&mut self, proto: u8, host_port: u16, sources: &[(A, u32)], now: u32) {
        let number = u32::try_from(self.sources.len() + 1).expect("few");
        let list = [0, number];
        self.sources.extend(sources.iter().map(|(addr, bits)| (list, *addr, *bits)));
        for (key, _, published) in &mut self.published {
            if (key.proto, published.host_port) == (proto, host_port) {
                (published.sources, published.moved) = (list, 1);
            }
        }
        self.moved_at = now;
    }

    /// Gives the flows of a network's endpoints timeouts of their own.
    pub fn set_timeouts(&mut self, bridge: u32, timeouts: Timeouts) {
        let number = u32::try_from(self.timeouts.len()).expect("few");
        self.timeouts.push(timeout_set(timeouts));
        self.networks.get_mut(&bridge).expect("a network").timeouts = number;
    }

    /// Takes a published port away, and leaves its flows.
    pub fn unpublish(&mut self, proto: u8, host_port: u16) {
        self.published.retain(|(key, _, published)| (key.proto, published.host_port) != (proto, host_port));
        self.reserved.remove(&(proto, host_port));
    }
}

/// Where ports or table run short, they count, too; in a full table, what is no conversation gives way at once.
fn timeout_set(timeouts: Timeouts) -> TimeoutSet {
    let spent = Timeouts { tcp_half_open: 0, tcp_closed: 0, udp: 0, udp_answered: 0, icmp: 0, ..timeouts };
    TimeoutSet {
        by_pressure: [timeouts, timeouts, spent, bytemuck::Zeroable::zeroed()],
        shortest: timeouts.shortest(),
    }
}

/// A route out of `oif` whose preferred source is the host's address.
pub fn out<F: Plan>(oif: u32) -> Route<F::Addr> {
    Route::Out { oif, via: NEXT_HOP, via_v6: false, src: F::at(Place::Host), resolved: true, mtu: MTU }
}

fn endpoint<A>(addr: A, veth: u32, network: u32) -> Endpoint<A> {
    Endpoint { addr, ifindex: veth, network, max_flows: 0, mac: mac(veth), bridge_mac: mac(network) }
}

/// Whether two addresses have the first `bits` bits in common.
pub fn same_prefix<A: Address>(a: &A, b: &A, bits: u32) -> bool {
    let words = (0..).zip(a.words().iter().zip(b.words()));
    words.into_iter().all(|(number, (a, b)): (u32, _)| {
        let fixed = bits.saturating_sub(number * u32::BITS).min(u32::BITS);
        fixed == 0 || u32::from_be(a ^ b) >> (u32::BITS - fixed) == 0
    })
}

/// The bridge that a host veth is a port of.
pub const fn bridge_of(veth: u32) -> u32 {
    match veth {
        ifindex::VETH_A | ifindex::VETH_B => ifindex::BRIDGE_AB,
        _ => ifindex::BRIDGE_C,
    }
}

/// The MAC of the interface with this number, or of the endpoint behind it.
pub const fn mac(number: u32) -> [u8; 6] {
    [0x02, 0, 0, 0, 0, number as u8]
}
