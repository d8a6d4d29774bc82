//! The same lab with what netdp replaces: a bridge, `ip_forward` and `MASQUERADE`.
//!
//! It proves that the lab's tools measure what they say, and the demo shows it beside netdp.

use std::net::Ipv4Addr;

use crate::lab::{Container, HOST, Lab, UPLINK};

/// Between connections that netfilter tracks, whatever else the machine tracks.
const BRIDGE: &str = "mq0";
/// Its containers' addresses.
const SUBNET: &str = "10.88.0.0/24";

/// A bridge with NAT by netfilter, in the lab's host.
#[derive(Debug)]
pub struct Masquerade<'a> {
    lab: &'a Lab,
    next: std::cell::Cell<u8>,
}

impl<'a> Masquerade<'a> {
    /// Sets it up; `options` are further ones of the rule.
    pub fn new(lab: &'a Lab, options: &str) -> Self {
        let masquerade = Self::bridge(lab);
        let rule = format!("-t nat -A POSTROUTING -s {SUBNET} -o {UPLINK} -j MASQUERADE {options}");
        lab.host.sh(&format!("iptables -w {rule}"));
        masquerade
    }

    /// The same bridge without NAT, and without anything that tracks connections: the world knows the way back.
    pub fn none(lab: &'a Lab) -> Self {
        let plain = Self::bridge(lab);
        lab.world.sh(&format!("ip route add {SUBNET} via {HOST}"));
        plain
    }

    fn bridge(lab: &'a Lab) -> Self {
        let host = &lab.host;
        host.sh(&format!("ip link add {BRIDGE} type bridge"));
        host.sh(&format!("ip addr add {}/24 dev {BRIDGE}", gateway()));
        host.sh(&format!("ip link set {BRIDGE} up"));
        host.set_sysctl("net/ipv4/ip_forward", "1");
        Self { lab, next: std::cell::Cell::new(2) }
    }

    /// A container on that bridge.
    pub fn container(&self, name: &str) -> Container {
        let netns = self.lab.netns(name);
        let host = &self.lab.host;
        let number = self.next.replace(self.next.get() + 1);
        let (address, host_ifname) = (Ipv4Addr::new(10, 88, 0, number), format!("mq{number}"));
        host.sh(&format!("ip link add {host_ifname} type veth peer name eth0 netns {}", netns.name()));
        host.sh(&format!("ip link set {host_ifname} master {BRIDGE} up"));
        netns.sh(&format!("ip addr add {address}/24 dev eth0"));
        netns.sh("ip link set eth0 up");
        netns.sh(&format!("ip route add default via {}", gateway()));
        self.lab.apply_offloads(host, &host_ifname);
        self.lab.apply_offloads(&netns, "eth0");
        Container {
            name: name.into(),
            netns,
            address: address.into(),
            gateway: gateway().into(),
            host_ifname,
        }
    }
}

const fn gateway() -> Ipv4Addr {
    Ipv4Addr::new(10, 88, 0, 1)
}
