//! Tier 0: the flow protocol (claim, adopt, expire, recycle, delete) under loom, in every interleaving of a few CPUs.
//!
//! The hooks' real code runs on every CPU, packets included; only the tables are a model (`protocol/table.rs`).
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test -p netdp-common --release --test protocol
//! ```
#![cfg(loom)]

#[path = "protocol/claims.rs"]
mod claims;
#[path = "protocol/model.rs"]
mod model;
#[path = "protocol/recycling.rs"]
mod recycling;
#[path = "protocol/removals.rs"]
mod removals;
#[path = "protocol/table.rs"]
mod table;
