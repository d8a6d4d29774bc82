//! What the NAT asks of its surroundings: tables, clock, randomness, routes and sockets.
//!
//! The kernel programs answer from BPF maps and helpers, the tests from plain Rust, the model checker from
//! atomics that it schedules.

use crate::family::{Address, Be16};
use crate::flow::{
    Config, Endpoint, FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Flow, FragmentKey, FragmentWay, Label, Network,
    NextHop, PortSpans, Probing, Published, PublishedKey, SourceList, TimeoutSet, Tuple, Uplink,
};
use crate::icmp_error::Quoted;
use crate::meta::Meta;
use crate::nat::Known;
use crate::ports::Search;
use crate::quota::Held;
use crate::tcp::{End, Segment};
use crate::verdict::{DropReason, Event};
use crate::waiting::State;

/// An element of the flow table, found by its key. It may be removed and reused at any moment.
pub trait Entry<A>: Copy {
    /// The current meta word, in one load.
    fn meta(&self) -> Meta;
    /// Replaces the meta word if it is still `old`; false if it is not.
    fn swap_meta(&self, old: Meta, new: Meta) -> bool;
    /// Takes [`Meta::HELD`] off the meta word, whatever else it says now.
    fn release(&self);
    /// [`Flow::tag`], in one load.
    fn tag(&self) -> u16;
    /// A copy of the whole value; not atomic, but neither before nor after what the program loads around it.
    fn read(&self) -> Flow<A>;
    /// The same where only a part of the value is wanted: without a copy of all of it.
    fn read_with<R>(&self, take: impl FnOnce(&Flow<A>) -> R) -> R {
        take(&self.read())
    }
    /// Sets the way that [`Way::write_to`] tells; only while held.
    fn set_way(&self, way: &Way);
    /// Sets [`Flow::next`].
    fn set_next(&self, next: u32);
    /// Sets what [`End::write_to`] tells; only while held.
    fn set_end(&self, end: &End);
}

/// Why an insert that must not replace did not insert.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InsertError {
    /// The key is there already.
    Taken,
    /// No room.
    Full,
    /// The bucket was busy; the same insert may succeed at once.
    Busy,
}

