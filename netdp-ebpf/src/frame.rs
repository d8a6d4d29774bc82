//! A packet in a program, whatever kind of program it is.

use core::marker::PhantomData;
use core::mem::MaybeUninit;

use crate::skb::{RedirNeigh, Skb};

/// What a program runs on, that starts at its Ethernet header, seen as a packet of family `F`. `K`: the program's
/// context, which tells its kind.
#[derive(Clone, Copy)]
pub(crate) struct Frame<F, K> {
    pub(crate) context: *mut K,
    /// Not zeroed for every packet: that is a call of `memset`.
    pub(crate) next_hop: MaybeUninit<RedirNeigh>,
    family: PhantomData<F>,
}

impl<F, K> Frame<F, K> {
    /// Of a program's context.
    #[inline(always)]
    pub(crate) const fn new(context: *mut K) -> Self {
        Self { context, next_hop: MaybeUninit::uninit(), family: PhantomData }
    }
}

/// What a kind of program knows of its packet besides the bytes.
pub(crate) trait Hooked<F> {
    /// The interface whose hook runs.
    fn interface(&self) -> u32;
    /// The interface by which the packet came in; 0: it was made on this host.
    fn came_by(&self) -> u32;
    /// Its socket buffer, if there is one yet.
    fn socket_buffer(&self) -> Option<Skb<F>>;
}
