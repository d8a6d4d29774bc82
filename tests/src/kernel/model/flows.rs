//! A flow table as the kernel's, for one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use netdp_common::family::Address;
use netdp_common::flow::{Flow, Tuple};
use netdp_common::meta::Meta;
use netdp_common::tables::{Entry, Flows, InsertError, Way};
use netdp_common::tcp::End;

use super::super::tables::FlowEntry;

type Key = Vec<u8>;

/// An element and its key.
type Known<A> = (Tuple<A>, &'static Cell<Flow<A>>);

/// Elements are never freed, as in a preallocated map.
#[derive(Clone, Copy)]
pub(super) struct Element<A: 'static>(&'static Cell<Flow<A>>);

pub(super) struct FlowTable<A: 'static>(RefCell<HashMap<Key, Known<A>>>);

impl<A> Default for FlowTable<A> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<A: Address> Entry<A> for Element<A> {
    fn meta(&self) -> Meta {
        Meta(self.0.get().meta)
    }

    fn swap_meta(&self, old: Meta, new: Meta) -> bool {
        let flow = self.0.get();
        if flow.meta == old.0 {
            self.0.set(Flow { meta: new.0, ..flow });
        }
        flow.meta == old.0
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

impl<A: Address> Flows<A> for FlowTable<A> {
    type Entry = Element<A>;

    fn get(&self, key: &Tuple<A>) -> Option<Element<A>> {
        self.0.borrow().get(bytemuck::bytes_of(key)).map(|(_, element)| Element(element))
    }

    fn insert(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        let mut elements = self.0.borrow_mut();
        let id = bytemuck::bytes_of(key).to_vec();
        if elements.contains_key(&id) {
            return Err(InsertError::Taken);
        }
        elements.insert(id, (*key, Box::leak(Box::new(Cell::new(*value)))));
        Ok(())
    }

    fn replace(&self, key: &Tuple<A>, value: &Flow<A>) -> Result<(), InsertError> {
        self.remove(key);
        self.insert(key, value)
    }

    fn remove(&self, key: &Tuple<A>) -> bool {
        self.0.borrow_mut().remove(bytemuck::bytes_of(key)).is_some()
    }
}

impl<A: Address> FlowTable<A> {
    /// A copy of all entries.
    pub(super) fn entries(&self) -> Vec<FlowEntry<A>> {
        self.0.borrow().values().map(|(key, element)| (*key, element.get())).collect()
    }
}
