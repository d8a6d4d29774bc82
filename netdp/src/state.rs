//! What an instance has made: one JSON document in `/run/netdp/INSTANCE`, replaced atomically.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{ErrorKind, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::datapath::{EndpointEntry, Firewall, Kind, NetworkEntry, PublishEntry, XdpMode};
use crate::failpoint;
use crate::net::{Mac, NetNsId};
use crate::plan::mode::Mode;
use crate::plan::published::Published;
use crate::plan::timeouts::NetworkTimeouts;
use crate::target::Target;

/// Version of the document; an older netdp refuses a newer one.
const VERSION: u32 = 1;
/// The document's name in the instance's directory.
const FILE: &str = "state.json";

/// What a document's next version ends with until it is complete.
pub const NEXT: &str = "next";

/// Why the state can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{doing} {}: {source}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The file is no state.
    #[error("{} is damaged ({source}): remove the instance with netdp down, or put the file right", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        source: serde_json::Error,
    },
    /// A newer netdp wrote it.
    #[error("{} was written by a newer netdp (state version {found}, this one knows {VERSION}): use that one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// Everything an instance remembers.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Version of this document's form, of the netdp that wrote it.
    pub version: u32,
    /// Counts the changes: tells whether a change that was interrupted had been completed.
    pub revision: u64,
    /// The host's namespace.
    pub host: NetNsId,
    /// The datapath that the first command chose.
    pub datapath: Kind,
    /// Why it is not the one that `auto` prefers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub datapath_reason: Option<String>,
    /// The flow table's size, if it was given.
    pub flows_max: Option<u32>,
    /// Who decides about translated packets.
    #[serde(default)]
    pub firewall: Firewall,
    /// Whether uplinks carry the XDP program.
    #[serde(default, skip_serializing_if = "XdpMode::is_off")]
    pub xdp: XdpMode,
    /// Networks by name.
    pub networks: BTreeMap<String, Network>,
    /// Endpoints by name.
    pub endpoints: BTreeMap<String, Endpoint>,
    /// Names for namespaces that have no interface of netdp's by that name. No endpoint has the same one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bound: BTreeMap<String, Bound>,
    /// What the last command has still to remove. It can't be brought back, so it goes when the rest is settled; the
    /// next command goes on where one that was killed stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing: Vec<Removal>,
    /// `netdp down` has begun: the next command goes on with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ending: bool,
}

/// Something that is removed for good. Each succeeds when there is nothing to remove.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Removal {
    /// A link of the host, unless it has another name by now.
    Link {
        /// Its ifindex.
        index: u32,
        /// Its name.
        name: String,
    },
    /// What the datapath knows of an endpoint that was gone.
    Endpoint(EndpointEntry),
    /// What the datapath knows of a network, by its bridge's ifindex.
    Network(u32),
    /// A directory of ours.
    Files(PathBuf),
    /// A namespace's name, unless it names another by now.
    Namespace {
        /// The name.
        name: String,
        /// Which namespace it was.
        id: NetNsId,
    },
}

impl Removal {
    /// Whether it removes this name of this namespace.
    pub fn is_name_of(&self, target: &Target, netns: NetNsId) -> bool {
        matches!((self, target), (Self::Namespace { name, id }, Target::Named(named)) if name == named && *id == netns)
    }
}

/// A network.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Network {
    /// The bridge's name.
    pub bridge: String,
    /// The bridge's ifindex.
    pub ifindex: u32,
    /// The bridge's MAC.
    pub mac: Mac,
    /// MTU of the bridge and of every veth on it.
    pub mtu: u32,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// The bridge's addresses, one for each subnet.
    pub gateways: Vec<IpAddr>,
    /// External addresses to translate to; none: what the route prefers.
    pub snat_to: Vec<IpAddr>,
    /// Ports for mappings, first and last.
    pub snat_ports: (u16, u16),
    /// No way out and none in.
    pub internal: bool,
    /// Its endpoints don't reach each other.
    pub no_icc: bool,
    /// Unpublished ports are reachable from outside.
    pub routed: bool,
    /// How long the flows of its endpoints live; on the iptables datapath, netfilter decides that.
    #[serde(rename = "timeouts_s")]
    pub timeouts: Option<NetworkTimeouts>,
}

/// An endpoint.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Where its namespace was found.
    pub target: Target,
    /// Which namespace that was.
    pub netns: NetNsId,
    /// Whether netdp made the namespace's name (`--create`) and removes it again.
    pub created: bool,
    /// Its network.
    pub network: String,
    /// Its interface.
    pub ifname: String,
    /// That interface's ifindex.
    pub ifindex: u32,
    /// Its peer on the host.
    pub host_ifname: String,
    /// The peer's ifindex.
    pub host_ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// Its published ports.
    pub published: Vec<Published>,
    /// Most flows that it may have, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_flows: Option<u32>,
    /// What it may send from besides its addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<IpNet>,
}

/// A name for a namespace, without an interface: `--network none|host|container:NAME`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Bound {
    /// Where the namespace is.
    pub target: Target,
    /// Which one that is.
    pub netns: NetNsId,
    /// Whether netdp made that name and removes it again.
    pub created: bool,
    /// Why it has no interface.
    pub mode: Mode,
}

impl Bound {
    /// Whether the namespace still is there by that name.
    pub fn is_alive(&self) -> bool {
        if self.created { self.target.is_at(self.netns) } else { self.target.is_alive(self.netns) }
    }
}

