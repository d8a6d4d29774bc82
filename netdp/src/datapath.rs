//! What a datapath does, whichever it is: the verbs that commands use.
//!
//! A datapath keeps no state in the process: everything is in the kernel, below the instance's pins or in
//! its chains. `add_*` with the same key replaces; every removal succeeds when there is nothing to remove.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::net::PortFlags;
use crate::plan::sources::Sources;
use crate::plan::timeouts::NetworkTimeouts;

pub mod ebpf;
pub mod iptables;
mod port_map;
pub mod select;
mod sysctls;

pub use port_map::PortMap;

/// Which datapath an instance uses.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// TC and cgroup programs.
    Ebpf,
    /// Netfilter rules.
    Iptables,
}

/// Who decides about translated packets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Firewall {
    /// Netdp alone: they go around the host's rules.
    #[default]
    Bypass,
    /// The host's rules, too: the stack forwards what comes from or goes to the outside.
    Honour,
}

impl Firewall {
    /// What `--firewall` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Honour => "honour",
        }
    }
}

/// Whether packets from outside meet netdp before the kernel makes a socket buffer of them, and where (`--xdp`).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// They don't.
    #[default]
    Off,
    /// In the network card's driver.
    Native,
    /// Behind the driver: for cards whose driver can't.
    Generic,
}

impl XdpMode {
    /// What `--xdp` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Native => "native",
            Self::Generic => "generic",
        }
    }

    /// Whether it is [`XdpMode::Off`].
    pub fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// A transport protocol that can be published.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Kind {
    /// What `--datapath` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ebpf => "ebpf",
            Self::Iptables => "iptables",
        }
    }
}

impl Proto {
    /// The IP protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The name in publish specs and listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

/// A network as the datapath needs it. The bridge exists already.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NetworkEntry {
    /// The bridge's ifindex: the network's key.
    pub bridge: u32,
    /// The bridge's name.
    pub bridge_ifname: String,
    /// Its subnets.
    pub subnets: Vec<IpNet>,
    /// The bridge's addresses.
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
    /// How long the flows of its endpoints live, where netdp decides that.
    pub timeouts: NetworkTimeouts,
}

/// An endpoint as the datapath needs it. Its veth pair exists already.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct EndpointEntry {
    /// The host veth's ifindex: the endpoint's key.
    pub host_ifindex: u32,
    /// The host veth's name.
    pub host_ifname: String,
    /// The network's bridge.
    pub bridge: u32,
    /// The endpoint's addresses.
    pub addresses: Vec<IpAddr>,
    /// The endpoint's MAC.
    pub mac: [u8; 6],
    /// The bridge's MAC.
    pub bridge_mac: [u8; 6],
    /// Most flows that it may have; none: its share.
    #[serde(default)]
    pub max_flows: Option<u32>,
    /// What it may send from besides its addresses.
    #[serde(default)]
    pub allowed: Vec<IpNet>,
}

/// A published port or range: key (`proto`, `host_addr`, `host_port`..=`host_port_end`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct PublishEntry {
    /// Protocol.
    pub proto: Proto,
    /// Host address; none: every address of the host, both families.
    pub host_addr: Option<IpAddr>,
    /// First host port.
    pub host_port: u16,
    /// Last host port.
    pub host_port_end: u16,
    /// The endpoint's address. With no `host_addr`, one entry for each family the endpoint has.
    pub endpoint: IpAddr,
    /// First endpoint port.
    pub port: u16,
    /// Who may open connections to it, in both families.
    #[serde(default, skip_serializing_if = "Sources::is_everybody")]
    pub sources: Sources,
}

impl PublishEntry {
    /// What no two entries have in common: the host ports, in one family where there is no host address.
    pub const fn key(&self) -> PublishKey {
        let Self { proto, host_addr, host_port, host_port_end, endpoint, port: _, sources: _ } = *self;
        (proto, host_addr, host_port, host_port_end, endpoint.is_ipv4())
    }
}

/// See [`PublishEntry::key`].
pub type PublishKey = (Proto, Option<IpAddr>, u16, u16, bool);

/// What becomes of an unpublished port's flows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FlowsOfPort {
    /// They end at once.
    End,
    /// Those that are established may finish.
    Drain,
}

