//! The flow table, the reclaim ring and what is known of exhausted remotes, for one thread.
//!
//! As in the kernel's preallocated map, an element is reused as soon as it is free, last freed first: a stale handle
//! sees another flow.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::Hash;

use netdp_common::family::{Address, Be16};
use netdp_common::flow::{Flow, Slot, Tuple};
use netdp_common::meta::Meta;
use netdp_common::tables::{Entry, Flows, InsertError, RingSlot, Way};
use netdp_common::tcp::End;

use crate::cpu::Shared;

/// A tuple that can be hashed.
type Id<A> = (A, A, Be16, Be16, u8, [u8; 3]);

fn id<A: Copy>(tuple: &Tuple<A>) -> Id<A> {
    (tuple.src, tuple.dst, tuple.sport, tuple.dport, tuple.proto, tuple.pad)
}

/// Where each key's element is, and the key as the core knows it.
type Index<A> = HashMap<Id<A>, (Tuple<A>, usize)>;

/// What the CPUs of a host share, and one thread uses.
pub struct Table<A> {
    index: RefCell<Index<A>>,
    elements: Vec<Cell<Flow<A>>>,
    free: RefCell<Vec<usize>>,
    ring: Vec<Cell<Slot<A>>>,
    hand: Cell<u32>,
    /// With the range of ports and the tick at which it was found.
    exhausted: RefCell<HashMap<Id<A>, (u32, u32)>>,
}

impl<A: Address + Hash> Table<A> {
    /// A table for `entries` entries (a flow has two), with `slots` places in the ring.
    pub fn new(entries: usize, slots: usize) -> Self {
        Self {
            index: RefCell::default(),
            elements: vec![Cell::default(); entries],
            free: RefCell::new((0..entries).rev().collect()),
            ring: vec![Cell::default(); slots],
            hand: Cell::new(0),
            exhausted: RefCell::default(),
        }
    }

    /// A copy of all entries.
    pub fn entries(&self) -> Vec<(Tuple<A>, Flow<A>)> {
        self.index.borrow().values().map(|(key, at)| (*key, self.elements[*at].get())).collect()
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.index.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn put(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        let at = self.free.borrow_mut().pop().ok_or(InsertError::Full)?;
        self.elements[at].set(*value);
        self.index.borrow_mut().insert(id(key), (*key, at));
        Ok(())
    }
}

impl<'t, A: Address + Hash> Flows<A> for &'t Table<A> {
    type Entry = Element<'t, A>;

    fn get(&self, key: &Tuple<A>) -> Option<Element<'t, A>> {
        let found = self.index.borrow().get(&id(key)).copied();
        found.map(|(_, at)| Element(&self.elements[at]))
    }

    fn insert(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        if self.get(key).is_some() { Err(InsertError::Taken) } else { self.put(key, value) }
    }

    fn replace(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        self.remove(key);
        self.put(key, value)
    }

    fn remove(&self, key: &Tuple<A>) -> bool {
        let Some((_, at)) = self.index.borrow_mut().remove(&id(key)) else { return false };
        self.free.borrow_mut().push(at);
        true
    }
}

/// An element, whatever it holds meanwhile.
#[derive(Clone, Copy)]
pub struct Element<'t, A>(pub &'t Cell<Flow<A>>);

impl<A: Address> Entry<A> for Element<'_, A> {
    fn meta(&self) -> Meta {
        Meta(self.0.get().meta)
    }

    fn swap_meta(&self, old: Meta, new: Meta) -> bool {
        let flow = self.0.get();
        let same = flow.meta == old.0;
        if same {
            self.0.set(Flow { meta: new.0, ..flow });
        }
        same
    }

    fn release(&self) {
        let meta = self.meta();
        self.swap_meta(meta, meta.with_bits(meta.bits() & !Meta::HELD));
    }

    fn tag(&self) -> u16 {
        self.0.get().tag
    }

    fn read(&self) -> Flow<A> {
        self.0.get()
    }

    fn set_way(&self, way: &Way) {
        let mut flow = self.0.get();
        way.write_to(&mut flow);
        self.0.set(flow);
    }

    fn set_next(&self, next: u32) {
        self.0.set(Flow { next, ..self.0.get() });
    }

    fn set_end(&self, end: &End) {
        let mut flow = self.0.get();
        end.write_to(&mut flow);
        self.0.set(flow);
    }
}

/// A place in the ring.
#[derive(Clone, Copy)]
pub struct Place<'t, A>(&'t Cell<Slot<A>>);

impl<A: Address> RingSlot<A> for Place<'_, A> {
    fn owner(&self) -> u64 {
        self.0.get().owner
    }

    fn swap_owner(&self, old: u64, new: u64) -> bool {
        let slot = self.0.get();
        let same = slot.owner == old;
        if same {
            self.0.set(Slot { owner: new, ..slot });
        }
        same
    }

    fn due(&self) -> u32 {
        self.0.get().due
    }

    fn set_due(&self, due: u32) {
        self.0.set(Slot { due, ..self.0.get() });
    }

    fn key(&self) -> Tuple<A> {
        self.0.get().key
    }

    fn set_key(&self, key: &Tuple<A>) {
        self.0.set(Slot { key: *key, ..self.0.get() });
    }
}

impl<'t, A: Address + Hash> Shared<A> for &'t Table<A> {
    type Slot = Place<'t, A>;

    fn slot(&self, number: u32) -> Option<Place<'t, A>> {
        self.ring.get(number as usize % self.ring.len().max(1)).map(Place)
    }

    fn advance_hand(&self, n: u32) -> u32 {
        let before = self.hand.get();
        self.hand.set(before.wrapping_add(n));
        before
    }

    fn exhausted(&self, remote: &Tuple<A>, found: (u32, u32)) -> bool {
        self.exhausted.borrow().get(&id(remote)) == Some(&found)
    }

    fn set_exhausted(&self, remote: &Tuple<A>, found: Option<(u32, u32)>) {
        let mut remotes = self.exhausted.borrow_mut();
        match found {
            Some(found) => remotes.insert(id(remote), found),
            None => remotes.remove(&id(remote)),
        };
    }

    fn start_over(&self, _times: u32) {}
}
