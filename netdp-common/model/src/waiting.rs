//! Fragments that wait for their datagram's first one, in plain Rust.

use std::sync::{Arc, Mutex, MutexGuard};

use netdp_common::family::Address;
use netdp_common::flow::Label;
use netdp_common::tables;
use netdp_common::waiting::{ALL_PLACES, ALL_SETS, LONGEST, State};

/// All places.
#[derive(Clone, Debug)]
pub struct Places<A>(Arc<Mutex<Table<A>>>);

/// A place, by its number.
#[derive(Clone, Debug)]
pub struct Place<A> {
    table: Places<A>,
    number: usize,
}

#[derive(Debug)]
struct Table<A> {
    places: Vec<Kept<A>>,
    waited: Vec<u32>,
}

#[derive(Clone, Debug)]
struct Kept<A> {
    state: State,
    label: Label<A>,
    frame: Vec<u8>,
}

impl<A: Address> Default for Places<A> {
    fn default() -> Self {
        let kept = Kept { state: State(0), label: Label::default(), frame: Vec::new() };
        let places = vec![kept; ALL_PLACES as usize];
        Self(Arc::new(Mutex::new(Table { places, waited: vec![0; ALL_SETS as usize] })))
    }
}

impl<A> Places<A> {
    /// [`tables::Host::place`].
    pub fn place(&self, number: u32) -> Option<Place<A>> {
        (number < ALL_PLACES).then(|| Place { table: Self(Arc::clone(&self.0)), number: number as usize })
    }

    /// [`tables::Host::advance_waiting`].
    pub fn advance(&self, set: u32, n: u32) -> u32 {
        let waited = &mut self.table().waited[set as usize];
        std::mem::replace(waited, waited.wrapping_add(n))
    }

    fn table(&self) -> MutexGuard<'_, Table<A>> {
        self.0.lock().expect("nobody panicked with it")
    }
}

impl<A> Place<A> {
    /// [`tables::Host::keep`].
    pub fn keep(&self, frame: &[u8]) -> u32 {
        if frame.len() > LONGEST {
            return 0;
        }
        self.with(|kept| kept.frame = frame.to_vec());
        frame.len() as u32
    }

    /// What [`Self::keep`] has put there.
    pub fn kept(&self) -> Vec<u8> {
        self.with(|kept| kept.frame.clone())
    }

    fn with<R>(&self, work: impl FnOnce(&mut Kept<A>) -> R) -> R {
        work(&mut self.table.table().places[self.number])
    }
}

impl<A: Address> tables::Place<A> for Place<A> {
    fn state(&self) -> State {
        self.with(|kept| kept.state)
    }

    fn swap_state(&self, old: State, new: State) -> bool {
        self.with(|kept| {
            let is_old = kept.state == old;
            if is_old {
                kept.state = new;
            }
            is_old
        })
    }

    fn label(&self) -> Label<A> {
        self.with(|kept| kept.label)
    }

    fn set_label(&self, label: &Label<A>) {
        self.with(|kept| kept.label = *label);
    }
}
