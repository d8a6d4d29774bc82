//! What the BPF maps hold: plain-data keys and values, shared by the kernel programs and user space.
//!
//! Addresses and ports are in network byte order unless a field says otherwise. Hash maps compare keys
//! byte by byte, so every padding byte is a named field that is zero; the sizes are asserted below.

use bytemuck::{Pod, Zeroable};

use crate::family::{Address, Be16};
use crate::waiting::LONGEST;

/// One direction of a flow, as its packets carry it: the key of the flow table.
///
/// For ICMP echo the identifier stands in for the ports: a request has it as `sport` (`dport` 0), a reply
/// as `dport` (`sport` 0), so that [`Tuple::reversed`] of a request is its reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Tuple<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: Be16,
    /// Destination port.
    pub dport: Be16,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: [u8; 3],
}

impl<A: Address> Tuple<A> {
    /// The tuple of the packets that answer this one.
    #[inline(always)]
    pub fn reversed(&self) -> Self {
        Self {
            src: self.dst,
            dst: self.src,
            sport: self.dport,
            dport: self.sport,
            proto: self.proto,
            pad: [0; 3],
        }
    }
}

/// What a flow is, for listings.
#[repr(u8)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// An endpoint reaches a remote: its source is translated.
    Snat = 1,
    /// A remote reaches a published port: the destination is translated.
    Dnat = 2,
    /// An endpoint reaches a published port of its own host.
    Hairpin = 3,
    /// A socket of the host reaches a remote: its source port is translated, see [`crate::own`].
    Own = 4,
}

/// [`Flow::iif`] of packets that the host's own sockets send, and [`Flow::oif`] of those that are left to the stack: both
/// directions' of such a flow.
pub const OF_HOST: u32 = u32::MAX;

/// [`Flow::flags`]: the entry matches the packets of the side that opened the flow.
pub const FLOW_INITIATOR: u8 = 1;
/// [`Flow::flags`]: deliver to the endpoint behind host veth `oif`; `via` holds its MAC, then the bridge's.
pub const FLOW_TO_ENDPOINT: u8 = 2;
/// [`Flow::flags`]: the next hop in `via` is an IPv6 address although the flow is IPv4 (RFC 5549).
pub const FLOW_NEXT_HOP_V6: u8 = 4;
/// [`Flow::flags`] of a responder's entry: see [`crate::tcp::Tombstone::no_time_wait`].
pub const FLOW_NO_TIME_WAIT: u8 = 8;
/// [`Flow::flags`] of a responder's entry: the initiator has acknowledged the other side's FIN.
pub const FLOW_INITIATOR_ACKED: u8 = 16;
/// [`Flow::flags`] of a responder's entry: the responder has.
pub const FLOW_RESPONDER_ACKED: u8 = 32;
/// [`Flow::flags`] of an initiator's entry: its SYN goes out without timestamp option.
pub const FLOW_NO_TIMESTAMP: u8 = 64;
/// [`Flow::flags`]: the host's stack forwards its packets, so that the host's firewall sees them, in both directions with
/// the endpoint's address: translated after that on the way out, by [`crate::fragment::leave`], and before it on the way in.
/// But for those that [`crate::firewall`] says need not.
pub const FLOW_BY_STACK: u8 = 128;

/// One direction of a mapping: what packets with the key's tuple become. Value of the flow table.
///
/// A flow has two entries, each the reversed translation of the other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Flow<A> {
    /// Generation, TCP bits and time of the last packet: see [`crate::meta::Meta`]. Changed by compare-and-swap only.
    pub meta: u64,
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// New source port.
    pub sport: Be16,
    /// New destination port.
    pub dport: Be16,
    /// Interface the packet leaves by.
    pub oif: u32,
    /// The next hop's address on `oif` (zero: the destination is on-link), or, with [`FLOW_TO_ENDPOINT`], two MACs and
    /// [`Flow::timestamp`].
    pub via: [u32; 4],
    /// The entry's own key: an element of a preallocated map may be reused between look-up and use.
    pub own_src: A,
    /// See `own_src`.
    pub own_dst: A,
    /// See `own_src`.
    pub own_sport: Be16,
    /// See `own_src`.
    pub own_dport: Be16,
    /// Host veth that packets of this direction must come from; 0: from outside.
    pub iif: u32,
    /// TCP: the sequence number that the other side sends next, as far as it is known; host byte order. In an
    /// endpoint's entry its last acknowledgement, in the responder's, too, what follows the SYN; once the connection
    /// closes, the end of what the other side has sent.
    ///
    /// Each segment of an endpoint stores it, whatever another CPU is doing: one that is on its way while the
    /// connection begins to close may set it back once.
    pub next: u32,
    /// MTU of the way, bytes from the network header on.
    pub mtu: u16,
    /// Number of its network's [`TimeoutSet`], the same in both entries.
    pub timeouts: u16,
    /// In a responder's entry: when the initiator of a closed connection sent last, in milliseconds since boot; 0: what
    /// closed it came from the responder, which knows.
    pub ended_at: u32,
    /// [`Kind`].
    pub kind: u8,
    /// `FLOW_*`.
    pub flags: u8,
    /// [`crate::meta::Meta::tag`]: the generation once more at the other end, so that a value whose element is being
    /// reused (copied from one end to the other, either way) is noticed. Last.
    pub tag: u16,
}

