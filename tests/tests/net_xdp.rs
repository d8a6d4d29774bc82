//! XDP on uplinks (`--xdp`): the same traffic passes and the same is refused, counted alike, only earlier.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use aya::programs::Xdp;
use aya::programs::xdp::XdpMode;
use etherparse::PacketBuilder;
use netdp::datapath::ebpf::{OpenOptions, load_unpinned};
use netdp_tests::ask::{Transport, answered, ask_from, echo_bulk, unanswered};
use netdp_tests::consistent::{contradictions, xdp_mode};
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2, WORLD_LINK};
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use netdp_tests::variant::{self, Variant};
use netdp_tests::wire::{self, Tap};
use netdp_tests::{footprint, on_ebpf_only_in_both_families};

const PORT: u16 = 7000;
/// For [`WORLD_2`] only.
const LISTED: u16 = 8088;
/// For everybody.
const OPEN: u16 = 8090;
/// Frames of each kind that is refused.
const FRAMES: u64 = 20;
/// How long they may take to come in.
const SETTLED: Duration = Duration::from_millis(200);
const BULK: usize = 1 << 20;
const MODES: [&str; 3] = ["off", "native", "generic"];

on_ebpf_only_in_both_families!(
    the_same_passes_and_the_same_is_refused: "rules are no programs",
);

/// A veth takes VLAN tags off unless it is told not to.
fn untag(lab: &Lab) {
    lab.host.sh(&format!("ethtool -K {UPLINK} rxvlan off"));
}

fn the_same_passes_and_the_same_is_refused(lab: &Lab) {
    untag(lab);
    let web = lab.container("web", "");
    let _web = [
        Server::tcp(&web.netns, "web", lab.at(Ipv4Addr::UNSPECIFIED), &[PORT]),
        Server::udp(&web.netns, "web", web.address, &[PORT]),
    ];
    let _world = [
        Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]),
        Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]),
    ];
    lab.netdp.ok(&format!("publish web {LISTED}:{PORT} {LISTED}:{PORT}/udp --from {}", lab.at(WORLD_2)));
    lab.netdp.ok(&format!("publish web {OPEN}:{PORT}"));
    for mode in MODES {
        lab.netdp.ok(&format!("repair --xdp {mode}"));
        assert_eq!(xdp_mode(lab, UPLINK), mode);
        passes(lab, &web);
        refuses(lab, &web, mode);
    }
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), LISTED));
    assert_eq!(contradictions(lab), Vec::<String>::new());
}

/// What is published, what an endpoint has asked for, and what the host answers itself.
fn passes(lab: &Lab, web: &Container) {
    for transport in Transport::ALL {
        let answer = ask_from(&lab.world, transport, (lab.at(WORLD_2), 0), (lab.at(HOST), LISTED));
        let answer = answer.unwrap_or_else(|error| panic!("{transport:?}: {error}"));
        assert_eq!((answer.server.as_str(), answer.peer), ("web", answer.local));
        answered(&web.netns, transport, (lab.at(WORLD), PORT), "world");
    }
    echo_bulk(&lab.world, (lab.at(HOST), OPEN), BULK);
    echo_bulk(&web.netns, (lab.at(WORLD), PORT), BULK);
    let version = if web.address.is_ipv4() { 4 } else { 6 };
    lab.world.sh(&format!("ping -{version} -c 1 -W 3 {}", lab.at(HOST)));
    web.netns.sh(&format!("ping -{version} -c 1 -W 3 {}", lab.at(WORLD)));
}

/// The same reasons count the same frames; a program sees them before anybody can tap the uplink.
fn refuses(lab: &Lab, web: &Container, mode: &str) {
    let sender = Tap::open(&lab.world, WORLD_LINK);
    let uplink = Tap::open(&lab.host, UPLINK);
    let macs = (sender.mac, wire::mac(&lab.host, UPLINK));
    let stranger = lab.at(WORLD);
    let to_endpoint = datagram(macs, (stranger, 5), (web.address, PORT));
    let cut_off = to_endpoint[..to_endpoint.len() - 20].to_vec();
    let to_listed = datagram(macs, (stranger, 5), (lab.at(HOST), LISTED));
    for (frame, reason) in
        [(to_endpoint, "not_published"), (cut_off, "not_published"), (to_listed, "not_allowed")]
    {
        let before = lab.netdp.counter(reason);
        for _ in 0..FRAMES {
            sender.send(&frame).expect("sending");
        }
        let seen = uplink.collect(SETTLED).into_iter().filter(|seen| *seen == frame).count();
        let counted = lab.netdp.counter(reason) - before;
        // The backlog of a CPU may be full of others' packets.
        assert!(0 < counted && counted <= FRAMES, "{mode}, {reason}: {counted}");
        assert_eq!(seen == 0, mode != "off", "{mode}, {reason}: {seen} seen on {UPLINK}");
    }
}

fn datagram((from, to): ([u8; 6], [u8; 6]), src: (IpAddr, u16), dst: (IpAddr, u16)) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(from, to);
    let builder = match (src.0, dst.0) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => builder.ipv4(src.octets(), dst.octets(), 64),
        (IpAddr::V6(src), IpAddr::V6(dst)) => builder.ipv6(src.octets(), dst.octets(), 64),
        _ => unreachable!("one family"),
    };
    let mut frame = Vec::new();
    builder.udp(src.1, dst.1).write(&mut frame, &[0x5a; 40]).expect("writing to memory");
    frame
}

