//! The veth pair of an endpoint and everything that belongs to it, on the host and in the namespace.

use crate::error::Error;
use crate::instance::Instance;
use crate::net::{LOOPBACK, Mac, Net, NetNs, VethSpec};
use crate::state::{Endpoint, Network};
use crate::target::Target;
use crate::undo::Step;

/// Connects a namespace with its network; returns the endpoint with its ifindexes. What it publishes comes later.
///
/// The datapath knows the endpoint before the namespace has an address, so that no packet of it takes the stack.
pub(super) async fn connect(
    instance: &mut Instance,
    ns: &NetNs,
    network: &Network,
    mut endpoint: Endpoint,
) -> Result<Endpoint, Error> {
    instance.datapath()?;
    let host_mac = Mac::random_local();
    instance.will(Step::DeleteLink(endpoint.host_ifname.clone(), host_mac))?;
    let spec = VethSpec {
        host_name: &endpoint.host_ifname,
        host_mac,
        bridge: network.ifindex,
        peer_ns: ns,
        peer_name: &endpoint.ifname,
        peer_mac: endpoint.mac,
        mtu: network.mtu,
        queues: queues(),
    };
    let (host, peer) = instance.net.create_veth(&spec).await?;
    (endpoint.host_ifindex, endpoint.ifindex) = (host.index, peer.index);
    let entry = endpoint.entry(network);
    instance.will(Step::ForgetEndpoint(entry.clone()))?;
    instance.datapath()?.add_endpoint(&entry)?;
    fix_bridge(instance, network, &endpoint).await?;
    fix_namespace(ns, network, &endpoint).await?;
    Ok(endpoint)
}

/// Redirected frames teach the bridge nothing, so it is told where the endpoint is; flooding goes off last.
pub(crate) async fn fix_bridge(
    instance: &mut Instance,
    network: &Network,
    endpoint: &Endpoint,
) -> Result<(), Error> {
    instance.net.replace_fdb(endpoint.host_ifindex, endpoint.mac).await?;
    for addr in &endpoint.addresses {
        instance.will(Step::RemoveNeighbour(network.ifindex, addr.addr()))?;
        instance.net.replace_neighbour(network.ifindex, addr.addr(), endpoint.mac).await?;
    }
    let flags = instance.datapath()?.port_flags(network.ifindex);
    Ok(instance.net.set_bridge_port(endpoint.host_ifindex, flags).await?)
}

/// Addresses, and a default route if there is none (an internal network leads nowhere).
async fn fix_namespace(ns: &NetNs, network: &Network, endpoint: &Endpoint) -> Result<(), Error> {
    let net = Net::open(ns)?;
    for addr in &endpoint.addresses {
        net.add_address(endpoint.ifindex, *addr).await?;
    }
    for gateway in network.gateways.iter().filter(|_| !network.internal) {
        if net.default_route(gateway.is_ipv6()).await?.is_none() {
            net.add_default_route(*gateway, endpoint.ifindex).await?;
        }
    }
    Ok(())
}

/// Brings loopback up.
pub(super) async fn loopback(instance: &mut Instance, ns: &NetNs, target: &Target) -> Result<(), Error> {
    let net = Net::open(ns)?;
    if let Some(lo) = net.link(LOOPBACK).await?.filter(|lo| !lo.up) {
        instance.will(Step::LoopbackDown(target.file(), ns.id()))?;
        net.set_up(lo.index).await?;
    }
    Ok(())
}

/// One queue for each CPU, so that every CPU can receive.
fn queues() -> u32 {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cpus).unwrap_or(1)
}
