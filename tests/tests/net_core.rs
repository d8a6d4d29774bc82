//! The main job in one lab, in both families: what is run on other kernels too, where loading the programs takes long.

use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use netdp_tests::ask::{Transport, answered, ask_from, echo_bulk, unanswered};
use netdp_tests::footprint::{Footprint, Objects, settle};
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::process::eventually;
use netdp_tests::race::{Arena, FEW_FLOWS, FEW_PORTS};
use netdp_tests::server::Server;
use netdp_tests::uplink::Beside;
use netdp_tests::variant::{Family, Variant};

const INNER: u16 = 8000;
const PUBLISHED: u16 = 8088;
const OUTSIDE: u16 = 9000;
const BULK: usize = 1 << 20;

/// Mounts are the whole machine's: these tests do not run beside each other.
static ALONE: Mutex<()> = Mutex::new(());

#[test]
#[ignore = "needs root"]
fn ebpf() {
    the_main_job(Variant::EBPF_V6);
}

#[test]
#[ignore = "needs root"]
fn clsact() {
    the_main_job(Variant::CLSACT_V6);
}

/// A lab for IPv6 has both families.
fn the_main_job(variant: Variant) {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut lab = Lab::new(variant);
    let others = other_uplinks(&lab);
    settle(&lab.host);
    let before = Footprint::of(&lab.host);
    let web = lab.container("web", &format!("-p {PUBLISHED}:{INNER} -p {PUBLISHED}:{INNER}/udp")).netns;
    let client = lab.container("client", "").netns;
    for family in [Family::V6, Family::V4] {
        lab.variant.family = family;
        let (web, client) = (lab.inspect("web", &web), lab.inspect("client", &client));
        the_outside_is_reached(&lab, &client);
        a_published_port_is_reached(&lab, &web, &client);
        for other in &others {
            another_uplink_does_as_well(&lab, other, &web, &client);
        }
    }
    lab.variant.family = Family::V6;
    a_race_loses_nothing(&lab);
    everything_goes(&lab, &before);
}

/// Kinds of links that a kernel may lack: which of them there must be.
const LINKS: &str = "NETDP_LINKS";

/// Uplinks beside the lab's, of other kinds.
fn other_uplinks(lab: &Lab) -> Vec<Beside> {
    let mut others = vec![Beside::tunnel(lab)];
    let kinds = std::env::var(LINKS).unwrap_or_default();
    others.extend(kinds.split_whitespace().map(|kind| match kind {
        "vlan" => Beside::vlan(lab),
        "bond" => Beside::bond(lab),
        other => panic!("{LINKS} has no {other}"),
    }));
    others
}

/// G17: out and in, by its own addresses.
fn another_uplink_does_as_well(lab: &Lab, other: &Beside, web: &Container, client: &Container) {
    let (world, host) = (lab.at(other.world), lab.at(other.host));
    let _servers = [
        Server::tcp(&lab.world, "world", world, &[OUTSIDE]),
        Server::udp(&lab.world, "world", world, &[OUTSIDE]),
        Server::tcp(&web.netns, "web", web.address, &[INNER]),
        Server::udp(&web.netns, "web", web.address, &[INNER]),
    ];
    client.netns.sh(&format!("ping -c 1 -W 5 {world}"));
    for transport in Transport::ALL {
        let answer = answered(&client.netns, transport, (world, OUTSIDE), "world");
        assert_eq!(answer.peer.ip(), host, "{transport:?} by the {}", other.kind);
        let answer = answered(&lab.world, transport, (host, PUBLISHED), "web");
        assert_eq!(answer.peer, answer.local, "{transport:?} by the {}", other.kind);
    }
}

/// S1.
fn the_outside_is_reached(lab: &Lab, client: &Container) {
    let _tcp = Server::tcp(&lab.world, "world", lab.at(WORLD), &[OUTSIDE]);
    let _udp = Server::udp(&lab.world, "world", lab.at(WORLD), &[OUTSIDE]);
    client.netns.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(WORLD)));
    for transport in Transport::ALL {
        let answer = answered(&client.netns, transport, (lab.at(WORLD), OUTSIDE), "world");
        assert_eq!(answer.peer.ip(), lab.at(HOST), "the outside sees the host");
    }
    echo_bulk(&client.netns, (lab.at(WORLD), OUTSIDE), BULK);
}

/// S3: by the world, the host, another container and the container itself.
fn a_published_port_is_reached(lab: &Lab, web: &Container, client: &Container) {
    let _tcp = Server::tcp(&web.netns, "web", lab.at(Ipv4Addr::UNSPECIFIED), &[INNER]);
    let _udp = Server::udp(&web.netns, "web", web.address, &[INNER]);
    for transport in Transport::ALL {
        let answer = ask_from(&lab.world, transport, (lab.at(WORLD), 0), (lab.at(HOST), PUBLISHED));
        let answer = answer.unwrap_or_else(|error| panic!("{transport:?} from the world: {error}"));
        assert_eq!(answer.peer, answer.local, "address and port of the client are kept");
        let answer = answered(&client.netns, transport, (lab.at(HOST), PUBLISHED), "web");
        assert_eq!(answer.peer.ip(), client.address, "the neighbour's address is kept");
        let answer = answered(&web.netns, transport, (lab.at(HOST), PUBLISHED), "web");
        assert_eq!(answer.peer.ip(), web.gateway, "it sees the gateway, not itself");
        for address in [HOST, Ipv4Addr::LOCALHOST] {
            answered(&lab.host, transport, (lab.at(address), PUBLISHED), "web");
        }
        unanswered(&lab.world, transport, (lab.at(HOST), PUBLISHED + 1));
    }
    echo_bulk(&lab.world, (lab.at(HOST), PUBLISHED), BULK);
}

/// S8, smaller, and without a bound on time.
fn a_race_loses_nothing(lab: &Lab) {
    let arena = Arena::new(lab, FEW_PORTS);
    for transport in Transport::ALL {
        let report = arena.clash(transport, FEW_FLOWS, 5);
        let mixed_up = report.duplicates + report.strayed;
        assert_eq!((report.lost(), report.refused, mixed_up), (0, 0, 0), "{transport:?}: {report}");
    }
    let offered = 2 * 5 * 4 * u64::from(FEW_FLOWS);
    assert!(lab.netdp.counter("snat_allocated") >= offered, "{}", lab.netdp.json("stats"));
    assert_eq!(lab.netdp.counter("snat_exhausted"), 0);
}

/// G13.
fn everything_goes(lab: &Lab, before: &Footprint) {
    let objects = Objects::pinned(&lab.netdp);
    assert!(!objects.is_empty());
    lab.netdp.ok("down");
    assert_eq!(before.differences(&Footprint::of(&lab.host)), Vec::<String>::new());
    eventually("programs and maps gone", || objects.still_there().is_empty());
}
