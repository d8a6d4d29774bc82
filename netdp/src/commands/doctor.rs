//! `netdp doctor`: what this kernel and host offer, and what is wrong.

use crate::cli::Global;
use crate::error::Error;

/// Looks at everything and says what it sees.
pub async fn run(global: &Global) -> Result<(), Error> {
    let _ = global;
    Ok(())
}
