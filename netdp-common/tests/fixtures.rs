//! Tier 1: what becomes of a packet, as tables: what is set up, packets in, verdicts, packets out; for both families.
//!
//! The packets that are expected are built by etherparse from what is in the row: no code of ours says what is right.
#![cfg(not(loom))]

use netdp_common::family::{V4, V6};
use netdp_model::plan::Plan;

#[path = "fixtures/answers.rs"]
mod answers;
#[path = "fixtures/churn.rs"]
mod churn;
#[path = "fixtures/fragments.rs"]
mod fragments;
#[path = "fixtures/honoured.rs"]
mod honoured;
#[path = "fixtures/icmp.rs"]
mod icmp;
#[path = "fixtures/lifetime.rs"]
mod lifetime;
#[path = "fixtures/others.rs"]
mod others;
#[path = "fixtures/own.rs"]
mod own;
#[path = "fixtures/policed.rs"]
mod policed;
#[path = "fixtures/pool.rs"]
mod pool;
#[path = "fixtures/published.rs"]
mod published;
#[path = "fixtures/refused.rs"]
mod refused;
#[path = "fixtures/script.rs"]
mod script;
#[path = "fixtures/snat.rs"]
mod snat;
#[path = "fixtures/stack.rs"]
mod stack;
#[path = "fixtures/timeouts.rs"]
mod timeouts;

use crate::script::Script;

/// Runs every row, and names those that failed.
fn run<F: Plan>(tables: &[fn() -> Vec<Script<F>>]) {
    let rows: Vec<Script<F>> = tables.iter().flat_map(|table| table()).collect();
    assert!(!rows.is_empty());
    let failures: Vec<String> = rows.into_iter().filter_map(|row| row.run().err()).collect();
    assert!(failures.is_empty(), "{} rows failed:\n{}", failures.len(), failures.join("\n"));
}

macro_rules! in_both_families {
    ($($table:ident: $($rows:path),+;)*) => {$(
        mod $table {
            #[test]
            fn v4() {
                crate::run::<crate::V4>(&[$($rows),+]);
            }

            #[test]
            fn v6() {
                crate::run::<crate::V6>(&[$($rows),+]);
            }
        }
    )*};
}

in_both_families! {
    outward: crate::snat::there_and_back, crate::snat::checksums, crate::snat::addresses;
    several_addresses: crate::pool::rows;
    policies: crate::policed::rows;
    by_addresses: crate::others::tunnels, crate::others::sctp;
    inward: crate::published::inward;
    hairpins: crate::published::hairpins;
    moved: crate::published::moved;
    sources: crate::published::sources;
    between_endpoints: crate::refused::neighbours;
    not_ours: crate::stack::rows;
    of_the_host: crate::own::rows;
    dropped: crate::refused::from_endpoints, crate::refused::from_outside, crate::refused::unusual_frames;
    exhausted: crate::refused::exhausted;
    told: crate::answers::rows, crate::answers::silence;
    too_big: crate::answers::too_big;
    next_hops: crate::answers::next_hops;
    fragmented: crate::fragments::in_order, crate::fragments::overtaken, crate::fragments::of_the_stack;
    by_the_hosts_rules: crate::honoured::outward, crate::honoured::inward, crate::honoured::refused_by_the_stack, crate::honoured::let_through;
    over_time: crate::lifetime::rows;
    of_networks: crate::timeouts::of_networks, crate::timeouts::taken_over,
        crate::timeouts::through_published_ports;
    connections_end: crate::churn::rows, crate::churn::in_fragments, crate::churn::of_the_host;
    icmp_errors: crate::icmp::translated, crate::icmp::refused;
}