/// The flow table.
pub trait Flows<A> {
    /// Its elements.
    type Entry: Entry<A>;
    /// Finds an element.
    fn get(&self, key: &Tuple<A>) -> Option<Self::Entry>;
    /// Inserts if the key is not there, in one atomic step.
    fn insert(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError>;
    /// Inserts or replaces, in one atomic step: whoever looks meanwhile finds the old value or the new one.
    fn replace(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError>;
    /// Removes; false if it was not there.
    fn remove(&self, key: &Tuple<A>) -> bool;
}

/// A place in the reclaim ring.
pub trait RingSlot<A>: Copy {
    /// 0: free; else who has it.
    fn owner(&self) -> u64;
    /// Takes, gives up or hands over the slot if its owner is still `old`.
    fn swap_owner(&self, old: u64, new: u64) -> bool;
    /// The tick before which the flow can't have expired.
    fn due(&self) -> u32;
    /// Sets it.
    fn set_due(&self, due: u32);
    /// Key of the flow's responder entry.
    fn key(&self) -> Tuple<A>;
    /// Sets it; only by the owner.
    fn set_key(&self, key: &Tuple<A>);
}

/// A place for a fragment that waits, see [`crate::waiting`].
pub trait Place<A: Address>: Clone {
    /// What it is used for, in one load.
    fn state(&self) -> State;
    /// Replaces that if it is still `old`; false if it is not. A full barrier.
    fn swap_state(&self, old: State, new: State) -> bool;
    /// Whose the fragment in it is; to be relied on only while the place is busy for the caller.
    fn label(&self) -> Label<A>;
    /// Sets it; only while busy.
    fn set_label(&self, label: &Label<A>);
    /// Whether it is a fragment of this datagram; as [`Self::label`].
    fn is_for(&self, key: &FragmentKey<A>) -> bool {
        self.label().key == *key
    }
}

/// Where the routing table sends a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Route<A> {
    /// To this host.
    Local,
    /// Nowhere: no route, unreachable, prohibited, blackhole.
    None,
    /// Out.
    Out {
        /// The interface.
        oif: u32,
        /// The next hop in network byte order, IPv4 in the first word.
        via: [u32; 4],
        /// `via` is an IPv6 address.
        via_v6: bool,
        /// The kernel knows the next hop's MAC.
        resolved: bool,
        /// MTU of the way.
        mtu: u16,
        /// The source address that the route prefers; unspecified if the kernel doesn't tell.
        src: A,
    },
}

/// One step of a bounded loop that may be too long to unroll.
pub trait Step {
    /// Step number `i`; false ends the loop.
    fn step(&mut self, i: u32) -> bool;
}

/// The same where each step needs the host, and the packet, for itself.
pub trait StepOn<H> {
    /// Step number `i`.
    fn step_on(&mut self, host: &mut H, i: u32);
}

/// What is too large for a BPF program's stack. One for each CPU.
#[derive(Clone, Copy, Debug)]
pub struct Scratch<A> {
    /// A packet and its flow.
    pub known: Known<A>,
    /// A flow that is being made.
    pub work: Work<A>,
    /// A packet that an ICMP error quotes.
    pub quoted: Quoted<A>,
}

impl<A: Address> Scratch<A> {
    /// Nothing in it yet.
    pub fn empty() -> Self {
        Self { known: Known::nothing(), work: Work::default(), quoted: Quoted::unread() }
    }
}

/// Scratch space for making a flow.
#[derive(Clone, Copy, Debug, Default)]
pub struct Work<A> {
    /// What is to be claimed.
    pub request: Request<A>,
    /// Key of the responder's entry.
    pub answer: Tuple<A>,
    /// Key of what is remembered about the remote, see [`Host::exhausted`].
    pub remote: Tuple<A>,
    /// Value of the initiator's entry: the new flow's, or that of the packet that was faster.
    pub forward: Flow<A>,
    /// Value of the responder's entry.
    pub reverse: Flow<A>,
    /// The order in which ports are tried.
    pub search: Search,
    /// TCP: the SYN.
    pub segment: Segment,
    /// Its tuple was a closed connection's: that one's port is tried first.
    pub again: bool,
    /// The port was a closed connection's, see [`crate::recycle`]: the key of its initiator's entry, and its
    /// responder's entry as it was.
    pub recycled: bool,
    /// See `recycled`.
    pub old: Tuple<A>,
    /// See `recycled`.
    pub tombstone: Flow<A>,
    /// Meta word of the entry at `answer` that the ring doesn't have yet; [`Meta::GONE`]: none.
    pub for_ring: Meta,
    /// The port that has rested longest of those that have not rested long enough, see [`crate::recycle`]; 0: none.
    pub last_resort: Be16,
    /// Its [`Flow::ended_at`].
    pub last_resort_ended_at: u32,
}

/// What to claim.
#[derive(Clone, Copy, Debug, Default)]
pub struct Request<A> {
    /// The tuple of the packet that opens the flow.
    pub first: Tuple<A>,
    /// What it becomes; its source port is to be chosen.
    pub translated: Tuple<A>,
    /// The ports to choose from.
    pub spans: PortSpans,
    /// Try the translated source port itself before choosing.
    pub keep_port: bool,
    /// No other than that will do.
    pub only_port: bool,
    /// The new source is an address of this host: neither reserved ports nor its sockets' tuples may be taken.
    pub host_address: bool,
    /// How many of the network's external addresses have no port left for this packet, or are gone.
    pub spent_addresses: u32,
    /// [`crate::flow::Kind::Snat`]: its source was chosen for the network, whatever the route prefers.
    pub is_given: bool,
    /// If this source has no port left, there are others to be tried: nobody's flow gives way to this one before.
    pub has_others: bool,
    /// What the flow is, a [`crate::flow::Kind`].
    pub kind: u8,
    /// See [`Flow::timeouts`].
    pub timeouts: u16,
    /// The way of the initiator's packets.
    pub forward: Way,
    /// The way of the responder's packets.
    pub reverse: Way,
}

/// How the packets of one direction travel, see [`Flow`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// Interface they come by; 0: from outside.
    pub iif: u32,
    /// Interface they leave by.
    pub oif: u32,
    /// Next hop or MACs.
    pub via: [u32; 4],
    /// MTU.
    pub mtu: u16,
    /// `FLOW_*`.
    pub flags: u8,
}

