//! What the core asks of its surroundings, answered from maps and helpers.

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{BPF_FIB_LOOKUP_SRC, BPF_NOEXIST, bpf_sock_tuple};
use aya_ebpf::helpers::{
    bpf_check_mtu, bpf_fib_lookup, bpf_get_prandom_u32, bpf_ktime_get_coarse_ns, bpf_ktime_get_ns, bpf_loop,
    bpf_redirect, bpf_redirect_peer, bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp,
};
use aya_ebpf::maps::{Array, HashMap, lpm_trie};
use netdp_common::family::{Address, Be16};
use netdp_common::flow::{
    AllowedKey, Config, Endpoint, FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Flow, FragmentKey, FragmentWay, MAPPED,
    MOVED_AT, Network, NextHop, PortBlock, Probing, Published, PublishedKey, RESERVED_BLOCKS, Slot,
    SourceKey, SourceList, TimeoutSet, Tuple, Uplink, mapped_bit, reserved_slot,
};
use netdp_common::header::{tcp, udp};
use netdp_common::meta::{Meta, ticks};
use netdp_common::quota::Held;
use netdp_common::tables::{Entry, Flows, Host, InsertError, RingSlot, Route, Step, StepOn, Way};
use netdp_common::tcp::End;
use netdp_common::verdict::{DropReason, Event};

use crate::atomic::{compare_and_swap, compiler_barrier, fetch_add, fetch_and, fetch_or};
use crate::frame::{Frame, Hooked};
use crate::maps::{
    CONFIG, COUNTS, HELD_FLOWS, Maps, POPULATION, PREFIXES, PROBING, QUEUEING, RESERVED, TIMEOUTS, TURNS,
};
use crate::waiting::KeptFragment;

/// Index of the clock hand in [`Maps::clock`].
const HAND: u32 = 0;
/// Index of the last tick with an exhausted remote in [`Maps::clock`].
const LAST_EXHAUSTED: u32 = 1;
/// Index of the number of flows in [`Maps::clock`].
const FLOWS: u32 = 2;

/// An element of a flow table.
#[derive(Clone, Copy)]
pub(crate) struct FlowEntry<A>(*mut Flow<A>);

impl<A: Copy> Entry<A> for FlowEntry<A> {
    #[inline(always)]
    fn meta(&self) -> Meta {
        // SAFETY: map elements stay mapped; the word is aligned and read in one load.
        Meta(unsafe { ptr::read_volatile(&raw const (*self.0).meta) })
    }

    #[inline(always)]
    fn swap_meta(&self, old: Meta, new: Meta) -> bool {
        // SAFETY: as above.
        compare_and_swap(unsafe { &raw mut (*self.0).meta }, old.0, new.0)
    }

    #[inline(always)]
    fn release(&self) {
        // SAFETY: as above.
        fetch_and(unsafe { &raw mut (*self.0).meta }, !(u64::from(Meta::HELD) << 32));
    }

    #[inline(always)]
    fn tag(&self) -> u16 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*self.0).tag) }
    }

    #[inline(always)]
    fn read(&self) -> Flow<A> {
        compiler_barrier();
        // SAFETY: plain data in a map element; what is torn is noticed by its generation, tag and own key.
        let flow = unsafe { ptr::read(self.0) };
        compiler_barrier();
        flow
    }

    #[inline(always)]
    fn read_with<R>(&self, take: impl FnOnce(&Flow<A>) -> R) -> R {
        compiler_barrier();
        // SAFETY: as above; whoever takes copies at once.
        let taken = take(unsafe { &*self.0 });
        compiler_barrier();
        taken
    }

    #[inline(always)]
    fn set_way(&self, way: &Way) {
        // SAFETY: plain stores into a map element. A packet that sees half of them asks the wrong neighbour once.
        unsafe {
            let flags = ptr::read_volatile(&raw const (*self.0).flags);
            // As `Way::write_to` does it.
            let [a, b, c, d] = way.via;
            ptr::write_volatile((&raw mut (*self.0).via).cast(), [a, b, c]);
            if flags & FLOW_TO_ENDPOINT == 0 {
                ptr::write_volatile(&raw mut (*self.0).via[3], d);
            }
            ptr::write_volatile(&raw mut (*self.0).mtu, way.mtu);
            let flags = flags & !FLOW_NEXT_HOP_V6 | way.flags & FLOW_NEXT_HOP_V6;
            ptr::write_volatile(&raw mut (*self.0).flags, flags);
            ptr::write_volatile(&raw mut (*self.0).oif, way.oif);
        }
    }

    #[inline(always)]
    fn set_next(&self, next: u32) {
        // SAFETY: an aligned store into a map element; if it is another flow's by now, see Flow::next.
        unsafe { ptr::write_volatile(&raw mut (*self.0).next, next) };
    }

    #[inline(always)]
    fn set_end(&self, end: &End) {
        // SAFETY: plain stores into a map element that is held.
        unsafe {
            ptr::write_volatile(&raw mut (*self.0).flags, end.flags);
            if end.flags & FLOW_TO_ENDPOINT != 0 {
                ptr::write_volatile(&raw mut (*self.0).via[3], end.timestamp);
            }
            ptr::write_volatile(&raw mut (*self.0).ended_at, end.ended_at);
        }
    }
}

