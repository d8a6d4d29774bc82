//! `netdp run`: a command in a new, attached namespace.

use crate::cli::{self, Global};
use crate::entry::Caller;
use crate::error::Error;

/// Runs it; returns its exit code.
pub async fn run(global: &Global, args: cli::Run, caller: Caller) -> Result<u8, Error> {
    let _ = (global, args, caller);
    Ok(0)
}
