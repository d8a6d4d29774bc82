//! `netdp down`: removes everything of an instance.

use super::network;
use crate::cli::Global;
use crate::datapath::{Kind, select};
use crate::error::Error;
use crate::instance::{Instance, bpffs_release, delete_namespace};
use crate::progress::Progress;
use crate::state;
use crate::target::Target;

/// Removes the instance. Goes on when something can't be removed, and reports all of it.
pub async fn run(global: &Global) -> Result<(), Error> {
    let _progress = Progress::begin("removing the instance");
    let mut failures = Vec::new();
    let note = |failures: &mut Vec<String>, result: Result<(), Error>| {
        failures.extend(result.err().map(|error| error.to_string()));
    };
    let mut instance = match Instance::for_removal(global) {
        Err(Error::State(state::Error::Damaged { path, .. })) => {
            let left = "the bridges and veths that it named are left, delete them by hand";
            failures.push(format!("{} was damaged and is removed: {left}", path.display()));
            Instance::for_removal_without_state(global)?
        }
        other => other?,
    };
    let (mut opened, mut kind) = (None, Kind::Ebpf);
    if let Some(instance) = &mut instance {
        kind = instance.state.datapath;
        if instance.state.host == instance.host.id() {
            note(&mut failures, instance.recover().await);
            remove_links(instance, &mut failures).await;
        }
        opened = instance.take_datapath();
    }
    note(&mut failures, select::remove(opened, kind, &global.instance).map_err(Error::from));
    match instance {
        Some(mut instance) if !failures.is_empty() && !instance.is_fresh() => instance.save()?,
        Some(instance) => instance.forget(),
        None => {}
    }
    note(&mut failures, bpffs_release());
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::Incomplete { doing: format!("removing instance {}", global.instance), failures })
}

/// Deletes the links, then the names of namespaces that netdp made. What is gone leaves the state.
async fn remove_links(instance: &mut Instance, failures: &mut Vec<String>) {
    for (name, endpoint) in instance.state.endpoints.clone() {
        let removed = async {
            let link = instance.net.link_by_index(endpoint.host_ifindex).await?;
            if link.is_some_and(|link| link.name == endpoint.host_ifname) {
                instance.net.delete_link(endpoint.host_ifindex).await?;
            }
            match &endpoint.target {
                Target::Named(name) if endpoint.created && endpoint.target.is_at(endpoint.netns) => {
                    delete_namespace(name)
                }
                _ => Ok(()),
            }
        };
        match removed.await {
            Ok(()) => drop(instance.state.endpoints.remove(&name)),
            Err(error) => failures.push(error.to_string()),
        }
    }
    for (name, network) in instance.state.networks.clone() {
        let removed = async {
            if network::has_bridge(instance, &network).await? {
                instance.net.delete_link(network.ifindex).await?;
            }
            Ok::<_, Error>(())
        };
        match removed.await {
            Ok(()) => drop(instance.state.networks.remove(&name)),
            Err(error) => failures.push(error.to_string()),
        }
    }
}