/// A flow table.
#[repr(transparent)]
pub(crate) struct FlowTable<A: 'static>(HashMap<Tuple<A>, Flow<A>>);

impl<A> FlowTable<A> {
    #[inline(always)]
    fn of(map: &'static HashMap<Tuple<A>, Flow<A>>) -> &'static Self {
        // SAFETY: repr(transparent).
        unsafe { &*ptr::from_ref(map).cast() }
    }
}

impl<A: Address> Flows<A> for FlowTable<A> {
    type Entry = FlowEntry<A>;

    #[inline(always)]
    fn get(&self, key: &Tuple<A>) -> Option<FlowEntry<A>> {
        self.0.get_ptr_mut(key).map(FlowEntry)
    }

    #[inline(always)]
    fn insert(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        self.0.insert(key, value, u64::from(BPF_NOEXIST)).map_err(insert_error)
    }

    #[inline(always)]
    fn replace(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        self.0.insert(key, value, 0).map_err(insert_error)
    }

    #[inline(always)]
    fn remove(&self, key: &Tuple<A>) -> bool {
        self.0.remove(key).is_ok()
    }
}

/// Of a hash map's update: EEXIST, E2BIG, else a busy bucket (EBUSY before 6.15, EDEADLK and ETIMEDOUT since).
#[inline(always)]
fn insert_error(errno: i32) -> InsertError {
    const EEXIST: i32 = -17;
    const E2BIG: i32 = -7;
    match errno {
        EEXIST => InsertError::Taken,
        E2BIG => InsertError::Full,
        _ => InsertError::Busy,
    }
}

/// A slot of the reclaim ring.
#[derive(Clone, Copy)]
pub(crate) struct RingEntry<A>(*mut Slot<A>);

impl<A: Copy> RingSlot<A> for RingEntry<A> {
    #[inline(always)]
    fn owner(&self) -> u64 {
        // SAFETY: an array element, always mapped; one aligned load.
        unsafe { ptr::read_volatile(&raw const (*self.0).owner) }
    }

    #[inline(always)]
    fn swap_owner(&self, old: u64, new: u64) -> bool {
        // SAFETY: as above.
        compare_and_swap(unsafe { &raw mut (*self.0).owner }, old, new)
    }

    #[inline(always)]
    fn due(&self) -> u32 {
        // SAFETY: as above.
        unsafe { ptr::read_volatile(&raw const (*self.0).due) }
    }

    #[inline(always)]
    fn set_due(&self, due: u32) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(&raw mut (*self.0).due, due) };
    }

    #[inline(always)]
    fn key(&self) -> Tuple<A> {
        // SAFETY: plain data in an array element.
        unsafe { ptr::read(&raw const (*self.0).key) }
    }

    #[inline(always)]
    fn set_key(&self, key: &Tuple<A>) {
        // SAFETY: plain data in an array element.
        unsafe { ptr::write(&raw mut (*self.0).key, *key) };
    }
}

