//! netdp as a library: what the command line is made of, so that tests, xtask and adapters for container runtimes
//! can use the parts.
//!
//! A command is read: `main.rs` → [`cli`] → [`entry`] (to the host's namespaces) → [`commands`] (one file per verb)
//! → [`plan`] (decides, pure) → [`net`] and [`datapath`] (act) → [`undo`] when a step fails. [`instance`] holds the
//! lock and the state meanwhile.

pub mod bench;
pub mod cli;
pub mod commands;
pub mod datapath;
pub mod entry;
pub mod error;
pub mod failpoint;
pub mod hostfiles;
pub mod instance;
pub mod net;
pub mod output;
pub mod plan;
pub mod progress;
mod random;
pub mod refusal;
pub mod spec;
pub mod state;
pub mod target;
pub mod undo;

pub use error::Error;
