//! `doctor --reachability`: from where is each published port reached? As netdp has it, and what of the host's
//! firewall can still change that.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};
use serde::Serialize;

use super::firewall;
use crate::cli::Global;
use crate::error::Error;
use crate::instance::Instance;
use crate::net::Net;
use crate::output;
use crate::plan::published::Published;
use crate::plan::sources::Sources;
use crate::plan::subnet;
use crate::state::{Endpoint, Network};

/// Shared with other customers of a provider (RFC 6598).
const SHARED: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(100, 64, 0, 0), 10);

/// Whoever is farthest away of those that reach a published port.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
enum From {
    /// Its endpoint is gone, or the host's own sockets are not served.
    Nobody,
    /// Processes in the host's own namespace.
    Host,
    /// Other endpoints, and who routes to an address of the host that is not public.
    Networks,
    /// Those of them, and of whoever routes to a public address of the host, that are among its sources (`--from`).
    Listed,
    /// The same, all of them.
    Internet,
}

impl From {
    const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Host => "this host",
            Self::Networks => "networks of this host",
            Self::Listed => "its --from only, and this host",
            Self::Internet => "the internet",
        }
    }
}

/// An address of the host at which others reach it.
#[derive(Clone, Debug, Serialize)]
struct At {
    #[serde(skip)]
    ifindex: u32,
    ifname: String,
    addr: IpAddr,
    public: bool,
}

/// One published port.
#[derive(Debug, Serialize)]
struct Reached {
    endpoint: String,
    #[serde(flatten)]
    published: Published,
    from: From,
    at: Vec<At>,
}

/// The whole answer, in JSON.
#[derive(Debug, Serialize)]
struct Answer {
    published: Vec<Reached>,
    /// What the host's firewall has to do with it.
    firewall: String,
}

/// Answers, for every published port of the instance. Changes nothing.
pub(super) async fn run(global: &Global) -> Result<(), Error> {
    let answer = match Instance::look(global)? {
        Some(mut instance) => answer(&mut instance).await?,
        None => Answer {
            published: Vec::new(),
            firewall: firewall::check(None, global.firewall.unwrap_or_default(), [].into_iter())?.detail,
        },
    };
    if global.json {
        return output::json(&answer);
    }
    let shown = |at: &At| format!("{} ({})", at.addr, at.ifname);
    let row = |reached: &Reached| {
        let at = output::joined(reached.at.iter().map(shown));
        [reached.published.to_string(), reached.endpoint.clone(), reached.from.name().to_owned(), at]
    };
    let head = ["PUBLISHED", "ENDPOINT", "REACHED FROM", "AT"];
    output::table(head, answer.published.iter().map(row).collect())?;
    output::line(format!("firewall: {}", answer.firewall))?;
    output::line(verdict(&answer.published))
}

/// Is my database on the internet?
fn verdict(published: &[Reached]) -> String {
    let shown = |Reached { endpoint, published, .. }: &Reached| {
        format!("{endpoint} {}/{}", published.ports(), published.proto.name())
    };
    let at_public = |reached: &&Reached| reached.at.iter().any(|at| at.public);
    let (open, listed): (Vec<&Reached>, Vec<&Reached>) =
        published.iter().filter(at_public).partition(|reached| reached.from == From::Internet);
    let said = [
        ("reached from the internet, unless something before this host keeps it out", open),
        ("reached at a public address, but only from what its --from lists", listed),
    ];
    let said = said.into_iter().filter(|(_, ports)| !ports.is_empty());
    let said: Vec<String> = said
        .map(|(what, ports)| format!("{what}: {}", output::joined(ports.into_iter().map(shown))))
        .collect();
    if said.is_empty() {
        return "no published port has a public address of this host".to_owned();
    }
    said.join("; ")
}

async fn answer(instance: &mut Instance) -> Result<Answer, Error> {
    let serves_host = instance.datapath_if_there()?.is_some_and(|datapath| datapath.unserved().is_none());
    let state = &instance.state;
    let addresses = host_addresses(&instance.net).await?;
    let mut published = Vec::new();
    for (name, endpoint) in &state.endpoints {
        let alive = instance.is_alive(endpoint).await?;
        let internal = state.networks.get(&endpoint.network).filter(|network| network.internal);
        for port in &endpoint.published {
            let at = if alive { reached_at(endpoint, internal, port, &addresses) } else { Vec::new() };
            let nearest = if alive && serves_host { From::Host } else { From::Nobody };
            let from = farthest(&at, &port.sources).unwrap_or(nearest);
            published.push(Reached { endpoint: name.clone(), published: port.clone(), from, at });
        }
    }
    let detail = firewall::check(Some(state.datapath), state.firewall, state.networks.values())?.detail;
    let firewall =
        format!("published ports are translated before INPUT, whose rules don't see them; {detail}");
    Ok(Answer { published, firewall })
}

/// The addresses at which others reach this host.
async fn host_addresses(net: &Net) -> Result<Vec<At>, Error> {
    let links = net.links().await?.into_iter().filter(|link| link.up && !link.loopback);
    let names: BTreeMap<u32, String> = links.map(|link| (link.index, link.name)).collect();
    let addresses = net.addresses().await?.into_iter();
    let at = addresses.filter(|(_, addr)| !is_of_link(addr)).filter_map(|(ifindex, addr)| {
        let (ifname, addr) = (names.get(&ifindex)?.clone(), addr.addr());
        Some(At { ifindex, ifname, addr, public: is_public(addr) })
    });
    Ok(at.collect())
}

/// Whether an address is meant on its link only (`fe80::/10`).
fn is_of_link(addr: &IpNet) -> bool {
    matches!(addr.addr(), IpAddr::V6(addr) if addr.is_unicast_link_local())
}

/// Whether it may be routed on the internet: not private, link-local or shared (RFC 1918, 3927, 6598), nor unique local
/// (RFC 4193).
fn is_public(addr: IpAddr) -> bool {
    match addr {
        IpAddr::V4(addr) => !(addr.is_private() || addr.is_link_local() || SHARED.contains(&addr)),
        IpAddr::V6(addr) => !addr.is_unique_local(),
    }
}

/// Those at which one published port is meant, and somebody may reach it. Of an internal network, only its own endpoints come to them.
fn reached_at(
    endpoint: &Endpoint,
    internal: Option<&Network>,
    published: &Published,
    host: &[At],
) -> Vec<At> {
    let meant = |at: &&At| match published.host_addr {
        Some(addr) => addr == at.addr,
        None => subnet::has_family(&endpoint.addresses, &at.addr),
    };
    let sources = &published.sources;
    let may = |at: &&At| sources.is_everybody() || subnet::has_family(sources.nets(), &at.addr);
    let comes = |at: &&At| internal.is_none_or(|network| network.ifindex == at.ifindex);
    host.iter().filter(meant).filter(may).filter(comes).cloned().collect()
}

fn farthest(at: &[At], sources: &Sources) -> Option<From> {
    let reach = |at: &At| match (at.public, sources.admit_all_of(&at.addr)) {
        (_, false) => From::Listed,
        (false, true) => From::Networks,
        (true, true) => From::Internet,
    };
    at.iter().map(reach).max()
}