/// What [`Datapath::flows`] lists. Addresses and ports are `(address, port)`; an ICMP identifier is the port.
#[derive(Clone, Debug)]
pub struct FlowInfo {
    /// `snat`, `dnat` or `hairpin`.
    pub kind: &'static str,
    /// IP protocol number.
    pub proto: u8,
    /// Host veth of the endpoint (the opener's for `snat` and `hairpin`, the answerer's for `dnat`).
    pub host_ifindex: u32,
    /// Source as the endpoint sees it.
    pub src: (IpAddr, u16),
    /// Destination as the endpoint sees it.
    pub dst: (IpAddr, u16),
    /// Source on the wire (for `dnat`: the client; for `hairpin`: what the answering endpoint sees).
    pub ext_src: (IpAddr, u16),
    /// Destination on the wire.
    pub ext_dst: (IpAddr, u16),
    /// State's name: `syn`, `established`, `closing`, `closed`, `new`, `answered`, `stream`.
    pub state: &'static str,
    /// Seconds since the last packet.
    pub idle_s: u64,
    /// Seconds until it expires.
    pub expires_s: u64,
    /// Opaque: names this very flow for [`Datapath::remove_flows`].
    pub handle: FlowHandle,
}

/// Names one flow so that only this one, and not a later one with the same tuple, is removed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FlowHandle(pub Vec<u8>);

/// Gauges and counters since the instance began.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Flows in the table.
    pub flows: u64,
    /// Flows the table can hold.
    pub flows_max: u64,
    /// Every event's name and count.
    pub events: Vec<(&'static str, u64)>,
    /// Every drop reason's name, sentence and count, also those that are zero.
    pub drops: Vec<(&'static str, &'static str, u64)>,
}

/// A datapath of one instance. All methods are synchronous, take milliseconds, and run in the host's network namespace.
pub trait Datapath {
    /// Which one it is.
    fn kind(&self) -> Kind;
    /// Adds a network or changes its options.
    fn add_network(&mut self, network: &NetworkEntry) -> Result<(), Error>;
    /// Removes a network that has no endpoints.
    fn remove_network(&mut self, bridge: u32) -> Result<(), Error>;
    /// Takes an endpoint's veth into the datapath.
    fn add_endpoint(&mut self, endpoint: &EndpointEntry) -> Result<(), Error>;
    /// Takes it out again and removes its flows; the veth may be gone already.
    fn remove_endpoint(&mut self, endpoint: &EndpointEntry) -> Result<(), Error>;
    /// How ports of a network's bridge treat frames.
    fn port_flags(&self, bridge: u32) -> PortFlags;
    /// Publishes, or moves published ports to another endpoint or gives them other sources, each in one step; flows of
    /// the old one, and of who is no source any more, are removed.
    fn publish(&mut self, entries: &[PublishEntry]) -> Result<(), Error>;
    /// Unpublishes and removes the flows of those ports.
    fn unpublish(&mut self, entries: &[PublishEntry], flows: FlowsOfPort) -> Result<(), Error>;
    /// Hooks uplinks that appeared and tells the programs what changed on the host (addresses, reserved ports).
    fn refresh_host(&mut self) -> Result<(), Error>;
    /// Puts the XDP program on the uplinks, or takes it off; either on all that are meant, or an error.
    fn set_xdp(&mut self, mode: XdpMode) -> Result<(), Error>;
    /// The living flows.
    fn flows(&self) -> Result<Vec<FlowInfo>, Error>;
    /// Removes flows that [`Datapath::flows`] listed; returns how many were still there.
    fn remove_flows(&mut self, flows: &[FlowHandle]) -> Result<usize, Error>;
    /// Counters and gauges.
    fn stats(&self) -> Result<Stats, Error>;
    /// What of publishing does not work on this host, in a sentence; none: all does.
    fn unserved(&self) -> Option<&'static str>;
    /// What somebody else removed or changed; [`Datapath::refresh_host`] puts it right.
    fn faults(&self) -> Result<Vec<String>, Error>;
    /// Removes the whole datapath of this instance: programs, links, maps, rules. Returns what of the host's own is
    /// left as it is, and why.
    fn remove(self: Box<Self>) -> Result<Vec<String>, Error>;
}

/// Why a datapath could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[error("{doing}: {}", with_sources(&**cause))]
pub struct Error {
    /// What was being done to what.
    pub doing: String,
    /// Why it failed.
    pub cause: Box<dyn std::error::Error + Send + Sync>,
}

/// An error and what caused it, down to the system call's.
fn with_sources(error: &(dyn std::error::Error + Send + Sync)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their source.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}
