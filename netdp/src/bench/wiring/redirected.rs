//! The limits: TC programs that redirect and do nothing else. No bridge: each container has a link of its own.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::{HOST_IFNAME, address_of, mac_of};
use crate::bench::Error;
use crate::bench::arena::{self, Client, ETH0, GATEWAY, UPLINK, WORLD};
use crate::bench::competitor::Competitor;
use crate::bench::programs::{Direction, Hooked, Redirect};
use crate::net::NetNs;

/// A host's own address on a link with many.
const ALONE: u8 = 32;

/// Connects the containers and hooks the programs.
pub(super) fn wire(
    competitor: Competitor,
    host: &NetNs,
    containers: Vec<NetNs>,
) -> Result<(Vec<Hooked>, Vec<Client>), Error> {
    let uplink = arena::in_ns(host, async |net| net.link(UPLINK).await)?.map_or(0, |link| link.index);
    let given = |next_hop: Ipv4Addr| (competitor == Competitor::RedirectNextHop).then_some(next_hop);
    let (mut clients, mut hooked, mut veths) = (Vec::new(), Vec::new(), Vec::new());
    for (number, ns) in containers.into_iter().enumerate() {
        let name = format!("{HOST_IFNAME}{number}");
        let (veth, eth0) = arena::veth(host, &name, &ns, ETH0)?;
        let address = address_of(number);
        arena::address(host, veth.index, GATEWAY, ALONE)?;
        arena::route(host, Ipv4Net::new_assert(address, ALONE).into(), None, veth.index)?;
        arena::address(&ns, eth0.index, address, ALONE)?;
        arena::route(&ns, Ipv4Net::new_assert(GATEWAY, ALONE).into(), None, eth0.index)?;
        arena::in_ns(&ns, async |net| net.add_default_route(GATEWAY.into(), eth0.index).await)?;
        let outbound = Redirect { direction: Direction::Out { uplink }, next_hop: given(WORLD) };
        hooked.push(outbound.hook(host, &name)?);
        veths.push((address, veth.index));
        let (mac, gateway_mac) = (mac_of(&ns, ETH0)?, mac_of(host, &name)?);
        clients.push(Client { ns, address, mac, gateway_mac });
    }
    let inbound = Redirect { direction: Direction::In { veths }, next_hop: given(GATEWAY) };
    hooked.push(inbound.hook(host, UPLINK)?);
    Ok((hooked, clients))
}