impl State {
    /// Of an instance that has nothing yet.
    pub fn new(host: NetNsId, datapath: Kind, flows_max: Option<u32>) -> Self {
        Self {
            version: VERSION,
            revision: 0,
            host,
            datapath,
            datapath_reason: None,
            flows_max,
            firewall: Firewall::default(),
            xdp: XdpMode::Off,
            networks: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            bound: BTreeMap::new(),
            removing: Vec::new(),
            ending: false,
        }
    }

    /// Reads the state in an instance's directory; none if there is none.
    pub fn load(dir: &Path) -> Result<Option<Self>, Error> {
        /// What every version has.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = dir.join(FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::File { doing: "reading", path, source }),
        };
        let damaged = |source| Error::Damaged { path: path.clone(), source };
        let Versioned { version } = serde_json::from_str(&text).map_err(damaged)?;
        if version > VERSION {
            return Err(Error::Newer { path, found: version });
        }
        serde_json::from_str(&text).map(Some).map_err(damaged)
    }

    /// Removes a version that a killed command did not complete.
    pub fn remove_incomplete(dir: &Path) -> Result<(), Error> {
        remove_next(&dir.join(FILE))
    }

    /// Writes the state to an instance's directory, in one step, as the next revision.
    pub fn save(&mut self, dir: &Path) -> Result<(), Error> {
        self.revision += 1;
        self.save_again(dir)
    }

    /// Writes the state as the revision that it was: what has happened since is undone.
    pub fn save_again(&self, dir: &Path) -> Result<(), Error> {
        replace_file(&dir.join(FILE), self)
    }

    /// Every published port with its endpoint's name.
    pub fn published(&self) -> Vec<(String, Published)> {
        let of_endpoint = |(name, endpoint): (&String, &Endpoint)| {
            let name = name.clone();
            endpoint.published.clone().into_iter().map(move |published| (name.clone(), published))
        };
        self.endpoints.iter().flat_map(of_endpoint).collect()
    }

    /// Who borrows the namespace of that name.
    pub fn borrowers(&self, lender: &str) -> Vec<&str> {
        let id = self.endpoints.get(lender).map(|endpoint| endpoint.netns);
        let id = id.or_else(|| self.bound.get(lender).map(|bound| bound.netns));
        let borrows = |bound: &Bound| bound.mode.lender() == Some(lender) && Some(bound.netns) == id;
        self.bound.iter().filter(|(_, bound)| borrows(bound)).map(|(name, _)| name.as_str()).collect()
    }

    /// The names of a network's endpoints.
    pub fn endpoints_of(&self, network: &str) -> Vec<&str> {
        let on_it = self.endpoints.iter().filter(|(_, endpoint)| endpoint.network == network);
        on_it.map(|(name, _)| name.as_str()).collect()
    }
}

impl Network {
    /// As the datapath wants it.
    pub fn entry(&self) -> NetworkEntry {
        NetworkEntry {
            bridge: self.ifindex,
            bridge_ifname: self.bridge.clone(),
            subnets: self.subnets.clone(),
            gateways: self.gateways.clone(),
            snat_to: self.snat_to.clone(),
            snat_ports: self.snat_ports,
            internal: self.internal,
            no_icc: self.no_icc,
            routed: self.routed,
            timeouts: self.timeouts.unwrap_or_default(),
        }
    }
}

impl Endpoint {
    /// As the datapath wants it.
    pub fn entry(&self, network: &Network) -> EndpointEntry {
        EndpointEntry {
            host_ifindex: self.host_ifindex,
            host_ifname: self.host_ifname.clone(),
            bridge: network.ifindex,
            addresses: self.addresses.iter().map(IpNet::addr).collect(),
            mac: self.mac.0,
            bridge_mac: network.mac.0,
            max_flows: self.max_flows,
            allowed: self.allowed.clone(),
        }
    }

    /// Published ports as the datapath wants them: an entry of each for each family that it applies to.
    pub fn publish_entries<'a>(
        &self,
        published: impl IntoIterator<Item = &'a Published>,
    ) -> Vec<PublishEntry> {
        let entry = |published: &Published, endpoint: IpAddr| PublishEntry {
            proto: published.proto,
            host_addr: published.host_addr,
            host_port: published.host_port,
            host_port_end: published.host_port_end,
            endpoint,
            port: published.port,
            sources: published.sources.clone(),
        };
        let entries_of = |published: &'a Published| {
            let applies =
                |addr: &IpAddr| published.host_addr.is_none_or(|host| host.is_ipv4() == addr.is_ipv4());
            self.addresses.iter().map(IpNet::addr).filter(applies).map(|addr| entry(published, addr))
        };
        published.into_iter().flat_map(entries_of).collect()
    }
}

/// Writes a document beside `path` and renames it there.
pub fn replace_file<T: Serialize>(path: &Path, document: &T) -> Result<(), Error> {
    let next = path.with_extension(NEXT);
    let write = || {
        let text = serde_json::to_vec_pretty(document)?;
        failpoint::pass("write a document")?;
        let mut file = File::create(&next)?;
        file.write_all(&text)?;
        file.sync_all()?;
        failpoint::pass("replace a document")?;
        fs::rename(&next, path)
    };
    write().map_err(|source| {
        // The first error is the one to report.
        let _ = fs::remove_file(&next);
        Error::File { doing: "writing", path: path.to_owned(), source }
    })
}

/// Removes what [`replace_file`] left of a document when it was killed.
pub fn remove_next(path: &Path) -> Result<(), Error> {
    let next = path.with_extension(NEXT);
    match fs::remove_file(&next) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(Error::File { doing: "removing", path: next, source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
pub(crate) mod tests;
