//! What must not be reached, and what must not leave (G6, G9, G16).

use std::net::{IpAddr, Ipv4Addr};

use netdp_tests::ask::{Transport, answered, ask_from, echo_bulk, unanswered};
use netdp_tests::capture::Capture;
use netdp_tests::lab::{HOST, Lab, WORLD, WORLD_LINK};
use netdp_tests::race::Clash;
use netdp_tests::server::Server;
use netdp_tests::{on_every_datapath_in_both_families, with_and_without_offloads_in_both_families};

const PORT: u16 = 7000;
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

with_and_without_offloads_in_both_families!(nothing_private_is_seen_on_the_uplink);
on_every_datapath_in_both_families!(
    an_unpublished_port_is_not_reached_by_a_neighbour_that_routes,
    a_port_published_on_loopback_is_the_hosts_only,
    a_container_cannot_use_anothers_address,
    a_routed_network_is_reached_by_address,
);

/// Fragments and errors, too, pass the qdiscs at both ends; forwarding is on for what a filter would miss.
mod clsact {
    netdp_tests::variants!(nothing_private_is_seen_on_the_uplink: without_tcx CLSACT);
}

/// G16: the world routes the subnet to the host, and the host forwards.
fn an_unpublished_port_is_not_reached_by_a_neighbour_that_routes(lab: &Lab) {
    let web = lab.container("web", &format!("-p 8088:{PORT}"));
    let _tcp = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    let _udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    lab.world.sh(&format!("ip route add {} via {}", web.address, lab.at(HOST)));
    for forwarding in ["0", "1"] {
        lab.set_forwarding(forwarding);
        for transport in Transport::ALL {
            unanswered(&lab.world, transport, (web.address, PORT));
        }
        assert!(!lab.world.try_sh(&format!("ping -c 1 -W 1 {}", web.address)).status.success());
    }
    assert!(lab.netdp.counter("not_published") > 0, "{}", lab.netdp.json("stats"));
    answered(&lab.world, Transport::Tcp, (lab.at(HOST), 8088), "web");
}

/// G9: not even when the world sends packets to 127.0.0.1 over the wire.
fn a_port_published_on_loopback_is_the_hosts_only(lab: &Lab) {
    let loopback = lab.in_spec(LOCALHOST);
    if !lab.variant.serves_loopback() {
        // See `the_ipv6_loopback_is_refused_with_a_reason`.
        return;
    }
    let options = format!("-p {loopback}:8088:{PORT} -p {loopback}:8088:{PORT}/udp");
    let web = lab.container("web", &options);
    let client = lab.container("client", "");
    let _tcp = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    let _udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    answered(&lab.host, Transport::Tcp, (lab.at(LOCALHOST), 8088), "web");
    for transport in Transport::ALL {
        unanswered(&lab.world, transport, (lab.at(HOST), 8088));
        unanswered(&client.netns, transport, (lab.at(HOST), 8088));
        unanswered(&client.netns, transport, (client.gateway, 8088));
    }
    let capture = Capture::start(&lab.world, WORLD_LINK);
    for (netns, source, via) in
        [(&lab.world, lab.at(WORLD), lab.at(HOST)), (&client.netns, client.address, client.gateway)]
    {
        netns.set_sysctl("net/ipv4/conf/all/route_localnet", "1");
        let prefix = if via.is_ipv4() { 8 } else { 128 };
        netns.sh(&format!("ip addr del {}/{prefix} dev lo", lab.at(LOCALHOST)));
        netns.sh(&format!("ip route add {} via {via}", lab.at(LOCALHOST)));
        for transport in Transport::ALL {
            let answer = ask_from(netns, transport, (source, 0), (lab.at(LOCALHOST), 8088));
            assert!(answer.is_err(), "{} reached the host's loopback: {answer:?}", netns.name());
        }
    }
    let packets = capture.finish();
    assert!(packets.iter().any(|packet| packet.dst.ip() == lab.at(LOCALHOST)), "the wire carried it");
}

