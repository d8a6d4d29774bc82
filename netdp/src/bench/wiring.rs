//! How a competitor connects containers with the world.

use std::net::Ipv4Addr;

use super::arena::{self, Client};
use super::competitor::Competitor;
use super::{Error, programs};
use crate::net::{Mac, NetNs};

mod bridged;
mod netdp;
mod netfilter;
mod redirected;

pub(super) use netdp::Instance;
pub(super) use netfilter::Nat;

/// The containers' interfaces on the host, with their numbers behind it.
pub(super) const HOST_IFNAME: &str = "nb";

/// Ports of the host and where they lead in the first container.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Forward {
    /// The first port at the host.
    pub(super) host_port: u16,
    /// The first port in the container.
    pub(super) port: u16,
    /// How many.
    pub(super) count: u16,
    /// TCP or UDP.
    pub(super) transport: super::load::Transport,
}

/// What keeps a competitor alive, and takes it down when dropped.
#[derive(Debug)]
pub(super) enum Wiring {
    /// Everything is in the host's namespace and goes with it.
    Bridged,
    /// And rules besides.
    Netfilter(Nat),
    /// An instance of netdp.
    Netdp(Instance),
    /// Programs that run as long as their links live.
    Redirected(#[expect(dead_code, reason = "held for its Drop")] Vec<programs::Hooked>),
}

impl Wiring {
    /// Wires these namespaces.
    pub(super) fn new(
        competitor: Competitor,
        id: &str,
        host: &NetNs,
        containers: Vec<NetNs>,
        flows: Option<u32>,
    ) -> Result<(Self, Vec<Client>), Error> {
        match competitor {
            Competitor::Direct | Competitor::Plain => {
                bridged::wire(host, containers).map(|clients| (Self::Bridged, clients))
            }
            Competitor::Masquerade | Competitor::RandomFully | Competitor::Nftables => {
                let clients = bridged::wire(host, containers)?;
                let nat = Nat::set_up(competitor, host)?;
                Ok((Self::Netfilter(nat), clients))
            }
            Competitor::NetdpIptables | Competitor::NetdpEbpf => {
                let (instance, clients) = Instance::set_up(competitor, id, host, containers, flows)?;
                Ok((Self::Netdp(instance), clients))
            }
            Competitor::Redirect | Competitor::RedirectNextHop => {
                let (hooked, clients) = redirected::wire(competitor, host, containers)?;
                Ok((Self::Redirected(hooked), clients))
            }
        }
    }

    /// See [`arena::Arena::publish`].
    pub(super) fn publish(&self, host: &NetNs, to: Ipv4Addr, forwards: &[Forward]) -> Result<(), Error> {
        match self {
            Self::Bridged | Self::Redirected(_) => Ok(()),
            Self::Netfilter(nat) => nat.publish(host, to, forwards),
            Self::Netdp(instance) => instance.publish(host, forwards),
        }
    }

    /// See [`arena::Arena::unpublish`].
    pub(super) fn unpublish(&self, host: &NetNs) -> Result<(), Error> {
        match self {
            Self::Bridged | Self::Redirected(_) => Ok(()),
            Self::Netfilter(nat) => nat.unpublish(host),
            Self::Netdp(instance) => instance.unpublish(host),
        }
    }

    /// See [`arena::Arena::forget_flows`].
    pub(super) fn forget_flows(&self, host: &NetNs) -> Result<(), Error> {
        match self {
            Self::Bridged | Self::Redirected(_) => Ok(()),
            Self::Netfilter(_) => netfilter::forget_flows(host),
            Self::Netdp(instance) if instance.is_tracked() => netfilter::forget_flows(host),
            Self::Netdp(instance) => instance.forget_flows(host),
        }
    }

    /// netdp's own counters.
    pub(super) fn counters(&self, host: &NetNs) -> Result<Vec<(&'static str, u64)>, Error> {
        if let Self::Netdp(instance) = self { instance.counters(host) } else { Ok(Vec::new()) }
    }

    /// The instance of netdp, if it is one.
    pub(super) fn netdp(&self) -> Option<&Instance> {
        if let Self::Netdp(instance) = self { Some(instance) } else { None }
    }
}

/// The address of a container by its number; the gateway has the first.
fn address_of(number: usize) -> Ipv4Addr {
    let [a, b, c, gateway] = arena::GATEWAY.octets();
    Ipv4Addr::new(a, b, c, gateway + 1 + u8::try_from(number).unwrap_or(u8::MAX))
}

/// The address of a link; all that are made here have one.
fn mac_of(ns: &NetNs, link: &str) -> Result<Mac, Error> {
    let found = arena::in_ns(ns, async |net| net.link(link).await)?;
    let no_mac = || {
        Error::system(format!("looking up the link {link}"))(std::io::Error::from(nix::errno::Errno::ENODEV))
    };
    found.and_then(|link| link.mac).ok_or_else(no_mac)
}
