//! The kernel's hash table as the protocol sees it, in loom's primitives.
//!
//! What is faithful: a lock for what changes the table; elements that are preallocated and recycled at once, last
//! freed first, so that a stale handle sees another flow; a value that is written and read piece by piece while
//! others hold handles to it; a meta word that changes by compare-and-swap. Loads acquire and stores release, as
//! all do on x86-64. What is not: one lock for all buckets (the look-up takes it too), one list of free elements for
//! all CPUs (the kernel's is per CPU: less hostile), six pieces to a value instead of eight words, a lock that is
//! never busy, and no reclaim ring ([`Shared::slot`] is none: whoever reclaims in a scenario is a thread of it).

use std::sync::Mutex as Interner;

use loom::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use loom::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize};
use loom::sync::{Condvar, Mutex};
use netdp_common::family::{Address, Ipv4Addr};
use netdp_common::flow::{Flow, Tuple};
use netdp_common::meta::Meta;
use netdp_common::tables::{Entry, Flows, InsertError, RingSlot, Way};
use netdp_common::tcp::End;

use netdp_model::cpu::Shared;

type Key = Tuple<Ipv4Addr>;
type Value = Flow<Ipv4Addr>;

/// In which order a value's pieces are copied into an element: the kernel's memcpy goes either way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Copied {
    /// From the meta word on.
    Upwards,
    /// To the meta word.
    Downwards,
}

/// The table.
pub(crate) struct Table {
    inner: Mutex<Inner>,
    elements: Vec<Element>,
    /// Every value ever written: a piece of an element is the number of the value it is from.
    values: Interner<Vec<Value>>,
    copied: Copied,
    exhausted: Mutex<Vec<Key>>,
    crowd: Mutex<Crowd>,
    somebody_is_done: Condvar,
}

/// Who is on the way. Impatience would be the model's, not the protocol's: a packet that has started over a few
/// times waits for somebody else to finish. If nobody else is on the way, what it waits for will never come.
struct Crowd {
    running: usize,
    waiting: usize,
}

struct Inner {
    linked: Vec<(Key, usize)>,
    free: Vec<usize>,
}

struct Element {
    meta: AtomicU64,
    /// Addresses and ports to translate to.
    translation: AtomicUsize,
    /// What [`Entry::set_way`] and [`Entry::set_end`] set.
    next_hop: AtomicUsize,
    /// [`Flow::next`].
    next: AtomicU32,
    /// The entry's own key.
    own: AtomicUsize,
    /// The rest.
    tail: AtomicUsize,
}

impl Table {
    /// A table for `size` entries.
    pub(crate) fn new(size: usize, copied: Copied) -> Self {
        let element = || Element {
            meta: AtomicU64::new(0),
            translation: AtomicUsize::new(0),
            next_hop: AtomicUsize::new(0),
            next: AtomicU32::new(0),
            own: AtomicUsize::new(0),
            tail: AtomicUsize::new(0),
        };
        Self {
            inner: Mutex::new(Inner { linked: Vec::new(), free: (0..size).rev().collect() }),
            elements: (0..size).map(|_| element()).collect(),
            values: Interner::new(vec![Value::default()]),
            copied,
            exhausted: Mutex::new(Vec::new()),
            crowd: Mutex::new(Crowd { running: 0, waiting: 0 }),
            somebody_is_done: Condvar::new(),
        }
    }

    /// Somebody sets out; before their thread is spawned.
    pub(crate) fn comes(&self) {
        self.crowd.lock().unwrap().running += 1;
    }

    /// Somebody has finished.
    pub(crate) fn goes(&self) {
        self.crowd.lock().unwrap().running -= 1;
        self.somebody_is_done.notify_all();
    }

    /// Every entry.
    pub(crate) fn entries(&self) -> Vec<(Key, Value)> {
        let linked = self.inner.lock().unwrap().linked.clone();
        linked.into_iter().map(|(key, at)| (key, Handle { table: self, at }.read())).collect()
    }

    fn intern(&self, value: Value) -> usize {
        let mut values = self.values.lock().unwrap();
        values.push(value);
        values.len() - 1
    }

    fn piece(&self, at: &AtomicUsize) -> Value {
        let number = at.load(Acquire);
        self.values.lock().unwrap()[number]
    }

    fn write(&self, at: usize, value: &Value) {
        let number = self.intern(*value);
        let element = &self.elements[at];
        let pieces = [&element.translation, &element.next_hop, &element.own, &element.tail];
        match self.copied {
            Copied::Upwards => {
                element.meta.store(value.meta, Release);
                element.next.store(value.next, Release);
                pieces.iter().for_each(|piece| piece.store(number, Release));
            }
            Copied::Downwards => {
                pieces.iter().rev().for_each(|piece| piece.store(number, Release));
                element.next.store(value.next, Release);
                element.meta.store(value.meta, Release);
            }
        }
    }

