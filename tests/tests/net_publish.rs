//! Published ports: from the world, the host and containers, with the client's address (S3, G8).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use netdp_tests::ask::{Transport, answered, ask_from, echo_bulk, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, WORLD, WORLD_2};
use netdp_tests::server::Server;
use netdp_tests::socket;
use netdp_tests::{on_every_datapath_in_both_families, with_and_without_offloads_in_both_families};
use nix::sys::socket::SockFlag;

const INNER: u16 = 8000;
const PUBLISHED: u16 = 8088;
const BULK: usize = 4 << 20;
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

with_and_without_offloads_in_both_families!(
    the_world_reaches_it_and_keeps_its_address,
    the_host_reaches_it,
    another_container_reaches_it,
    the_container_itself_reaches_it,
);
on_every_datapath_in_both_families!(
    the_same_client_port_reaches_two_published_ports,
    the_same_client_port_opens_connections_that_look_alike,
    a_published_address_is_that_address_only,
    a_range_is_published_port_by_port,
    without_a_host_port_a_free_one_is_chosen,
    a_taken_port_is_refused_by_name,
);

/// A container that listens on [`INNER`], TCP and UDP, published as [`PUBLISHED`].
fn published(lab: &Lab) -> (Container, [Server; 2]) {
    let web = lab.container("web", &format!("-p {PUBLISHED}:{INNER} -p {PUBLISHED}:{INNER}/udp"));
    let servers = [
        Server::tcp(&web.netns, "web", lab.at(Ipv4Addr::UNSPECIFIED), &[INNER]),
        Server::udp(&web.netns, "web", web.address, &[INNER]),
    ];
    (web, servers)
}

fn the_world_reaches_it_and_keeps_its_address(lab: &Lab) {
    let (_web, _servers) = published(lab);
    for transport in Transport::ALL {
        for from in [WORLD, WORLD_2].map(|from| lab.at(from)) {
            let answer = ask_from(&lab.world, transport, (from, 0), (lab.at(HOST), PUBLISHED));
            let answer = answer.unwrap_or_else(|error| panic!("{transport:?} from {from}: {error}"));
            assert_eq!(answer.server, "web");
            assert_eq!(answer.peer, answer.local, "address and port of the client are kept");
        }
        unanswered(&lab.world, transport, (lab.at(HOST), PUBLISHED + 1));
        unanswered(&lab.world, transport, (lab.at(HOST), INNER));
    }
    echo_bulk(&lab.world, (lab.at(HOST), PUBLISHED), BULK);
}

fn the_host_reaches_it(lab: &Lab) {
    let (web, _servers) = published(lab);
    let loopback = lab.variant.serves_loopback().then_some(lab.at(LOCALHOST));
    for address in [lab.at(HOST), web.gateway].into_iter().chain(loopback) {
        answered(&lab.host, Transport::Tcp, (address, PUBLISHED), "web");
        echo_bulk(&lab.host, (address, PUBLISHED), BULK);
        unanswered(&lab.host, Transport::Tcp, (address, PUBLISHED + 1));
    }
    // The container's own address and port need no translation.
    answered(&lab.host, Transport::Tcp, (web.address, INNER), "web");
}

fn another_container_reaches_it(lab: &Lab) {
    let (web, _servers) = published(lab);
    let client = lab.container("client", "");
    lab.netdp.ok(&format!("network create other {}", lab.subnet("10.50.0.0/24")));
    let foreign = lab.container("foreign", "--network other");
    for transport in Transport::ALL {
        for address in [lab.at(HOST), web.gateway] {
            let answer = answered(&client.netns, transport, (address, PUBLISHED), "web");
            assert_eq!(answer.peer, answer.local, "the client's address is kept");
        }
        // From another network: published is published.
        let answer = answered(&foreign.netns, transport, (lab.at(HOST), PUBLISHED), "web");
        assert_eq!(answer.peer.ip(), foreign.address);
    }
    echo_bulk(&client.netns, (lab.at(HOST), PUBLISHED), BULK);
}

fn the_container_itself_reaches_it(lab: &Lab) {
    let (web, _servers) = published(lab);
    for transport in Transport::ALL {
        for address in [lab.at(HOST), web.gateway] {
            let answer = answered(&web.netns, transport, (address, PUBLISHED), "web");
            assert_eq!(answer.peer.ip(), web.gateway, "it sees the gateway, not itself");
        }
    }
    echo_bulk(&web.netns, (lab.at(HOST), PUBLISHED), BULK);
}