/// G6: bulk, bursts, pings, resets and errors; only the host's address is seen outside.
fn nothing_private_is_seen_on_the_uplink(lab: &Lab) {
    let clients = [lab.container("a", &format!("-p 8088:{PORT}")), lab.container("b", "")];
    let _tcp = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _udp = Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _inner = Server::tcp(&clients[0].netns, "a", clients[0].address, &[PORT]);
    let capture = Capture::start(&lab.world, WORLD_LINK);
    // With forwarding, what slips past netdp would leave.
    lab.set_forwarding("1");
    for transport in Transport::ALL {
        Clash { clients: &clients, source_ports: 20_000..20_200, to: (lab.at(WORLD), PORT), transport }
            .run(&lab.world);
        unanswered(&clients[0].netns, transport, (lab.at(WORLD), PORT + 1));
    }
    echo_bulk(&clients[1].netns, (lab.at(WORLD), PORT), 1 << 20);
    echo_bulk(&lab.world, (lab.at(HOST), 8088), 1 << 20);
    clients[0].netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(WORLD)));
    // TTL 1 and 2: the host is one hop.
    clients[0].netns.try_sh(&format!("ping -c 1 -t 1 -W 1 {}", lab.at(WORLD)));
    clients[0].netns.try_sh(&format!("ping -c 1 -t 2 -W 1 {}", lab.at(WORLD)));
    // Fragments, and a packet that must not be fragmented.
    clients[0].netns.try_sh(&format!("ping -c 1 -s 4000 -W 1 {}", lab.at(WORLD)));
    clients[0].netns.try_sh(&format!("ping -c 1 -s 4000 -M do -W 1 {}", lab.at(WORLD)));
    lab.netdp.ok("detach b");
    let packets = capture.finish();
    assert!(packets.len() > 1000, "only {} packets were captured", packets.len());
    let private: Vec<_> =
        packets.iter().filter(|packet| packet.incoming && !is_hosts(lab, packet.src.ip())).collect();
    assert!(private.is_empty(), "{} untranslated, the first: {:?}", private.len(), private[0]);
    let ours = [clients[0].address, clients[1].address];
    // Of what the world sends, the capture has a copy that shares the bytes: netfilter writes into those of fragments.
    let inward: Vec<_> =
        packets.iter().filter(|packet| packet.incoming && ours.contains(&packet.dst.ip())).collect();
    assert!(inward.is_empty(), "{} to an endpoint's own address, the first: {:?}", inward.len(), inward[0]);
}

/// The host's address, or one that means something on the link only: IPv6 finds its neighbours with those.
fn is_hosts(lab: &Lab, address: IpAddr) -> bool {
    let of_link =
        matches!(address, IpAddr::V6(addr) if addr.is_unicast_link_local() || addr.is_unspecified());
    of_link || address == HOST || address == lab.at(HOST)
}

/// G12: a packet with a neighbour's address is dropped and counted.
fn a_container_cannot_use_anothers_address(lab: &Lab) {
    let (a, b) = (lab.container("a", ""), lab.container("b", ""));
    let _udp = Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    a.netns.sh(&format!("ip addr add {} dev lo nodad", b.address));
    let answer = ask_from(&a.netns, Transport::Udp, (b.address, 0), (lab.at(WORLD), PORT));
    assert!(answer.is_err(), "{answer:?}");
    assert!(lab.netdp.counter("spoofed") > 0, "{}", lab.netdp.json("stats"));
    answered(&b.netns, Transport::Udp, (lab.at(WORLD), PORT), "world");
}

fn a_routed_network_is_reached_by_address(lab: &Lab) {
    lab.netdp.ok(&format!("network create open {} --routed", lab.subnet("10.54.0.0/24")));
    let web = lab.container("web", "--network open");
    let _tcp = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    lab.world.sh(&format!("ip route add {} via {}", web.address, lab.at(HOST)));
    lab.set_forwarding("1");
    answered(&lab.world, Transport::Tcp, (web.address, PORT), "web");
}
