//! A published port that is moved to another endpoint takes its clients along at once, whatever it costs nobody: the
//! table is not searched for the flows to the old endpoint. Each of them finds by itself that it has ended. So do those
//! of clients that are not in a port's new list of sources.
//!
//! User space changes where the port leads, or which list it has, marks it as moved ([`Published::moved`]), and then notes the tick. From
//! that tick on, the first packet of each flow in each tick asks where its port leads; in that tick and the next,
//! every packet does. A flow that ends elsewhere, or whose client is not listed, is removed through the gate of [`crate::reclaim`], and its packet
//! starts over. A port that was unpublished and then published anew is not marked: flows that were left to drain go on.

use crate::family::Address;
use crate::flow::{EVERYBODY, FLOW_INITIATOR, Flow, Published, PublishedKey, SourceList};
use crate::meta::Meta;
use crate::outbound::published;
use crate::tables::Host;

/// Whether a flow of which there is a packet now, or could be, has ended because its published port was moved.
#[inline(always)]
pub fn ends_flow<A: Address, H: Host<A>>(host: &H, flow: &Flow<A>, proto: u8, now: u32) -> bool {
    if !flow.is_published() {
        return false;
    }
    let asked_in_this_tick = Meta(flow.meta).seen() == now && !is_recent(host.moved_at(), now);
    !asked_in_this_tick && has_moved(host, flow, proto)
}

/// In this tick, in the one before, or (another CPU's clock is ahead) in the next.
#[inline(always)]
const fn is_recent(tick: u32, now: u32) -> bool {
    now.wrapping_sub(tick).wrapping_add(1) <= 2
}

/// Whether the port of an entry's flow was moved, and leads elsewhere than the flow, or not for its client.
#[inline(never)]
fn has_moved<A: Address, H: Host<A>>(host: &H, flow: &Flow<A>, proto: u8) -> bool {
    match published(host, &host_end(flow, proto)) {
        Some(published) => published.has_cut(flow, |list, addr| host.is_source(list, addr)),
        None => false,
    }
}

/// The published address and port that an entry's flow came by.
#[inline(always)]
pub fn host_end<A: Address>(flow: &Flow<A>, proto: u8) -> PublishedKey<A> {
    let (addr, port) = if flow.flags & FLOW_INITIATOR != 0 {
        (flow.own_dst, flow.own_dport)
    } else {
        (flow.src, flow.sport)
    };
    PublishedKey { addr, proto, pad: 0, port }
}

impl<A: Address> Published<A> {
    /// Whether an entry's flow, which came by this port, ended when the port was moved. `is_source`: whether a list has
    /// an address.
    #[inline(always)]
    pub fn has_cut(&self, flow: &Flow<A>, is_source: impl FnOnce(SourceList, &A) -> bool) -> bool {
        let (client, addr, port) = if flow.flags & FLOW_INITIATOR != 0 {
            (flow.own_src, flow.dst, flow.dport)
        } else {
            (flow.dst, flow.own_src, flow.own_sport)
        };
        let host_port = host_end(flow, 0).port;
        if self.moved == 0 {
            return false;
        }
        addr != self.endpoint || port != self.endpoint_port(host_port) || !self.admits(&client, is_source)
    }

    /// Whether this source may open flows by the port. `is_source`: whether a list has an address.
    #[inline(always)]
    pub fn admits(&self, source: &A, is_source: impl FnOnce(SourceList, &A) -> bool) -> bool {
        self.sources == EVERYBODY || is_source(self.sources, source)
    }
}
