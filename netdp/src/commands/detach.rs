//! `netdp detach`: takes an endpoint off its network.

use crate::cli::Global;
use crate::datapath::FlowsOfPort;
use crate::error::Error;
use crate::hostfiles::run_dir;
use crate::instance::Instance;
use crate::net::NetNsId;
use crate::output;
use crate::refusal::Refusal;
use crate::state::{Endpoint, Removal, State};
use crate::target::Target;
use crate::undo::Step;

/// Detaches one endpoint.
pub async fn run(global: &Global, name: &str) -> Result<(), Error> {
    let mut instance = Instance::change(global).await?;
    let removed = async {
        let borrowers: Vec<String> =
            instance.state.borrowers(name).into_iter().map(ToOwned::to_owned).collect();
        if !borrowers.is_empty() {
            return Err(Refusal::Borrowed { lender: name.into(), borrowers }.into());
        }
        remove(&mut instance, name).await
    };
    let removed = removed.await;
    instance.finish(removed).await?;
    if global.json { Ok(()) } else { output::line(format!("{name}: detached")) }
}

/// Removes what is left of an endpoint whose place another one takes, for this namespace. What would remove the new
/// one's files, or a name of the same namespace's, is not done but returned.
pub async fn replace(instance: &mut Instance, name: &str, target: &Target) -> Result<Vec<Removal>, Error> {
    remove(instance, name).await?;
    let files = Removal::Files(run_dir(instance.dir(), name));
    let is_kept = |removal: &Removal| match removal {
        Removal::Namespace { name, .. } => *target == Target::Named(name.clone()),
        removal => *removal == files,
    };
    Ok(instance.state.removing.extract_if(.., |removal| is_kept(removal)).collect())
}

/// Takes an endpoint out of the datapath and the state. Its veth goes when the command has succeeded.
pub async fn remove(instance: &mut Instance, name: &str) -> Result<(), Error> {
    if let Some(bound) = instance.state.bound.remove(name) {
        let removal = drop_namespace(instance, &bound.target, bound.netns, bound.created);
        instance.state.removing.extend(removal);
        return Ok(());
    }
    let endpoint = instance.endpoint(name)?.clone();
    let network = instance.state.networks.get(&endpoint.network).cloned();
    let alive = instance.is_alive(&endpoint).await?;
    let mut removing = Vec::new();
    removing.push(Removal::Link { index: endpoint.host_ifindex, name: endpoint.host_ifname.clone() });
    if let Some(network) = &network {
        unpublish_all(instance, &endpoint)?;
        let entry = endpoint.entry(network);
        if alive {
            instance.will(Step::RestoreEndpoint(entry.clone()))?;
            instance.datapath()?.remove_endpoint(&entry)?;
        } else {
            // Nobody could put it back.
            removing.push(Removal::Endpoint(entry));
        }
        for addr in &endpoint.addresses {
            instance.will(Step::RestoreNeighbour(network.ifindex, addr.addr(), endpoint.mac))?;
            instance.net.remove_neighbour(network.ifindex, addr.addr()).await?;
        }
    }
    removing.push(Removal::Files(run_dir(instance.dir(), name)));
    instance.state.endpoints.remove(name);
    removing.extend(drop_namespace(instance, &endpoint.target, endpoint.netns, endpoint.created));
    instance.state.removing.extend(removing);
    Ok(())
}

fn unpublish_all(instance: &mut Instance, endpoint: &Endpoint) -> Result<(), Error> {
    instance.datapath()?;
    if endpoint.published.is_empty() {
        return Ok(());
    }
    let entries = endpoint.publish_entries(&endpoint.published);
    instance.will(Step::Republish(entries.clone()))?;
    Ok(instance.datapath()?.unpublish(&entries, FlowsOfPort::End)?)
}

/// A name that `--create` made goes with the last one who uses it, unless somebody put another namespace there.
fn drop_namespace(
    instance: &mut Instance,
    target: &Target,
    netns: NetNsId,
    created: bool,
) -> Option<Removal> {
    let Target::Named(name) = target else {
        return None;
    };
    if !created {
        return None;
    }
    let State { endpoints, bound, .. } = &mut instance.state;
    let endpoints = endpoints.values_mut().map(|other| (&other.target, other.netns, &mut other.created));
    let bound = bound.values_mut().map(|other| (&other.target, other.netns, &mut other.created));
    match endpoints.chain(bound).find(|(other, id, _)| *id == netns && *other == target) {
        Some((_, _, created)) => {
            *created = true;
            None
        }
        None => Some(Removal::Namespace { name: name.clone(), id: netns }),
    }
}
