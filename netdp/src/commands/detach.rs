//! `netdp detach`: takes an endpoint off its network.

use crate::cli::Global;
use crate::error::Error;
use crate::hostfiles::run_dir;
use crate::instance::Instance;
use crate::output;
use crate::state::{Endpoint, Removal};
use crate::target::Target;
use crate::undo::Step;

/// Detaches one endpoint.
pub async fn run(global: &Global, name: &str) -> Result<(), Error> {
    let mut instance = Instance::change(global).await?;
    let removed = remove(&mut instance, name).await;
    instance.finish(removed).await?;
    if global.json { Ok(()) } else { output::line(format!("{name}: detached")) }
}

/// Takes an endpoint out of the datapath and the state. Its veth goes when the command has succeeded.
pub async fn remove(instance: &mut Instance, name: &str) -> Result<(), Error> {
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
    removing.extend(drop_namespace(instance, &endpoint));
    instance.state.removing.extend(removing);
    Ok(())
}

fn unpublish_all(instance: &mut Instance, endpoint: &Endpoint) -> Result<(), Error> {
    instance.datapath()?;
    let published: Vec<_> =
        endpoint.published.iter().flat_map(|published| endpoint.publish_entries(published)).collect();
    for published in published {
        instance.will(Step::Republish(published))?;
        instance.datapath()?.unpublish(&published)?;
    }
    Ok(())
}

/// A name that `--create` made goes with the last endpoint in that namespace, unless somebody put another there.
fn drop_namespace(instance: &mut Instance, endpoint: &Endpoint) -> Option<Removal> {
    let Target::Named(name) = &endpoint.target else {
        return None;
    };
    if !endpoint.created {
        return None;
    }
    match instance.state.endpoints.values_mut().find(|other| other.netns == endpoint.netns) {
        Some(other) => {
            other.created |= other.target == endpoint.target;
            None
        }
        None => Some(Removal::Namespace { name: name.clone(), id: endpoint.netns }),
    }
}
