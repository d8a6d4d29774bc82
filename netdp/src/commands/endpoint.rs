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
use crate::state::Endpoint;
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
    /// Its interface.
    pub ifname: String,
    /// The host's veth.
    pub host_ifname: String,
    /// Its interface's ifindex.
    pub ifindex: u32,
    /// The host veth's ifindex.
    pub host_ifindex: u32,
    /// Its MAC.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<IpNet>,
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
    Ok(listed)
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
            ifname: endpoint.ifname,
            host_ifname: endpoint.host_ifname,
            ifindex: endpoint.ifindex,
            host_ifindex: endpoint.host_ifindex,
            mac: endpoint.mac,
            addresses: endpoint.addresses,
            published: endpoint.published,
            datapath: instance.state.datapath.name(),
            state: if alive { "up" } else { "gone" },
            flows,
            bytes: None,
        }
    }

    fn row(&self) -> [String; 8] {
        [
            self.name.clone(),
            self.netns.to_string(),
            self.network.clone(),
            output::joined(&self.addresses),
            format!("{} ({}) <-> {} ({})", self.host_ifname, self.host_ifindex, self.ifname, self.ifindex),
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
