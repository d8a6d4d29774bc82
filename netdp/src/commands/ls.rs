//! `netdp ls`: the endpoints.

use super::endpoint;
use crate::cli::Global;
use crate::error::Error;
use crate::output;

/// Lists them.
pub async fn run(global: &Global) -> Result<(), Error> {
    let listed = endpoint::all(global).await?;
    if global.json { output::json(&listed) } else { endpoint::table(&listed) }
}
