//! The host's firewall decides about a flow (`--firewall honour`), and most of its packets take the fast path.
//!
//! The first packet of each direction in each tick takes the host's stack, and so passes its rules. Where it comes out at
//! the other side, on its way out by an uplink or into the endpoint, its direction's entry gets
//! [`Meta::LET_THROUGH`](crate::meta::Meta): what follows in that tick goes as if nobody were asked. With the next tick
//! the mark is gone. A packet that the rules drop comes out nowhere and marks nothing, and so all that follow it meet the
//! same rules: one that is added later cuts a flow when the tick ends, whatever process runs or does not.
//!
//! What begins or ends a TCP connection always takes the stack, and so do fragments. Marks are set once a tick.

use crate::family::{Address, Family};
use crate::flow::{FLOW_BY_STACK, FLOW_TO_ENDPOINT, Flow};
use crate::header::tcp;
use crate::meta::Meta;
use crate::nat::{Context, Known};
use crate::parse::{Fragment, Parsed, Transport, parse};
use crate::reclaim::{self, H_Entry};
use crate::tables::{Entry, Flows, Host};

/// Whether the host's rules have let this direction of a flow through in this tick, so that they need not be asked about
/// this packet.
#[inline(always)]
pub(crate) const fn has_let_through<A>(flow: &Flow<A>, parsed: &Parsed<A>, now: u32) -> bool {
    let meta = Meta(flow.meta);
    // One question: the verifier looks at all that follows for each answer to each.
    meta.since_let_through(now) | begins_or_ends(meta, parsed) as u32 == 0
}

/// 0: it neither begins nor ends a connection. (What is no TCP never closes, and its packets have no flags.)
#[inline(always)]
const fn begins_or_ends<A>(meta: Meta, parsed: &Parsed<A>) -> u8 {
    parsed.tcp_flags & (tcp::SYN | tcp::FIN | tcp::RST) | meta.bits() & Meta::CLOSING
}

/// Notes that a packet has come out of the stack: the host's rules let its direction through. `flow`: its entry, just
/// read.
#[inline(always)]
pub(crate) fn note_let_through<A: Address, H: Host<A>>(
    host: &H,
    entry: &H_Entry<A, H>,
    flow: &Flow<A>,
    parsed: &Parsed<A>,
) {
    let meta = Meta(flow.meta);
    let is_asked = flow.flags & FLOW_BY_STACK != 0 && !meta.is_let_through() && meta.seen() == host.now();
    if !is_asked || parsed.header.fragment != Fragment::Whole || begins_or_ends(meta, parsed) != 0 {
        return;
    }
    // The handshake's last segment is the first that says so: conntrack has seen the two before it.
    let is_tracked = parsed.transport == Transport::Tcp;
    if is_tracked && (parsed.tcp_flags & tcp::ACK == 0 || !host.is_tracked_liberally()) {
        return;
    }
    // If somebody else has changed the entry meanwhile, the next packet is asked about, too.
    let _noted = entry.swap_meta(meta, meta.let_through());
}

/// A packet on its way from the host's stack to an endpoint, on its host veth: it is left as it is, and if the host's rules
/// let it through, that is noted.
#[inline(always)]
pub fn to_container<F: Family, C: Context<F>>(c: &mut C, known: &mut Known<F::Addr>) {
    // Nobody asks FORWARD about the host's own.
    if c.is_own() || !parse::<F, C>(c, &mut known.parsed) {
        return;
    }
    let Known { parsed, flow } = known;
    if !parsed.has_flow() {
        return;
    }
    // It is translated: the endpoint's own packets tell what it was.
    let mut key = parsed.tuple.reversed();
    let Some(answers) = c.flows().get(&key) else { return };
    if !reclaim::read_alive(&answers, &key, flow)
        || flow.flags & FLOW_BY_STACK == 0
        || flow.iif != c.ifindex()
    {
        return;
    }
    key = reclaim::other_key(flow, key.proto);
    let Some(entry) = c.flows().get(&key) else { return };
    if reclaim::read_alive(&entry, &key, flow)
        && flow.flags & FLOW_TO_ENDPOINT != 0
        && flow.oif == c.ifindex()
    {
        note_let_through(c, &entry, flow, parsed);
    }
}
