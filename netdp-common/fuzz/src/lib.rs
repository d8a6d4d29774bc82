//! Frames from containers and from the world, as an input tells, through the NAT core, watched: see
//! [`netdp_model::watch`] for what must hold.
//!
//! An input is a byte for the host (family, number of ports, kind of network), then steps. A step is a byte that says
//! what, and what that needs; what is missing at the end is zero. Most steps make packets that are nearly right, which
//! noise hardly ever is; what a packet has become can be answered, and reported about.

mod input;
mod steps;

use netdp_common::family::{Address as _, V4, V6};
use netdp_common::flow::{NETWORK_INTERNAL, NETWORK_NO_ICC, NETWORK_ROUTED, PortSpans};
use netdp_common::header::{tcp, udp};
use netdp_common::verdict::DropReason;
use netdp_model::hook::Fate;
use netdp_model::ifindex::BRIDGE_AB;
use netdp_model::plan::{Place, Plan};
use netdp_model::watch::Watched;
use netdp_model::{World, ifindex};

use crate::input::Input;
pub use crate::steps::Seen;

/// Room for flows: few, so that the table is full soon.
const FLOWS: usize = 16;

/// A second port that leads to one of A's that another one leads to.
const TWIN: u16 = 8081;

/// Steps of an input at most.
const STEPS: usize = 200;

/// Runs an input; what became of its packets.
///
/// # Panics
/// When something happens that must not.
pub fn run(data: &[u8]) -> Vec<Fate> {
    let mut input = Input::new(data);
    let host = input.byte();
    if host & 1 == 0 { walk::<V4>(host >> 1, input) } else { walk::<V6>(host >> 1, input) }
}

fn walk<F: Plan>(kind: u8, input: Input<'_>) -> Vec<Fate> {
    let walk = steps::Walk::<F>::new(Watched::new(host::<F>(kind), FLOWS), false);
    walked(walk, input).into_iter().map(|seen| seen.fate).collect()
}

fn walked<F: Plan>(mut walk: steps::Walk<F>, mut input: Input<'_>) -> Vec<Seen> {
    for _ in 0..STEPS {
        if input.is_empty() {
            break;
        }
        walk.step(&mut input);
    }
    walk.seen
}

/// What an input does on a host where nothing depends on time or chance, so that another host does the same.
pub struct Record {
    /// Flags of the network of A and B.
    pub network_flags: u32,
    /// Its frames, in their order.
    pub frames: Vec<Seen>,
}

/// Runs an input on such a host: it has room for every flow, and one port for mappings; time stands still; and no two
/// clients' flows look the same to an endpoint.
///
/// # Panics
/// When something happens that must not.
pub fn record<F: Plan>(data: &[u8]) -> Record {
    /// More than an input has steps.
    const ROOM: usize = 2 * STEPS;
    let mut input = Input::new(data);
    let host = still_host::<F>(input.byte() >> 1);
    let network_flags = host.networks[&BRIDGE_AB].flags;
    let walk = steps::Walk::<F>::new(Watched::new(host, ROOM), true);
    Record { network_flags, frames: walked(walk, input) }
}

/// The host of [`record`].
pub fn still_host<F: Plan>(kind: u8) -> World<F::Addr> {
    /// The bits of the number of ports.
    const PORTS: u8 = 3;
    let mut host = host::<F>(kind & !PORTS);
    let own = host.published.iter_mut().filter(|(key, ..)| key.port.get() == TWIN);
    own.for_each(|(_, _, published)| published.port = TWIN);
    host
}

/// Two bits for the number of ports, three for flags of the network of A and B.
fn host<F: Plan>(kind: u8) -> World<F::Addr> {
    let ports = u16::from(kind & 3) + 1;
    let mut world = World::new::<F>(PortSpans::new(5000, 4999 + ports, (5002, 5002)));
    let flags = [NETWORK_INTERNAL, NETWORK_NO_ICC, NETWORK_ROUTED];
    let network = world.networks.get_mut(&BRIDGE_AB).expect("the network of A and B");
    network.flags =
        (0..).zip(flags).filter(|(bit, _)| kind >> (2 + bit) & 1 != 0).map(|(_, flag)| flag).sum();
    world.publish::<F>(tcp::PROTO, 8080..=8080, Place::A, 80);
    world.publish::<F>(tcp::PROTO, TWIN..=TWIN, Place::A, 80);
    world.publish::<F>(udp::PROTO, 8053..=8053, Place::A, 53);
    world.publish::<F>(udp::PROTO, 9000..=9009, Place::B, 7000);
    world.allow(ifindex::VETH_A, F::at(Place::Extra), F::Addr::BITS);
    world.reserved.insert((udp::PROTO, 5001));
    world.sockets.insert((tcp::PROTO, 5000));
    world
}

/// What has become of packets so far.
#[derive(Default)]
pub struct Reached(Vec<Fate>);

impl Reached {
    /// Notes the fates of an input's packets.
    pub fn add(&mut self, fates: &[Fate]) {
        self.0.extend(fates);
    }

    /// The ways that a packet can go, and the reasons to drop it, that have not been seen.
    pub fn missing(&self) -> Vec<Fate> {
        use DropReason::{
            BadChecksum, ClaimContended, EndpointGone, FlowLimit, HostUnreachable, IcmpUnmatched,
            IcmpUnsupported, Internal, Isolated, Malformed, NoFlow, NoRoute, NotAllowed, NotPublished,
            PortsExhausted, RewriteFailed, Spoofed, TableFull, TooBig, TtlExceeded, UnsupportedProtocol,
            Untranslated, UplinkNotAttached,
        };
        // Not of this host: nobody contends, everything is there and stays, its ports are published for everybody, every rewrite of a whole packet succeeds, next hops
        // answer, no input is as long as an MTU, no fragment is too long to wait, what fills the table gives way, and the shares are a big table's.
        let impossible = [
            ClaimContended,
            EndpointGone,
            NotAllowed,
            RewriteFailed,
            HostUnreachable,
            TooBig,
            TableFull,
            FlowLimit,
            DropReason::AddressGone,
            DropReason::Fragment,
        ];
        let mut reasons = DropReason::ALL.iter().filter(|reason| !impossible.contains(reason));
        let told = [
            PortsExhausted,
            NoFlow,
            NoRoute,
            UplinkNotAttached,
            Internal,
            Isolated,
            UnsupportedProtocol,
            TtlExceeded,
        ];
        let untold =
            [Untranslated, NotPublished, Spoofed, Malformed, IcmpUnsupported, IcmpUnmatched, BadChecksum];
        let known = |reason: &DropReason| told.contains(reason) || untold.contains(reason);
        assert!(reasons.all(known), "a new reason");
        let drops = untold.map(Fate::Dropped).into_iter().chain(told.map(Fate::Answered));
        let veths = [ifindex::VETH_A, ifindex::VETH_B, ifindex::VETH_C].map(Fate::ToEndpoint);
        let ways = [Fate::Stack, Fate::Waits, Fate::ToNextHop(ifindex::UPLINK)].into_iter().chain(veths);
        ways.chain(drops).filter(|fate| !self.0.contains(fate)).collect()
    }
}
