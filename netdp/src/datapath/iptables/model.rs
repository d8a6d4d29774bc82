//! What the rules are made from. It lies beside the instance's state: chains tell what is in force, but not why.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::super::{EndpointEntry, Error, NetworkEntry, PublishEntry, PublishKey};
use super::family::Family;
use super::program::Backend;
use crate::failpoint;
use crate::state::replace_file;

/// The model's file in the instance's directory.
const FILE: &str = "iptables.json";

/// Everything that the datapath was told, and what it found.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Model {
    /// Which iptables; the first command finds it out.
    pub(super) backend: Backend,
    /// Networks by their bridge's ifindex.
    pub(super) networks: BTreeMap<u32, Network>,
    /// Endpoints by their host veth's ifindex.
    pub(super) endpoints: BTreeMap<u32, EndpointEntry>,
    /// Published ports.
    pub(super) published: Vec<PublishEntry>,
    /// Interfaces that forward because netdp made them: for answers, not for others' packets.
    pub(super) guarded: BTreeMap<Family, BTreeSet<String>>,
    /// What iptables-save showed of ours after the last change, by family.
    pub(super) installed: BTreeMap<Family, Vec<String>>,
    /// Tables that weren't there before, by family.
    pub(super) made_tables: BTreeMap<Family, BTreeSet<String>>,
    /// Whether the rules are what all this says; not while they are changed.
    pub(super) settled: bool,
}

/// A network.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub(super) struct Network {
    /// Whether iptables sees what the bridge itself forwards, and knows by which port it came (`br_netfilter`).
    pub(super) filtered: bool,
    /// As it was told.
    pub(super) entry: NetworkEntry,
}

impl Network {
    pub(super) fn subnets(&self, family: Family) -> impl Iterator<Item = &IpNet> {
        self.entry.subnets.iter().filter(move |net| family.has_net(net))
    }

    pub(super) fn gateways(&self, family: Family) -> impl Iterator<Item = &IpAddr> {
        self.entry.gateways.iter().filter(move |addr| family.has(addr))
    }

    /// Whether what leaves is translated.
    pub(super) fn translates(&self, family: Family) -> bool {
        !self.entry.internal && (!self.entry.routed || self.snat_to(family).next().is_some())
    }

    pub(super) fn snat_to(&self, family: Family) -> impl Iterator<Item = &IpAddr> {
        self.entry.snat_to.iter().filter(move |addr| family.has(addr))
    }
}

impl Model {
    pub(super) fn new(backend: Backend) -> Self {
        Self {
            backend,
            networks: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            published: Vec::new(),
            guarded: BTreeMap::new(),
            installed: BTreeMap::new(),
            made_tables: BTreeMap::new(),
            settled: true,
        }
    }

    /// Whether an instance's directory has one.
    pub(super) fn exists(dir: &Path) -> bool {
        file(dir).exists()
    }

    pub(super) fn load(dir: &Path) -> Result<Option<Self>, Error> {
        let path = file(dir);
        let doing = || format!("reading {}", path.display());
        match std::fs::read(&path) {
            Ok(text) => {
                let model = serde_json::from_slice(&text);
                model.map(Some).map_err(|cause| Error { doing: doing(), cause: cause.into() })
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(Error { doing: doing(), cause: cause.into() }),
        }
    }

    pub(super) fn save(&self, dir: &Path) -> Result<(), Error> {
        let doing = || format!("writing {}", file(dir).display());
        replace_file(&file(dir), self).map_err(|cause| Error { doing: doing(), cause: cause.into() })
    }

    pub(super) fn remove(dir: &Path) -> Result<(), Error> {
        match failpoint::pass("forget the model").and_then(|()| std::fs::remove_file(file(dir))) {
            Err(cause) if cause.kind() != ErrorKind::NotFound => {
                Err(Error { doing: format!("removing {}", file(dir).display()), cause: cause.into() })
            }
            _ => Ok(()),
        }
    }

    /// A network's endpoints.
    pub(super) fn endpoints_of(&self, bridge: u32) -> impl Iterator<Item = &EndpointEntry> {
        self.endpoints.values().filter(move |endpoint| endpoint.bridge == bridge)
    }

    /// The endpoint with an address, by its host veth's ifindex.
    pub(super) fn owner(&self, addr: IpAddr) -> Option<u32> {
        let owner = self.endpoints.values().find(|endpoint| endpoint.addresses.contains(&addr))?;
        Some(owner.host_ifindex)
    }

    /// Adds published ports, or moves them.
    pub(super) fn publish(&mut self, entries: &[PublishEntry]) {
        self.unpublish(entries);
        self.published.extend(entries.iter().cloned());
        // One address before all of them, and the same order whatever came first.
        self.published.sort_by_key(|entry| {
            let ports = (entry.host_port, entry.host_port_end, entry.endpoint.is_ipv6());
            (entry.host_addr.is_none(), entry.proto, entry.host_addr, ports)
        });
    }

    pub(super) fn unpublish(&mut self, entries: &[PublishEntry]) {
        let keys: HashSet<PublishKey> = entries.iter().map(PublishEntry::key).collect();
        self.published.retain(|old| !keys.contains(&old.key()));
    }
}

fn file(dir: &Path) -> PathBuf {
    dir.join(FILE)
}
