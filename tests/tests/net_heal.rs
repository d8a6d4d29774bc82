//! What somebody else removed is noticed, named by `doctor`, and put back by `gc` or `attach`; the state outlives
//! crashes and newer versions (issue 3, line 6).

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::consistent::contradictions;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use netdp_tests::snapshot::Snapshot;
use netdp_tests::{on_ebpf_as_attached, on_every_datapath, on_every_datapath_and_clsact};

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;

on_every_datapath_and_clsact!(
    a_vanished_namespace,
    a_deleted_veth,
    a_deleted_bridge_comes_back_under_its_endpoints,
    collecting_is_safe_beside_attaching,
);
on_every_datapath!(
    an_attach_brings_a_deleted_bridge_back,
    a_bridges_name_that_somebody_took_is_left_alone,
    newer_and_damaged_state_is_refused,
);

on_ebpf_as_attached!(
    everything_pinned_deleted: "nothing is pinned",
    some_pins_deleted: "nothing is pinned",
    an_endpoints_hook_deleted: "nothing is pinned",
);

fn everything_pinned_deleted(lab: &Lab) {
    deleted_pins(lab, &["v1"], "everything");
}

fn some_pins_deleted(lab: &Lab) {
    deleted_pins(lab, &["v1/maps/CONFIG"], "the map CONFIG");
    deleted_pins(lab, &["v1/programs/to_world"], "the program to_world");
    deleted_pins(lab, &["v1/links/connect4"], "the link of connect4");
    deleted_pins(lab, &["v1/links"], "all links");
    deleted_pins(lab, &[lab.variant.hooks()], "what is attached");
}

fn an_endpoints_hook_deleted(lab: &Lab) {
    let served = Served::new(lab);
    let index = lab.netdp.json("inspect web")["host_ifindex"].to_string();
    remove(&lab.netdp.pins().join(lab.variant.hooks()).join(format!("{index}-from_container")));
    doctor_names(lab, &["pins", &served.web.host_ifname, "netdp repair"]);
    let repaired = lab.netdp.ok("repair");
    assert!(repaired.contains(&format!("repaired: {}", served.web.host_ifname)), "{repaired}");
    served.works(lab);
    let filters = lab.host.sh(&format!("tc filter show dev {} ingress", served.web.host_ifname));
    let expected = usize::from(!lab.variant.tcx);
    assert_eq!(filters.matches(" id ").count(), expected, "attached twice: {filters}");
}

/// A container that publishes a port and reaches the world, and another beside it.
struct Served {
    web: Container,
    other: Container,
    _servers: [Server; 2],
}

impl Served {
    fn new(lab: &Lab) -> Self {
        let web = lab.container("web", &format!("-p {PUBLISHED}:{PORT}"));
        let other = lab.container("other", "");
        let servers = [
            Server::tcp(&web.netns, "web", Ipv4Addr::UNSPECIFIED, &[PORT]),
            Server::tcp(&lab.world, "world", WORLD, &[PORT]),
        ];
        Self { web, other, _servers: servers }
    }

    #[track_caller]
    fn works(&self, lab: &Lab) {
        answered(&self.web.netns, Transport::Tcp, (WORLD, PORT), "world");
        answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "web");
        answered(&self.other.netns, Transport::Tcp, (self.web.address, PORT), "web");
        answered(&lab.host, Transport::Tcp, (self.web.address, PORT), "web");
        assert_eq!(contradictions(lab), Vec::<String>::new());
        assert_eq!(wrong(lab), Vec::<String>::new(), "doctor");
    }
}

/// What `doctor` finds wrong with the instance.
fn wrong(lab: &Lab) -> Vec<String> {
    let report = lab.netdp.json("doctor");
    let checks = report["checks"].as_array().expect("checks");
    let bad = checks.iter().filter(|check| check["ok"] == false);
    bad.map(|check| format!("{}: {}", check["name"], check["detail"])).collect()
}

/// Doctor must find this, and say what puts it right.
#[track_caller]
fn doctor_names(lab: &Lab, parts: &[&str]) {
    let found = wrong(lab).join("\n");
    for part in parts {
        assert!(found.contains(part), "doctor does not say `{part}`: {found}");
    }
}

fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.unwrap_or_else(|error| panic!("removing {}: {error}", path.display()));
}

fn deleted_pins(lab: &Lab, pins: &[&str], named: &str) {
    if lab.netdp.json("ls").as_array().is_some_and(|list| !list.is_empty()) {
        lab.netdp.ok("down");
        ["web", "other"].iter().for_each(|role| lab.remove_netns(role));
    }
    let served = Served::new(lab);
    served.works(lab);
    pins.iter().for_each(|pin| remove(&lab.netdp.pins().join(pin)));
    doctor_names(lab, &["pins", named, "netdp gc"]);
    // Reading does not repair, and works.
    lab.netdp.ok("ls");
    doctor_names(lab, &[named]);
    lab.netdp.ok("gc");
    served.works(lab);
}

