//! A published port: what it is, what it clashes with, which spec means it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::sources::Sources;
use crate::datapath::Proto;
use crate::spec::{PortRange, Spec};

/// A published port or range, as it stands in the state and in JSON listings.
#[derive(Clone, Debug, Eq, Hash, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Protocol.
    pub proto: Proto,
    /// Host address; none: every address of the host.
    pub host_addr: Option<IpAddr>,
    /// First host port.
    pub host_port: u16,
    /// Last host port.
    pub host_port_end: u16,
    /// First endpoint port.
    pub port: u16,
    /// Last endpoint port.
    pub port_end: u16,
    /// Who may open connections to it.
    #[serde(default, skip_serializing_if = "Sources::is_everybody")]
    pub sources: Sources,
}

impl Published {
    /// The host ports.
    pub const fn host(&self) -> PortRange {
        PortRange { first: self.host_port, last: self.host_port_end }
    }

    /// The endpoint's ports.
    pub const fn ports(&self) -> PortRange {
        PortRange { first: self.port, last: self.port_end }
    }

    /// Whether a spec means this entry; one without host port means every entry of that endpoint port.
    pub fn is_meant_by(&self, spec: &Spec) -> bool {
        self.proto == spec.proto
            && self.ports() == spec.ports
            && match spec.host {
                Some(host) => self.host() == host && self.host_addr == spec.host_addr,
                None => spec.host_addr.is_none() || self.host_addr == spec.host_addr,
            }
    }

    /// Whether one packet could match both.
    pub fn meets(&self, other: &Self) -> bool {
        let same_addr = match (self.host_addr, other.host_addr) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.proto == other.proto
            && same_addr
            && self.host_port <= other.host_port_end
            && other.host_port <= self.host_port_end
    }

    /// Whether both have the same key, so that one can take the other's place in one step.
    pub fn same_key(&self, other: &Self) -> bool {
        self.proto == other.proto && self.host_addr == other.host_addr && self.host() == other.host()
    }

    fn host_name(&self) -> String {
        match self.host_addr {
            Some(IpAddr::V6(addr)) => format!("[{addr}]:{}", self.host()),
            Some(IpAddr::V4(addr)) => format!("{addr}:{}", self.host()),
            None => format!("0.0.0.0:{}", self.host()),
        }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} -> {}{}", self.ports(), self.proto.name(), self.host_name(), self.sources)
    }
}
