//! `netdp ls`: the endpoints.

use super::endpoint;
use crate::cli::Global;
use crate::error::Error;
use crate::instance::Instance;
use crate::output;
use crate::state::State;

/// Lists them.
pub async fn run(global: &Global) -> Result<(), Error> {
    let listed = endpoint::all(global).await?;
    if global.json {
        return output::json(&listed);
    }
    endpoint::table(&listed)?;
    let Some(instance) = Instance::read(global).await? else {
        return Ok(());
    };
    let State { datapath, datapath_reason, .. } = &instance.state;
    output::line(match datapath_reason {
        Some(reason) => format!("datapath {}: {reason}", datapath.name()),
        None => format!("datapath {}", datapath.name()),
    })
}
