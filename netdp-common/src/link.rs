//! What an endpoint says on its link besides IP: whose address has which MAC (ARP), and protocols that are not ours.
//!
//! The bridge learns nothing from endpoints, but their neighbours and the host would believe who claims another's
//! address (G12). Neighbour discovery is IPv6, see [`crate::family::Family::forges`].

use crate::family::{Address, Family};
use crate::flow::NETWORK_NO_ICC;
use crate::header::{arp, ethernet};
use crate::nat::Context;
use crate::outbound::is_mac;
use crate::verdict::{DropReason, Verdict};

/// A frame from an endpoint that is neither IPv4 nor IPv6. `F` is IPv4, whose addresses ARP is about.
#[inline(always)]
pub fn from_container<F: Family, C: Context<F>>(c: &C) -> Verdict {
    let Some(sender) = c.sender(c.ifindex()) else { return Verdict::STACK };
    let Some([to, from]) = c.load::<[[u16; 3]; 2]>(ethernet::MACS) else {
        return Verdict::drop(DropReason::Malformed);
    };
    if !is_mac(from, sender.mac) {
        return Verdict::drop(DropReason::Spoofed);
    }
    if c.ethertype() != ethernet::ARP {
        let is_apart = c.network(sender.network).is_some_and(|network| network.flags & NETWORK_NO_ICC != 0);
        let isolated = is_apart && !is_mac(to, sender.bridge_mac);
        return if isolated { Verdict::drop(DropReason::Isolated) } else { Verdict::STACK };
    }
    let said = c.load::<[u16; 3]>(c.l3() + arp::SENDER).zip(c.load::<F::Addr>(c.l3() + arp::SENDER_ADDRESS));
    let Some((said_mac, addr)) = said else { return Verdict::drop(DropReason::Malformed) };
    // A probe has no address yet (RFC 5227 1.1).
    let may_say = addr == F::Addr::UNSPECIFIED || addr == sender.addr || c.allowed(sender.ifindex, &addr);
    if is_mac(said_mac, sender.mac) && may_say { Verdict::STACK } else { Verdict::drop(DropReason::Spoofed) }
}