impl Way {
    /// Writes it into a flow's entry. What the end of a connection leaves there stays: other flags than the next hop's
    /// family, and [`Flow::timestamp`].
    pub fn write_to<A>(&self, flow: &mut Flow<A>) {
        let [a, b, c, d] = self.via;
        let last = if flow.flags & FLOW_TO_ENDPOINT == 0 { d } else { flow.via[3] };
        (flow.oif, flow.via, flow.mtu) = (self.oif, [a, b, c, last], self.mtu);
        flow.flags = flow.flags & !FLOW_NEXT_HOP_V6 | self.flags & FLOW_NEXT_HOP_V6;
    }
}

/// Everything but the packet.
pub trait Host<A: Address> {
    /// The flow table.
    type Flows: Flows<A>;
    /// A slot of the reclaim ring.
    type Slot: RingSlot<A>;
    /// A place for a fragment that waits.
    type Place: Place<A>;

    /// The flow table.
    fn flows(&self) -> &Self::Flows;
    /// The endpoint with this address.
    fn endpoint(&self, addr: &A) -> Option<&Endpoint<A>>;
    /// The endpoint behind a host veth.
    fn sender(&self, ifindex: u32) -> Option<&Endpoint<A>>;
    /// Whether the endpoint behind this host veth may send from an address besides its own (`--allow-address`). 0: whether
    /// any may that is not to be seen outside.
    fn allowed(&self, sender: u32, addr: &A) -> bool;
    /// The network of a bridge.
    fn network(&self, bridge: u32) -> Option<&Network<A>>;
    /// The most specific published port for exactly this address, protocol and port.
    fn published(&self, key: &PublishedKey<A>) -> Option<&Published<A>>;
    /// Whether a list of sources has this address, see [`crate::flow::SourceKey`].
    fn is_source(&self, list: SourceList, addr: &A) -> bool;
    /// The tick in which a published port was last moved to another endpoint, or given another list of sources.
    fn moved_at(&self) -> u32;
    /// An interface that carries our programs.
    fn uplink(&self, ifindex: u32) -> Option<&Uplink<A>>;
    /// Whether mappings must not take this port (published or reserved); `port` in host byte order.
    fn reserved(&self, proto: u8, port: u16) -> bool;
    /// Whether a prefix with this digest may hold endpoints.
    fn private_prefix(&self, digest: u16) -> bool;
    /// What user space has set.
    fn config(&self) -> Option<&Config>;
    /// The timeouts with this number.
    fn timeouts(&self, number: u16) -> Option<&TimeoutSet>;
    /// Whether user space has seen IPsec policies for what leaves, which only the stack heeds.
    fn has_policies(&self) -> bool;
    /// Whether user space has made conntrack take TCP segments for valid that it can't place since it has not seen those
    /// before them.
    fn is_tracked_liberally(&self) -> bool;
    /// The clock, in ticks.
    fn now(&self) -> u32;
    /// 32 bits from the kernel's pseudo-random generator.
    fn random(&self) -> u32;
    /// Nanoseconds, for mixing into random numbers.
    fn nanoseconds(&self) -> u64;
    /// Adds to an event's counter.
    fn count(&self, event: Event, n: u64);
    /// Where a packet with this tuple would be routed that came in by `iif`.
    fn route(&self, tuple: &Tuple<A>, iif: u32) -> Route<A>;
    /// MTU of an interface of this host; the largest there is if it is gone.
    fn link_mtu(&self, ifindex: u32) -> u16;
    /// What is remembered of a next hop that is not resolved.
    fn probing(&self, hop: &NextHop) -> Option<Probing>;
    /// Remembers it.
    fn set_probing(&self, hop: &NextHop, probing: Probing);
    /// What the first fragment of a datagram became.
    fn fragment(&self, key: &FragmentKey<A>) -> Option<FragmentWay<A>>;
    /// Remembers it.
    fn set_fragment(&self, key: &FragmentKey<A>, way: &FragmentWay<A>);
    /// The place with this number, below [`crate::waiting::ALL_PLACES`].
    fn place(&self, number: u32) -> Option<Self::Place>;
    /// Adds to how many fragments have waited in a set, and returns how many had before. A full barrier.
    fn advance_waiting(&self, set: u32, n: u32) -> u32;
    /// Puts a copy of the packet into a place, and returns its length; 0 if it is longer than
    /// [`crate::waiting::LONGEST`].
    fn keep(&self, place: &Self::Place) -> u32;
    /// Makes the packet the copy of `len` bytes that a place keeps; false if it can't be.
    fn become_kept(&mut self, place: &Self::Place, len: u32) -> bool;
    /// Lets a copy of the packet, as it is now, come in by this interface after those that are waiting to come in
    /// there; false if it does not.
    fn come_again(&self, ifindex: u32) -> bool;
    /// Counts a packet as dropped that is not the one at hand.
    fn lose(&self, reason: DropReason);
    /// Changes the time that belongs to an interface's answers as `take` says, in one atomic step; false if it says
    /// none. See [`crate::rate`].
    fn take_turn(&self, ifindex: u32, take: impl Fn(u64) -> Option<u64>) -> bool;
    /// Whether a socket of this host owns a tuple: sends `sent`, and receives what answers it.
    fn host_socket(&self, sent: &Tuple<A>) -> bool;
    /// Notes that a mapping gets this port, host byte order.
    fn note_mapped(&self, port: u16);
    /// Whether a mapping may have this port: it or one of its neighbours was noted.
    fn may_be_mapped(&self, port: u16) -> bool;
    /// Whether a socket of this host made the packet: it came in by no interface.
    fn is_own(&self) -> bool;
    /// Whether every port of a range (see [`PortSpans::id`]) was found taken towards a remote during this tick, and
    /// none was freed since. The key is an answer tuple with destination port 0.
    fn exhausted(&self, remote: &Tuple<A>, range: u32) -> bool;
    /// Remembers that a range is exhausted towards a remote.
    fn set_exhausted(&self, remote: &Tuple<A>, range: u32);
    /// Forgets it: a port has been freed.
    fn clear_exhausted(&self, remote: &Tuple<A>);
    /// How many flows an endpoint has, by its host veth's ifindex.
    fn held(&self, holder: u32) -> Held;
    /// Adds to the number of its flows, and to everybody's.
    fn add_held(&self, holder: u32, change: i32);
    /// How many endpoints there are.
    fn endpoints(&self) -> u32;
    /// Moves the clock hand by `n` slots and returns where it was.
    fn advance_hand(&self, n: u32) -> u32;
    /// The slot with this number, modulo the size of the ring.
    fn slot(&self, number: u32) -> Option<Self::Slot>;
    /// Runs up to `n` steps.
    fn repeat<S: Step>(&self, n: u32, step: &mut S);
    /// Runs `n` steps.
    fn repeat_on<S: StepOn<Self>>(&mut self, n: u32, step: &mut S)
    where
        Self: Sized;
    /// The interface the packet came in by, or leaves by.
    fn ifindex(&self) -> u32;
}