    fn put(&self, key: &Key, value: &Value, replace: bool) -> Result<(), InsertError> {
        let mut inner = self.inner.lock().unwrap();
        let found = inner.linked.iter().position(|(linked, _)| linked == key);
        if found.is_some() && !replace {
            return Err(InsertError::Taken);
        }
        let at = inner.free.pop().ok_or(InsertError::Full)?;
        self.write(at, value);
        if let Some(old) = found {
            let (_, old) = inner.linked.swap_remove(old);
            inner.free.push(old);
        }
        inner.linked.push((*key, at));
        Ok(())
    }
}

impl<'t> Flows<Ipv4Addr> for &'t Table {
    type Entry = Handle<'t>;

    fn get(&self, key: &Key) -> Option<Handle<'t>> {
        let inner = self.inner.lock().unwrap();
        let found = inner.linked.iter().find(|(linked, _)| linked == key);
        found.map(|(_, at)| Handle { table: self, at: *at })
    }

    fn insert(&self, key: &Key, value: &Value) -> Result<(), InsertError> {
        self.put(key, value, false)
    }

    fn replace(&self, key: &Key, value: &Value) -> Result<(), InsertError> {
        self.put(key, value, true)
    }

    fn remove(&self, key: &Key) -> bool {
        let mut inner = self.inner.lock().unwrap();
        let Some(found) = inner.linked.iter().position(|(linked, _)| linked == key) else { return false };
        let (_, at) = inner.linked.swap_remove(found);
        inner.free.push(at);
        true
    }
}

/// An element, whatever it holds meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Handle<'t> {
    table: &'t Table,
    at: usize,
}

impl Handle<'_> {
    fn element(&self) -> &Element {
        &self.table.elements[self.at]
    }
}

impl Entry<Ipv4Addr> for Handle<'_> {
    fn meta(&self) -> Meta {
        Meta(self.element().meta.load(Acquire))
    }

    fn swap_meta(&self, old: Meta, new: Meta) -> bool {
        self.element().meta.compare_exchange(old.0, new.0, AcqRel, Acquire).is_ok()
    }

    fn read(&self) -> Value {
        let element = self.element();
        let meta = element.meta.load(Acquire);
        let translation = self.table.piece(&element.translation);
        let next_hop = self.table.piece(&element.next_hop);
        let own = self.table.piece(&element.own);
        let tail = self.table.piece(&element.tail);
        Value {
            meta,
            next: element.next.load(Acquire),
            src: translation.src,
            dst: translation.dst,
            sport: translation.sport,
            dport: translation.dport,
            oif: next_hop.oif,
            via: next_hop.via,
            mtu: next_hop.mtu,
            flags: next_hop.flags,
            ended_at: next_hop.ended_at,
            own_src: own.own_src,
            own_dst: own.own_dst,
            own_sport: own.own_sport,
            own_dport: own.own_dport,
            ..tail
        }
    }

    fn release(&self) {
        self.element().meta.fetch_and(!(u64::from(Meta::HELD) << 32), AcqRel);
    }

    fn tag(&self) -> u16 {
        self.table.piece(&self.element().tail).tag
    }

    fn set_way(&self, way: &Way) {
        let mut value = self.table.piece(&self.element().next_hop);
        way.write_to(&mut value);
        let number = self.table.intern(value);
        self.element().next_hop.store(number, Release);
    }

    fn set_next(&self, next: u32) {
        self.element().next.store(next, Release);
    }

    fn set_end(&self, end: &End) {
        let mut value = self.table.piece(&self.element().next_hop);
        end.write_to(&mut value);
        let number = self.table.intern(value);
        self.element().next_hop.store(number, Release);
    }
}

/// There is no ring.
#[derive(Clone, Copy)]
pub(crate) enum NoSlot {}

impl<A: Address> RingSlot<A> for NoSlot {
    fn owner(&self) -> u64 {
        match *self {}
    }
    fn swap_owner(&self, _old: u64, _new: u64) -> bool {
        match *self {}
    }
    fn due(&self) -> u32 {
        match *self {}
    }
    fn set_due(&self, _due: u32) {
        match *self {}
    }
    fn key(&self) -> Tuple<A> {
        match *self {}
    }
    fn set_key(&self, _key: &Tuple<A>) {
        match *self {}
    }
}

impl Shared<Ipv4Addr> for &Table {
    type Slot = NoSlot;

    fn slot(&self, _number: u32) -> Option<NoSlot> {
        None
    }

    fn advance_hand(&self, _n: u32) -> u32 {
        0
    }

    // Every network has the same ports there, and what is found out in one tick is not forgotten in the next.
    fn exhausted(&self, remote: &Key, _found: (u32, u32)) -> bool {
        self.exhausted.lock().unwrap().contains(remote)
    }

    fn set_exhausted(&self, remote: &Key, found: Option<(u32, u32)>) {
        let mut remotes = self.exhausted.lock().unwrap();
        remotes.retain(|known| known != remote);
        if found.is_some() {
            remotes.push(*remote);
        }
    }

    fn start_over(&self, times: u32) {
        const PATIENCE: u32 = 2;
        if times < PATIENCE {
            return loom::thread::yield_now();
        }
        let mut crowd = self.crowd.lock().unwrap();
        if crowd.running > crowd.waiting + 1 {
            crowd.waiting += 1;
            crowd = self.somebody_is_done.wait(crowd).unwrap();
            crowd.waiting -= 1;
        }
    }
}
