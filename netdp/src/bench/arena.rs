//! Where one competitor works: the world, a host, containers, in namespaces without a name, which go with the process.
//!
//! ```text
//! world  w0 10.99.0.2/24 ── up0 10.99.0.1/24  host  what the competitor wires ── eth0 10.88.0.2..  containers
//! ```
//! The world knows the way to 10.88.0.0/24 only where nothing translates, and 10.98.0.0/16 is the world, too: enough
//! remotes for any number of flows.

use std::net::Ipv4Addr;

use ipnet::{IpNet, Ipv4Net};

use super::competitor::Competitor;
use super::wiring::{Forward, Wiring};
use super::{Error, counters, sweep};
use crate::net::{LOOPBACK, Link, Mac, Net, NetNs, VethSpec, blocking};

/// The world's address on the link.
pub(super) const WORLD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// The host's address on its uplink.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The containers' router.
pub(super) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);
/// The host's uplink.
pub(super) const UPLINK: &str = "up0";
/// The world's interface.
pub(super) const WORLD_LINK: &str = "w0";
/// Every container's interface.
pub(super) const ETH0: &str = "eth0";
/// Of every link.
pub(super) const MTU: u32 = 1500;
/// Prefix length of the containers' and of the uplink's network.
pub(super) const PREFIX: u8 = 24;
/// Addresses that are the world's as well.
const REMOTES: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 0);
const REMOTES_PREFIX: u8 = 16;
/// More would not fit into the containers' network.
const MOST_CLIENTS: usize = 200;

/// What an arena is for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// How many containers.
    pub(super) clients: usize,
    /// How many flows at a time: the size of netdp's table, if it is not to be the default.
    pub(super) flows: Option<u32>,
}

/// Everything of one competitor.
#[derive(Debug)]
pub(super) struct Arena {
    /// Whose it is.
    pub(super) competitor: Competitor,
    /// Servers and clients outside.
    pub(super) world: NetNs,
    /// The container host.
    pub(super) host: NetNs,
    /// The containers.
    pub(super) clients: Vec<Client>,
    /// The address of the world's interface.
    pub(super) world_mac: Mac,
    /// Where the world's frames go.
    pub(super) uplink_mac: Mac,
    /// Dropped before the namespaces are closed.
    wiring: Wiring,
}

/// A container.
#[derive(Debug)]
pub(super) struct Client {
    /// Its namespace.
    pub(super) ns: NetNs,
    /// Its address.
    pub(super) address: Ipv4Addr,
    /// Its interface's address.
    pub(super) mac: Mac,
    /// Where its frames for the world go.
    pub(super) gateway_mac: Mac,
}

impl Arena {
    /// Builds and wires it.
    pub(super) fn new(competitor: Competitor, shape: Shape) -> Result<Self, Error> {
        let (world, host) = (new_ns()?, new_ns()?);
        let clients = shape.clients.min(MOST_CLIENTS);
        let namespaces = (0..clients).map(|_| new_ns()).collect::<Result<Vec<_>, _>>()?;
        for (sysctl, value) in [("net/core/somaxconn", "65535"), ("net/ipv4/tcp_max_syn_backlog", "65535")] {
            set_sysctl(&world, sysctl, value)?;
            namespaces.iter().try_for_each(|ns| set_sysctl(ns, sysctl, value))?;
        }
        let (world_link, uplink) = connect_world(&world, &host)?;
        let id = sweep::new_id(competitor);
        let wired = Wiring::new(competitor, &id, &host, namespaces, shape.flows)?;
        let (wiring, clients) = wired;
        if !competitor.translates() {
            let containers = Ipv4Net::new_assert(Ipv4Addr::new(10, 88, 0, 0), PREFIX);
            route(&world, containers.into(), Some(HOST), world_link.index)?;
        }
        let mac = |link: &Link| link.mac.unwrap_or(Mac([0; 6]));
        let (world_mac, uplink_mac) = (mac(&world_link), mac(&uplink));
        Ok(Self { competitor, world, host, clients, world_mac, uplink_mac, wiring })
    }

    /// Makes ports of the first container reachable at the host's address; nothing to do where nothing translates.
    pub(super) fn publish(&self, forwards: &[Forward]) -> Result<(), Error> {
        self.wiring.publish(&self.host, self.clients[0].address, forwards)
    }

    /// Undoes it.
    pub(super) fn unpublish(&self) -> Result<(), Error> {
        self.wiring.unpublish(&self.host)
    }

