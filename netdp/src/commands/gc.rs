//! `netdp gc`: removes what belongs to endpoints that are gone, and puts back what somebody removed under the others.

use serde::Serialize;

use super::{detach, heal};
use crate::cli::Global;
use crate::error::Error;
use crate::instance::Instance;
use crate::output;

/// What was removed and put back, in JSON.
#[derive(Default, Serialize)]
struct Removed {
    removed: Vec<String>,
    healed: Vec<String>,
}

/// Removes endpoints whose namespace or veth is gone, puts back bridges, programs and hooks.
pub async fn run(global: &Global) -> Result<(), Error> {
    let removed = match Instance::existing(global).await? {
        Some(mut instance) => {
            let removed = sweep(&mut instance).await;
            instance.finish(removed).await?
        }
        None => Removed::default(),
    };
    if global.json {
        return output::json(&removed);
    }
    removed.removed.iter().try_for_each(|name| output::line(format!("{name}: removed")))?;
    removed.healed.iter().try_for_each(|what| output::line(format!("{what}: put back")))
}

async fn sweep(instance: &mut Instance) -> Result<Removed, Error> {
    let bound = instance.state.bound.iter().filter(|(_, bound)| !bound.is_alive());
    let mut gone: Vec<String> = bound.map(|(name, _)| name.clone()).collect();
    for (name, endpoint) in &instance.state.endpoints {
        if !instance.is_alive(endpoint).await? {
            gone.push(name.clone());
        }
    }
    let mut removed = Removed::default();
    for name in gone {
        detach::remove(instance, &name).await?;
        removed.removed.push(name);
    }
    if !instance.is_fresh() {
        removed.healed = heal::all(instance).await?;
    }
    Ok(removed)
}
