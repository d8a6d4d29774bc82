//! Fragments that wait for their datagram's first one, see [`netdp_common::waiting`].

use core::ptr;

use netdp_common::family::Address;
use netdp_common::flow::{FragmentKey, Kept, Label};
use netdp_common::tables::Place;
use netdp_common::waiting::State;

use crate::atomic::{compare_and_swap, compiler_barrier};
use crate::skb::Skb;

/// A place, found by its number.
#[derive(Clone, Copy)]
pub(crate) struct KeptFragment<A>(*mut Kept<A>);

impl<A> KeptFragment<A> {
    #[inline(always)]
    pub(crate) const fn at(place: *mut Kept<A>) -> Self {
        Self(place)
    }

    /// Puts a copy of the frame here, and returns its length; 0 if it is too long.
    #[inline(always)]
    pub(crate) fn keep<F>(&self, skb: &Skb<F>) -> u32 {
        // SAFETY: the address of a field of an array element, always mapped.
        skb.copy_to(unsafe { &raw mut (*self.0).frame })
    }

    /// Makes the frame the one that is kept here.
    #[inline(always)]
    pub(crate) fn restore<F>(&self, skb: &mut Skb<F>, len: u32) -> Option<()> {
        // SAFETY: as above.
        skb.copy_from(unsafe { &raw const (*self.0).frame }, len)
    }
}

impl<A: Address> Place<A> for KeptFragment<A> {
    #[inline(always)]
    fn state(&self) -> State {
        // SAFETY: an array element, always mapped; one aligned load.
        State(unsafe { ptr::read_volatile(&raw const (*self.0).state) })
    }

    #[inline(always)]
    fn swap_state(&self, old: State, new: State) -> bool {
        // SAFETY: as above.
        compare_and_swap(unsafe { &raw mut (*self.0).state }, old.0, new.0)
    }

    #[inline(always)]
    fn label(&self) -> Label<A> {
        // SAFETY: plain data in an array element.
        unsafe { ptr::read_volatile(&raw const (*self.0).label) }
    }

    #[inline(always)]
    fn is_for(&self, key: &FragmentKey<A>) -> bool {
        compiler_barrier();
        // SAFETY: plain data in an array element, compared where it lies.
        unsafe { (*self.0).label.key == *key }
    }

    #[inline(always)]
    fn set_label(&self, label: &Label<A>) {
        // SAFETY: plain data in an array element.
        unsafe { ptr::write_volatile(&raw mut (*self.0).label, *label) };
    }
}
