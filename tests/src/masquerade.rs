//! The same lab with what netdp replaces: a bridge, `ip_forward` and `MASQUERADE`.
//!
//! It proves that the lab's tools measure what they say, the demo shows it beside netdp, and the behaviour table
//! compares the two.

use std::net::{IpAddr, Ipv4Addr};

use crate::lab::{Container, Lab, UPLINK};
use crate::variant::Family;

/// Between connections that netfilter tracks, whatever else the machine tracks.
const BRIDGE: &str = "mq0";
/// Its containers' addresses.
const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 0);
/// The bridge's address.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

/// A bridge with NAT by netfilter, in the lab's host.
#[derive(Debug)]
pub struct Masquerade<'a> {
    lab: &'a Lab,
    next: std::cell::Cell<u8>,
}

impl<'a> Masquerade<'a> {
    /// Sets it up; `options` are further ones of the rule.
    pub fn new(lab: &'a Lab, options: &str) -> Self {
        let (host, family) = (&lab.host, lab.variant.family);
        host.sh(&format!("ip link add {BRIDGE} type bridge"));
        host.sh(&format!("ip addr add {} dev {BRIDGE}{}", family.with_prefix(GATEWAY, 24), no_dad(family)));
        host.sh(&format!("ip link set {BRIDGE} up"));
        lab.set_forwarding("1");
        let masquerade = Self { lab, next: std::cell::Cell::new(2) };
        let subnet = family.with_prefix(SUBNET, 24);
        masquerade
            .iptables(&format!("-t nat -A POSTROUTING -s {subnet} -o {UPLINK} -j MASQUERADE {options}"));
        masquerade
    }

    /// Adds a rule of the lab's family.
    #[track_caller]
    pub fn iptables(&self, rule: &str) {
        let program = if self.lab.variant.family == Family::V4 { "iptables" } else { "ip6tables" };
        self.lab.host.sh(&format!("{program} -w {rule}"));
    }

    /// Publishes a port as Docker does: every address of the host leads to it, and what the bridge carries passes
    /// netfilter, so that answers between neighbours are translated back.
    #[track_caller]
    pub fn publish(&self, container: &Container, proto: &str, host_port: u16, port: u16) {
        let to = std::net::SocketAddr::new(container.address, port);
        let dnat = format!("-p {proto} --dport {host_port} -j DNAT --to-destination {to}");
        self.iptables(&format!("-t nat -A PREROUTING -m addrtype --dst-type LOCAL {dnat}"));
        let own = format!("-s {0} -d {0} -p {proto} --dport {port}", container.address);
        self.iptables(&format!("-t nat -A POSTROUTING {own} -j MASQUERADE"));
        self.lab.host.sh(&format!("ip link set {} type bridge_slave hairpin on", container.host_ifname));
        for family in ["ip", "ip6"] {
            self.lab.host.set_sysctl(&format!("net/bridge/bridge-nf-call-{family}tables"), "1");
        }
    }

    /// A container on that bridge.
    pub fn container(&self, name: &str) -> Container {
        let (lab, family) = (self.lab, self.lab.variant.family);
        let netns = lab.netns(name);
        let host = &lab.host;
        let number = self.next.replace(self.next.get() + 1);
        let (address, host_ifname) = (Ipv4Addr::new(10, 88, 0, number), format!("mq{number}"));
        host.sh(&format!("ip link add {host_ifname} type veth peer name eth0 netns {}", netns.name()));
        host.sh(&format!("ip link set {host_ifname} master {BRIDGE} up"));
        netns.sh(&format!("ip addr add {} dev eth0{}", family.with_prefix(address, 24), no_dad(family)));
        netns.sh("ip link set eth0 up");
        netns.sh(&format!("ip route add default via {}", lab.at(GATEWAY)));
        lab.apply_offloads(host, &host_ifname);
        lab.apply_offloads(&netns, "eth0");
        let (address, gateway): (IpAddr, IpAddr) = (lab.at(address), lab.at(GATEWAY));
        Container { name: name.into(), netns, address, gateway, host_ifname }
    }
}

/// Nobody has the address yet, and nobody waits to find out.
const fn no_dad(family: Family) -> &'static str {
    match family {
        Family::V4 => "",
        Family::V6 => " nodad",
    }
}