    /// Where the world reaches a published port of the first container.
    pub(super) fn reach(&self, forward: Forward) -> (Ipv4Addr, u16) {
        if self.competitor.translates() {
            (HOST, forward.host_port)
        } else {
            (self.clients[0].address, forward.port)
        }
    }

    /// Whom the world sees when a container talks to it.
    pub(super) fn seen_as(&self, client: usize) -> Ipv4Addr {
        if self.competitor.translates() { HOST } else { self.clients[client].address }
    }

    /// Forgets every flow, so that the next round begins as the first did.
    pub(super) fn forget_flows(&self) -> Result<(), Error> {
        self.wiring.forget_flows(&self.host)
    }

    /// The counters that tell of lost races and full tables, by name.
    pub(super) fn counters(&self) -> Result<Vec<(&'static str, u64)>, Error> {
        let mut all = self.wiring.counters(&self.host)?;
        if self.competitor.is_tracked() {
            all.push(("insert_failed", counters::insert_failed(&self.host)?));
        }
        Ok(all)
    }

    /// What netdp says about itself; none for others.
    pub(super) fn netdp(&self) -> Option<&super::wiring::Instance> {
        self.wiring.netdp()
    }
}

/// A new namespace with loopback up, and without forwarding whatever it inherited.
pub(super) fn new_ns() -> Result<NetNs, Error> {
    let ns = NetNs::create_anonymous()?;
    set_sysctl(&ns, "net/ipv4/ip_forward", "0")?;
    in_ns(&ns, async |net| {
        if let Some(lo) = net.link(LOOPBACK).await? {
            net.set_up(lo.index).await?;
        }
        Ok(())
    })?;
    Ok(ns)
}

/// Talks rtnetlink to a namespace.
pub(super) fn in_ns<T: Send>(
    ns: &NetNs,
    work: impl AsyncFnOnce(Net) -> crate::net::Result<T> + Send,
) -> Result<T, Error> {
    Ok(ns.run(|| blocking(work))??)
}

/// Writes a sysctl of a namespace, named as under /proc/sys.
pub(super) fn set_sysctl(ns: &NetNs, path: &str, value: &str) -> Result<(), Error> {
    let path = format!("/proc/sys/{path}");
    ns.run(|| std::fs::write(&path, value))?.map_err(Error::system(format!("setting {path} to {value}")))
}

/// Adds a route.
pub(super) fn route(ns: &NetNs, to: IpNet, gateway: Option<Ipv4Addr>, index: u32) -> Result<(), Error> {
    in_ns(ns, async |net| net.add_route(to, gateway.map(Into::into), index).await)
}

/// A veth pair that is on no bridge.
pub(super) fn veth(ns: &NetNs, name: &str, peer_ns: &NetNs, peer_name: &str) -> Result<(Link, Link), Error> {
    in_ns(ns, async |net| {
        let (host_mac, peer_mac) = (Mac::random_local(), Mac::random_local());
        let spec = VethSpec {
            host_name: name,
            host_mac,
            bridge: 0,
            peer_ns,
            peer_name,
            peer_mac,
            mtu: MTU,
            queues: 1,
        };
        net.create_veth(&spec).await
    })
}

/// Gives a link an address.
pub(super) fn address(ns: &NetNs, index: u32, address: Ipv4Addr, prefix: u8) -> Result<(), Error> {
    in_ns(ns, async |net| net.add_address(index, Ipv4Net::new_assert(address, prefix).into()).await)
}

fn connect_world(world: &NetNs, host: &NetNs) -> Result<(Link, Link), Error> {
    let (inner, outer) = veth(world, WORLD_LINK, host, UPLINK)?;
    address(world, inner.index, WORLD, PREFIX)?;
    address(host, outer.index, HOST, PREFIX)?;
    in_ns(host, async |net| net.add_default_route(WORLD.into(), outer.index).await)?;
    // A whole network of the world's own addresses: what loopback has with a prefix is local.
    let remotes = Ipv4Net::new_assert(REMOTES, REMOTES_PREFIX);
    in_ns(world, async |net| match net.link(LOOPBACK).await? {
        Some(lo) => net.add_address(lo.index, remotes.into()).await,
        None => Ok(()),
    })?;
    Ok((inner, outer))
}

/// A remote by its number.
pub(super) fn remote(number: u16) -> Ipv4Addr {
    // Not the network's own address.
    let [high, low] = (number + 1).to_be_bytes();
    let [a, b, ..] = REMOTES.octets();
    Ipv4Addr::new(a, b, high, low)
}
