//! Which host ports an endpoint's published ports get, and who has a port already.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::published::Published;
use super::sources::Sources;
use super::subnet;
use crate::datapath::{PortMap, Proto};
use crate::spec::{PortRange, Spec};

/// Where netdp looks for a free host port: the kernel's default `ip_local_port_range`, as Docker does.
const CHOSEN: PortRange = PortRange { first: 32_768, last: 60_999 };
/// How often it looks at random before it goes through the range in order.
const RANDOM_TRIES: u32 = 64;

/// Why a port can't be published.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Another endpoint, or this one, has it.
    #[error(
        "{wanted}: endpoint {owner} publishes {taken} already: choose another host port, unpublish that one, or move it with --replace"
    )]
    TakenByEndpoint {
        /// What was asked for.
        wanted: String,
        /// Who has it.
        owner: String,
        /// What it has.
        taken: String,
    },
    /// `--replace` of a port or range that is not exactly the one that is published.
    #[error(
        "{wanted}: endpoint {owner} publishes {taken}, which overlaps but is not the same range: unpublish it first"
    )]
    NotTheSameRange {
        /// What was asked for.
        wanted: String,
        /// Who has it.
        owner: String,
        /// What it has.
        taken: String,
    },
    /// `--replace`, and nobody has the port.
    #[error("{0}: no endpoint publishes that port, so there is nothing to replace: leave --replace out")]
    NothingToReplace(String),
    /// Two specs of one command.
    #[error("{second}: it overlaps {first} of the same command: publish a host port once")]
    Twice {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A socket of the host has it.
    #[error(
        "{wanted}: {proto} port {port} of the host is in use by {holder}: choose another host port, or stop it"
    )]
    TakenByHost {
        /// What was asked for.
        wanted: String,
        /// Protocol.
        proto: &'static str,
        /// The first port that is in use.
        port: u16,
        /// By whom.
        holder: String,
    },
    /// The host doesn't have that address.
    #[error(
        "{wanted}: this host has no address {addr}: use one of its own, 127.0.0.1 for this host only, or none for all"
    )]
    NoSuchAddress {
        /// What was asked for.
        wanted: String,
        /// The address.
        addr: IpAddr,
    },
    /// A host address of a family that the endpoint doesn't have.
    #[error(
        "{wanted}: the endpoint has no {family} address to lead to: name another host address or none, or attach it to a network with such a subnet"
    )]
    NoSuchFamily {
        /// What was asked for.
        wanted: String,
        /// The host address's family.
        family: &'static str,
    },
    /// A link-local host address.
    #[error("{0}: a link-local address means another one on each link: name a global one, or none for all")]
    LinkLocal(String),
    /// Every port that netdp would choose is taken.
    #[error("{wanted}: no {count} free host ports in a row from {first} to {last}: name a host port")]
    NoneFree {
        /// What was asked for.
        wanted: String,
        /// How many are wanted.
        count: u32,
        /// First port looked at.
        first: u16,
        /// Last port looked at.
        last: u16,
    },
}

/// Published ports with the names of their endpoints.
#[derive(Default)]
struct Taken<'a>(PortMap<(&'a str, Published)>);

impl<'a> Taken<'a> {
    fn add(&mut self, owner: &'a str, published: Published) {
        self.0.add(published.proto, published.host_port..=published.host_port_end, (owner, published));
    }

    /// The first that is in the way.
    fn by(&self, wanted: &Published) -> Option<(&'a str, Published)> {
        let ports = wanted.host_port..=wanted.host_port_end;
        let mut there = ports.flat_map(|port| self.0.at(wanted.proto.number(), port));
        there.find(|(_, taken)| taken.meets(wanted)).cloned()
    }
}

/// What there is on the host: taken before the plan is made.
pub struct Host<'a> {
    /// Every address of the host.
    pub addresses: &'a [IpAddr],
    /// Every port that a bound or listening socket has on any address.
    pub busy: &'a BTreeSet<(Proto, u16)>,
    /// Who has such a port at an address (none: at any); none: nobody.
    pub holder: &'a dyn Fn(Proto, Option<IpAddr>, u16) -> Option<String>,
    /// Random numbers.
    pub random: &'a dyn Fn() -> u64,
}

/// What to do for a `publish`.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// To be added to the endpoint.
    pub add: Vec<Published>,
    /// To be taken from their endpoints, by name, because they are replaced.
    pub replaced: Vec<(String, Published)>,
}

