//! Who reaches whom: the outside, neighbours, the host; and who does not (S1, S2, S7).

use netdp_tests::ask::{Transport, answered, echo_bulk, unanswered};
use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::server::Server;
use netdp_tests::{on_every_datapath_in_both_families, with_and_without_offloads_in_both_families};

const PORT: u16 = 7000;
/// Enough for many segments of 64 KiB and a window that grows.
const BULK: usize = 4 << 20;

with_and_without_offloads_in_both_families!(
    the_outside_is_reached_and_sees_the_host,
    neighbours_reach_each_other
);
on_every_datapath_in_both_families!(
    the_host_is_reached_at_the_gateway,
    networks_are_apart,
    an_internal_network_has_no_way_out,
    without_icc_neighbours_are_apart,
    a_removed_network_is_gone,
);

/// S1.
fn the_outside_is_reached_and_sees_the_host(lab: &Lab) {
    let a = lab.container("a", "");
    let routes = a.netns.sh("ip route show default") + &a.netns.sh("ip -6 route show default");
    assert!(routes.contains(&format!("via {} dev eth0", a.gateway)), "{routes}");
    a.netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", a.gateway));
    a.netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(WORLD)));
    let _tcp = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _udp = Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    for transport in Transport::ALL {
        let answer = answered(&a.netns, transport, (lab.at(WORLD), PORT), "world");
        assert_eq!(answer.peer.ip(), lab.at(HOST), "the outside sees the host");
    }
    echo_bulk(&a.netns, (lab.at(WORLD), PORT), BULK);
}

/// S2.
fn neighbours_reach_each_other(lab: &Lab) {
    let (a, b) = (lab.container("a", ""), lab.container("b", ""));
    let _tcp = Server::tcp(&b.netns, "b", b.address, &[PORT]);
    let _udp = Server::udp(&b.netns, "b", b.address, &[PORT]);
    a.netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", b.address));
    for transport in Transport::ALL {
        let answer = answered(&a.netns, transport, (b.address, PORT), "b");
        assert_eq!(answer.peer, answer.local, "nothing is translated between neighbours");
    }
    echo_bulk(&a.netns, (b.address, PORT), BULK);
}

/// S7.
fn the_host_is_reached_at_the_gateway(lab: &Lab) {
    let a = lab.container("a", "");
    for address in [a.gateway, lab.at(HOST)] {
        let _tcp = Server::tcp(&lab.host, "host", address, &[PORT]);
        let _udp = Server::udp(&lab.host, "host", address, &[PORT]);
        for transport in Transport::ALL {
            let answer = answered(&a.netns, transport, (address, PORT), "host");
            assert_eq!(answer.peer.ip(), a.address, "the host sees who asks");
        }
    }
}

fn networks_are_apart(lab: &Lab) {
    lab.netdp.ok(&format!("network create red {}", lab.subnet("10.50.0.0/24")));
    lab.netdp.ok(&format!("network create blue {}", lab.subnet("10.51.0.0/24")));
    let red = lab.container("r", "--network red");
    let blue = lab.container("b", "--network blue");
    let _world = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    for (one, other) in [(&red, &blue), (&blue, &red)] {
        let _tcp = Server::tcp(&other.netns, "other", other.address, &[PORT]);
        let _udp = Server::udp(&other.netns, "other", other.address, &[PORT]);
        // Not with the host forwarding, either.
        for forwarding in ["0", "1"] {
            lab.set_forwarding(forwarding);
            for transport in Transport::ALL {
                unanswered(&one.netns, transport, (other.address, PORT));
            }
            let ping = one.netns.try_sh(&format!("ping -c 1 -W 1 {}", other.address));
            assert!(!ping.status.success(), "ping crosses networks");
        }
        answered(&one.netns, Transport::Tcp, (lab.at(WORLD), PORT), "world");
    }
}

fn an_internal_network_has_no_way_out(lab: &Lab) {
    lab.netdp.ok(&format!("network create inner {} --internal", lab.subnet("10.52.0.0/24")));
    let a = lab.container("a", "--network inner");
    let b = lab.container("b", "--network inner");
    let _world_tcp = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _world_udp = Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _b = Server::tcp(&b.netns, "b", b.address, &[PORT]);
    for forwarding in ["0", "1"] {
        lab.set_forwarding(forwarding);
        for transport in Transport::ALL {
            unanswered(&a.netns, transport, (lab.at(WORLD), PORT));
        }
        assert!(!a.netns.try_sh(&format!("ping -c 1 -W 1 {}", lab.at(WORLD))).status.success());
    }
    answered(&a.netns, Transport::Tcp, (b.address, PORT), "b");
}

fn without_icc_neighbours_are_apart(lab: &Lab) {
    lab.netdp.ok(&format!("network create quiet {} --no-icc", lab.subnet("10.53.0.0/24")));
    let a = lab.container("a", "--network quiet");
    let b = lab.container("b", &format!("--network quiet -p 8088:{PORT}"));
    let _world = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let _tcp = Server::tcp(&b.netns, "b", b.address, &[PORT]);
    let _udp = Server::udp(&b.netns, "b", b.address, &[PORT]);
    for transport in Transport::ALL {
        unanswered(&a.netns, transport, (b.address, PORT));
    }
    answered(&a.netns, Transport::Tcp, (lab.at(HOST), 8088), "b");
    answered(&a.netns, Transport::Tcp, (lab.at(WORLD), PORT), "world");
}

fn a_removed_network_is_gone(lab: &Lab) {
    lab.netdp.ok(&format!("network create red {} --bridge red0", lab.subnet("10.50.0.0/24")));
    lab.container("a", "--network red");
    let error = lab.netdp.refused(2, "network rm red");
    assert!(error.contains('a'), "names the endpoint that is in the way: {error}");
    lab.netdp.ok("detach a");
    lab.netdp.ok("network rm red");
    assert!(!lab.host.try_sh("ip link show red0").status.success());
    lab.netdp.refused(2, "network inspect red");
}