impl<F: Maps, K> Host<F::Addr> for Frame<F, K>
where
    Self: Hooked<F>,
{
    type Flows = FlowTable<F::Addr>;
    type Slot = RingEntry<F::Addr>;
    type Place = KeptFragment<F::Addr>;

    #[inline(always)]
    fn flows(&self) -> &Self::Flows {
        FlowTable::of(F::flows())
    }

    #[inline(always)]
    fn endpoint(&self, addr: &F::Addr) -> Option<&Endpoint<F::Addr>> {
        // SAFETY: user space replaces elements whole, and removes an endpoint's veth before its element.
        unsafe { F::endpoints().get(addr) }
    }

    #[inline(always)]
    fn sender(&self, ifindex: u32) -> Option<&Endpoint<F::Addr>> {
        // SAFETY: as above.
        unsafe { F::senders().get(ifindex) }
    }

    #[inline(always)]
    fn allowed(&self, sender: u32, addr: &F::Addr) -> bool {
        allowed::<F>(sender, addr)
    }

    #[inline(always)]
    fn network(&self, bridge: u32) -> Option<&Network<F::Addr>> {
        // SAFETY: as above.
        unsafe { F::networks().get(bridge) }
    }

    #[inline(always)]
    fn published(&self, key: &PublishedKey<F::Addr>) -> Option<&Published<F::Addr>> {
        published::<F>(key)
    }

    #[inline(always)]
    fn is_source(&self, list: SourceList, addr: &F::Addr) -> bool {
        is_source::<F>(list, addr)
    }

    #[inline(always)]
    fn moved_at(&self) -> u32 {
        // SAFETY: an aligned load from an array element.
        F::clock().get_ptr(MOVED_AT).map_or(0, |tick| unsafe { ptr::read_volatile(tick) as u32 })
    }

    #[inline(always)]
    fn uplink(&self, ifindex: u32) -> Option<&Uplink<F::Addr>> {
        // SAFETY: as above.
        unsafe { F::uplinks().get(ifindex) }
    }

    #[inline(always)]
    fn reserved(&self, proto: u8, port: u16) -> bool {
        reserved(proto, port)
    }

    #[inline(always)]
    fn private_prefix(&self, digest: u16) -> bool {
        has_bit(PREFIXES.get(u32::from(digest) >> 6), digest)
    }

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        CONFIG.get(0)
    }

    #[inline(always)]
    fn timeouts(&self, number: u16) -> Option<&TimeoutSet> {
        TIMEOUTS.get(u32::from(number))
    }

    #[inline(always)]
    fn has_policies(&self) -> bool {
        POPULATION.get(2).is_some_and(|policies| *policies != 0)
    }

    #[inline(always)]
    fn is_tracked_liberally(&self) -> bool {
        POPULATION.get(3).is_some_and(|liberal| *liberal != 0)
    }

    #[inline(always)]
    fn now(&self) -> u32 {
        // SAFETY: a helper without arguments.
        ticks(unsafe { bpf_ktime_get_coarse_ns() })
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_prandom_u32() }
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    #[inline(always)]
    fn count(&self, event: Event, n: u64) {
        add(event.index(), n);
    }

    #[inline(always)]
    fn route(&self, tuple: &Tuple<F::Addr>, iif: u32) -> Route<F::Addr> {
        route(self, tuple, iif)
    }

    #[inline(always)]
    fn link_mtu(&self, ifindex: u32) -> u16 {
        link_mtu(self, ifindex)
    }

    #[inline(always)]
    fn probing(&self, hop: &NextHop) -> Option<Probing> {
        // SAFETY: two copied words; who sees one of another CPU's sends or answers one packet more.
        unsafe { PROBING.get(hop) }.copied()
    }

    #[inline(always)]
    fn set_probing(&self, hop: &NextHop, probing: Probing) {
        // A full LRU makes room; whatever else fails makes the packet one that is sent.
        let _judged_anew_next_time = PROBING.insert(hop, probing, 0);
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey<F::Addr>) -> Option<FragmentWay<F::Addr>> {
        // SAFETY: plain data; an element that is being reused has `seen` of another fragment and leads to its endpoint.
        unsafe { F::fragments().get(key) }.copied()
    }

    #[inline(always)]
    fn set_fragment(&self, key: &FragmentKey<F::Addr>, way: &FragmentWay<F::Addr>) {
        // A full LRU makes room; whatever else fails drops the later fragments, with their reason.
        let _unknown_then = F::fragments().insert(key, way, 0);
    }

    #[inline(always)]
    fn place(&self, number: u32) -> Option<KeptFragment<F::Addr>> {
        F::waiting().get_ptr_mut(number).map(KeptFragment::at)
    }

    #[inline(always)]
    fn advance_waiting(&self, set: u32, n: u32) -> u32 {
        F::waited().get_ptr_mut(set).map_or(0, |waited| fetch_add(waited, u64::from(n)) as u32)
    }

    #[inline(always)]
    fn keep(&self, place: &KeptFragment<F::Addr>) -> u32 {
        self.socket_buffer().map_or(0, |skb| place.keep(&skb))
    }

    #[inline(always)]
    fn become_kept(&mut self, place: &KeptFragment<F::Addr>, len: u32) -> bool {
        self.socket_buffer().and_then(|mut skb| place.restore(&mut skb, len)).is_some()
    }

    #[inline(always)]
    fn come_again(&self, ifindex: u32) -> bool {
        self.socket_buffer().is_some_and(|skb| skb.come_in_again(ifindex))
    }

    #[inline(always)]
    fn lose(&self, reason: DropReason) {
        add(reason.index(), 1);
    }

    #[inline(always)]
    fn take_turn(&self, ifindex: u32, take: impl Fn(u64) -> Option<u64>) -> bool {
        if TURNS.get_ptr_mut(ifindex).is_none() {
            // Who is later finds the other's.
            let _there_now = TURNS.insert(ifindex, 0, u64::from(BPF_NOEXIST));
        }
        let Some(due) = TURNS.get_ptr_mut(ifindex) else { return false };
        // SAFETY: an aligned word of a map element.
        let old = unsafe { ptr::read_volatile(due) };
        match take(old) {
            // Somebody else's answer may be in between: then this one is one too many.
            Some(new) => compare_and_swap(due, old, new),
            None => false,
        }
    }

    #[inline(always)]
    fn host_socket(&self, sent: &Tuple<F::Addr>) -> bool {
        let mut tuple = SocketTuple {
            remote: sent.dst,
            local: sent.src,
            remote_port: sent.dport,
            local_port: sent.sport,
        };
        let size = size_of::<SocketTuple<F::Addr>>() as u32;
        let tuple: *mut bpf_sock_tuple = (&raw mut tuple).cast();
        // SAFETY: the tuple has the layout that its size tells; a socket that is found is released at once.
        unsafe {
            let socket = match sent.proto {
                tcp::PROTO => bpf_skc_lookup_tcp(self.context.cast(), tuple, size, CURRENT_NETNS, 0),
                udp::PROTO => bpf_sk_lookup_udp(self.context.cast(), tuple, size, CURRENT_NETNS, 0),
                _ => return false,
            };
            if socket.is_null() {
                return false;
            }
            bpf_sk_release(socket.cast());
            true
        }
    }

    #[inline(always)]
    fn note_mapped(&self, port: u16) {
        let Some(word) = F::clock().get_ptr_mut(MAPPED) else { return };
        let bit = mapped_bit(port);
        // SAFETY: an aligned load from an array element.
        if unsafe { ptr::read_volatile(word) } & bit == 0 {
            fetch_or(word, bit);
        }
    }

    #[inline(always)]
    fn may_be_mapped(&self, port: u16) -> bool {
        // SAFETY: as above.
        F::clock()
            .get_ptr(MAPPED)
            .is_some_and(|word| unsafe { ptr::read_volatile(word) } & mapped_bit(port) != 0)
    }

    #[inline(always)]
    fn is_own(&self) -> bool {
        self.came_by() == 0
    }

    #[inline(always)]
    fn exhausted(&self, remote: &Tuple<F::Addr>, range: u32) -> bool {
        // SAFETY: two copied words.
        let found = unsafe { F::exhausted().get(remote) }.copied();
        found == Some([self.now(), range])
    }

    #[inline(always)]
    fn set_exhausted(&self, remote: &Tuple<F::Addr>, range: u32) {
        let now = self.now();
        let Some(last) = F::clock().get_ptr_mut(LAST_EXHAUSTED) else { return };
        // SAFETY: an aligned store into an array element.
        unsafe { ptr::write_volatile(last, u64::from(now)) };
        // A full LRU makes room; whatever else fails costs one more sweep, nothing else.
        let _swept_again_next_time = F::exhausted().insert(remote, [now, range], 0);
    }

    #[inline(always)]
    fn clear_exhausted(&self, remote: &Tuple<F::Addr>) {
        let Some(last) = F::clock().get_ptr_mut(LAST_EXHAUSTED) else { return };
        // SAFETY: an aligned load from an array element.
        if unsafe { ptr::read_volatile(last) } == u64::from(self.now()) {
            // Not there: it was not exhausted.
            let _was_there = F::exhausted().remove(remote);
        }
    }

    #[inline(always)]
    fn held(&self, holder: u32) -> Held {
        // SAFETY: aligned words that others add to; a count that is late grants or refuses one flow too early.
        let all = F::clock().get_ptr(FLOWS).map_or(0, |all| unsafe { ptr::read_volatile(all) });
        let Some(held) = HELD_FLOWS.get_ptr(holder) else { return Held { own: 0, both: 0, all: count(all) } };
        // SAFETY: as above.
        let [v4, v6] = unsafe { ptr::read_volatile(held) };
        let own = if F::FIRST_PROGRAM == 0 { v4 } else { v6 };
        Held { own: count(own), both: count(v4).saturating_add(count(v6)), all: count(all) }
    }

    #[inline(always)]
    fn add_held(&self, holder: u32, change: i32) {
        let change = i64::from(change) as u64;
        if let Some(all) = F::clock().get_ptr_mut(FLOWS) {
            fetch_add(all, change);
        }
        if let Some(held) = HELD_FLOWS.get_ptr_mut(holder) {
            let family = if F::FIRST_PROGRAM == 0 { 0 } else { 1 };
            // SAFETY: the word of this family in a map element.
            fetch_add(unsafe { held.cast::<u64>().add(family) }, change);
        }
    }

    #[inline(always)]
    fn endpoints(&self) -> u32 {
        POPULATION.get(0).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn advance_hand(&self, n: u32) -> u32 {
        match F::clock().get_ptr_mut(HAND) {
            Some(hand) => fetch_add(hand, u64::from(n)) as u32,
            None => 0,
        }
    }

    #[inline(always)]
    fn slot(&self, number: u32) -> Option<RingEntry<F::Addr>> {
        let slots = CONFIG.get(0)?.ring_slots;
        F::ring().get_ptr_mut(number & slots.wrapping_sub(1)).map(RingEntry)
    }

    #[inline(always)]
    fn repeat<S: Step>(&self, n: u32, step: &mut S) {
        // SAFETY: the callback gets exactly the pointer that is passed here, and only during the call (Linux 5.17).
        unsafe { bpf_loop(n, step_callback::<S> as *mut c_void, ptr::from_mut(step).cast(), 0) };
    }

    #[inline(always)]
    fn repeat_on<S: StepOn<Self>>(&mut self, n: u32, step: &mut S) {
        let mut both = (ptr::from_mut(self), ptr::from_mut(step));
        // SAFETY: as above; the callback has both for itself during the call.
        unsafe { bpf_loop(n, step_on_callback::<Self, S> as *mut c_void, (&raw mut both).cast(), 0) };
    }

    #[inline(always)]
    fn ifindex(&self) -> u32 {
        self.interface()
    }
}

