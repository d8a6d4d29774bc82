//! The NAT core of netdp: everything that decides what happens to a packet.
//!
//! Nothing here knows the kernel. A packet is read and rewritten through [`packet::Packet`], everything else
//! (tables, clock, randomness, routes, sockets) is asked of [`tables::Host`]; the same code runs inside the TC
//! programs, in the tests and in fuzzers. It is written once and generic over [`family::Family`].
//!
//! A packet's way, top to bottom:
//!
//! 1. A hook (crate `netdp-ebpf`) calls [`nat::from_container`], [`nat::from_world`] or [`nat::to_world`].
//! 2. [`parse`] reads the headers into a [`flow::Tuple`].
//! 3. One look-up in the flow table. A hit is translated by [`rewrite`] and leaves: nothing else is asked.
//! 4. A miss asks [`outbound`] or [`inbound`] whether a new flow may be made, and which.
//! 5. [`opening`] makes it: [`claim`] chooses and claims its port in one atomic insert, and enters both directions.
//! 6. An ICMP error has no flow of its own: [`icmp_error`] translates it by the packet it quotes.
//! 7. [`fragment`] does the same for fragments, of which only the first has ports. One that overtakes it is
//!    [`waiting`].
//! 8. What the host's own sockets send passes only by [`nat::to_world`]; [`own`] sees to it that no mapping has its
//!    tuple.
//! 9. Where the uplink has an XDP program, [`early`] drops what would be dropped further on without a word.
//! 10. The result is a [`verdict::Verdict`]; every drop has a [`verdict::DropReason`]. [`refusal`] says which
//!     sender is told, by a [`reset`] or an [`icmp_answer`].
//!
//! Where the host's firewall decides ([`firewall`]), what it lets through takes the same way.
//!
//! [`meta`] and [`reclaim`] say when a flow ends and how it is removed while packets use it, [`moved`] when it has
//! ended because its published port leads elsewhere now. [`tcp`] knows how a connection ends, [`closing`] follows one
//! that does, [`recycle`] gives its port to the next.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod claim;
pub mod closing;
pub mod early;
pub mod family;
pub mod firewall;
pub mod flow;
pub mod fragment;
pub mod header;
pub mod icmp_answer;
pub mod icmp_error;
pub mod inbound;
pub mod lifetime;
pub mod link;
pub mod meta;
pub mod moved;
pub mod nat;
pub mod next_hop;
pub mod opening;
pub mod outbound;
pub mod own;
pub mod packet;
pub mod parse;
pub mod ports;
pub mod quota;
pub mod random;
pub mod rate;
pub mod reclaim;
pub mod recycle;
pub mod refusal;
pub mod reset;
pub mod rewrite;
mod sum;
pub mod tables;
pub mod tcp;
pub mod timestamp;
pub mod verdict;
pub mod waiting;
