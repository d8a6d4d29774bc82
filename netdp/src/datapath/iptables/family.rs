//! What differs between iptables and ip6tables.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// An address family, each with rules of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::datapath) enum Family {
    /// iptables.
    V4,
    /// ip6tables.
    V6,
}

impl Family {
    /// Both.
    pub(in crate::datapath) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// What the programs' names begin with.
    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::V4 => "iptables",
            Self::V6 => "ip6tables",
        }
    }

    /// The host's addresses that no packet on a wire may have.
    pub(super) const fn loopback(self) -> &'static str {
        match self {
            Self::V4 => "127.0.0.0/8",
            Self::V6 => "::1/128",
        }
    }

    /// Sources that are nobody's in particular: of who has no address yet, and link-local ones.
    pub(super) const fn anybody(self) -> &'static [&'static str] {
        match self {
            Self::V4 => &["0.0.0.0/32"],
            Self::V6 => &["::/128", "fe80::/10"],
        }
    }

    /// Whether an address is of this family.
    pub(super) const fn has(self, addr: &IpAddr) -> bool {
        matches!((self, addr), (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)))
    }

    /// Whether a subnet is of this family.
    pub(super) const fn has_net(self, net: &IpNet) -> bool {
        matches!((self, net), (Self::V4, IpNet::V4(_)) | (Self::V6, IpNet::V6(_)))
    }

    /// An address with a port (or ports) behind it, as NAT targets want it.
    pub(super) fn with_ports(addr: IpAddr, ports: &str) -> String {
        match addr {
            IpAddr::V4(addr) => format!("{addr}:{ports}"),
            IpAddr::V6(addr) => format!("[{addr}]:{ports}"),
        }
    }
}
