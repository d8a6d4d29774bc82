//! Addresses that an endpoint may use besides its own (`--allow-address`, G12): inside as its own, outside as the host's.

use std::net::{IpAddr, Ipv4Addr};

use netdp_tests::ask::{Transport, answered, ask_from, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::on_every_datapath_in_both_families;
use netdp_tests::server::Server;
use netdp_tests::variant::Datapath;

const PORT: u16 = 7000;
/// An address that two endpoints take turns with.
const SHARED: Ipv4Addr = Ipv4Addr::new(10, 58, 7, 50);
/// What is behind an endpoint.
const BEHIND: Ipv4Addr = Ipv4Addr::new(10, 59, 7, 9);

on_every_datapath_in_both_families!(an_endpoint_uses_what_it_was_allowed);

fn prefix_of(lab: &Lab, address: Ipv4Addr, v4: u8, v6: u8) -> String {
    let address = lab.at(address);
    format!("{address}/{}", if address.is_ipv4() { v4 } else { v6 })
}

fn an_endpoint_uses_what_it_was_allowed(lab: &Lab) {
    lab.netdp.ok(&format!("network create lan {}", lab.subnet("10.58.7.0/24")));
    let one = prefix_of(lab, SHARED, 32, 128);
    let net = match lab.at(Ipv4Addr::new(10, 59, 7, 0)) {
        IpAddr::V4(net) => format!("{net}/24"),
        IpAddr::V6(net) => format!("{net}/64"),
    };
    let options = format!("--network lan --allow-address {one}");
    let first = lab.container("first", &format!("{options} --allow-address {net}"));
    let second = lab.container("second", &options);
    let other = lab.container("other", "--network lan");
    let take = |from: &Container, to: &Container| {
        from.netns.try_sh(&format!("ip addr del {one} dev eth0"));
        to.netns.sh(&format!("ip addr add {one} dev eth0 nodad"));
        for neighbour in [&other.netns, &lab.host] {
            neighbour.sh("ip neigh flush all");
        }
    };
    let _world = Transport::ALL.map(|transport| serve(lab, transport));
    for (from, to) in [(&second, &first), (&first, &second)] {
        take(from, to);
        let _server = Server::tcp(&to.netns, &to.name, lab.at(SHARED), &[PORT]);
        // A neighbour and the host find it, and it is answered outside, where it looks like the host.
        answered(&other.netns, Transport::Tcp, (lab.at(SHARED), PORT), &to.name);
        answered(&lab.host, Transport::Tcp, (lab.at(SHARED), PORT), &to.name);
        for transport in Transport::ALL {
            let answer = ask_from(&to.netns, transport, (lab.at(SHARED), 0), (lab.at(WORLD), PORT));
            assert_eq!(answer.expect("an answer").peer.ip(), lab.at(HOST));
        }
    }
    // Who routes for others. Netfilter leaves the way of the answers to the host's routes.
    if lab.variant.datapath == Datapath::Iptables {
        lab.host.sh(&format!("ip route add {net} via {}", first.address));
    }
    first.netns.sh(&format!("ip addr add {} dev lo nodad", prefix_of(lab, BEHIND, 32, 128)));
    let answer = ask_from(&first.netns, Transport::Tcp, (lab.at(BEHIND), 0), (lab.at(WORLD), PORT));
    assert_eq!(answer.expect("an answer").peer.ip(), lab.at(HOST));

    // Nobody else may, and nobody outside gets there.
    let spoofed = lab.netdp.counter("spoofed");
    other.netns.sh(&format!("ip addr add {} dev lo nodad", prefix_of(lab, BEHIND, 32, 128)));
    let answer = ask_from(&other.netns, Transport::Udp, (lab.at(BEHIND), 0), (lab.at(WORLD), PORT));
    assert!(answer.is_err(), "{answer:?}");
    assert!(lab.netdp.counter("spoofed") > spoofed, "{}", lab.netdp.json("stats"));
    lab.set_forwarding("1");
    lab.world.sh(&format!("ip route add {one} via {}", lab.at(HOST)));
    unanswered(&lab.world, Transport::Tcp, (lab.at(SHARED), PORT));
    assert!(lab.netdp.counter("not_published") > 0, "{}", lab.netdp.json("stats"));

    // What others may use is not given to anybody.
    let refused =
        lab.netdp.run(&format!("attach {} --name twin --ip {}", other.netns.name(), lab.at(SHARED)));
    assert_eq!(refused.code, 2, "{refused:?}");
    let shown = lab.netdp.json("inspect second");
    assert_eq!(shown["allowed"], serde_json::json!([one]));
}

fn serve(lab: &Lab, transport: Transport) -> Server {
    match transport {
        Transport::Tcp => Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]),
        Transport::Udp => Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]),
    }
}
