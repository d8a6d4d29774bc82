//! `netdp repair`: puts back what somebody else removed.

use serde::Serialize;

use super::heal;
use crate::cli::Global;
use crate::error::Error;
use crate::instance::Instance;
use crate::output;

/// What was done, in JSON.
#[derive(Debug, Default, Serialize)]
struct Repaired {
    repaired: Vec<String>,
    /// What could not be put right.
    left: Vec<String>,
}

/// Looks at bridges, endpoints and the datapath, and makes them what the state says.
pub async fn run(global: &Global) -> Result<(), Error> {
    let repaired = match Instance::existing(global).await? {
        Some(mut instance) => {
            let repaired = repair(&mut instance).await;
            instance.finish(repaired).await?
        }
        None => Repaired::default(),
    };
    if global.json {
        return output::json(&repaired);
    }
    if repaired.repaired.is_empty() && repaired.left.is_empty() {
        return output::line("nothing to repair");
    }
    repaired.repaired.iter().try_for_each(|what| output::line(format!("repaired: {what}")))?;
    repaired.left.iter().try_for_each(|what| output::line(format!("still wrong: {what}")))
}

async fn repair(instance: &mut Instance) -> Result<Repaired, Error> {
    let mut repaired = Vec::new();
    match instance.datapath_if_there()? {
        Some(datapath) => repaired.extend(datapath.faults()?),
        None => repaired.push("the whole datapath".to_owned()),
    }
    repaired.extend(heal::all(instance).await?);
    let datapath = instance.datapath()?;
    datapath.refresh_host()?;
    let left = datapath.faults()?;
    repaired.retain(|fault| !left.contains(fault));
    Ok(Repaired { repaired, left })
}
