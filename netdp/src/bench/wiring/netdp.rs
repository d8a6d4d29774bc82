//! netdp itself, by its own commands.

use serde_json::Value;

use super::{Forward, address_of, mac_of};
use crate::bench::arena::{Client, ETH0, MTU};
use crate::bench::competitor::Competitor;
use crate::bench::{Error, command};
use crate::net::NetNs;

/// The network, and its bridge.
const NETWORK: &str = "bench";
const BRIDGE: &str = "nd-bench";

/// Its datapaths.
const EBPF: &str = "ebpf";
const IPTABLES: &str = "iptables";

/// What is counted beside netfilter's `insert_failed`.
const COUNTERS: [&str; 4] = ["snat_collisions", "snat_exhausted", "flows_recycled", "flows_expired"];

/// An instance, taken down when dropped.
#[derive(Debug)]
pub(in crate::bench) struct Instance {
    name: String,
    datapath: &'static str,
    /// The host's namespace, open as long as the instance must be taken down there.
    host: NetNs,
    flows: Option<u32>,
}

impl Instance {
    /// Creates a network and attaches the containers.
    pub(super) fn set_up(
        competitor: Competitor,
        name: &str,
        host: &NetNs,
        containers: Vec<NetNs>,
        flows: Option<u32>,
    ) -> Result<(Self, Vec<Client>), Error> {
        let datapath = if competitor == Competitor::NetdpEbpf { EBPF } else { IPTABLES };
        // From here on, whatever fails, the instance is taken down.
        let instance = Self { name: name.into(), datapath, host: again(host)?, flows };
        let mtu = MTU.to_string();
        instance.command(host, &["network", "create", NETWORK, "--subnet", "10.88.0.0/24", "--mtu", &mtu])?;
        let mut clients = Vec::new();
        for (number, ns) in containers.into_iter().enumerate() {
            instance.attach(host, number, &ns)?;
            let (mac, gateway_mac) = (mac_of(&ns, ETH0)?, mac_of(host, BRIDGE)?);
            clients.push(Client { ns, address: address_of(number), mac, gateway_mac });
        }
        Ok((instance, clients))
    }

    /// Attaches a container by its number.
    pub(in crate::bench) fn attach(&self, host: &NetNs, number: usize, ns: &NetNs) -> Result<(), Error> {
        let (address, name) = (address_of(number).to_string(), endpoint(number));
        let target = command::path(ns);
        self.command(host, &["attach", &target, "--name", &name, "--network", NETWORK, "--ip", &address])
            .map(drop)
    }

    /// Takes it off again.
    pub(in crate::bench) fn detach(&self, host: &NetNs, number: usize) -> Result<(), Error> {
        self.command(host, &["detach", &endpoint(number)]).map(drop)
    }

    /// Publishes ports of the first container by one command.
    pub(super) fn publish(&self, host: &NetNs, forwards: &[Forward]) -> Result<(), Error> {
        let specs: Vec<String> = forwards.iter().map(spec).collect();
        let name = endpoint(0);
        let arguments: Vec<&str> =
            ["publish", &name].into_iter().chain(specs.iter().map(String::as_str)).collect();
        self.command(host, &arguments).map(drop)
    }

    /// Takes all of them back.
    pub(super) fn unpublish(&self, host: &NetNs) -> Result<(), Error> {
        self.command(host, &["unpublish", &endpoint(0), "--all"]).map(drop)
    }

    /// Whether netfilter has its flows.
    pub(super) fn is_tracked(&self) -> bool {
        self.datapath == IPTABLES
    }

    /// `netdp flows flush`.
    pub(super) fn forget_flows(&self, host: &NetNs) -> Result<(), Error> {
        self.command(host, &["flows", "flush"]).map(drop)
    }

    /// Those of `netdp stats` that tell of races and full tables; what the datapath doesn't count is left out.
    pub(super) fn counters(&self, host: &NetNs) -> Result<Vec<(&'static str, u64)>, Error> {
        let stats = self.stats(host)?;
        Ok(COUNTERS.into_iter().filter_map(|name| Some((name, stats[name].as_u64()?))).collect())
    }

    /// `netdp stats`.
    pub(in crate::bench) fn stats(&self, host: &NetNs) -> Result<Value, Error> {
        let text = self.command(host, &["--json", "stats"])?;
        let not_json = |error: serde_json::Error| Error::Command {
            line: "netdp --json stats".into(),
            why: error.to_string(),
        };
        serde_json::from_str(&text).map_err(not_json)
    }

    /// The instance's name.
    pub(in crate::bench) fn name(&self) -> &str {
        &self.name
    }

    fn command(&self, host: &NetNs, arguments: &[&str]) -> Result<String, Error> {
        let flows = self.flows.map(|flows| format!("--flows-max={flows}"));
        let options = ["--datapath", self.datapath].into_iter().chain(flows.as_deref());
        let all: Vec<String> = options.chain(arguments.iter().copied()).map(ToOwned::to_owned).collect();
        command::netdp(&self.name, host, &all)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = command::netdp(&self.name, &self.host, &["down".into()]) {
            tracing::error!(%error, instance = self.name, "taking down an instance of the bench");
            // A run that leaves something behind must say so even without -v.
            let _ = crate::output::warning(error);
        }
    }
}

fn again(ns: &NetNs) -> Result<NetNs, Error> {
    Ok(NetNs::open(command::path(ns).as_ref())?)
}

fn endpoint(number: usize) -> String {
    format!("c{number}")
}

fn spec(forward: &Forward) -> String {
    let Forward { host_port, port, count, transport } = *forward;
    let range =
        |first: u16| if count == 1 { first.to_string() } else { format!("{first}-{}", first + (count - 1)) };
    format!("{}:{}/{}", range(host_port), range(port), transport.name())
}