/// An endpoint, by its address and by its host veth's ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Endpoint<A> {
    /// The endpoint's address.
    pub addr: A,
    /// Its veth peer on the host.
    pub ifindex: u32,
    /// The bridge's ifindex: key of the network.
    pub network: u32,
    /// Most flows that it may have; 0: its share, see [`crate::quota`].
    pub max_flows: u32,
    /// The endpoint's MAC.
    pub mac: [u8; 6],
    /// The bridge's MAC.
    pub bridge_mac: [u8; 6],
}

/// Key of the source addresses besides an endpoint's own, an LPM trie over host veth and address. With 0 in the veth's
/// place: everybody's that are not to be seen outside.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct AllowedKey<A> {
    /// The host veth's ifindex.
    pub sender: u32,
    /// The address.
    pub addr: A,
}

impl<A: Address> AllowedKey<A> {
    /// Prefix length that covers the veth; add the address's prefix bits.
    pub const PREFIX: u32 = u32::BITS;
}

/// A run of ports, host byte order.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Span {
    /// First port.
    pub lo: u32,
    /// How many; 0: none.
    pub len: u32,
}

/// The ports a network's mappings may take.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct PortSpans {
    /// Outside `ip_local_port_range`: taken first, so that no host socket is bound to one by the kernel.
    pub preferred: [Span; 2],
    /// Inside it: only when the preferred ones are spent towards a remote.
    pub ephemeral: Span,
}

/// [`Network::flags`]: reaches nobody outside, and nobody outside reaches it.
pub const NETWORK_INTERNAL: u32 = 1;
/// [`Network::flags`]: its endpoints don't reach each other.
pub const NETWORK_NO_ICC: u32 = 2;
/// [`Network::flags`]: unpublished ports are reachable by whoever has a route (no `not_published`).
pub const NETWORK_ROUTED: u32 = 4;

/// Most external addresses that a network can have in a family: where one has no port left, the packet starts over
/// with the next one, and the kernel ends what has done so 33 times.
pub const SNAT_ADDRESSES: usize = 16;

/// A network, by its bridge's ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Network<A> {
    /// The bridge's address: what an endpoint sees that reaches its own published port.
    pub gateway: A,
    /// External addresses to translate to.
    pub snat_to: [A; SNAT_ADDRESSES],
    /// How many they are; 0: the one that the route prefers.
    pub snat_addresses: u32,
    /// `NETWORK_*`.
    pub flags: u32,
    /// Ports for mappings.
    pub ports: PortSpans,
    /// Number of the [`TimeoutSet`] by which the flows of its endpoints live.
    pub timeouts: u32,
}

impl<A: Address> Network<A> {
    /// The external address that an endpoint's new flows get, whatever their remote ("paired", RFC 4787 REQ-2);
    /// unspecified: the one that the route prefers. `spent`: how many have no port left towards this one.
    ///
    /// Neighbours' addresses differ in their last bits: what is left of those spreads them evenly.
    #[inline(always)]
    pub fn external(&self, endpoint: &A, spent: u32) -> A {
        let last = match endpoint.words().last() {
            Some(word) => u32::from_be(*word),
            None => 0,
        };
        let number = if self.snat_addresses > 1 { last.wrapping_add(spent) % self.snat_addresses } else { 0 };
        self.snat_to[number as usize & (SNAT_ADDRESSES - 1)]
    }
}

/// Key of the published ports, an LPM trie over address, protocol and port: a range of ports is a few prefixes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct PublishedKey<A> {
    /// Host address; unspecified: every address of the host.
    pub addr: A,
    /// IP protocol number.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
    /// Host port.
    pub port: Be16,
}

impl<A: Address> PublishedKey<A> {
    /// Prefix length that covers address and protocol; add the port's prefix bits.
    pub const PREFIX: u32 = A::BITS + 16;

