//! What is measured: netdp, what it replaces, and the limits.

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

/// A way from containers to the world.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Competitor {
    /// No host in between: what sending and receiving cost by themselves.
    Direct,
    /// A bridge and `ip_forward`, no NAT: the world knows the containers' addresses.
    Plain,
    /// iptables `MASQUERADE`.
    Masquerade,
    /// iptables `MASQUERADE --random-fully`.
    RandomFully,
    /// nftables `masquerade`; published ports are elements of a map.
    Nftables,
    /// netdp on iptables.
    NetdpIptables,
    /// netdp on eBPF.
    NetdpEbpf,
    /// A TC program that calls `redirect_neigh`, which looks up route and neighbour; no NAT.
    Redirect,
    /// The same with a given next hop.
    RedirectNextHop,
}

impl Competitor {
    /// In the order in which they take turns.
    pub const ALL: [Self; 9] = [
        Self::Direct,
        Self::Plain,
        Self::Masquerade,
        Self::RandomFully,
        Self::Nftables,
        Self::NetdpIptables,
        Self::NetdpEbpf,
        Self::Redirect,
        Self::RedirectNextHop,
    ];

    /// As in tables and plots.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Direct => "no host",
            Self::Plain => "plain routing",
            Self::Masquerade => "MASQUERADE",
            Self::RandomFully => "MASQUERADE --random-fully",
            Self::Nftables => "nftables masquerade",
            Self::NetdpIptables => "netdp (iptables)",
            Self::NetdpEbpf => "netdp (eBPF)",
            Self::Redirect => "tc redirect, route lookup",
            Self::RedirectNextHop => "tc redirect, next hop",
        }
    }

    /// What it is, for who reads a report.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Direct => "no host in between: what sending and receiving cost by themselves",
            Self::Plain => "a bridge and ip_forward without NAT; the world has a route to the containers",
            Self::Masquerade => "iptables: MASQUERADE, and DNAT rules for published ports",
            Self::RandomFully => "the same with --random-fully, which avoids most of the races for a port",
            Self::Nftables => "nftables: masquerade, and published ports in a map",
            Self::NetdpIptables => "netdp --datapath iptables",
            Self::NetdpEbpf => "netdp --datapath ebpf",
            Self::Redirect => "a limit: a TC program that only redirects, looking up the route; no NAT",
            Self::RedirectNextHop => "a limit: the same with a given next hop",
        }
    }

    /// As in file names and JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Plain => "plain",
            Self::Masquerade => "masquerade",
            Self::RandomFully => "random-fully",
            Self::Nftables => "nftables",
            Self::NetdpIptables => "netdp-iptables",
            Self::NetdpEbpf => "netdp-ebpf",
            Self::Redirect => "redirect",
            Self::RedirectNextHop => "redirect-next-hop",
        }
    }

    /// Whether the world sees the host's address instead of the containers'.
    pub const fn translates(self) -> bool {
        !matches!(self, Self::Direct | Self::Plain | Self::Redirect | Self::RedirectNextHop)
    }

    /// Whether it is netdp.
    pub const fn is_netdp(self) -> bool {
        matches!(self, Self::NetdpIptables | Self::NetdpEbpf)
    }

    /// Whether netfilter tracks its connections.
    pub const fn is_tracked(self) -> bool {
        self.translates() && !matches!(self, Self::NetdpEbpf)
    }

    /// Why it can't take part on this machine; none: it can.
    pub(super) fn missing(self) -> Option<String> {
        let (program, arguments): (_, &[&str]) = match self {
            Self::Masquerade | Self::RandomFully | Self::NetdpIptables => ("iptables", &["--version"]),
            Self::Nftables => ("nft", &["--version"]),
            _ => return None,
        };
        let tried =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        tried.err().map(|error| format!("{program}: {error}"))
    }
}
