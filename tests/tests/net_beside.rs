//! Beside what is there (G17): Docker's, firewalld's and ufw's rules, a default route learnt from a router, TC programs
//! of others.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::process::Stdio;

use aya::programs::{SchedClassifier, TcAttachType};
use aya::sys::{Stats, enable_stats};
use netdp_tests::ask::{Transport, answered, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::router;
use netdp_tests::server::Server;
use netdp_tests::variant::{self, Datapath, Family, Variant};
use netdp_tests::{on_every_datapath, on_every_datapath_in_both_families};

mod beside;

use beside::Foreign;

const PORT: u16 = 7000;

on_every_datapath!(docker_and_netdp_leave_each_other_alone, a_learnt_default_route_survives);
on_every_datapath_in_both_families!(ufw_stays_as_it_is, firewalld_stays_as_it_is, firewalld_reloads);

/// Feeds rules to what loads them.
fn load(netns: &Netns, program: &str, rules: &str) {
    let mut words = program.split(' ');
    let mut command = netns.command(words.next().expect("a program"));
    let mut restore = command.args(words).stdin(Stdio::piped()).spawn().expect("starting it");
    restore.stdin.take().expect("its stdin").write_all(rules.as_bytes()).expect("writing rules");
    assert!(restore.wait().expect("waiting").success(), "{program}");
}

/// All rules without counters.
fn rules(netns: &Netns) -> Vec<String> {
    let saved = netns.sh("iptables-save");
    let lines = saved.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.split(" [").next().unwrap_or(line).to_owned()).collect()
}

/// The rules that are still there, in their order.
fn kept(before: &[String], after: &[String]) -> bool {
    let mut after = after.iter();
    before.iter().all(|line| after.any(|other| other == line))
}

/// A container as dockerd makes one, at 172.17.0.2 on docker0.
fn docker_container(lab: &Lab) -> Netns {
    let inside = lab.netns("docker");
    lab.host.set_sysctl("net/ipv4/ip_forward", "1");
    for line in
        ["ip link add docker0 type bridge", "ip addr add 172.17.0.1/16 dev docker0", "ip link set docker0 up"]
    {
        lab.host.sh(line);
    }
    lab.host.sh(&format!("ip link add vethd type veth peer name eth0 netns {}", inside.name()));
    lab.host.sh("ip link set vethd up master docker0");
    for line in
        ["ip addr add 172.17.0.2/16 dev eth0", "ip link set eth0 up", "ip route add default via 172.17.0.1"]
    {
        inside.sh(line);
    }
    inside
}

fn docker_and_netdp_leave_each_other_alone(lab: &Lab) {
    let theirs = docker_container(lab);
    load(&lab.host, "iptables-restore", include_str!("beside/docker.rules"));
    let before = rules(&lab.host);
    let _docker = Server::tcp(&theirs, "docker", Ipv4Addr::UNSPECIFIED, &[PORT]);
    let _world =
        [Server::tcp(&lab.world, "world", WORLD, &[PORT]), Server::udp(&lab.world, "world", WORLD, &[PORT])];
    let docker_works = || {
        for transport in Transport::ALL {
            let answer = answered(&theirs, transport, (WORLD, PORT), "world");
            assert_eq!(answer.peer.ip(), HOST);
        }
        answered(&lab.world, Transport::Tcp, (HOST, 8080), "docker");
    };
    docker_works();

    let web = lab.container("web", &format!("-p 8088:{PORT}"));
    let other = lab.container("other", "");
    let _web = Server::tcp(&web.netns, "web", Ipv4Addr::UNSPECIFIED, &[PORT]);
    assert!(kept(&before, &rules(&lab.host)), "a rule of Docker's is gone: {:#?}", rules(&lab.host));
    docker_works();
    for transport in Transport::ALL {
        answered(&web.netns, transport, (WORLD, PORT), "world");
    }
    answered(&lab.world, Transport::Tcp, (HOST, 8088), "web");
    answered(&other.netns, Transport::Tcp, (web.address, PORT), "web");
    answered(&other.netns, Transport::Tcp, (HOST, 8088), "web");
    // What netdp's containers reach of Docker's goes around FORWARD, which doctor says; theirs reach nothing unpublished.
    if lab.variant.datapath == Datapath::Ebpf {
        assert!(lab.netdp.json("doctor").to_string().contains("DOCKER-USER"));
    }
    unanswered(&theirs, Transport::Tcp, (web.address, PORT));

    lab.netdp.ok("down");
    assert_eq!(rules(&lab.host), before);
    docker_works();
}

/// A container that is published, one beside it, and a service of the host's that nobody opened.
struct Served {
    web: Container,
    other: Container,
    _servers: [Server; 5],
}