    /// Where a packet with this tuple is addressed to.
    #[inline(always)]
    pub fn of(tuple: &Tuple<A>) -> Self {
        Self { addr: tuple.dst, proto: tuple.proto, pad: 0, port: tuple.dport }
    }
}

/// A published port or range of ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Published<A> {
    /// The endpoint's address.
    pub endpoint: A,
    /// First host port of the range, host byte order.
    pub host_port: u16,
    /// First endpoint port of the range, host byte order.
    pub port: u16,
    /// 1: it led to another endpoint or took other sources before, whose flows through it have ended, see
    /// [`crate::moved`].
    pub moved: u32,
    /// Whose packets it takes; [`EVERYBODY`] has no list.
    pub sources: SourceList,
}

/// A list of sources (`--from`), by 64 bits that tell it from every other.
pub type SourceList = [u32; 2];

/// The list of a port that takes packets from everybody.
pub const EVERYBODY: SourceList = [0; 2];

/// Key of the sources that published ports take packets from, an LPM trie over list and address. A list may
/// have no address of a family: then nobody is in it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct SourceKey<A> {
    /// The list.
    pub list: SourceList,
    /// The address.
    pub addr: A,
}

impl<A: Address> SourceKey<A> {
    /// Prefix length that covers the list; add the address's prefix bits.
    pub const PREFIX: u32 = u64::BITS;
}

/// Index, in a family's `CLOCK` map, of the tick in which user space has last moved a published port of the family.
/// (Not beside the words that every new flow writes: those of the packets that read this are many.)
pub const MOVED_AT: u32 = 16;

/// Index, in a family's `CLOCK` map, of the word with a bit for each 1024 ports of which mappings have had one.
pub const MAPPED: u32 = 17;

/// A port's bit in that word; `port` in host byte order.
#[inline(always)]
pub const fn mapped_bit(port: u16) -> u64 {
    1 << (port >> 10)
}

impl<A> Published<A> {
    /// The endpoint's port for a host port of the range.
    #[inline(always)]
    pub const fn endpoint_port(&self, host_port: Be16) -> Be16 {
        Be16::new(self.port.wrapping_add(host_port.get().wrapping_sub(self.host_port)))
    }
}

/// An interface that carries our hooks, by ifindex.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Uplink<A> {
    /// Its address, for kernels whose FIB look-up gives none (`BPF_FIB_LOOKUP_SRC`, Linux 6.7).
    pub addr: A,
    /// Zero.
    pub flags: u32,
}

/// Idle timeouts, in seconds or in the programs' ticks.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Timeouts {
    /// TCP before the handshake is complete (RFC 5382 REQ-5: 4 minutes).
    pub tcp_half_open: u32,
    /// TCP while it closes (RFC 5382 REQ-5: 4 minutes).
    pub tcp_transitory: u32,
    /// Established TCP (RFC 5382 REQ-5: at least 2 h 4 min; Linux: 5 days).
    pub tcp_established: u32,
    /// TCP that both sides closed, or that was reset: the remote's TIME_WAIT.
    pub tcp_closed: u32,
    /// UDP (RFC 4787 REQ-5: at least 2 minutes).
    pub udp: u32,
    /// UDP, one question with one answer.
    pub udp_answered: u32,
    /// UDP with traffic both ways over more than an instant.
    pub udp_stream: u32,
    /// ICMP echo (RFC 5508 REQ-1: 60 s).
    pub icmp: u32,
}

impl Timeouts {
    /// The shortest of them: a flow that has been idle for less is alive in any state.
    pub fn shortest(&self) -> u32 {
        self.tcp_half_open
            .min(self.tcp_transitory)
            .min(self.tcp_established)
            .min(self.tcp_closed)
            .min(self.udp)
            .min(self.udp_answered)
            .min(self.udp_stream)
            .min(self.icmp)
    }

    /// The same in the programs' ticks.
    pub const fn in_ticks(&self) -> Self {
        use crate::meta::ticks_from_seconds as ticks;
        Self {
            tcp_half_open: ticks(self.tcp_half_open),
            tcp_transitory: ticks(self.tcp_transitory),
            tcp_established: ticks(self.tcp_established),
            tcp_closed: ticks(self.tcp_closed),
            udp: ticks(self.udp),
            udp_answered: ticks(self.udp_answered),
            udp_stream: ticks(self.udp_stream),
            icmp: ticks(self.icmp),
        }
    }

