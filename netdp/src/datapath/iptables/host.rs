//! What the rules need of the host: bridges that iptables sees into, and interfaces that forward.

use std::collections::{BTreeMap, BTreeSet};

use super::super::sysctls::{Sysctls, has_force_forwarding};
use super::super::{Error, NetworkEntry};
use super::family::Family;
use super::program::Backend;
use super::{Iptables, Options, blocking, sysctl};
use crate::net::{Link, netfilter};

/// Of br_netfilter, which says whether it is there.
const BR_NETFILTER: [&str; 3] = ["net", "bridge", "bridge-nf-call-iptables"];

/// Lets iptables see what a bridge forwards by itself; returns whether this kernel can. Only so are a neighbour's
/// answers to a hairpin translated back, and neighbours kept apart.
pub(super) fn filter_bridge(network: &NetworkEntry, options: Options) -> Result<bool, Error> {
    if options.without_br_netfilter || sysctl::get(&BR_NETFILTER).is_err() {
        return Ok(false);
    }
    if is_there(network) {
        let name = &network.bridge_ifname;
        blocking(async |net| net.filter_bridge(network.bridge, name).await)
            .map_err(doing(format!("preparing {name}")))?;
    }
    Ok(true)
}

/// The sysctls of a bridge, which is netdp's own. Its rules are in force already: see `ingress`.
pub(super) fn prepare_bridge(network: &NetworkEntry, options: Options) -> Result<(), Error> {
    let name = network.bridge_ifname.as_str();
    let set = |path: &[&str]| sysctl::set(path, "1").map_err(doing(format!("preparing {name}")));
    if !is_there(network) {
        return Ok(());
    }
    if network.subnets.iter().any(|net| Family::V4.has_net(net)) {
        // For answers to the host's own 127.0.0.1, see `sources_within`.
        set(&["net", "ipv4", "conf", name, "route_localnet"])?;
    }
    let v6 = network.subnets.iter().any(|net| Family::V6.has_net(net));
    if v6 && has_force_forwarding(name, options.without_force_forwarding) {
        set(&["net", "ipv6", "conf", name, "force_forwarding"])?;
    }
    Ok(())
}

/// Whether a network's bridge exists. One that somebody deleted is missing when a command that was to bring it back
/// fails, and its rules are put back as they were.
fn is_there(network: &NetworkEntry) -> bool {
    let found = nix::net::if_::if_indextoname(network.bridge);
    found.is_ok_and(|name| name.as_bytes() == network.bridge_ifname.as_bytes())
}

/// Removes tables of nf_tables that netdp made and that hold nothing but the kernel's empty chains.
pub(super) fn remove_tables(
    backend: Backend,
    family: Family,
    tables: &BTreeSet<String>,
) -> Result<(), Error> {
    if !backend.version(family)?.contains("nf_tables") {
        return Ok(());
    }
    let remove = |table: &String| netfilter::remove_empty_table(family == Family::V6, table);
    tables.iter().try_for_each(|table| remove(table).map_err(doing(format!("removing table {table}"))))
}

impl Iptables {
    /// Makes interfaces forward by which answers to endpoints may come; returns those that only do because of netdp.
    pub(super) fn forward_uplinks(&self) -> Result<BTreeMap<Family, BTreeSet<String>>, Error> {
        let links = blocking(async |net| net.links().await).map_err(doing("listing the links"))?;
        let sysctls = Sysctls::alone(&self.dir, &self.instance, self.options.without_force_forwarding)?;
        let mut guarded = BTreeMap::new();
        for family in Family::ALL.into_iter().filter(|family| self.has_way_out(*family)) {
            let mut own = BTreeSet::new();
            for link in links.iter().filter(|link| self.is_uplink(link)) {
                if sysctls.forward(family, &link.name)? {
                    own.insert(link.name.clone());
                }
            }
            if !own.is_empty() {
                guarded.insert(family, own);
            }
        }
        Ok(guarded)
    }

    fn has_way_out(&self, family: Family) -> bool {
        let out =
            |network: &super::Network| !network.entry.internal && network.subnets(family).next().is_some();
        self.model.networks.values().any(out)
    }

    /// Ports of bridges and bonds are not asked: what they belong to is.
    fn is_uplink(&self, link: &Link) -> bool {
        !link.loopback && link.master.is_none() && !self.model.networks.contains_key(&link.index)
    }
}

fn doing<E: std::error::Error + Send + Sync + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let doing = what.into();
    move |cause| Error { doing, cause: Box::new(cause) }
}