/// Hands a frame over to the endpoint behind a host veth: into its namespace at once, or, where somebody has given the
/// veth a queueing discipline, through that. Out of line, as [`allowed`].
#[inline(never)]
pub(crate) fn deliver(veth: u32) -> i32 {
    let queueing = POPULATION.get(1).copied().unwrap_or(0);
    // SAFETY: the element is only asked for; helpers without pointers.
    unsafe {
        if queueing != 0 && QUEUEING.get(veth).is_some() {
            bpf_redirect(veth, 0) as i32
        } else {
            bpf_redirect_peer(veth, 0) as i32
        }
    }
}

/// A number of flows: a removal may be counted before what it removes, so that it is below zero for a moment.
#[inline(always)]
fn count(flows: u64) -> u32 {
    if (flows as i64) < 0 { 0 } else { flows as u32 }
}

/// `BPF_F_CURRENT_NETNS`.
pub(crate) const CURRENT_NETNS: u64 = u64::MAX;

/// `struct bpf_sock_tuple` of one family: as the packets that the socket receives have it.
#[repr(C)]
pub(crate) struct SocketTuple<A> {
    /// Their source.
    pub remote: A,
    /// Their destination.
    pub local: A,
    /// Their source port.
    pub remote_port: Be16,
    /// Their destination port.
    pub local_port: Be16,
}