    /// Of each the shorter one.
    #[must_use]
    pub fn at_most(&self, other: &Self) -> Self {
        Self {
            tcp_half_open: self.tcp_half_open.min(other.tcp_half_open),
            tcp_transitory: self.tcp_transitory.min(other.tcp_transitory),
            tcp_established: self.tcp_established.min(other.tcp_established),
            tcp_closed: self.tcp_closed.min(other.tcp_closed),
            udp: self.udp.min(other.udp),
            udp_answered: self.udp_answered.min(other.udp_answered),
            udp_stream: self.udp_stream.min(other.udp_stream),
            icmp: self.icmp.min(other.icmp),
        }
    }

    /// The defaults while there is room.
    pub const DEFAULT: Self = Self {
        tcp_half_open: 240,
        tcp_transitory: 240,
        tcp_established: 5 * 86_400,
        tcp_closed: 60,
        udp: 120,
        udp_answered: 120,
        udp_stream: 300,
        icmp: 60,
    };
    /// Under pressure, when the ports towards a remote or the table run short: the idle give way sooner, what is
    /// established or streams keeps the RFCs' minima (RFC 5382 REQ-5, RFC 4787 REQ-5).
    pub const PRESSED: Self = Self {
        tcp_half_open: 30,
        tcp_transitory: 240,
        tcp_established: 7440,
        tcp_closed: 60,
        udp: 30,
        udp_answered: 10,
        udp_stream: 120,
        icmp: 30,
    };
    /// When nothing is left: what is not a conversation gives way at once.
    pub const SPENT: Self =
        Self { tcp_half_open: 0, tcp_closed: 0, udp: 0, udp_answered: 0, icmp: 0, ..Self::PRESSED };
}

/// How much is asked of a flow for it to stay: an index into [`TimeoutSet::by_pressure`].
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pressure(u32);

impl Pressure {
    /// There is room.
    pub const NONE: Self = Self(0);
    /// Ports or table run short.
    pub const SHORT: Self = Self(1);
    /// The table is full, or an endpoint has its share.
    pub const SPENT: Self = Self(2);
    /// It has ended, however long it could have lived.
    pub const ENDED: Self = Self(3);
}

/// How long the flows of a network live, in ticks. Those of networks with the usual timeouts have number 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct TimeoutSet {
    /// By [`Pressure`].
    pub by_pressure: [Timeouts; 4],
    /// The shortest of the first: a flow that has been idle for less is alive in any state.
    pub shortest: u32,
}

/// How many there are: one for each network, and the usual one.
pub const TIMEOUT_SETS: u32 = 1025;

impl TimeoutSet {
    /// That of a network with these timeouts, in seconds: under pressure they are no longer than the usual ones.
    pub fn of(timeouts: &Timeouts) -> Self {
        let under = |pressed: &Timeouts| timeouts.at_most(pressed).in_ticks();
        let relaxed = timeouts.in_ticks();
        Self {
            by_pressure: [relaxed, under(&Timeouts::PRESSED), under(&Timeouts::SPENT), Timeouts::zeroed()],
            shortest: relaxed.shortest(),
        }
    }

    /// Those that count. (Without a branch for each: the verifier looks at all that follows for each of them.)
    #[inline(always)]
    pub const fn under(&self, pressure: Pressure) -> &Timeouts {
        &self.by_pressure[pressure.0 as usize & 3]
    }
}

/// What user space tells the programs; the one element of an array map.
#[repr(C)]
#[derive(Clone, Copy, Debug, Eq, PartialEq, Pod, Zeroable)]
pub struct Config {
    /// Key of the port choice, from the kernel's random pool (RFC 6056 3.3).
    pub secret: [u64; 2],
    /// Cookie of the host's network namespace: the socket hooks run for every process of the machine.
    pub host_netns_cookie: u64,
    /// Slots in the reclaim ring, a power of two.
    pub ring_slots: u32,
    /// 1 while somebody watches drops.
    pub trace: u32,
    /// Flows that a family's table holds.
    pub flows_max: u32,
    /// 1: the host's firewall decides about translated packets, see [`FLOW_BY_STACK`].
    pub honours_firewall: u32,
}

/// A run of 4096 ports, a bit each.
pub type PortBlock = [u64; 64];

/// Blocks in the map of ports that mappings never take, for each protocol of [`reserved_slot`].
pub const RESERVED_BLOCKS: u32 = 16;
/// Protocols with a map of reserved ports.
pub const RESERVED_PROTOCOLS: u32 = 4;

/// Words of 64 prefix digests, see [`crate::family::Family::prefix_digest`].
pub const PREFIX_WORDS: u32 = 65_536 / 64;

/// Which part of the reserved-port map belongs to an IP protocol; ports of others are never reserved.
#[inline(always)]
pub const fn reserved_slot(proto: u8) -> Option<u32> {
    match proto {
        6 => Some(0),
        17 => Some(1),
        132 => Some(2),
        1 | 58 => Some(3),
        _ => None,
    }
}

