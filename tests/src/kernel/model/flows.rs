//! A flow table as the kernel's, for one thread.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

use netdp_common::family::Ipv4Addr as Addr;
use netdp_common::flow::{FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Flow, Tuple};
use netdp_common::meta::Meta;
use netdp_common::tables::{Entry, Flows, InsertError};

use super::super::tables::FlowEntry;

type Key = [u8; 16];

/// An element and its key.
type Known = (Tuple<Addr>, &'static Cell<Flow<Addr>>);

/// Elements are never freed, as in a preallocated map.
#[derive(Clone, Copy)]
pub(super) struct Element(&'static Cell<Flow<Addr>>);

#[derive(Default)]
pub(super) struct FlowTable(RefCell<HashMap<Key, Known>>);

impl Entry<Addr> for Element {
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

    fn read(&self) -> Flow<Addr> {
        self.0.get()
    }

    fn set_next_hop(&self, oif: u32, via: [u32; 4], via_v6: bool) {
        let flow = self.0.get();
        let flags = flow.flags & !FLOW_NEXT_HOP_V6 | if via_v6 { FLOW_NEXT_HOP_V6 } else { 0 };
        self.0.set(Flow { oif, via, flags, ..flow });
    }

    fn set_next(&self, next: u32) {
        self.0.set(Flow { next, ..self.0.get() });
    }

    fn set_end(&self, flags: u8, timestamp: u32) {
        let mut flow = Flow { flags, ..self.0.get() };
        if flags & FLOW_TO_ENDPOINT != 0 {
            flow.via[3] = timestamp;
        }
        self.0.set(flow);
    }
}

impl Flows<Addr> for FlowTable {
    type Entry = Element;

    fn get(&self, key: &Tuple<Addr>) -> Option<Element> {
        self.0.borrow().get(&bytemuck::cast::<_, Key>(*key)).map(|(_, element)| Element(element))
    }

    fn insert(&self, key: &Tuple<Addr>, value: &Flow<Addr>) -> Result<(), InsertError> {
        let mut elements = self.0.borrow_mut();
        let id: Key = bytemuck::cast(*key);
        if elements.contains_key(&id) {
            return Err(InsertError::Taken);
        }
        elements.insert(id, (*key, Box::leak(Box::new(Cell::new(*value)))));
        Ok(())
    }

    fn replace(&self, key: &Tuple<Addr>, value: &Flow<Addr>) -> Result<(), InsertError> {
        self.remove(key);
        self.insert(key, value)
    }

    fn remove(&self, key: &Tuple<Addr>) -> bool {
        self.0.borrow_mut().remove(&bytemuck::cast::<_, Key>(*key)).is_some()
    }
}

impl FlowTable {
    /// A copy of all entries.
    pub(super) fn entries(&self) -> Vec<FlowEntry> {
        self.0.borrow().values().map(|(key, element)| (*key, element.get())).collect()
    }
}