/// Both connections look the same to the endpoint; one gets another port (G8).
fn the_same_client_port_reaches_two_published_ports(lab: &Lab) {
    let web = lab.container("web", &format!("-p 8088:{INNER}/udp -p 8089:{INNER}/udp"));
    let _udp = Server::udp(&web.netns, "web", web.address, &[INNER]);
    for round in 0..3 {
        for port in [8088, 8089] {
            let answer = ask_from(&lab.world, Transport::Udp, (lab.at(WORLD), 5555), (lab.at(HOST), port));
            let answer = answer.unwrap_or_else(|error| panic!("round {round} port {port}: {error}"));
            assert_eq!(answer.peer.ip(), lab.at(WORLD));
        }
    }
    if lab.variant.datapath.counts("dnat_port_changed") {
        assert!(lab.netdp.counter("dnat_port_changed") > 0, "{}", lab.netdp.json("stats"));
    }
}

/// The same with connections that are open at once, by two ports and two addresses of the host (G8).
fn the_same_client_port_opens_connections_that_look_alike(lab: &Lab) {
    let second = Ipv4Addr::new(10, 99, 0, 9);
    lab.host.sh(&format!("ip addr add {} dev up0 nodad", lab.at(second)));
    let web = lab.container("web", &format!("-p 8088:{INNER} -p 8089:{INNER}"));
    let _tcp = Server::tcp(&web.netns, "web", web.address, &[INNER]);
    let from = SocketAddr::from((lab.at(WORLD), 5556));
    let ways = [(lab.at(HOST), 8088), (lab.at(HOST), 8089), (lab.at(second), 8088)];
    let mut open = ways.map(|to| {
        let stream = lab.world.enter(|| {
            let socket = socket::tcp_bound(from, SockFlag::empty()).expect("binding TCP");
            socket::tcp_connect(socket, to.into())
        });
        stream.unwrap_or_else(|error| panic!("connecting from {from} to {to:?}: {error}"))
    });
    for stream in &mut open {
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        stream.write_all(b"x").expect("writing to an open connection");
        let mut last = [0];
        while last != *b"x" {
            stream.read_exact(&mut last).expect("the greeting, and the echo");
        }
    }
    let flows = lab.netdp.json("flows --proto tcp");
    assert_eq!(flows.as_array().map(Vec::len), Some(ways.len()), "{flows}");
}

fn a_published_address_is_that_address_only(lab: &Lab) {
    let second = Ipv4Addr::new(10, 99, 0, 9);
    lab.host.sh(&format!("ip addr add {} dev up0 nodad", lab.at(second)));
    let web = lab.container("web", &format!("-p {}:{PUBLISHED}:{INNER}", lab.in_spec(second)));
    let _tcp = Server::tcp(&web.netns, "web", web.address, &[INNER]);
    let second = lab.at(second);
    answered(&lab.world, Transport::Tcp, (second, PUBLISHED), "web");
    answered(&lab.host, Transport::Tcp, (second, PUBLISHED), "web");
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), PUBLISHED));
    unanswered(&lab.host, Transport::Tcp, (lab.at(HOST), PUBLISHED));
    unanswered(&lab.host, Transport::Tcp, (lab.at(LOCALHOST), PUBLISHED));
}

fn a_range_is_published_port_by_port(lab: &Lab) {
    let web = lab.container("web", "-p 9000-9009:8000-8009");
    let ports: Vec<u16> = (8000..8010).collect();
    let _tcp = Server::tcp(&web.netns, "web", web.address, &ports);
    for port in [9000, 9004, 9009] {
        answered(&lab.world, Transport::Tcp, (lab.at(HOST), port), "web");
    }
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), 9010));
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), 8999));
    lab.netdp.refused(2, "publish web 9100-9102:8000-8001");
}

fn without_a_host_port_a_free_one_is_chosen(lab: &Lab) {
    let web = lab.container("web", "");
    let _tcp = Server::tcp(&web.netns, "web", web.address, &[INNER]);
    let printed = lab.netdp.ok(&format!("publish web {INNER}"));
    let port = printed.trim().strip_prefix(&format!("{INNER}/tcp -> 0.0.0.0:")).map(str::parse);
    let port =
        port.unwrap_or_else(|| panic!("not `{INNER}/tcp -> 0.0.0.0:PORT`: {printed}")).expect("a port");
    answered(&lab.world, Transport::Tcp, (lab.at(HOST), port), "web");
}

fn a_taken_port_is_refused_by_name(lab: &Lab) {
    let (_web, _servers) = published(lab);
    let other = lab.container("other", "");
    let error = lab.netdp.refused(2, &format!("publish other {PUBLISHED}:{INNER}"));
    assert!(error.contains("web"), "names the owner: {error}");
    let _host = Server::tcp(&lab.host, "host", Ipv4Addr::UNSPECIFIED, &[9999]);
    let error = lab.netdp.refused(2, &format!("publish other 9999:{INNER}"));
    assert!(error.contains("net_publish"), "names the process that listens: {error}");
    // Nothing changed.
    let endpoint = lab.netdp.json("inspect other");
    assert_eq!(endpoint["published"].as_array().map(Vec::len), Some(0), "{endpoint}");
    answered(&lab.world, Transport::Tcp, (lab.at(HOST), PUBLISHED), "web");
    drop(other);
}
