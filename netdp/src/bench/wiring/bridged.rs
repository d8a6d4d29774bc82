//! A bridge and `ip_forward`, by netlink.

use crate::bench::Error;
use crate::bench::arena::{self, Client, ETH0, GATEWAY, MTU, PREFIX};
use crate::net::{BridgeSpec, Mac, NetNs, VethSpec};

use super::{HOST_IFNAME, address_of};

const BRIDGE: &str = "br0";

/// Connects the containers.
pub(super) fn wire(host: &NetNs, containers: Vec<NetNs>) -> Result<Vec<Client>, Error> {
    arena::set_sysctl(host, "net/ipv4/ip_forward", "1")?;
    let gateway_mac = Mac::random_local();
    let bridge = arena::in_ns(host, async |net| {
        let spec = BridgeSpec { name: BRIDGE.into(), mac: gateway_mac, mtu: MTU, forwards_v6: false };
        net.create_bridge(&spec).await
    })?;
    arena::address(host, bridge.index, GATEWAY, PREFIX)?;
    containers
        .into_iter()
        .enumerate()
        .map(|(n, ns)| connect(host, bridge.index, gateway_mac, n, ns))
        .collect()
}

fn connect(host: &NetNs, bridge: u32, gateway_mac: Mac, number: usize, ns: NetNs) -> Result<Client, Error> {
    let mac = Mac::random_local();
    let (_, eth0) = arena::in_ns(host, async |net| {
        let spec = VethSpec {
            host_name: &format!("{HOST_IFNAME}{number}"),
            host_mac: Mac::random_local(),
            bridge,
            peer_ns: &ns,
            peer_name: ETH0,
            peer_mac: mac,
            mtu: MTU,
            queues: 1,
        };
        net.create_veth(&spec).await
    })?;
    let address = address_of(number);
    arena::address(&ns, eth0.index, address, PREFIX)?;
    arena::in_ns(&ns, async |net| net.add_default_route(GATEWAY.into(), eth0.index).await)?;
    Ok(Client { ns, address, mac, gateway_mac })
}
