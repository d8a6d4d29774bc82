//! Every map, and which family's tables are where. No logic.
//!
//! Sizes are the loader's: what stands here are the smallest useful ones.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LpmTrie, LruHashMap, PerCpuArray, ProgramArray};
use netdp_common::family::{Family, Ipv4Addr, V4};
use netdp_common::flow::{
    Config, Endpoint, Flow, Network, PREFIX_WORDS, PortBlock, Published, PublishedKey, RESERVED_BLOCKS,
    RESERVED_PROTOCOLS, Slot, Tuple, Uplink,
};
use netdp_common::tables::Work;
use netdp_common::verdict::COUNTERS;

use crate::sockets::{DialledKey, SocketAddr};

/// What user space tells the programs.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, 0);

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

/// Word 0: the clock hand. Word 1: the last tick in which a remote was found exhausted.
#[map]
pub(crate) static CLOCK: Array<u64> = Array::with_max_entries(2, 0);

/// Flows: two entries each.
#[map]
pub(crate) static FLOWS_V4: HashMap<Tuple<Ipv4Addr>, Flow<Ipv4Addr>> = HashMap::with_max_entries(1024, 0);

/// The reclaim ring.
#[map]
pub(crate) static RING_V4: Array<Slot<Ipv4Addr>> = Array::with_max_entries(1024, 0);

/// Endpoints by address.
#[map]
pub(crate) static ENDPOINTS_V4: HashMap<Ipv4Addr, Endpoint<Ipv4Addr>> = HashMap::with_max_entries(16_384, 0);

/// Endpoints by the ifindex of their host veth.
#[map]
pub(crate) static SENDERS_V4: HashMap<u32, Endpoint<Ipv4Addr>> = HashMap::with_max_entries(16_384, 0);

/// Networks by the ifindex of their bridge.
#[map]
pub(crate) static NETWORKS_V4: HashMap<u32, Network<Ipv4Addr>> = HashMap::with_max_entries(1024, 0);

/// Published ports.
#[map]
pub(crate) static PUBLISHED_V4: LpmTrie<PublishedKey<Ipv4Addr>, Published<Ipv4Addr>> =
    LpmTrie::with_max_entries(262_144, 0);

/// Interfaces with our hooks by ifindex.
#[map]
pub(crate) static UPLINKS_V4: HashMap<u32, Uplink<Ipv4Addr>> = HashMap::with_max_entries(1024, 0);

/// The host's own addresses, for the socket hooks, which can't ask the routing table.
#[map]
pub(crate) static LOCALS_V4: HashMap<Ipv4Addr, u32> = HashMap::with_max_entries(4096, 0);

/// Remotes towards which every port was found taken: in which tick, and of which range.
#[map]
pub(crate) static EXHAUSTED_V4: LruHashMap<Tuple<Ipv4Addr>, [u32; 2]> = LruHashMap::with_max_entries(1024, 0);

/// The programs that continue in each other, see [`Continuation`].
#[map]
pub(crate) static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(6, 0);

/// Index in [`PROGRAMS`]; the loader enters them in this order.
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
}

/// Scratch space.
#[map]
pub(crate) static WORK_V4: PerCpuArray<Work<Ipv4Addr>> = PerCpuArray::with_max_entries(1, 0);

/// A family's maps. A static can't be generic: this is all that has to be written once more for another family.
pub(crate) trait Maps: Family {
    /// Flows.
    fn flows() -> &'static HashMap<Tuple<Self::Addr>, Flow<Self::Addr>>;
    /// The reclaim ring.
    fn ring() -> &'static Array<Slot<Self::Addr>>;
    /// Endpoints by address.
    fn endpoints() -> &'static HashMap<Self::Addr, Endpoint<Self::Addr>>;
    /// Endpoints by ifindex.
    fn senders() -> &'static HashMap<u32, Endpoint<Self::Addr>>;
    /// Networks.
    fn networks() -> &'static HashMap<u32, Network<Self::Addr>>;
    /// Published ports.
    fn published() -> &'static LpmTrie<PublishedKey<Self::Addr>, Published<Self::Addr>>;
    /// Uplinks.
    fn uplinks() -> &'static HashMap<u32, Uplink<Self::Addr>>;
    /// The host's own addresses.
    fn locals() -> &'static HashMap<Self::Addr, u32>;
    /// Exhausted remotes.
    fn exhausted() -> &'static LruHashMap<Tuple<Self::Addr>, [u32; 2]>;
    /// Scratch space.
    fn work() -> &'static PerCpuArray<Work<Self::Addr>>;
}

impl Maps for V4 {
    #[inline(always)]
    fn flows() -> &'static HashMap<Tuple<Ipv4Addr>, Flow<Ipv4Addr>> {
        &FLOWS_V4
    }
    #[inline(always)]
    fn ring() -> &'static Array<Slot<Ipv4Addr>> {
        &RING_V4
    }
    #[inline(always)]
    fn endpoints() -> &'static HashMap<Ipv4Addr, Endpoint<Ipv4Addr>> {
        &ENDPOINTS_V4
    }
    #[inline(always)]
    fn senders() -> &'static HashMap<u32, Endpoint<Ipv4Addr>> {
        &SENDERS_V4
    }
    #[inline(always)]
    fn networks() -> &'static HashMap<u32, Network<Ipv4Addr>> {
        &NETWORKS_V4
    }
    #[inline(always)]
    fn published() -> &'static LpmTrie<PublishedKey<Ipv4Addr>, Published<Ipv4Addr>> {
        &PUBLISHED_V4
    }
    #[inline(always)]
    fn uplinks() -> &'static HashMap<u32, Uplink<Ipv4Addr>> {
        &UPLINKS_V4
    }
    #[inline(always)]
    fn locals() -> &'static HashMap<Ipv4Addr, u32> {
        &LOCALS_V4
    }
    #[inline(always)]
    fn exhausted() -> &'static LruHashMap<Tuple<Ipv4Addr>, [u32; 2]> {
        &EXHAUSTED_V4
    }
    #[inline(always)]
    fn work() -> &'static PerCpuArray<Work<Ipv4Addr>> {
        &WORK_V4
    }
}