impl Served {
    fn new(lab: &Lab) -> Self {
        let web = lab.container("web", &format!("-p 8088:{PORT} -p 8088:{PORT}/udp"));
        let other = lab.container("other", "");
        let any = lab.at(Ipv4Addr::UNSPECIFIED);
        let servers = [
            Server::tcp(&web.netns, "web", any, &[PORT]),
            Server::udp(&web.netns, "web", web.address, &[PORT]),
            Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]),
            Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]),
            Server::tcp(&lab.host, "host", any, &[9100]),
        ];
        Self { web, other, _servers: servers }
    }

    /// Out, in and around (S1, S3).
    #[track_caller]
    fn works(&self, lab: &Lab) {
        for transport in Transport::ALL {
            answered(&self.web.netns, transport, (lab.at(WORLD), PORT), "world");
            answered(&lab.world, transport, (lab.at(HOST), 8088), "web");
            answered(&self.web.netns, transport, (lab.at(HOST), 8088), "web");
        }
        answered(&lab.host, Transport::Tcp, (lab.at(HOST), 8088), "web");
        self.web.netns.sh(&format!("ping -c 1 -W 2 {}", self.web.gateway));
    }

    /// Neighbours, directly and by a published port (S2, S3).
    #[track_caller]
    fn neighbours_work(&self, lab: &Lab) {
        for transport in Transport::ALL {
            answered(&self.other.netns, transport, (lab.at(HOST), 8088), "web");
            answered(&self.other.netns, transport, (self.web.address, PORT), "web");
        }
    }

    /// What the host's firewall closes stays closed, for the world and for containers.
    #[track_caller]
    fn host_is_closed(&self, lab: &Lab) {
        unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), 9100));
        unanswered(&self.web.netns, Transport::Tcp, (self.web.gateway, 9100));
    }
}

fn ufw_stays_as_it_is(lab: &Lab) {
    load(&lab.host, "iptables-restore", include_str!("beside/ufw.rules"));
    load(&lab.host, "ip6tables-restore", include_str!("beside/ufw6.rules"));
    let before = rules(&lab.host);
    let served = Served::new(lab);
    served.works(lab);
    served.neighbours_work(lab);
    served.host_is_closed(lab);
    assert!(kept(&before, &rules(&lab.host)), "a rule of ufw's is gone: {:#?}", rules(&lab.host));
    lab.netdp.ok("down");
    assert_eq!(rules(&lab.host), before);
}

/// firewalld's ruleset. The bridge of an IPv6 lab has another name.
fn firewalld(lab: &Lab, trusts_bridge: bool) -> String {
    let bridge = if lab.variant.family == Family::V4 { "netdp0" } else { "nd-both" };
    if trusts_bridge {
        include_str!("beside/firewalld-trusted.nft").replace("netdp0", bridge)
    } else {
        include_str!("beside/firewalld.nft").to_owned()
    }
}

/// As firewalld reloads: it writes its table anew, and empties all of iptables' (`FlushAllOnReload`, its default).
fn reload(lab: &Lab, trusts_bridge: bool) {
    for program in ["iptables", "ip6tables"] {
        for table in ["raw", "mangle", "nat", "filter"] {
            for flag in ["-F", "-X", "-Z"] {
                lab.host.sh(&format!("{program} -w -t {table} {flag}"));
            }
        }
    }
    let rules =
        format!("table inet firewalld\ndelete table inet firewalld\n{}", firewalld(lab, trusts_bridge));
    load(&lab.host, "nft -f -", &rules);
}

/// What `doctor` says about the firewall: whether all is well, and what it found.
fn firewall(lab: &Lab) -> (bool, String) {
    let report = lab.netdp.json("doctor");
    let checks = report["checks"].as_array().expect("checks");
    let row = checks.iter().find(|check| check["name"] == "firewall").expect("a row");
    (row["ok"] == true, row["detail"].as_str().expect("a detail").to_owned())
}

/// It rejects what no zone lets through; netdp's accepting in another table does not change that.
fn firewalld_stays_as_it_is(lab: &Lab) {
    load(&lab.host, "nft -f -", &firewalld(lab, false));
    let table = || lab.host.sh("nft list table inet firewalld");
    let before = table();
    let served = Served::new(lab);
    served.works(lab);
    served.host_is_closed(lab);
    let (well, found) = firewall(lab);
    assert!(found.contains("inet firewalld filter_FORWARD"), "{found}");
    if lab.variant.datapath == Datapath::Ebpf {
        served.neighbours_work(lab);
        assert!(well, "{found}");
    } else {
        unanswered(&served.other.netns, Transport::Udp, (served.web.address, PORT));
        assert!(
            !well && found.contains("firewall-cmd --permanent --zone=trusted --add-interface="),
            "{found}"
        );
    }
    assert_eq!(table(), before);
    lab.netdp.ok("down");
    assert_eq!(table(), before);
}