/// A place in the reclaim ring: which flow to look at when the clock hand comes by.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Slot<A> {
    /// 0: free; else the flow's generation with the top bit set. Changed by compare-and-swap only.
    pub owner: u64,
    /// Coarse seconds: the flow can't have expired before.
    pub due: u32,
    /// Zero.
    pub pad: u32,
    /// Key of the responder's entry.
    pub key: Tuple<A>,
}

/// Which datagram a fragment is of.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct FragmentKey<A> {
    /// Source address, as the fragment carries it.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Identification, as it lies in the header.
    pub id: u32,
    /// IP protocol number.
    pub proto: u32,
}

/// What the first fragment of a datagram became, and so will the later ones.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct FragmentWay<A> {
    /// New source address.
    pub src: A,
    /// New destination address.
    pub dst: A,
    /// See [`Flow::oif`].
    pub oif: u32,
    /// See [`Flow::via`].
    pub via: [u32; 4],
    /// See [`Flow::iif`].
    pub iif: u32,
    /// The tick in which the first one came.
    pub seen: u32,
    /// See [`Flow::mtu`].
    pub mtu: u16,
    /// See [`Flow::flags`].
    pub flags: u16,
}

/// A fragment that waits for its datagram's first one, see [`crate::waiting`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Zeroable)]
pub struct Label<A> {
    /// Its datagram.
    pub key: FragmentKey<A>,
    /// The interface it came by.
    pub ifindex: u32,
    /// Length of its frame, bytes.
    pub len: u32,
    /// 1 when there is no other copy of it.
    pub is_only: u32,
}

/// A place for such a fragment.
#[repr(C)]
#[derive(Clone, Copy, Debug, Zeroable)]
pub struct Kept<A> {
    /// A [`crate::waiting::State`].
    pub state: u64,
    /// Whose it is.
    pub label: Label<A>,
    /// Its frame.
    pub frame: [u8; LONGEST],
}

/// A next hop: the interface and the address in network byte order, IPv4 in the first word.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct NextHop {
    /// Its address.
    pub via: [u32; 4],
    /// The interface towards it.
    pub oif: u32,
}

/// What is remembered of a next hop that the kernel does not know the MAC of, see [`crate::next_hop`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Pod, Zeroable)]
pub struct Probing {
    /// When the kernel was last made to ask for it, nanoseconds.
    pub since: u64,
    /// 1 when it did not answer the time before.
    pub failed: u32,
    /// 1 when the kernel is to be made to ask again.
    pub due: u32,
}

macro_rules! plain_data {
    ($($name:ident: $v4:literal, $v6:literal;)*) => {$(
        // SAFETY: repr(C), every field plain data, and no padding: an address is a number of aligned words, and the sizes
        // are asserted to be the sums.
        unsafe impl<A: Address> Pod for $name<A> {}
        const _: () = assert!(size_of::<$name<crate::family::Ipv4Addr>>() == $v4);
        const _: () = assert!(size_of::<$name<crate::family::Ipv6Addr>>() == $v6);
        #[cfg(feature = "user")]
        // SAFETY: plain data, see above.
        unsafe impl<A: Address> aya::Pod for $name<A> {}
    )*};
}

plain_data! {
    Tuple: 16, 40;
    Flow: 72, 120;
    Endpoint: 28, 40;
    AllowedKey: 8, 20;
    Network: 104, 308;
    PublishedKey: 8, 20;
    Published: 20, 32;
    SourceKey: 12, 24;
    Uplink: 8, 20;
    Slot: 32, 56;
    FragmentKey: 16, 40;
    FragmentWay: 40, 64;
    Label: 28, 52;
    Kept: 2024, 2048;
}

impl<A: Address> Flow<A> {
    /// The flow came by a published port.
    #[inline(always)]
    pub fn is_published(&self) -> bool {
        self.kind == Kind::Dnat as u8 || self.kind == Kind::Hairpin as u8
    }

    /// The endpoint that the flow counts for, by its host veth: who opened it, or whose published port it came by.
    /// Neither entry's ever changes.
    #[inline(always)]
    pub fn holder(&self) -> u32 {
        let opened_inside = self.kind != Kind::Dnat as u8;
        let is_initiator = self.flags & FLOW_INITIATOR != 0;
        if opened_inside == is_initiator { self.iif } else { self.oif }
    }
}

#[cfg(feature = "user")]
// SAFETY: plain data without padding (derived bytemuck::Pod checks it).
unsafe impl aya::Pod for Config {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for TimeoutSet {}
