//! Every map, and which family's tables are where. No logic.
//!
//! Sizes are the loader's: what stands here are the smallest useful ones.

use core::net::IpAddr;

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use netdp_common::family::{Family, Ipv4Addr, Ipv6Addr, V4, V6};
use netdp_common::flow::{
    AllowedKey, Config, Endpoint, Flow, FragmentKey, FragmentWay, Kept, Network, NextHop, PREFIX_WORDS,
    PortBlock, Probing, Published, PublishedKey, RESERVED_BLOCKS, RESERVED_PROTOCOLS, Slot, SourceKey,
    TIMEOUT_SETS, TimeoutSet, Tuple, Uplink,
};
use netdp_common::tables::Scratch;
use netdp_common::verdict::COUNTERS;
use netdp_common::waiting::{ALL_PLACES, ALL_SETS};

use crate::sockets::{DialledKey, SocketAddr};

/// What user space tells the programs.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

/// How long the flows of networks live; number 0 is the usual set.
#[map]
pub(crate) static TIMEOUTS: Array<TimeoutSet> = Array::with_max_entries(TIMEOUT_SETS, 0);

/// Counters by [`netdp_common::verdict::Event`] and [`netdp_common::verdict::DropReason`].
#[map]
pub(crate) static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNTERS, 0);

/// A bit for every port that mappings never take: published, reserved.
#[map]
pub(crate) static RESERVED: Array<PortBlock> =
    Array::with_max_entries(RESERVED_PROTOCOLS * RESERVED_BLOCKS, 0);

/// A bit for every published port: the host's own sockets can't bind it.
#[map]
pub(crate) static HELD: Array<PortBlock> = Array::with_max_entries(RESERVED_PROTOCOLS * RESERVED_BLOCKS, 0);

/// What a socket of the host dialled, by what it got. The oldest give way: then a socket that is still open is told
/// its endpoint's address instead.
#[map]
pub(crate) static DIALLED: LruHashMap<DialledKey, SocketAddr> = LruHashMap::with_max_entries(65_536, 0);

/// A bit for every prefix digest that an endpoint's address may have.
#[map]
pub(crate) static PREFIXES: Array<u64> = Array::with_max_entries(PREFIX_WORDS, 0);