#[test]
#[ignore = "needs root"]
fn is_refused_where_it_cannot_be() {
    variant::run(Variant::EBPF, |lab| {
        let error = lab.netdp.refused(2, "repair --xdp native");
        assert!(error.contains("has no datapath yet"), "{error}");
        assert!(!lab.netdp.state().exists());
        lab.container("web", "");
        let error = lab.netdp.refused(2, "--xdp native repair");
        assert!(error.contains("ethtool -K up0 rxvlan off"), "{error}");
        untag(lab);
        let error = lab.netdp.refused(2, "ls --xdp generic");
        assert!(error.contains("instance") && error.contains("has off"), "{error}");
        lab.netdp.refused(2, "repair --xdp fast");

        // Another's, of whatever name.
        let mut object = load_unpinned(&OpenOptions { flows_max: Some(64), ..OpenOptions::default() })
            .expect("the programs");
        let foreign: &mut Xdp = object.program_mut("from_wire").expect("a program").try_into().expect("XDP");
        let id = foreign.info().expect("facts").id();
        let link = lab.host.enter(|| foreign.attach(UPLINK, XdpMode::Skb)).expect("attaching");
        for mode in ["native", "generic"] {
            let error = lab.netdp.refused(2, &format!("repair --xdp {mode}"));
            assert!(error.contains(&format!("{UPLINK} has the XDP program from_wire (id {id})")), "{error}");
        }
        assert!(lab.host.sh(&format!("ip link show {UPLINK}")).contains(&format!("id {id} ")));
        foreign.detach(link).expect("detaching");

        // A bridge has no driver; what was done before it was tried is undone.
        lab.host.sh("ip link add br9 type bridge");
        lab.host.sh("ethtool -K br9 rxvlan off");
        lab.host.sh("ip addr add 10.77.0.1/24 dev br9");
        lab.host.sh("ip link set br9 up");
        lab.host.sh("ip route add 203.0.113.0/24 via 10.77.0.2 dev br9");
        let error = lab.netdp.refused(2, "repair --xdp native");
        assert!(error.contains("br9 does not take") && error.contains("use --xdp generic"), "{error}");
        assert_eq!((xdp_mode(lab, UPLINK), xdp_mode(lab, "br9")), ("off", "off"));
        lab.netdp.ok("repair --xdp generic");
        assert_eq!((xdp_mode(lab, UPLINK), xdp_mode(lab, "br9")), ("generic", "generic"));
    });
}

#[test]
#[ignore = "needs root"]
fn rules_have_none() {
    variant::run(Variant::IPTABLES, |lab| {
        untag(lab);
        let error =
            lab.netdp.refused(2, &format!("network create n {} --xdp native", "--subnet 10.5.0.0/24"));
        assert!(error.contains("the iptables datapath has no programs"), "{error}");
        assert!(!lab.netdp.state().exists());
    });
}

#[test]
#[ignore = "needs root"]
fn the_mode_stays_and_follows_the_host() {
    variant::run(Variant::EBPF, |lab| {
        untag(lab);
        let web = lab.netns("web");
        lab.netdp.ok(&format!("attach {} --name web --xdp native", web.name()));
        assert_eq!(xdp_mode(lab, UPLINK), "native");
        let said = || {
            let report = lab.netdp.json("doctor");
            let checks = report["checks"].as_array().expect("checks").clone();
            let check = checks.into_iter().find(|check| check["name"] == "xdp").expect("about XDP");
            (check["ok"] == true, check["detail"].as_str().expect("text").to_owned())
        };

        // Another way out, which the next command finds.
        lab.host.sh("ip link add up1 type veth peer name up2");
        lab.host.sh("ethtool -K up1 rxvlan off");
        lab.host.sh("ip addr add 10.77.0.1/24 dev up1");
        lab.host.sh("ip link set up1 up");
        lab.host.sh("ip route add 203.0.113.0/24 via 10.77.0.2 dev up1");
        lab.netdp.ok("gc");
        assert_eq!((xdp_mode(lab, UPLINK), xdp_mode(lab, "up1")), ("native", "native"));

        // What gets in the way takes it off: the TC program goes on to do the work.
        lab.host.sh("ethtool -K up1 rxvlan on");
        lab.netdp.ok("gc");
        assert_eq!((xdp_mode(lab, UPLINK), xdp_mode(lab, "up1")), ("native", "off"));
        let (ok, detail) = said();
        assert!(
            !ok && detail.starts_with("native: up0; ") && detail.contains("ethtool -K up1 rxvlan off"),
            "{detail}"
        );
        lab.host.sh("ip link del up1");
        lab.netdp.ok("gc");
        assert_eq!(footprint::files_below(&lab.netdp.pins().join("v1/xdp")).len(), 1);

        // Detached by hand.
        for pin in footprint::files_below(&lab.netdp.pins().join("v1/xdp")) {
            fs::remove_file(pin).expect("a pin");
        }
        eventually("the program is gone", || xdp_mode(lab, UPLINK) == "off");
        let repaired = lab.netdp.ok("repair");
        assert!(repaired.contains("repaired: up0 does not carry netdp's XDP program"), "{repaired}");
        assert_eq!(xdp_mode(lab, UPLINK), "native");

        lab.netdp.ok("repair --xdp off");
        assert_eq!(xdp_mode(lab, UPLINK), "off");
        let (ok, detail) = said();
        assert!(ok && detail.contains("would turn off the segmentation offload"), "{detail}");
        lab.netdp.ok("repair --xdp generic");
        lab.netdp.ok("down");
        assert_eq!(xdp_mode(lab, UPLINK), "off");
    });
}