extern "C" fn step_callback<S: Step>(i: u32, step: *mut c_void) -> i64 {
    // SAFETY: `repeat` passed a pointer to an S.
    let goes_on = unsafe { &mut *step.cast::<S>() }.step(i);
    i64::from(!goes_on)
}

extern "C" fn step_on_callback<H, S: StepOn<H>>(i: u32, both: *mut c_void) -> i64 {
    // SAFETY: `repeat_on` passed pointers to an H and an S.
    unsafe {
        let (host, step) = *both.cast::<(*mut H, *mut S)>();
        (*step).step_on(&mut *host, i);
    }
    0
}

/// Whether an endpoint may send from an address besides its own. Out of line: its callers' stack is short.
#[inline(never)]
fn allowed<F: Maps>(sender: u32, addr: &F::Addr) -> bool {
    let key = AllowedKey { sender, addr: *addr };
    F::allowed().get(lpm_trie::Key::new(AllowedKey::<F::Addr>::PREFIX + F::Addr::BITS, key)).is_some()
}

/// Out of line: the key is on nobody else's stack.
#[inline(never)]
fn is_source<F: Maps>(list: SourceList, addr: &F::Addr) -> bool {
    let key = SourceKey { list, addr: *addr };
    F::sources().get(lpm_trie::Key::new(SourceKey::<F::Addr>::PREFIX + F::Addr::BITS, key)).is_some()
}