/// With the bridge in a zone, as `doctor` advises. A reload takes netdp's rules away; programs don't mind.
fn firewalld_reloads(lab: &Lab) {
    load(&lab.host, "nft -f -", &firewalld(lab, true));
    let served = Served::new(lab);
    for _ in 0..2 {
        served.works(lab);
        served.neighbours_work(lab);
        let (well, found) = firewall(lab);
        assert!(well, "{found}");
        reload(lab, true);
        let report = lab.netdp.json("doctor").to_string();
        if lab.variant.datapath == Datapath::Ebpf {
            assert_eq!(lab.netdp.ok("repair"), "nothing to repair\n");
        } else {
            assert!(report.contains("netdp repair puts right: iptables: gone: "), "{report}");
            assert!(lab.netdp.ok("repair").contains("repaired: "));
        }
    }
    served.works(lab);
}

/// Forwarding for all interfaces would delete it, and so would forwarding of a bridge that is switched on late.
fn a_learnt_default_route_survives(lab: &Lab) {
    router::advertise(lab);
    let learnt = |when: &str| {
        let route = router::default_route(lab);
        assert!(route.contains("proto ra"), "after {when}: {route}");
    };
    learnt("the advertisement");
    let netns = lab.netns("web").name().to_owned();
    for line in [
        format!("attach {netns} --name web -p 8088:80"),
        "network create other --subnet 10.60.0.0/24 --subnet fd00:60::/64".to_owned(),
        format!("attach {netns} --name second --network other --ifname eth1"),
        "publish web 8090:80".to_owned(),
        "detach second".to_owned(),
        "network rm other".to_owned(),
        "gc".to_owned(),
        "down".to_owned(),
    ] {
        lab.netdp.ok(&line);
        learnt(&line);
    }
}

/// netdp's go first and hand on what is not theirs; nobody loses a hook.
fn programs_of_others_keep_running(lab: &Lab) {
    let _counting = enable_stats(Stats::RunTime).expect("counting runs");
    let web = lab.container("web", &format!("-p 8088:{PORT}"));
    let (early, late, old) =
        (Foreign::load(lab, "early"), Foreign::load(lab, "late"), Foreign::load(lab, "old"));
    lab.netdp.ok("down");
    let _early = [TcAttachType::Ingress, TcAttachType::Egress].map(|side| early.attach(lab, side));
    lab.host.sh(&format!("tc qdisc add dev {UPLINK} clsact"));
    for side in ["ingress", "egress"] {
        let pin = old.pin().display();
        lab.host.sh(&format!("tc filter add dev {UPLINK} {side} bpf direct-action object-pinned {pin}"));
    }
    let web = lab.attach("web", &web.netns, &format!("-p 8088:{PORT}"));
    let _late = [TcAttachType::Ingress, TcAttachType::Egress].map(|side| late.attach(lab, side));
    let _web = Server::tcp(&web.netns, "web", Ipv4Addr::UNSPECIFIED, &[PORT]);
    let _world = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    let before = [&early, &late, &old].map(Foreign::runs);
    answered(&web.netns, Transport::Udp, (WORLD, PORT), "world");
    answered(&lab.world, Transport::Tcp, (HOST, 8088), "web");
    lab.host.sh(&format!("ping -c 3 -i 0.1 -W 2 {WORLD}"));
    for (program, before) in [(&early, before[0]), (&late, before[1]), (&old, before[2])] {
        // Three requests and three answers of the host's own at the least.
        assert!(program.runs() >= before + 6, "{:?} ran {} times", program.pin(), program.runs() - before);
    }
    let order = |side| {
        let (_, programs) = lab.host.enter(|| SchedClassifier::query_tcx(UPLINK, side)).expect("asking TCX");
        programs.iter().map(aya::programs::ProgramInfo::id).collect::<Vec<_>>()
    };
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        let ids = order(side);
        assert_eq!(ids.len(), 3, "{ids:?}");
        assert_eq!(ids[1..], [early.id(), late.id()], "netdp's is not the first: {ids:?}");
    }
    let report = lab.netdp.json("doctor").to_string();
    for named in
        ["early at up0 ingress", "late at up0 egress", "at up0 ingress (clsact)", "at up0 egress (clsact)"]
    {
        assert!(report.contains(named), "doctor does not name `{named}`: {report}");
    }
    lab.netdp.ok("down");
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        assert_eq!(order(side), [early.id(), late.id()]);
    }
    assert!(lab.host.sh(&format!("tc filter show dev {UPLINK} ingress")).contains("direct-action"));
}

#[test]
#[ignore = "needs root"]
fn programs_of_others_keep_running_beside_tcx_and_clsact() {
    variant::run(Variant::EBPF, programs_of_others_keep_running);
}
