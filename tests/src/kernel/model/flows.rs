//! A flow table as the kernel's, for one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use netdp_common::family::Address;
use netdp_common::flow::{Flow, Tuple};
use netdp_common::tables::{Flows, InsertError};
use netdp_model::table::Element;

use super::super::tables::FlowEntry;

type Key = Vec<u8>;

/// An element and its key.
type Known<A> = (Tuple<A>, &'static Cell<Flow<A>>);

/// Elements are never freed, as in a preallocated map.
pub(super) struct FlowTable<A: 'static>(RefCell<HashMap<Key, Known<A>>>);

impl<A> Default for FlowTable<A> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<A: Address> Flows<A> for FlowTable<A> {
    type Entry = Element<'static, A>;

    fn get(&self, key: &Tuple<A>) -> Option<Element<'static, A>> {
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