/// The most specific published port of exactly this address, protocol and port.
#[inline(always)]
pub(crate) fn published<F: Maps>(key: &PublishedKey<F::Addr>) -> Option<&'static Published<F::Addr>> {
    let key = lpm_trie::Key::new(PublishedKey::<F::Addr>::PREFIX + 16, *key);
    F::published().get(key)
}

/// Whether a port is published or reserved.
#[inline(always)]
pub(crate) fn reserved(proto: u8, port: u16) -> bool {
    has_port(&RESERVED, proto, port)
}

/// Whether a port is in a map of ports.
#[inline(always)]
pub(crate) fn has_port(ports: &Array<PortBlock>, proto: u8, port: u16) -> bool {
    let Some(slot) = reserved_slot(proto) else { return false };
    match ports.get(slot * RESERVED_BLOCKS + (u32::from(port) >> 12)) {
        Some(block) => has_bit(block.get(usize::from(port >> 6) & 63), port),
        None => false,
    }
}

#[inline(always)]
fn has_bit(word: Option<&u64>, bit: u16) -> bool {
    match word {
        Some(word) => word >> (bit & 63) & 1 != 0,
        None => false,
    }
}

/// Adds to a per-CPU counter.
#[inline(always)]
pub(crate) fn add(index: u32, n: u64) {
    if let Some(counter) = COUNTS.get_ptr_mut(index) {
        // SAFETY: this CPU's own element.
        unsafe { *counter = (*counter).wrapping_add(n) };
    }
}

/// `struct bpf_fib_lookup`: 64 bytes since Linux 4.18; newer members lie in its unions.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct FibLookup {
    family: u8,
    l4_protocol: u8,
    sport: Be16,
    dport: Be16,
    /// Afterwards the MTU.
    tot_len: u16,
    ifindex: u32,
    tos: u32,
    src: [u32; 4],
    dst: [u32; 4],
    table: u32,
    macs: [u32; 3],
}

