//! `netdp unpublish`: takes host ports back.

use std::collections::HashSet;

use crate::cli::{self, Global};
use crate::datapath::FlowsOfPort;
use crate::error::Error;
use crate::instance::Instance;
use crate::output;
use crate::plan::published::Published;
use crate::refusal::Refusal;
use crate::state::Endpoint;
use crate::undo::Step;

/// Unpublishes ports of one endpoint.
pub async fn run(global: &Global, args: &cli::Unpublish) -> Result<(), Error> {
    let mut instance = Instance::change(global).await?;
    let removed = unpublish(&mut instance, args);
    let removed = instance.finish(removed).await?;
    if global.json {
        return output::json(&removed);
    }
    output::lines(removed.iter().map(|published| format!("{published}: unpublished")))
}

fn unpublish(instance: &mut Instance, args: &cli::Unpublish) -> Result<Vec<Published>, Error> {
    let endpoint = instance.endpoint(&args.name)?.clone();
    let meant = if args.all { endpoint.published.clone() } else { meant(&endpoint, args)? };
    let flows = if args.drain { FlowsOfPort::Drain } else { FlowsOfPort::End };
    if !meant.is_empty() {
        let entries = endpoint.publish_entries(&meant);
        instance.datapath()?;
        instance.will(Step::Republish(entries.clone()))?;
        instance.datapath()?.unpublish(&entries, flows)?;
    }
    if let Some(endpoint) = instance.state.endpoints.get_mut(&args.name) {
        let removed: HashSet<&Published> = meant.iter().collect();
        endpoint.published.retain(|published| !removed.contains(published));
    }
    Ok(meant)
}

fn meant(endpoint: &Endpoint, args: &cli::Unpublish) -> Result<Vec<Published>, Refusal> {
    let mut meant = Vec::new();
    for spec in &args.spec {
        let found = endpoint.published.iter().filter(|published| published.is_meant_by(spec)).cloned();
        let before = meant.len();
        meant.extend(found);
        if meant.len() == before {
            return Err(Refusal::NotPublished {
                name: args.name.clone(),
                spec: spec.to_string(),
                published: endpoint.published.iter().map(ToString::to_string).collect(),
            });
        }
    }
    Ok(meant)
}
