//! Routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteNextHop, RouteScope, RouteType, RouteVia,
};
use rtnetlink::RouteMessageBuilder;

use super::error::{Error, Result};
use super::{Net, answer, answers};

/// A unicast route, or one next hop of a multipath route.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Route {
    /// Where it leads to; none: everywhere.
    pub destination: Option<IpNet>,
    /// The next router; none: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The ifindex of the link it goes out by.
    pub oif: Option<u32>,
    /// The source address that it prefers.
    pub source: Option<IpAddr>,
    /// Its routing table.
    pub table: u32,
    /// Its metric: the lowest one wins.
    pub metric: u32,
    /// Whether it is an IPv6 route.
    pub v6: bool,
}

impl Net {
    /// Adds a default route; one that exists already is an error (EEXIST).
    pub async fn add_default_route(&self, gateway: IpAddr, index: u32) -> Result<()> {
        let doing = || format!("adding a default route via {gateway} on the link {index}");
        let mut message = RouteMessageBuilder::<IpAddr>::new().output_interface(index).build();
        message.header.address_family =
            if gateway.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
        answer(self.handle.route().add(message).execute(), doing).await
    }

    /// Adds a route to a network, by a router or on the link itself; one that exists already is an error (EEXIST).
    pub async fn add_route(&self, to: IpNet, gateway: Option<IpAddr>, index: u32) -> Result<()> {
        let doing = || format!("adding a route to {to} on the link {index}");
        let builder = RouteMessageBuilder::<IpAddr>::new().output_interface(index);
        let builder = builder.destination_prefix(to.addr(), to.prefix_len());
        let mut message =
            builder.map_err(|error| Error::system(doing)(std::io::Error::other(error)))?.build();
        match gateway {
            Some(gateway) => message.attributes.push(RouteAttribute::Gateway(gateway.into())),
            None => message.header.scope = RouteScope::Link,
        }
        answer(self.handle.route().add(message).execute(), doing).await
    }

    /// The main table's default route with the lowest metric; of a multipath route, the first next hop.
    pub async fn default_route(&self, v6: bool) -> Result<Option<Route>> {
        let routes = self.family_routes(v6).await?;
        let main = u32::from(RouteHeader::RT_TABLE_MAIN);
        // min_by_key: the first of equals, which is the kernel's order.
        Ok(routes.into_iter().filter(|r| r.destination.is_none() && r.table == main).min_by_key(|r| r.metric))
    }

    /// The unicast routes of every table, both families, one for each next hop.
    pub async fn routes(&self) -> Result<Vec<Route>> {
        let mut routes = self.family_routes(false).await?;
        routes.extend(self.family_routes(true).await?);
        Ok(routes)
    }

    async fn family_routes(&self, v6: bool) -> Result<Vec<Route>> {
        let mut filter = RouteMessage::default();
        filter.header.address_family = if v6 { AddressFamily::Inet6 } else { AddressFamily::Inet };
        let doing = || format!("listing the IPv{} routes", if v6 { 6 } else { 4 });
        let messages = answers(self.handle.route().get(filter).execute(), doing).await?;
        Ok(messages.iter().flat_map(from_message).collect())
    }
}

fn from_message(message: &RouteMessage) -> Vec<Route> {
    let header = &message.header;
    if header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let mut route = Route {
        destination: None,
        gateway: None,
        oif: None,
        source: None,
        table: u32::from(header.table),
        metric: 0,
        v6: header.address_family == AddressFamily::Inet6,
    };
    let mut hops: &[RouteNextHop] = &[];
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(addr) => {
                route.destination =
                    ip(addr).and_then(|ip| IpNet::new(ip, header.destination_prefix_length).ok());
            }
            RouteAttribute::PrefSource(addr) => route.source = ip(addr),
            // The header's table is one byte; bigger numbers are only here.
            RouteAttribute::Table(table) => route.table = *table,
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Oif(index) => route.oif = Some(*index),
            RouteAttribute::MultiPath(next_hops) => hops = next_hops,
            other => route.gateway = route.gateway.or_else(|| gateway(other)),
        }
    }
    if hops.is_empty() {
        return vec![route];
    }
    let through = |hop: &RouteNextHop| Route {
        oif: Some(hop.interface_index),
        gateway: hop.attributes.iter().find_map(gateway),
        ..route.clone()
    };
    hops.iter().map(through).collect()
}

/// The router that an attribute names; RTA_VIA is an IPv6 router of an IPv4 route.
fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(addr) => ip(addr),
        RouteAttribute::Via(RouteVia::Inet(addr)) => Some((*addr).into()),
        RouteAttribute::Via(RouteVia::Inet6(addr)) => Some((*addr).into()),
        _ => None,
    }
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(addr) => Some((*addr).into()),
        RouteAddress::Inet6(addr) => Some((*addr).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.kind = RouteType::Unicast;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.address_family = AddressFamily::Inet;
        message.attributes = attributes;
        message
    }

    fn addr(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn multipath_is_one_route_for_each_hop() {
        let hop = |index, router: &str| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = index;
            hop.attributes = vec![RouteAttribute::Gateway(addr(router).into())];
            hop
        };
        let hops = vec![hop(2, "192.0.2.1"), hop(3, "198.51.100.1")];
        let routes =
            from_message(&message(vec![RouteAttribute::MultiPath(hops), RouteAttribute::Priority(7)]));
        let seen: Vec<_> = routes.iter().map(|r| (r.oif, r.gateway, r.metric)).collect();
        assert_eq!(seen, [(Some(2), Some(addr("192.0.2.1")), 7), (Some(3), Some(addr("198.51.100.1")), 7)]);
    }

    #[test]
    fn what_is_not_unicast_is_left_out() {
        let mut unreachable = message(Vec::new());
        unreachable.header.kind = RouteType::Unreachable;
        assert_eq!(from_message(&unreachable), []);
    }

    #[test]
    fn an_ipv6_router_of_an_ipv4_route_is_seen() {
        let via = RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().expect("an address")));
        assert_eq!(from_message(&message(vec![via]))[0].gateway, Some(addr("fe80::1")));
    }
}