fn a_vanished_namespace(lab: &Lab) {
    let served = Served::new(lab);
    for heal in ["gc", "attach"] {
        let lost = lab.container("lost", "-p 8090:80").host_ifname;
        lab.remove_netns("lost");
        eventually("veth gone", || !lab.host.sh("ip -o link").contains(&lost));
        doctor_names(lab, &["lost", "netdp gc"]);
        if heal == "attach" {
            drop(lab.container("lost", "-p 8090:80"));
            served.works(lab);
            lab.netdp.ok("detach lost");
            lab.remove_netns("lost");
        } else {
            assert_eq!(lab.netdp.ok("gc"), "lost: removed\n");
        }
        served.works(lab);
    }
}

fn a_deleted_veth(lab: &Lab) {
    let served = Served::new(lab);
    let lost = lab.container("lost", "-p 8090:80");
    lab.host.sh(&format!("ip link del {}", lost.host_ifname));
    doctor_names(lab, &["lost", "netdp gc"]);
    let again = lab.attach("lost", &lost.netns, "-p 8090:80");
    answered(&again.netns, Transport::Tcp, (WORLD, PORT), "world");
    served.works(lab);
    lab.host.sh(&format!("ip link del {}", again.host_ifname));
    lab.netdp.ok("gc");
    served.works(lab);
}

fn a_deleted_bridge_comes_back_under_its_endpoints(lab: &Lab) {
    let served = Served::new(lab);
    served.works(lab);
    lab.host.sh("ip link del netdp0");
    doctor_names(lab, &["network default", "netdp0 is gone", "netdp gc"]);
    let healed = lab.netdp.ok("gc");
    assert!(healed.contains("netdp0"), "{healed}");
    served.works(lab);
    lab.netdp.ok("detach other");
    lab.netdp.ok("gc");
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "web");
}

fn an_attach_brings_a_deleted_bridge_back(lab: &Lab) {
    let served = Served::new(lab);
    lab.host.sh("ip link del netdp0");
    let third = lab.container("third", "");
    answered(&third.netns, Transport::Tcp, (served.web.address, PORT), "web");
    served.works(lab);
}

fn a_bridges_name_that_somebody_took_is_left_alone(lab: &Lab) {
    let _served = Served::new(lab);
    lab.host.sh("ip link del netdp0");
    lab.host.sh("ip link add netdp0 type bridge");
    let netns = lab.netns("third");
    let before = Snapshot::of(lab, &[]);
    for line in ["gc", &format!("attach {}", netns.name())] {
        let error = lab.netdp.refused(2, line);
        assert!(error.contains("netdp0") && error.contains("rename or delete"), "{error}");
        assert_eq!(before.differences(&Snapshot::of(lab, &[])), Vec::<String>::new(), "netdp {line}");
    }
    lab.netdp.ok("down");
    assert!(lab.host.sh("ip -o link").contains("netdp0"), "down removed somebody else's bridge");
}

/// A newer netdp's state is not touched by this one; what is no state is named.
fn newer_and_damaged_state_is_refused(lab: &Lab) {
    let _served = Served::new(lab);
    let file = lab.netdp.state().join("state.json");
    let good = fs::read_to_string(&file).expect("the state");
    let newer = good.replacen("\"version\": 1", "\"version\": 99", 1);
    assert_ne!(newer, good);
    for (text, said) in [(newer.as_str(), "version 99"), ("{\"version\": 1", "damaged")] {
        fs::write(&file, text).expect("writing the state");
        let before = Snapshot::of(lab, &[]);
        for line in ["ls", "publish web 8099:80", "detach web", "gc", "network rm default"] {
            let error = lab.netdp.refused(1, line);
            assert!(error.contains(said) && error.contains("state.json"), "{error}");
        }
        doctor_names(lab, &[said]);
        assert_eq!(before.differences(&Snapshot::of(lab, &[])), Vec::<String>::new());
    }
    fs::write(&file, newer).expect("writing the state");
    let error = lab.netdp.refused(1, "down");
    assert!(error.contains("version 99"), "{error}");
    fs::write(&file, good).expect("writing the state");
    lab.netdp.ok("ls");
}

/// Neither sees the other's half-done work: not while a namespace is being created, nor while one goes.
fn collecting_is_safe_beside_attaching(lab: &Lab) {
    const ROUNDS: usize = 12;
    let served = Served::new(lab);
    let netdp = &lab.netdp;
    std::thread::scope(|scope| {
        scope.spawn(move || (0..ROUNDS * 2).for_each(|_| drop(netdp.ok("gc"))));
        for worker in 0..2 {
            let name = format!("{}-g{worker}", lab.id);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    netdp.ok(&format!("attach {name} --create"));
                    assert_eq!(netdp.json(&format!("inspect {name}"))["name"], name.as_str());
                    netdp.ok(&format!("detach {name}"));
                }
            });
        }
        scope.spawn(move || (0..ROUNDS).for_each(|n| drop(netdp.ok(&format!("run --name r{n} -- true")))));
    });
    served.works(lab);
}
