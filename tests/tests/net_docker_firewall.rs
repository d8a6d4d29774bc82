//! Beside Docker: `iptables -P FORWARD DROP` and br_netfilter on (S2, S3, G17).

use std::net::Ipv4Addr;
use std::path::Path;

use netdp_tests::ask::{Transport, answered, echo_bulk};
use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::server::Server;
use netdp_tests::with_and_without_offloads_in_both_families;

const PORT: u16 = 7000;

with_and_without_offloads_in_both_families!(neighbours_and_published_ports_work);

/// Rules of bridges see a packet after the programs, however those are attached.
mod clsact {
    netdp_tests::variants!(neighbours_and_published_ports_work: without_tcx CLSACT);
}

/// What dockerd sets on a host.
fn forward_drop(lab: &Lab) {
    for (tables, which) in [
        ("iptables", "net/bridge/bridge-nf-call-iptables"),
        ("ip6tables", "net/bridge/bridge-nf-call-ip6tables"),
    ] {
        lab.host.sh(&format!("{tables} -w -P FORWARD DROP"));
        let there = lab.host.enter(|| Path::new("/proc/sys").join(which).exists());
        assert!(there, "no {which}: this kernel has no br_netfilter, so nothing can be shown here");
        lab.host.set_sysctl(which, "1");
    }
    lab.set_forwarding("1");
}

fn neighbours_and_published_ports_work(lab: &Lab) {
    forward_drop(lab);
    let web = lab.container("web", &format!("-p 8088:{PORT} -p 8088:{PORT}/udp"));
    let client = lab.container("client", "");
    let _tcp = Server::tcp(&web.netns, "web", lab.at(Ipv4Addr::UNSPECIFIED), &[PORT]);
    let _udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    let _world_tcp = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _world_udp = Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    for transport in Transport::ALL {
        answered(&client.netns, transport, (web.address, PORT), "web");
        answered(&client.netns, transport, (lab.at(WORLD), PORT), "world");
        answered(&client.netns, transport, (lab.at(HOST), 8088), "web");
        answered(&web.netns, transport, (lab.at(HOST), 8088), "web");
        let answer = answered(&lab.world, transport, (lab.at(HOST), 8088), "web");
        assert_eq!(answer.peer, answer.local);
    }
    client.netns.sh(&format!("ping -c 1 -W 2 {}", web.address));
    answered(&lab.host, Transport::Tcp, (lab.at(HOST), 8088), "web");
    if lab.variant.serves_loopback() {
        answered(&lab.host, Transport::Tcp, (lab.at(Ipv4Addr::LOCALHOST), 8088), "web");
    }
    echo_bulk(&client.netns, (web.address, PORT), 1 << 20);
    echo_bulk(&lab.world, (lab.at(HOST), 8088), 1 << 20);
}
