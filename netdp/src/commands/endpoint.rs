//! An endpoint as `ls` and `inspect` show it.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::cli::Global;
use crate::error::Error;
use crate::instance::Instance;
use crate::net::Mac;
use crate::output;
use crate::plan::published::Published;
use crate::state::{Bound, Endpoint};
use crate::target::Target;

/// An endpoint in JSON.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Where its namespace was found.
    pub netns: Target,
    /// Its network.
    pub network: String,
    /// Its interface; none: it has a mode instead of a network. So do those that follow.
    #[serde(flatten)]
    pub interface: Interface,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
    /// What it may send from besides them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed: Vec<IpNet>,
    /// Its gateways.
    pub gateway: Vec<IpAddr>,
    /// What it publishes.
    pub published: Vec<Published>,
    /// Its instance's datapath.
    pub datapath: &'static str,
    /// `up`, or `gone` when its namespace or veth is.
    pub state: &'static str,
    /// How many flows it has; none: unknown.
    pub flows: Option<u64>,
    /// Bytes translated for it; none: not counted.
    pub bytes: Option<u64>,
}

/// An endpoint's veth pair in JSON.
#[derive(Debug, Default, Serialize)]
pub struct Interface {
    /// Its interface.
    pub ifname: Option<String>,
    /// The host's veth.
    pub host_ifname: Option<String>,
    /// Its interface's ifindex.
    pub ifindex: Option<u32>,
    /// The host veth's ifindex.
    pub host_ifindex: Option<u32>,
    /// Its MAC.
    pub mac: Option<Mac>,
}

/// Every endpoint of an instance.
pub async fn all(global: &Global) -> Result<Vec<Listed>, Error> {
    let Some(mut instance) = Instance::read(global).await? else {
        return Ok(Vec::new());
    };
    let flows = match instance.datapath_if_there()? {
        Some(datapath) => Some(datapath.flows()?),
        None => None,
    };
    let mut listed = Vec::new();
    for (name, endpoint) in &instance.state.endpoints {
        let alive = instance.is_alive(endpoint).await?;
        let own = |flows: &Vec<crate::datapath::FlowInfo>| {
            let count = flows.iter().filter(|flow| flow.host_ifindex == endpoint.host_ifindex).count();
            u64::try_from(count).unwrap_or(u64::MAX)
        };
        listed.push(Listed::new(&instance, name, endpoint, alive, flows.as_ref().map(own)));
    }
    listed.extend(instance.state.bound.iter().map(|(name, bound)| Listed::bound(&instance, name, bound)));
    listed.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(listed)
}

impl Interface {
    /// The host's veth with its ifindex.
    pub fn host(&self) -> Option<(&str, u32)> {
        self.host_ifname.as_deref().zip(self.host_ifindex)
    }

    /// The namespace's end with its ifindex.
    pub fn inner(&self) -> Option<(&str, u32)> {
        self.ifname.as_deref().zip(self.ifindex)
    }
}

impl Listed {
    fn new(instance: &Instance, name: &str, endpoint: &Endpoint, alive: bool, flows: Option<u64>) -> Self {
        let endpoint = endpoint.clone();
        let network = instance.state.networks.get(&endpoint.network);
        Self {
            name: name.into(),
            netns: endpoint.target,
            gateway: network.map(|network| network.gateways.clone()).unwrap_or_default(),
            network: endpoint.network,
            interface: Interface {
                ifname: Some(endpoint.ifname),
                host_ifname: Some(endpoint.host_ifname),
                ifindex: Some(endpoint.ifindex),
                host_ifindex: Some(endpoint.host_ifindex),
                mac: Some(endpoint.mac),
            },
            addresses: endpoint.addresses,
            allowed: endpoint.allowed,
            published: endpoint.published,
            datapath: instance.state.datapath.name(),
            state: if alive { "up" } else { "gone" },
            flows,
            bytes: None,
        }
    }

    fn bound(instance: &Instance, name: &str, bound: &Bound) -> Self {
        Self {
            name: name.into(),
            netns: bound.target.clone(),
            network: bound.mode.to_string(),
            interface: Interface::default(),
            addresses: Vec::new(),
            allowed: Vec::new(),
            gateway: Vec::new(),
            published: Vec::new(),
            datapath: instance.state.datapath.name(),
            state: if bound.is_alive() { "up" } else { "gone" },
            flows: None,
            bytes: None,
        }
    }

    fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.netns.to_string(),
            self.network.clone(),
            output::joined(&self.addresses),
            match (self.interface.host(), self.interface.inner()) {
                (Some((host, index)), Some((inner, peer))) => {
                    format!("{host} ({index}) <-> {inner} ({peer})")
                }
                _ => "-".into(),
            },
            output::joined(&self.published),
            self.flows.map_or_else(|| "-".into(), |flows| flows.to_string()),
            self.state.into(),
        ]
    }
}

/// Prints endpoints as a table.
pub fn table(listed: &[Listed]) -> Result<(), Error> {
    let head = [
        "NAME",
        "NAMESPACE",
        "NETWORK",
        "ADDRESSES",
        "HOST VETH <-> INTERFACE",
        "PUBLISHED",
        "FLOWS",
        "STATE",
    ];
    output::table(head, listed.iter().map(Listed::row).collect())
}
