//! `netdp detach`: takes an endpoint off its network.

use super::run::files_dir;
use crate::cli::Global;
use crate::error::Error;
use crate::instance::{Instance, delete_namespace, remove_files};
use crate::output;
use crate::state::{Endpoint, Network};
use crate::target::Target;
use crate::undo::Step;

/// Detaches one endpoint.
pub async fn run(global: &Global, name: &str) -> Result<(), Error> {
    let mut instance = Instance::change(global).await?;
    let removed = remove(&mut instance, name).await;
    let failures = instance.finish(removed).await?;
    if !failures.is_empty() {
        return Err(Error::Incomplete { doing: format!("detaching {name}"), failures });
    }
    if global.json { Ok(()) } else { output::line(format!("{name}: detached")) }
}

/// Removes an endpoint; returns what went wrong after the point where it could still be undone.
pub async fn remove(instance: &mut Instance, name: &str) -> Result<Vec<String>, Error> {
    let endpoint = instance.endpoint(name)?.clone();
    let network = instance.state.networks.get(&endpoint.network).cloned();
    if let Some(network) = &network {
        leave_datapath(instance, &endpoint, network)?;
    }
    let link = instance.net.link_by_index(endpoint.host_ifindex).await?;
    if let Some(link) = link.filter(|link| link.name == endpoint.host_ifname) {
        instance.net.delete_link(link.index).await?;
    }
    instance.state.endpoints.remove(name);
    let mut failures = Vec::new();
    for (network, addr) in
        network.iter().flat_map(|network| endpoint.addresses.iter().map(move |addr| (network, addr)))
    {
        if let Err(error) = instance.net.remove_neighbour(network.ifindex, addr.addr()).await {
            failures.push(error.to_string());
        }
    }
    if let Err(error) = remove_files(&files_dir(instance, name)) {
        failures.push(error.to_string());
    }
    if let Err(error) = drop_namespace(instance, &endpoint) {
        failures.push(error.to_string());
    }
    Ok(failures)
}

fn leave_datapath(instance: &mut Instance, endpoint: &Endpoint, network: &Network) -> Result<(), Error> {
    instance.datapath()?;
    let entry = endpoint.entry(network);
    let published: Vec<_> =
        endpoint.published.iter().flat_map(|published| endpoint.publish_entries(published)).collect();
    for published in published {
        instance.will(Step::Republish(published))?;
        instance.datapath()?.unpublish(&published)?;
    }
    instance.will(Step::RestoreEndpoint(entry.clone()))?;
    Ok(instance.datapath()?.remove_endpoint(&entry)?)
}

/// A name that `--create` made goes with the last endpoint in that namespace, unless somebody put another there.
fn drop_namespace(instance: &mut Instance, endpoint: &Endpoint) -> Result<(), Error> {
    let Target::Named(name) = &endpoint.target else {
        return Ok(());
    };
    if !endpoint.created || !endpoint.target.is_at(endpoint.netns) {
        return Ok(());
    }
    let others = instance.state.endpoints.values_mut().find(|other| other.netns == endpoint.netns);
    match others {
        Some(other) => {
            other.created |= other.target == endpoint.target;
            Ok(())
        }
        None => delete_namespace(name),
    }
}
