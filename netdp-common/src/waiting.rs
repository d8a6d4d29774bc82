//! Fragments that overtake their datagram's first one: they wait for it, and come in once more behind it.
//!
//! Only the first fragment has the ports, so nobody knows yet what the others become. Copies of them wait in a table of
//! fixed size; when the first one has been translated, it and they come in by their interfaces once more, the first one
//! first. Nothing goes round meanwhile, and there is no clock to end it: a copy that waited for too long is passed over,
//! and its place taken by the next.
//!
//! The table is divided into sets, each a ring in which the oldest gives way. An endpoint's fragments have a set that
//! no outside sender's share, chosen by its host veth, so that a flood from it meets few others; those from outside
//! one that is chosen by their source address. Whole packets and fragments in order never come here.

use crate::family::{Address, Family};
use crate::flow::{FragmentKey, Label};
use crate::nat::Context;
use crate::tables::{Host, Place, StepOn};
use crate::verdict::DropReason;

/// Places in a set: 45 fragments of 1500 bytes make the longest datagram, 53 of 1280. A power of two.
pub const PLACES: u32 = 64;
/// Sets of endpoints, and as many of the world. A power of two.
const SETS: u32 = 8;
/// All sets.
pub const ALL_SETS: u32 = 2 * SETS;
/// All places.
pub const ALL_PLACES: u32 = ALL_SETS * PLACES;
/// Bytes of the longest frame that can wait; with its label, a place has 2 KiB.
pub const LONGEST: usize = 1988;
/// Ticks for which a fragment waits. (A receiver waits up to 30 s, and by then a fast sender's identifications have
/// come round: RFC 4963.)
const WAITS: u32 = 5;

/// What a place is used for, in a word that is compared and swapped: since which tick, for which fragment of its set (as
/// far as 30 bits count), and how. So it is never twice the same.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct State(pub u64);

impl State {
    const EMPTY: u64 = 0;
    /// Somebody writes to it or reads from it.
    const BUSY: u64 = 1;
    const FULL: u64 = 2;
    const USES: u64 = 3;

    #[inline(always)]
    const fn new(since: u32, fragment: u32) -> Self {
        Self((since as u64) << 32 | (fragment << 2) as u64)
    }

    #[inline(always)]
    const fn since(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline(always)]
    const fn is(self, used: u64) -> bool {
        self.0 & Self::USES == used
    }

    /// The same fragment's, used otherwise.
    #[inline(always)]
    const fn used(self, how: u64) -> Self {
        Self(self.0 & !Self::USES | how)
    }
}

/// A copy that waits, until [`take_back`] or [`release`] takes it.
#[derive(Clone, Debug)]
pub struct Waiting<P> {
    place: P,
    state: State,
}

/// Lets a copy of a fragment wait. `iif`: the host veth that it came by, or 0. `is_only`: there is no other copy, and
/// the packet is lost if it waits in vain. None: it is too long, or its place is in use at this moment.
#[inline(always)]
pub fn put<F: Family, C: Context<F>>(
    c: &C,
    key: &FragmentKey<F::Addr>,
    iif: u32,
    is_only: bool,
) -> Option<Waiting<C::Place>> {
    if c.len() > LONGEST {
        return None;
    }
    let set = set(&key.src, iif);
    let fragment = c.advance_waiting(set, 1);
    let place = c.place(number(set, fragment))?;
    let (old, new) = (place.state(), State::new(c.now(), fragment));
    if old.is(State::BUSY) || !place.swap_state(old, new.used(State::BUSY)) {
        return None;
    }
    if old.is(State::FULL) && place.label().is_only != 0 {
        c.lose(DropReason::Fragment);
    }
    let len = c.keep(&place);
    place.set_label(&Label { key: *key, ifindex: c.ifindex(), len, is_only: u32::from(is_only) });
    let state = new.used(if len == 0 { State::EMPTY } else { State::FULL });
    place.swap_state(new.used(State::BUSY), state);
    (len != 0).then_some(Waiting { place, state })
}

/// Ends the waiting of a copy; false if it has come in once more, or given way.
#[inline(always)]
pub fn take_back<A: Address, P: Place<A>>(waiting: &Waiting<P>) -> bool {
    let Waiting { place, state } = waiting;
    place.swap_state(*state, state.used(State::EMPTY))
}

/// Lets a datagram's first fragment and all that waited for it come in once more; false if none did. What the first one
/// becomes is remembered by now: who looks for that after this has looked for what waits finds it.
#[inline(always)]
pub fn release<F: Family, C: Context<F>>(c: &mut C, key: &FragmentKey<F::Addr>, iif: u32) -> bool {
    let set = set(&key.src, iif);
    let next = c.advance_waiting(set, 0);
    // Nothing has ever waited here. (Who is newest says nothing of the others: it may be on its way into its place.)
    if next == 0 {
        return false;
    }
    let mut release = Release { key, set, oldest: next, is_behind: false };
    c.repeat_on(PLACES, &mut release);
    release.is_behind
}

/// Lets what waits for a datagram's first fragment, which is the packet at hand, come in once more.
struct Release<'a, A> {
    key: &'a FragmentKey<A>,
    set: u32,
    /// Place in the set's ring.
    oldest: u32,
    /// The first fragment has come in: whatever comes in now is behind it.
    is_behind: bool,
}

impl<A: Address, H: Host<A>> StepOn<H> for Release<'_, A> {
    #[inline(always)]
    fn step_on(&mut self, host: &mut H, i: u32) {
        let Some(place) = host.place(number(self.set, self.oldest.wrapping_add(i))) else { return };
        let state = place.state();
        let waited = host.now().wrapping_sub(state.since());
        if !state.is(State::FULL) || waited > WAITS || !place.is_for(self.key) {
            return;
        }
        if !place.swap_state(state, state.used(State::BUSY)) {
            return;
        }
        // The key was read while anybody could write it. And nothing comes in before the first one.
        let is_released = place.is_for(self.key) && (self.is_behind || host.come_again(host.ifindex()));
        if is_released {
            self.is_behind = true;
            let label = place.label();
            if !host.become_kept(&place, label.len) || !host.come_again(label.ifindex) {
                host.lose(DropReason::RewriteFailed);
            }
        }
        place.swap_state(state.used(State::BUSY), if is_released { state.used(State::EMPTY) } else { state });
    }
}

#[inline(always)]
fn number(set: u32, in_set: u32) -> u32 {
    (set & (ALL_SETS - 1)) * PLACES + (in_set & (PLACES - 1))
}

#[inline(always)]
fn set<A: Address>(src: &A, iif: u32) -> u32 {
    if iif != 0 {
        return (iif ^ iif >> 3) & (SETS - 1);
    }
    let word = src.words().iter().fold(0, |all, word| all ^ word);
    let half = word ^ word >> 16;
    SETS + ((half ^ half >> 8) & (SETS - 1))
}
