//! What carries the addresses of the host, or of the world, instead of a plain Ethernet interface; and whether everything
//! is reached by it.

use std::net::Ipv4Addr;

use crate::ask::{Transport, answered, echo_bulk, unanswered};
use crate::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2, WORLD_3, WORLD_LINK};
use crate::netns::Netns;
use crate::server::Server;
use crate::tunnel::Tunnel;
use crate::variant::Family;

/// Where servers listen.
pub const PORT: u16 = 7000;
/// Where the host publishes the endpoint's.
pub const PUBLISHED: u16 = 8088;
const BULK: usize = 1 << 20;

/// Gives the uplink's addresses and routes to another link of the host.
pub fn move_host(lab: &Lab, from: &str, to: &str) {
    move_addresses(&lab.host, &[HOST], from, to);
    route(lab, to);
}

/// Gives the world's addresses to another of its links.
pub fn move_world(lab: &Lab, from: &str, to: &str) {
    move_addresses(&lab.world, &[WORLD, WORLD_2, WORLD_3], from, to);
}

fn move_addresses(netns: &Netns, addresses: &[Ipv4Addr], from: &str, to: &str) {
    for family in [Family::V4, Family::V6] {
        let addresses = addresses.iter().map(|address| family.with_prefix(*address, 24));
        // With its first address, the kernel takes a subnet's others away.
        for address in addresses.clone().rev() {
            netns.sh(&format!("ip addr del {address} dev {from}"));
        }
        for address in addresses {
            netns.sh(&format!("ip addr add {address} dev {to} nodad"));
        }
    }
}

/// The host's way out is by that link; the kernel forgets routes with their link's addresses, and when it goes down.
pub fn route(lab: &Lab, link: &str) {
    for family in [Family::V4, Family::V6] {
        lab.host.sh(&format!("ip route replace default via {} dev {link}", family.at(WORLD)));
    }
}

/// Puts the uplink into a bridge or bond, from which it gets back its addresses.
pub fn enslave(lab: &Lab, master: &str) {
    lab.host.sh(&format!("ip link set {UPLINK} master {master}"));
    lab.host.sh(&format!("ip link set {UPLINK} up"));
}

/// A link between the host and the world beside the uplink's, with addresses of its own.
#[derive(Debug)]
pub struct Beside {
    /// What it is.
    pub kind: &'static str,
    /// The host's address.
    pub host: Ipv4Addr,
    /// The world's.
    pub world: Ipv4Addr,
    _tunnel: Option<Tunnel>,
}

impl Beside {
    /// A VLAN on the uplink and the world's end of its link.
    #[track_caller]
    pub fn vlan(lab: &Lab) -> Self {
        for (netns, parent) in [(&lab.host, UPLINK), (&lab.world, WORLD_LINK)] {
            netns.sh(&format!("ip link add link {parent} name v5 type vlan id 5"));
        }
        Self::connected(lab, "vlan", ["v5", "v5"], 95)
    }

    /// A bond of one veth, whose peer the world has.
    #[track_caller]
    pub fn bond(lab: &Lab) -> Self {
        lab.world.sh(&format!("ip link add w5 type veth peer name p5 netns {}", lab.host.name()));
        lab.host.sh("ip link add b5 type bond mode active-backup miimon 10");
        lab.host.sh("ip link set p5 master b5");
        Self::connected(lab, "bond", ["b5", "w5"], 96)
    }

    /// A tunnel, whose packets have no Ethernet header.
    #[track_caller]
    pub fn tunnel(lab: &Lab) -> Self {
        let tunnel = Tunnel::connect([(&lab.host, "t5"), (&lab.world, "t5")]);
        Self { _tunnel: Some(tunnel), ..Self::connected(lab, "tunnel", ["t5", "t5"], 97) }
    }

    /// Brings the host's and the world's end up, and gives them addresses of both families.
    fn connected(lab: &Lab, kind: &'static str, links: [&str; 2], net: u8) -> Self {
        let [host, world] = [1, 2].map(|end| Ipv4Addr::new(10, net, 0, end));
        for (netns, link, address) in [(&lab.host, links[0], host), (&lab.world, links[1], world)] {
            netns.sh(&format!("ip link set {link} up"));
            for family in [Family::V4, Family::V6] {
                netns.sh(&format!("ip addr add {} dev {link} nodad", family.with_prefix(address, 24)));
            }
        }
        Self { kind, host, world, _tunnel: None }
    }
}

/// An endpoint that publishes a port, and servers at both ends of the way.
#[derive(Debug)]
pub struct Site<'a> {
    lab: &'a Lab,
    /// The endpoint.
    pub a: Container,
    _servers: [Server; 4],
}

impl<'a> Site<'a> {
    /// Attaches it.
    #[track_caller]
    pub fn new(lab: &'a Lab) -> Self {
        let a = lab.container("a", &format!("-p {PUBLISHED}:{PORT} -p {PUBLISHED}:{PORT}/udp"));
        let servers = [
            Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]),
            Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]),
            Server::tcp(&a.netns, "a", a.address, &[PORT]),
            Server::udp(&a.netns, "a", a.address, &[PORT]),
        ];
        Self { lab, a, _servers: servers }
    }

    /// Reaches out, and is reached at its published port, as by any uplink.
    #[track_caller]
    pub fn works(&self) {
        let Self { lab, a, .. } = self;
        a.netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(WORLD)));
        for transport in Transport::ALL {
            let out = answered(&a.netns, transport, (lab.at(WORLD), PORT), "world");
            assert_eq!(out.peer.ip(), lab.at(HOST), "the outside sees the host");
            let inward = answered(&lab.world, transport, (lab.at(HOST), PUBLISHED), "a");
            assert_eq!(inward.peer, inward.local, "the endpoint sees who asks");
            answered(&lab.host, transport, (lab.at(HOST), PUBLISHED), "a");
        }
        echo_bulk(&a.netns, (lab.at(WORLD), PORT), BULK);
        echo_bulk(&lab.world, (lab.at(HOST), PUBLISHED), BULK);
        // What is not published is not reached by it (G16).
        lab.world.sh(&format!("ip route replace {} via {}", a.address, lab.at(HOST)));
        unanswered(&lab.world, Transport::Udp, (a.address, PORT));
    }
}