impl FibLookup {
    /// All zeros, word by word: at once they are a call of `memset`, see [`crate::scratch`]. In place: returned by
    /// value it is on the stack twice.
    #[inline(always)]
    fn blank(place: &mut MaybeUninit<Self>) -> &mut Self {
        const WORDS: usize = size_of::<FibLookup>() / size_of::<u64>();
        let words: *mut u64 = place.as_mut_ptr().cast();
        for word in 0..WORDS {
            // SAFETY: inside the structure, which is as aligned as a word.
            unsafe { ptr::write_volatile(words.add(word), 0) };
        }
        // SAFETY: all of it is plain data, and was written.
        unsafe { place.assume_init_mut() }
    }
}

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Results of `bpf_fib_lookup`: found, without neighbour, and "not forwarded": local, or no route at all.
mod fib {
    /// `-EINVAL`: a flag that this kernel doesn't know.
    pub(super) const UNKNOWN_FLAG: i64 = -22;
    pub(super) const SUCCESS: i64 = 0;
    pub(super) const NOT_FORWARDED: i64 = 4;
    pub(super) const NO_NEIGHBOUR: i64 = 7;
    pub(super) const NO_SOURCE: i64 = 9;
}

#[inline(always)]
fn route<F: Maps, K>(frame: &Frame<F, K>, tuple: &Tuple<F::Addr>, iif: u32) -> Route<F::Addr> {
    let v4 = F::Addr::BITS == 32;
    let mut place = MaybeUninit::uninit();
    let lookup = FibLookup::blank(&mut place);
    lookup.family = if v4 { AF_INET } else { AF_INET6 };
    lookup.l4_protocol = tuple.proto;
    lookup.sport = tuple.sport;
    lookup.dport = tuple.dport;
    lookup.tot_len = ANY_LEN;
    lookup.ifindex = iif;
    copy_words(&mut lookup.src, tuple.src.words());
    copy_words(&mut lookup.dst, tuple.dst.words());
    let mut result = fib_lookup(frame, lookup, BPF_FIB_LOOKUP_SRC);
    let mut has_source = result != fib::NO_SOURCE;
    if result == fib::UNKNOWN_FLAG {
        // Linux before 6.7 can't tell the source (and has changed nothing): user space has told the uplink's address.
        result = fib_lookup(frame, lookup, 0);
        has_source = false;
    }
    match result {
        fib::SUCCESS | fib::NO_NEIGHBOUR | fib::NO_SOURCE => Route::Out {
            oif: lookup.ifindex,
            via: lookup.dst,
            via_v6: lookup.family == AF_INET6,
            src: if has_source { address(&lookup.src) } else { F::Addr::UNSPECIFIED },
            resolved: result != fib::NO_NEIGHBOUR,
            mtu: if result == fib::SUCCESS { lookup.tot_len } else { link_mtu(frame, lookup.ifindex) },
        },
        fib::NOT_FORWARDED => Route::Local,
        _ => Route::None,
    }
}

#[inline(always)]
fn fib_lookup<F, K>(frame: &Frame<F, K>, lookup: &mut FibLookup, flags: u32) -> i64 {
    let size = size_of::<FibLookup>() as i32;
    // SAFETY: FibLookup has the layout and size of struct bpf_fib_lookup.
    unsafe { bpf_fib_lookup(frame.context.cast(), ptr::from_mut(lookup).cast(), size, flags) }
}

/// `bpf_fib_lookup` compares it with the route's MTU, and puts that in its place.
const ANY_LEN: u16 = 1;

#[inline(always)]
fn link_mtu<F, K>(frame: &Frame<F, K>, ifindex: u32) -> u16 {
    let mut mtu = 0u32;
    // It also compares the packet's length, which is nothing to us here, and fails if there is no such interface.
    // SAFETY: a helper call on the program's own context that writes to the word.
    unsafe { bpf_check_mtu(frame.context.cast(), ifindex, &raw mut mtu, 0, 0) };
    match u16::try_from(mtu) {
        Ok(mtu) if mtu != 0 => mtu,
        _ => u16::MAX,
    }
}

#[inline(always)]
fn copy_words(to: &mut [u32; 4], from: &[u32]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

#[inline(always)]
fn address<A: Address>(words: &[u32; 4]) -> A {
    // SAFETY: an address is 4 or 16 bytes of plain data, and there are 16.
    unsafe { ptr::read(words.as_ptr().cast()) }
}
