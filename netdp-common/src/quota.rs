//! How many flows an endpoint may have: nobody takes what the others need.
//!
//! A flow counts for whoever opened it, one through a published port for whose port that is ([`crate::flow::Flow::holder`]). As long as
//! there are other endpoints, one may have half of what they leave of the table, or as many flows as it was allowed;
//! alone it may have everything. Who has that many makes room among its own flows first, as in a full table: half-open,
//! one-shot and closed ones give way.

use crate::family::Address;
use crate::flow::Kind;
use crate::reclaim;
use crate::tables::{Host, Request, Work};

/// Slots that are inspected for a flow of an endpoint that has all it may have: first those where the clock hand comes
/// by, which has the oldest flows of who has many.
pub(crate) const AHEAD: u32 = 128;
/// Then those behind it, which have the latest flows of all.
pub(crate) const BEHIND: u32 = 512;

/// How many flows there are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Held {
    /// The endpoint's in this family's table.
    pub own: u32,
    /// The endpoint's in both tables.
    pub both: u32,
    /// Everybody's in this family's table.
    pub all: u32,
}

impl<A: Address> Request<A> {
    /// Whom the flow will count for, see [`crate::flow::Flow::holder`].
    #[inline(always)]
    pub fn holder(&self) -> u32 {
        if self.kind == Kind::Dnat as u8 { self.forward.oif } else { self.forward.iif }
    }
}

/// Whether an endpoint with these flows may have one more in a table for `table`; `max_flows`: 0 is its share.
#[inline(always)]
pub const fn allows(held: Held, max_flows: u32, table: u32, is_alone: bool) -> bool {
    let others = held.all.saturating_sub(held.own);
    let share = table.saturating_sub(others) / 2;
    (max_flows == 0 || held.both < max_flows) && (is_alone || held.own < share)
}

/// Whether the endpoint of a new flow may have it, if need be in the place of another of its own.
#[inline(always)]
pub fn is_granted<A: Address, H: Host<A>>(host: &H, work: &Work<A>, now: u32) -> bool {
    let holder = work.request.holder();
    // Room is made from here: see `claim`.
    has_share(host, holder) || reclaim::make_room(host, &work.answer, now, AHEAD + BEHIND, holder)
}

/// Whether the endpoint of a new flow may have it beside its others.
#[inline(never)]
fn has_share<A: Address, H: Host<A>>(host: &H, holder: u32) -> bool {
    let Some(config) = host.config() else { return true };
    let max_flows = match host.sender(holder) {
        Some(endpoint) => endpoint.max_flows,
        None => 0,
    };
    allows(host.held(holder), max_flows, config.flows_max, host.endpoints() < 2)
}

/// Whether one endpoint has so many more flows than another that its half-open and one-shot ones give way to it when all
/// ports towards a remote are taken.
#[inline(always)]
pub fn is_richer<A: Address, H: Host<A>>(host: &H, holder: u32, than: u32) -> bool {
    /// Fewer are no flood.
    const FEW: u32 = 256;
    let (other, own) = (host.held(holder).own, host.held(than).own);
    other > FEW && other / 4 > own
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_others_leave() {
        let held = |own, others| Held { own, both: own, all: own + others };
        for (own, others, max_flows, alone, allowed) in [
            (999, 0, 0, true, true),
            (499, 0, 0, false, true),
            (500, 0, 0, false, false),
            (249, 500, 0, false, true),
            (250, 500, 0, false, false),
            (0, 1000, 0, false, false),
            (9, 0, 10, true, true),
            (10, 0, 10, true, false),
            (500, 0, 600, false, false),
        ] {
            let held = held(own, others);
            assert_eq!(allows(held, max_flows, 1000, alone), allowed, "{held:?}, at most {max_flows}");
        }
        let both = Held { own: 4, both: 10, all: 4 };
        assert!(!allows(both, 10, 1000, true), "the other family's count, too");
    }
}