/// The tables of a family: statics can't be generic, so they are what is written for each family.
macro_rules! tables_of {
    ($family:ty, $addr:ty, $first_program:expr; $flows:ident $ring:ident $endpoints:ident $senders:ident $allowed:ident
     $networks:ident $published:ident $sources:ident $uplinks:ident $locals:ident $exhausted:ident $clock:ident $fragments:ident $waiting:ident
     $waited:ident $scratch:ident) => {
        /// Flows: two entries each.
        #[map]
        static $flows: HashMap<Tuple<$addr>, Flow<$addr>> = HashMap::with_max_entries(1024, 0);

        /// The reclaim ring.
        #[map]
        static $ring: Array<Slot<$addr>> = Array::with_max_entries(1024, 0);

        /// Endpoints by address.
        #[map]
        static $endpoints: HashMap<$addr, Endpoint<$addr>> = HashMap::with_max_entries(16_384, 0);

        /// Endpoints by the ifindex of their host veth.
        #[map]
        static $senders: HashMap<u32, Endpoint<$addr>> = HashMap::with_max_entries(16_384, 0);

        /// Source addresses that endpoints may use besides their own.
        #[map]
        static $allowed: LpmTrie<AllowedKey<$addr>, u32> = LpmTrie::with_max_entries(65_536, 0);

        /// Networks by the ifindex of their bridge.
        #[map]
        static $networks: HashMap<u32, Network<$addr>> = HashMap::with_max_entries(1024, 0);

        /// Published ports.
        #[map]
        static $published: LpmTrie<PublishedKey<$addr>, Published<$addr>> =
            LpmTrie::with_max_entries(262_144, 0);

        /// Sources that published ports take packets from, by list.
        #[map]
        static $sources: LpmTrie<SourceKey<$addr>, u32> = LpmTrie::with_max_entries(1_048_576, 0);

        /// Interfaces with our hooks by ifindex.
        #[map]
        static $uplinks: HashMap<u32, Uplink<$addr>> = HashMap::with_max_entries(1024, 0);

        /// The host's own addresses, for the socket hooks, which can't ask the routing table.
        #[map]
        static $locals: HashMap<$addr, u32> = HashMap::with_max_entries(4096, 0);

        /// Remotes towards which every port was found taken: in which tick, and of which range.
        #[map]
        static $exhausted: LruHashMap<Tuple<$addr>, [u32; 2]> = LruHashMap::with_max_entries(1024, 0);

        /// Word 0: the clock hand. Word 1: the last tick in which a remote was found exhausted. Word 2: how many flows
        /// there are. Word 16 ([`MOVED_AT`](netdp_common::flow::MOVED_AT)): the tick in which a published port was last
        /// moved. Word 17 ([`MAPPED`](netdp_common::flow::MAPPED)): a bit for each 1024 ports of which mappings have had one.
        #[map]
        static $clock: Array<u64> = Array::with_max_entries(18, 0);

        /// Datagrams whose first fragment was seen.
        #[map]
        static $fragments: LruHashMap<FragmentKey<$addr>, FragmentWay<$addr>> =
            LruHashMap::with_max_entries(8192, 0);

        /// Fragments that wait for their datagram's first one.
        #[map]
        static $waiting: Array<Kept<$addr>> = Array::with_max_entries(ALL_PLACES, 0);

        /// How many have waited in each set.
        #[map]
        static $waited: Array<u64> = Array::with_max_entries(ALL_SETS, 0);

        /// Scratch space.
        #[map]
        static $scratch: PerCpuArray<Scratch<$addr>> = PerCpuArray::with_max_entries(1, 0);

        impl Maps for $family {
            const FIRST_PROGRAM: u32 = $first_program;

            #[inline(always)]
            fn flows() -> &'static HashMap<Tuple<$addr>, Flow<$addr>> {
                &$flows
            }
            #[inline(always)]
            fn ring() -> &'static Array<Slot<$addr>> {
                &$ring
            }
            #[inline(always)]
            fn endpoints() -> &'static HashMap<$addr, Endpoint<$addr>> {
                &$endpoints
            }
            #[inline(always)]
            fn senders() -> &'static HashMap<u32, Endpoint<$addr>> {
                &$senders
            }
            #[inline(always)]
            fn allowed() -> &'static LpmTrie<AllowedKey<$addr>, u32> {
                &$allowed
            }
            #[inline(always)]
            fn networks() -> &'static HashMap<u32, Network<$addr>> {
                &$networks
            }
            #[inline(always)]
            fn published() -> &'static LpmTrie<PublishedKey<$addr>, Published<$addr>> {
                &$published
            }
            #[inline(always)]
            fn sources() -> &'static LpmTrie<SourceKey<$addr>, u32> {
                &$sources
            }
            #[inline(always)]
            fn uplinks() -> &'static HashMap<u32, Uplink<$addr>> {
                &$uplinks
            }
            #[inline(always)]
            fn locals() -> &'static HashMap<$addr, u32> {
                &$locals
            }
            #[inline(always)]
            fn exhausted() -> &'static LruHashMap<Tuple<$addr>, [u32; 2]> {
                &$exhausted
            }
            #[inline(always)]
            fn fragments() -> &'static LruHashMap<FragmentKey<$addr>, FragmentWay<$addr>> {
                &$fragments
            }
            #[inline(always)]
            fn waiting() -> &'static Array<Kept<$addr>> {
                &$waiting
            }
            #[inline(always)]
            fn waited() -> &'static Array<u64> {
                &$waited
            }
            #[inline(always)]
            fn clock() -> &'static Array<u64> {
                &$clock
            }
            #[inline(always)]
            fn scratch() -> &'static PerCpuArray<Scratch<$addr>> {
                &$scratch
            }
        }
    };
}

tables_of!(V4, Ipv4Addr, 0; FLOWS_V4 RING_V4 ENDPOINTS_V4 SENDERS_V4 ALLOWED_V4
    NETWORKS_V4 PUBLISHED_V4 SOURCES_V4 UPLINKS_V4 LOCALS_V4 EXHAUSTED_V4 CLOCK_V4 FRAGMENTS_V4 WAITING_V4 WAITED_V4 SCRATCH_V4);
tables_of!(V6, Ipv6Addr, CONTINUATIONS; FLOWS_V6 RING_V6 ENDPOINTS_V6 SENDERS_V6 ALLOWED_V6
    NETWORKS_V6 PUBLISHED_V6 SOURCES_V6 UPLINKS_V6 LOCALS_V6 EXHAUSTED_V6 CLOCK_V6 FRAGMENTS_V6 WAITING_V6 WAITED_V6 SCRATCH_V6);

/// How many flows an endpoint has in each family's table, by the ifindex of its host veth.
#[map]
pub(crate) static HELD_FLOWS: HashMap<u32, [u64; 2]> = HashMap::with_max_entries(16_384, 0);

