//! Puts back what somebody removed by hand under living endpoints.

use super::attach::connect::fix_bridge;
use super::network;
use crate::error::Error;
use crate::instance::Instance;
use crate::refusal::Refusal;
use crate::state::Network;
use crate::undo::Step;

/// Every network's bridge, and every living endpoint's place in the datapath; returns what was put back.
pub async fn all(instance: &mut Instance) -> Result<Vec<String>, Error> {
    let mut healed = Vec::new();
    for (name, network) in instance.state.networks.clone() {
        if !network::has_bridge(instance, &network).await? {
            self::network(instance, &name).await?;
            healed.push(format!("bridge {} of network {name}", network.bridge));
        }
    }
    // Opening it puts back what is missing altogether; hooks are put back one by one, where they are gone.
    instance.datapath()?;
    for endpoint in instance.state.endpoints.clone().into_values() {
        if let Some(network) = instance.state.networks.get(&endpoint.network).cloned()
            && instance.is_alive(&endpoint).await?
        {
            instance.datapath()?.add_endpoint(&endpoint.entry(&network))?;
        }
    }
    Ok(healed)
}

/// Refuses a bridge that can't come back because somebody else has its name.
pub async fn check(instance: &Instance, name: &str, network: &Network) -> Result<(), Error> {
    let bridge = &network.bridge;
    match instance.net.link(bridge).await? {
        Some(_) => Err(Refusal::BridgeReplaced { network: name.into(), bridge: bridge.clone() }.into()),
        None => Ok(()),
    }
}

/// Creates a network's bridge again, with a new ifindex; its living endpoints become ports of it.
pub async fn network(instance: &mut Instance, name: &str) -> Result<Network, Error> {
    let lost = instance.network(name)?.clone();
    check(instance, name, &lost).await?;
    let made = network::make_again(instance, name, lost.clone()).await?;
    for endpoint in instance.state.endpoints.clone().into_values().filter(|endpoint| endpoint.network == name)
    {
        if !instance.is_alive(&endpoint).await? {
            continue;
        }
        instance.will(Step::RestoreEndpoint(endpoint.entry(&lost)))?;
        instance.net.set_master(endpoint.host_ifindex, made.ifindex).await?;
        fix_bridge(instance, &made, &endpoint).await?;
        instance.datapath()?.add_endpoint(&endpoint.entry(&made))?;
    }
    Ok(made)
}