/// Checks specs for an endpoint with these addresses against what is published (by endpoint name) and what the host
/// has, and chooses free ports.
pub fn plan(
    specs: &[Spec],
    endpoint: &[IpNet],
    published: &[(String, Published)],
    host: &Host<'_>,
    replace: bool,
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    let mut planned = Taken::default();
    let mut taken = Taken::default();
    for (owner, published) in published {
        taken.add(owner, published.clone());
    }
    for spec in specs {
        check_supported(spec, endpoint, host)?;
        let wanted = match spec.host {
            Some(ports) => entry(spec, ports),
            // Its checksum covers the ports: no other would do.
            None if spec.proto == Proto::Sctp => entry(spec, spec.ports),
            None => choose(spec, [&taken, &planned], host)?,
        };
        if let Some((_, other)) = planned.by(&wanted) {
            return Err(Error::Twice { first: other.to_string(), second: spec.to_string() });
        }
        if let Some(replaced) = check_endpoints(spec, &wanted, taken.by(&wanted), replace)? {
            plan.replaced.push(replaced);
        } else if let Some((port, holder)) = held_by_host(&wanted, host) {
            return Err(Error::TakenByHost {
                wanted: spec.to_string(),
                proto: spec.proto.name(),
                port,
                holder,
            });
        }
        planned.add("", wanted.clone());
        plan.add.push(wanted);
    }
    Ok(plan)
}

fn check_supported(spec: &Spec, endpoint: &[IpNet], host: &Host<'_>) -> Result<(), Error> {
    let wanted = spec.to_string();
    let Some(addr) = spec.host_addr else {
        return Ok(());
    };
    if !addr.is_loopback() && !host.addresses.contains(&addr) {
        return Err(Error::NoSuchAddress { wanted, addr });
    }
    if matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local()) {
        return Err(Error::LinkLocal(wanted));
    }
    if !subnet::has_family(endpoint, &addr) {
        return Err(Error::NoSuchFamily { wanted, family: if addr.is_ipv6() { "IPv6" } else { "IPv4" } });
    }
    Ok(())
}

/// The entry that this one replaces, if it may and there is one.
fn check_endpoints(
    spec: &Spec,
    wanted: &Published,
    taken_by: Option<(&str, Published)>,
    replace: bool,
) -> Result<Option<(String, Published)>, Error> {
    let Some((owner, taken)) = taken_by else {
        return if replace { Err(Error::NothingToReplace(spec.to_string())) } else { Ok(None) };
    };
    let (wanted_text, taken_text) = (spec.to_string(), taken.to_string());
    if !replace {
        return Err(Error::TakenByEndpoint { wanted: wanted_text, owner: owner.into(), taken: taken_text });
    }
    if !taken.same_key(wanted) {
        return Err(Error::NotTheSameRange { wanted: wanted_text, owner: owner.into(), taken: taken_text });
    }
    Ok(Some((owner.into(), taken)))
}

/// The first port of the range that a host socket has, and whose it is.
fn held_by_host(wanted: &Published, host: &Host<'_>) -> Option<(u16, String)> {
    let ports = (wanted.proto, wanted.host_port)..=(wanted.proto, wanted.host_port_end);
    host.busy
        .range(ports)
        .find_map(|&(proto, port)| Some((port, (host.holder)(proto, wanted.host_addr, port)?)))
}

fn choose(spec: &Spec, taken: [&Taken<'_>; 2], host: &Host<'_>) -> Result<Published, Error> {
    let extra = spec.ports.extra();
    let none_free = || Error::NoneFree {
        wanted: spec.to_string(),
        count: u32::from(extra) + 1,
        first: CHOSEN.first,
        last: CHOSEN.last,
    };
    let last_start =
        CHOSEN.last.checked_sub(extra).filter(|last| *last >= CHOSEN.first).ok_or_else(none_free)?;
    let starts = u64::from(last_start - CHOSEN.first) + 1;
    let random =
        (0..RANDOM_TRIES).map(|_| CHOSEN.first + u16::try_from((host.random)() % starts).unwrap_or(0));
    random
        .chain(CHOSEN.first..=last_start)
        .map(|first| entry(spec, PortRange { first, last: first + extra }))
        .find(|wanted| {
            held_by_host(wanted, host).is_none() && taken.iter().all(|taken| taken.by(wanted).is_none())
        })
        .ok_or_else(none_free)
}

pub(super) fn entry(spec: &Spec, host: PortRange) -> Published {
    Published {
        proto: spec.proto,
        host_addr: spec.host_addr,
        host_port: host.first,
        host_port_end: host.last,
        port: spec.ports.first,
        port_end: spec.ports.last,
        sources: Sources::default(),
    }
}

#[cfg(test)]
mod tests;