/// Word 0: how many endpoints there are. Word 1: how many are in [`QUEUEING`]. Word 2: how many IPsec policies there
/// are for packets that leave. Word 3: whether conntrack is liberal, see [`netdp_common::tables::Host::is_tracked_liberally`].
#[map]
pub(crate) static POPULATION: Array<u32> = Array::with_max_entries(4, 0);

/// Host veths with a queueing discipline: what goes to their endpoints waits in it.
#[map]
pub(crate) static QUEUEING: HashMap<u32, u32> = HashMap::with_max_entries(16_384, 0);

/// Next hops that are not resolved.
#[map]
pub(crate) static PROBING: LruHashMap<NextHop, Probing> = LruHashMap::with_max_entries(4096, 0);

/// By the interface that they leave by: when the next answer to a refused packet is due, see
/// [`netdp_common::rate`].
#[map]
pub(crate) static TURNS: LruHashMap<u32, u64> = LruHashMap::with_max_entries(16_384, 0);

/// The MACs of the uplinks that carry the XDP program, by ifindex: nobody has compared them with a frame's before it.
#[map]
pub(crate) static WIRES: HashMap<u32, [u8; 6]> = HashMap::with_max_entries(1024, 0);

/// The programs that continue in each other, see [`Continuation`]: one family's, then the other's.
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(2 * CONTINUATIONS, 0);

/// How many a family has.
const CONTINUATIONS: u32 = 18;

/// Index in [`PROGRAMS`], from [`Maps::FIRST_PROGRAM`] on; the loader enters them in this order.
#[derive(Clone, Copy)]
#[repr(u32)]
pub(crate) enum Continuation {
    /// `from_container`.
    FromContainer,
    /// `open_from_container`.
    OpenFromContainer,
    /// `from_world`.
    FromWorld,
    /// `open_from_world`.
    OpenFromWorld,
    /// `icmp_error`.
    IcmpError,
    /// `refuse`.
    Refuse,
    /// `to_world`.
    ToWorld,
    /// `fragment`.
    Fragment,
    /// `from_host`.
    FromHost,
    /// `open_from_host`.
    OpenFromHost,
    /// `wait`.
    Wait,
    /// `closing`.
    Closing,
    /// `claim`.
    Claim,
    /// `to_world_bare`.
    ToWorldBare,
    /// `from_host_bare`.
    FromHostBare,
    /// `open_from_host_bare`.
    OpenFromHostBare,
    /// `closing_bare`.
    ClosingBare,
    /// `to_container`.
    ToContainer,
}

/// A family's maps. A static can't be generic: this is all that has to be written once more for another family.
pub(crate) trait Maps: Family<Addr: Into<IpAddr>> {
    /// Where the family's programs begin in [`PROGRAMS`].
    const FIRST_PROGRAM: u32;

    /// Flows.
    fn flows() -> &'static HashMap<Tuple<Self::Addr>, Flow<Self::Addr>>;
    /// The reclaim ring.
    fn ring() -> &'static Array<Slot<Self::Addr>>;
    /// Endpoints by address.
    fn endpoints() -> &'static HashMap<Self::Addr, Endpoint<Self::Addr>>;
    /// Endpoints by ifindex.
    fn senders() -> &'static HashMap<u32, Endpoint<Self::Addr>>;
    /// Source addresses that endpoints may use besides their own.
    fn allowed() -> &'static LpmTrie<AllowedKey<Self::Addr>, u32>;
    /// Networks.
    fn networks() -> &'static HashMap<u32, Network<Self::Addr>>;
    /// Published ports.
    fn published() -> &'static LpmTrie<PublishedKey<Self::Addr>, Published<Self::Addr>>;
    /// Sources that published ports take packets from, by list.
    fn sources() -> &'static LpmTrie<SourceKey<Self::Addr>, u32>;
    /// Uplinks.
    fn uplinks() -> &'static HashMap<u32, Uplink<Self::Addr>>;
    /// The host's own addresses.
    fn locals() -> &'static HashMap<Self::Addr, u32>;
    /// Exhausted remotes.
    fn exhausted() -> &'static LruHashMap<Tuple<Self::Addr>, [u32; 2]>;
    /// Datagrams whose first fragment was seen.
    fn fragments() -> &'static LruHashMap<FragmentKey<Self::Addr>, FragmentWay<Self::Addr>>;
    /// Fragments that wait for their datagram's first one.
    fn waiting() -> &'static Array<Kept<Self::Addr>>;
    /// How many have waited in each set.
    fn waited() -> &'static Array<u64>;
    /// The clock hand and the last tick with an exhausted remote.
    fn clock() -> &'static Array<u64>;
    /// Scratch space.
    fn scratch() -> &'static PerCpuArray<Scratch<Self::Addr>>;
}
