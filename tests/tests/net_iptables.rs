//! What only the iptables datapath has to do: to live among others' rules, to find its own again, and to be the
//! fallback (G13, G15, G17, S9).

use std::net::Ipv4Addr;

use netdp_tests::ask::{Transport, answered, ask_from, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_LINK};
use netdp_tests::netdp::Netdp;
use netdp_tests::race::Arena;
use netdp_tests::router;
use netdp_tests::server::Server;
use netdp_tests::sysctl;
use netdp_tests::variant::Variant;
use serde_json::Value;

mod iptables;

use iptables::{Backend, FailingRestore, OTHERS, put, rules};

const INNER: u16 = 8000;
const PUBLISHED: u16 = 8088;
const LOCALHOST: Ipv4Addr = Ipv4Addr::LOCALHOST;

fn lab() -> Lab {
    Lab::new(Variant::IPTABLES)
}

/// A container that listens on [`INNER`] and is published as [`PUBLISHED`], and one that does not.
struct Served {
    web: Container,
    client: Container,
    _servers: [Server; 4],
}

impl Served {
    fn new(lab: &Lab) -> Self {
        let web = lab.container("web", &format!("-p {PUBLISHED}:{INNER} -p {PUBLISHED}:{INNER}/udp"));
        let client = lab.container("client", "");
        let servers = [
            Server::tcp(&web.netns, "web", Ipv4Addr::UNSPECIFIED, &[INNER]),
            Server::udp(&web.netns, "web", web.address, &[INNER]),
            Server::tcp(&lab.world, "world", WORLD, &[INNER]),
            Server::udp(&lab.world, "world", WORLD, &[INNER]),
        ];
        Self { web, client, _servers: servers }
    }

    /// S1, S2 and S3 in short.
    #[track_caller]
    fn works(&self, lab: &Lab) {
        let Self { web, client, .. } = self;
        for transport in Transport::ALL {
            let answer = answered(&lab.world, transport, (HOST, PUBLISHED), "web");
            assert_eq!(answer.peer, answer.local, "the client's address is kept");
            let answer = answered(&client.netns, transport, (WORLD, INNER), "world");
            assert_eq!(answer.peer.ip(), HOST);
            answered(&client.netns, transport, (web.address, INNER), "web");
            let answer = answered(&web.netns, transport, (HOST, PUBLISHED), "web");
            assert_eq!(answer.peer.ip(), web.gateway);
            let answer = answered(&client.netns, transport, (HOST, PUBLISHED), "web");
            assert_eq!(answer.peer, answer.local, "the client's address is kept");
        }
        for address in [HOST.into(), LOCALHOST.into(), web.gateway] {
            answered(&lab.host, Transport::Tcp, (address, PUBLISHED), "web");
        }
    }
}

/// One row of `doctor`.
fn check(netdp: &Netdp, name: &str) -> Value {
    let report = netdp.json("doctor");
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}")).clone()
}

#[test]
#[ignore = "needs root"]
fn rules_that_were_wiped_are_found_and_put_back() {
    let lab = lab();
    let served = Served::new(&lab);
    assert_eq!(check(&lab.netdp, "rules")["ok"], true);
    let wipes = [
        "iptables -w -F",
        "iptables -w -t nat -F PREROUTING",
        "iptables -w -t mangle -F",
        "iptables -w -t raw -F",
        "nft flush ruleset",
        "iptables -w -I FORWARD -j ACCEPT",
    ];
    for (number, wipe) in wipes.into_iter().enumerate() {
        lab.host.sh(wipe);
        let rules = check(&lab.netdp, "rules");
        assert_eq!(rules["ok"], false, "after {wipe}: {rules}");
        // Either of them.
        if number % 2 == 0 {
            let repaired = lab.netdp.ok("repair");
            assert!(repaired.contains("repaired: "), "after {wipe}: {repaired}");
        } else {
            lab.netdp.ok("unpublish client --all");
            lab.netdp.ok(&format!("publish client {}:80", 9000 + number));
        }
        assert_eq!(check(&lab.netdp, "rules")["ok"], true, "after {wipe}");
        served.works(&lab);
    }
    assert_eq!(lab.netdp.ok("repair"), "nothing to repair\n");
}

#[test]
#[ignore = "needs root"]
fn the_rules_of_others_stay_as_they_are() {
    for backend in Backend::ALL {
        let mut lab = lab();
        lab.netdp.variables.push(("NETDP_IPTABLES", backend.name().into()));
        put(&lab.host, backend, OTHERS);
        let before = rules(&lab.host, backend);
        for _ in 0..2 {
            lab.netdp.ok("network create red --subnet 10.50.0.0/24 --no-icc");
            lab.netdp.ok("network create inner --subnet 10.51.0.0/24 --internal");
            let netns = lab.netns("a");
            lab.netdp.ok(&format!("attach {} --network red -p 9000-9009:8000-8009", netns.name()));
            lab.netdp.ok(&format!("publish {} 127.0.0.1:9100:80/udp", netns.name()));
            let during = rules(&lab.host, backend);
            let ours = during.iter().filter(|line| line.contains("NETDP-")).count();
            assert!(ours > 20, "{backend:?}: only {ours} lines are netdp's");
            let others: Vec<_> = during.into_iter().filter(|line| !line.contains("NETDP-")).collect();
            assert_eq!(others, before, "{backend:?}, while it is there");
            lab.netdp.ok("down");
            assert_eq!(rules(&lab.host, backend), before, "{backend:?}, afterwards");
            lab.remove_netns("a");
        }
    }
}

/// Docker's FORWARD DROP and DOCKER-USER, and firewalld's final REJECT, are in front of nobody.
#[test]
#[ignore = "needs root"]
fn firewalls_of_others_do_not_cut_it() {
    let lab = lab();
    put(&lab.host, Backend::Nft, OTHERS);
    lab.host.sh("iptables -w -P FORWARD DROP");
    lab.host.set_sysctl("net/bridge/bridge-nf-call-iptables", "1");
    let served = Served::new(&lab);
    served.works(&lab);
    // Docker starts later, and puts its own first.
    lab.host.sh("iptables -w -I FORWARD -j DOCKER-USER");
    let rules = check(&lab.netdp, "rules");
    assert!(rules["detail"].to_string().contains("come first in filter FORWARD"), "{rules}");
    lab.netdp.ok("repair");
    served.works(&lab);
    lab.netdp.ok("down");
    assert!(lab.host.sh("iptables -w -S FORWARD").starts_with("-P FORWARD DROP\n-A FORWARD -j DOCKER-USER"));
}

#[test]
#[ignore = "needs root"]
fn legacy_and_nft_do_the_same() {
    for backend in Backend::ALL {
        let mut lab = lab();
        lab.netdp.variables.push(("NETDP_IPTABLES", backend.name().into()));
        let served = Served::new(&lab);
        served.works(&lab);
        lab.world.sh(&format!("ip route add {}/32 via {HOST}", served.web.address));
        lab.host.set_sysctl("net/ipv4/ip_forward", "1");
        unanswered(&lab.world, Transport::Udp, (served.web.address, INNER));
        assert!(lab.netdp.counter("not_published") > 0, "{}", lab.netdp.json("stats"));
        lab.netdp.ok("unpublish web --all");
        unanswered(&lab.world, Transport::Udp, (HOST, PUBLISHED));
        let other = rules(&lab.host, backend.other());
        assert!(!other.iter().any(|line| line.contains("NETDP-")), "{backend:?}: {other:?}");
        lab.netdp.ok("down");
        assert_eq!(rules(&lab.host, backend), Vec::<String>::new(), "{backend:?}");
    }
}

/// An accepted packet is still dropped by the other iptables: netdp goes where the rules are.
#[test]
#[ignore = "needs root"]
fn the_iptables_with_the_firewall_is_taken() {
    let lab = lab();
    put(&lab.host, Backend::Legacy, OTHERS);
    lab.host.sh("iptables-legacy -w -P FORWARD DROP");
    let served = Served::new(&lab);
    served.works(&lab);
    assert!(rules(&lab.host, Backend::Legacy).iter().any(|line| line.contains("NETDP-")));
}

/// The bridge has route_localnet; its endpoints still don't reach what listens on the host's 127.0.0.1.
#[test]
#[ignore = "needs root"]
fn the_hosts_loopback_is_closed() {
    let lab = lab();
    let served = Served::new(&lab);
    let client = &served.client;
    let _secret = Server::udp(&lab.host, "secret", LOCALHOST, &[9999]);
    let _tcp = Server::tcp(&lab.host, "secret", LOCALHOST, &[9999]);
    answered(&lab.host, Transport::Udp, (LOCALHOST, 9999), "secret");
    for (netns, source, via) in
        [(&lab.world, WORLD.into(), HOST.into()), (&client.netns, client.address, client.gateway)]
    {
        netns.set_sysctl("net/ipv4/conf/all/route_localnet", "1");
        netns.sh("ip addr del 127.0.0.1/8 dev lo");
        netns.sh(&format!("ip route add 127.0.0.0/8 via {via}"));
        for transport in Transport::ALL {
            for port in [9999, PUBLISHED] {
                let answer = ask_from(netns, transport, (source, 0), (LOCALHOST, port));
                assert!(answer.is_err(), "{} reached the host's loopback: {answer:?}", netns.name());
            }
        }
    }
    assert!(lab.netdp.counter("not_published") > 0, "{}", lab.netdp.json("stats"));
}

/// Off for the whole host, netdp's bridge has it on for itself.
#[test]
#[ignore = "needs root"]
fn it_works_whatever_the_bridge_sysctl_says() {
    for value in ["0", "1"] {
        let lab = lab();
        lab.host.set_sysctl("net/bridge/bridge-nf-call-iptables", value);
        let served = Served::new(&lab);
        served.works(&lab);
        lab.host.set_sysctl("net/bridge/bridge-nf-call-iptables", if value == "0" { "1" } else { "0" });
        served.works(&lab);
    }
}

/// A kernel without br_netfilter: a neighbour that comes by a published port is the gateway; the rest is the same.
#[test]
#[ignore = "needs root"]
fn without_br_netfilter_a_neighbours_address_is_not_kept() {
    let mut lab = lab();
    lab.host.set_sysctl("net/bridge/bridge-nf-call-iptables", "0");
    lab.netdp.variables.push(("NETDP_WITHOUT", "br-netfilter".into()));
    let Served { web, client, .. } = &Served::new(&lab);
    for transport in Transport::ALL {
        answered(&lab.world, transport, (HOST, PUBLISHED), "web");
        answered(&client.netns, transport, (web.address, INNER), "web");
        let answer = answered(&client.netns, transport, (HOST, PUBLISHED), "web");
        assert_eq!(answer.peer.ip(), web.gateway);
        let answer = answered(&web.netns, transport, (HOST, PUBLISHED), "web");
        assert_eq!(answer.peer.ip(), web.gateway);
    }
    lab.netdp.ok("network create quiet --subnet 10.53.0.0/24 --no-icc");
    let one = lab.container("one", "--network quiet");
    let other = lab.container("other", &format!("--network quiet -p 8090:{INNER}"));
    let _tcp = Server::tcp(&other.netns, "other", other.address, &[INNER]);
    unanswered(&one.netns, Transport::Tcp, (other.address, INNER));
    answered(&one.netns, Transport::Tcp, (HOST, 8090), "other");
    answered(&one.netns, Transport::Tcp, (WORLD, INNER), "world");
}

#[test]
#[ignore = "needs root"]
fn auto_falls_back_and_says_why() {
    let mut lab = lab();
    lab.netdp.datapath = "auto";
    lab.netdp.variables.push(("NETDP_WITHOUT", "ebpf".into()));
    let report = lab.netdp.json("doctor");
    assert_eq!(report["datapath"], "iptables", "{report}");
    let served = Served::new(&lab);
    served.works(&lab);
    says_why(&lab.netdp, "--without ebpf");
    // It stays so when the reason is gone.
    lab.netdp.variables.clear();
    assert_eq!(lab.netdp.json("stats")["datapath"], "iptables");
    let other = Netdp { datapath: "ebpf", ..lab.netdp.clone() };
    let error = other.refused(2, "ls");
    assert!(error.contains("iptables"), "{error}");
    assert!(!lab.netdp.pins().exists(), "the eBPF datapath left something");
}

/// The kernel's own refusal.
#[test]
#[ignore = "needs root"]
fn auto_falls_back_where_bpf_is_denied() {
    let mut lab = lab();
    lab.netdp.datapath = "auto";
    let netns = lab.netns("a");
    let output = iptables::without_bpf(lab.netdp.command(&format!("attach {} --name a", netns.name())));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    says_why(&lab.netdp, "bpf");
    let _world = Server::udp(&lab.world, "world", WORLD, &[INNER]);
    answered(&netns, Transport::Udp, (WORLD, INNER), "world");
    // Asked for, it is an error, and nothing is left.
    lab.netdp.ok("down");
    let explicit = Netdp { datapath: "ebpf", ..lab.netdp.clone() };
    let output = iptables::without_bpf(explicit.command(&format!("attach {} --name a", netns.name())));
    assert_eq!(output.status.code(), Some(2));
    assert!(!lab.netdp.state().exists() && rules(&lab.host, Backend::Nft).is_empty());
}

#[track_caller]
fn says_why(netdp: &Netdp, why: &str) {
    let stats = netdp.json("stats");
    assert_eq!(stats["datapath"], "iptables");
    assert!(stats["datapath_reason"].to_string().contains(why), "{stats}");
    assert_eq!(netdp.json("ls")[0]["datapath"], "iptables");
    for line in ["ls", "stats", "doctor"] {
        let printed = netdp.ok(line);
        assert!(printed.contains("iptables") && printed.contains(why), "{line}: {printed}");
    }
}

#[test]
#[ignore = "needs root"]
fn sysctls_are_put_back_unless_somebody_needs_them() {
    let lab = lab();
    let forwarding =
        || lab.host.sh(&format!("sysctl -n net.ipv4.conf.{UPLINK}.forwarding")).trim().to_owned();
    let host_wide = || lab.host.sh("sysctl -n net.ipv4.ip_forward").trim().to_owned();
    let second = Netdp { instance: format!("{}-2", lab.id), ..lab.netdp.clone() };
    let (one, other) = (lab.netns("a"), lab.netns("b"));
    lab.netdp.ok(&format!("attach {} --name a", one.name()));
    second.ok("network create two --subnet 10.60.0.0/24");
    second.ok(&format!("attach {} --name b --network two", other.name()));
    assert_eq!((forwarding().as_str(), host_wide().as_str()), ("1", "0"));
    assert_eq!(lab.netdp.ok("down"), "");
    assert_eq!(forwarding(), "1", "the other instance needs it");
    let _world = Server::udp(&lab.world, "world", WORLD, &[INNER]);
    answered(&other, Transport::Udp, (WORLD, INNER), "world");
    assert_eq!(second.ok("down"), "");
    assert_eq!(forwarding(), "0");

    lab.netdp.ok(&format!("attach {} --name a", one.name()));
    lab.host.set_sysctl(&format!("net/ipv4/conf/{UPLINK}/forwarding"), "0");
    assert_eq!(check(&lab.netdp, "rules")["ok"], false);
    lab.netdp.ok("repair");
    assert_eq!(forwarding(), "1");
    // Somebody makes the host a router meanwhile.
    lab.host.set_sysctl("net/ipv4/ip_forward", "1");
    let said = lab.netdp.run("down").stderr;
    assert!(said.contains(&format!("net.ipv4.conf.{UPLINK}.forwarding stays 1")), "{said}");
    assert_eq!((forwarding().as_str(), host_wide().as_str()), ("1", "1"));
}

/// The same in IPv6: on a kernel that forwards from one interface, and on one that needs the whole host to.
#[test]
#[ignore = "needs root"]
fn ipv6_sysctls_that_somebody_set_since_are_left_alone_and_named() {
    for (without, knob) in [(None, "force_forwarding"), (Some("force-forwarding"), "accept_ra")] {
        let mut lab = lab();
        lab.netdp.variables.extend(without.map(|feature| ("NETDP_WITHOUT", feature.into())));
        let path = format!("net/ipv6/conf/{UPLINK}/{knob}");
        let value = |path: &str| sysctl::read_all(&lab.host)[path].clone();
        let before = value(&path);
        lab.netdp.ok("network create both --subnet 10.50.0.0/24 --subnet fd00:50::/64");
        assert_ne!(value(&path), before, "{knob} is as it was");
        lab.host.set_sysctl(&path, "0");
        let said = lab.netdp.run("down").stderr;
        let named = format!("left as it is: net.ipv6.conf.{UPLINK}.{knob} is 0: somebody else set it");
        assert!(said.contains(&named), "{said}");
        assert_eq!(value(&path), "0");
        assert_eq!(value("net/ipv6/conf/all/forwarding"), "0");
    }
}

/// Answers come by the uplink, so it forwards; but not for others, as before.
#[test]
#[ignore = "needs root"]
fn the_host_does_not_become_a_router() {
    let lab = lab();
    let behind = lab.netns("behind");
    behind.sh(&format!("ip link add b0 type veth peer name up1 netns {}", lab.host.name()));
    behind.sh("ip addr add 10.98.0.2/24 dev b0");
    behind.sh("ip link set b0 up");
    behind.sh("ip route add default via 10.98.0.1");
    lab.host.sh("ip addr add 10.98.0.1/24 dev up1");
    lab.host.sh("ip link set up1 up");
    lab.world.sh(&format!("ip route add 10.98.0.0/24 via {HOST}"));
    let target = Ipv4Addr::new(10, 98, 0, 2);
    let _behind = Server::udp(&behind, "behind", target, &[INNER]);
    unanswered(&lab.world, Transport::Udp, (target, INNER));
    let served = Served::new(&lab);
    served.works(&lab);
    answered(&served.client.netns, Transport::Udp, (target, INNER), "behind");
    unanswered(&lab.world, Transport::Udp, (target, INNER));
    assert!(lab.netdp.counter("no_route") > 0, "{}", lab.netdp.json("stats"));
    lab.host.set_sysctl("net/ipv4/ip_forward", "1");
    lab.netdp.ok("repair");
    answered(&lab.world, Transport::Udp, (target, INNER), "behind");
    served.works(&lab);
}

/// G12: neither a neighbour's address nor its MAC, nor both, towards the world or another neighbour.
#[test]
#[ignore = "needs root"]
fn a_neighbours_mac_does_not_help() {
    let lab = lab();
    let Served { web, client, .. } = &Served::new(&lab);
    let third = lab.container("third", "");
    let udp = Server::udp(&third.netns, "third", third.address, &[INNER]);
    let mac_of = |line: &str| lab.netdp.json(line)["mac"].as_str().expect("a MAC").to_owned();
    client.netns.sh(&format!("ip addr add {}/32 dev lo", web.address));
    // Nobody is asked for the way: no answer would come back.
    for (address, line) in [(third.address, "inspect third"), (third.gateway, "network inspect default")] {
        let mac = mac_of(line);
        client.netns.sh(&format!("ip neigh replace {address} lladdr {mac} dev eth0 nud permanent"));
    }
    for forged in [false, true] {
        if forged {
            client.netns.sh(&format!("ip link set eth0 address {}", mac_of("inspect web")));
        }
        let _ = ask_from(&client.netns, Transport::Udp, (web.address, 0), (third.address, INNER));
        let _ = ask_from(&client.netns, Transport::Udp, (web.address, 0), (WORLD, INNER));
        assert_eq!(udp.served(), 0, "forged MAC: {forged}");
    }
    assert!(lab.netdp.counter("spoofed") > 0, "{}", lab.netdp.json("stats"));
    answered(&web.netns, Transport::Udp, (third.address, INNER), "third");
}

/// All or nothing (G13): iptables-restore fails from the nth call on for as long as netdp tries.
#[test]
#[ignore = "needs root"]
fn a_refused_change_leaves_nothing() {
    let lab = lab();
    put(&lab.host, Backend::Nft, OTHERS);
    let before = (rules(&lab.host, Backend::Nft), sysctl::read_all(&lab.host));
    let netns = lab.netns("a");
    let attach = format!("attach {} --name a -p 8088:80 -p 127.0.0.1:9000-9009:80-89", netns.name());
    let failing = FailingRestore::new();
    let mut failed = 0;
    for call in 1.. {
        let output = failing.run(lab.netdp.command(&attach), call);
        if output.status.success() {
            break;
        }
        failed += 1;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "call {call}: {stderr}");
        assert!(stderr.contains("out of order") && stderr.lines().count() == 1, "call {call}: {stderr}");
        assert!(!lab.netdp.state().exists(), "call {call}");
        assert_eq!(rules(&lab.host, Backend::Nft), before.0, "call {call}");
        assert_eq!(sysctl::changed(&before.1, &sysctl::read_all(&lab.host)), Vec::<String>::new());
        assert_eq!(netns.sh("ip -o link").lines().count(), 1, "call {call}: only lo");
    }
    assert!(failed >= 8, "the network, the endpoint, two ports, in two families: {failed}");
    assert_eq!(check(&lab.netdp, "rules")["ok"], true);
    lab.netdp.ok("down");
    assert_eq!(rules(&lab.host, Backend::Nft), before.0);
}

/// Two instances in one namespace whose names differ in the last of 63 bytes.
#[test]
#[ignore = "needs root"]
fn long_names_do_not_clash() {
    let lab = lab();
    let named = |last: char| Netdp {
        instance: format!("{}{last}", format!("{}-{}", lab.id, "x".repeat(62)).split_at(62).0),
        ..lab.netdp.clone()
    };
    let (one, other) = (named('1'), named('2'));
    let netns = [lab.netns("a"), lab.netns("b")];
    for (number, (netdp, netns)) in [&one, &other].into_iter().zip(&netns).enumerate() {
        let network = format!("n{number}");
        netdp.ok(&format!("network create {network} --subnet 10.6{number}.0.0/24"));
        netdp.ok(&format!(
            "attach {} --name c --network {network} -p {}:{INNER}",
            netns.name(),
            9000 + number
        ));
    }
    let servers = netns.each_ref().map(|netns| Server::tcp(netns, "c", Ipv4Addr::UNSPECIFIED, &[INNER]));
    answered(&lab.world, Transport::Tcp, (HOST, 9000), "c");
    answered(&lab.world, Transport::Tcp, (HOST, 9001), "c");
    let address = Ipv4Addr::new(10, 61, 0, 2);
    unanswered(&netns[0], Transport::Tcp, (address, INNER));
    assert!(other.counter("not_published") > 0, "{}", other.json("stats"));
    one.ok("down");
    answered(&lab.world, Transport::Tcp, (HOST, 9001), "c");
    unanswered(&lab.world, Transport::Tcp, (HOST, 9000));
    other.ok("down");
    drop(servers);
    assert_eq!(rules(&lab.host, Backend::Nft), Vec::<String>::new());
}

/// S8, as well as netfilter can: what is lost comes again, or is one of very many.
#[test]
#[ignore = "needs root"]
fn many_at_once_are_served() {
    let lab = lab();
    let arena = Arena::new(&lab, "");
    for transport in Transport::ALL {
        let report = arena.clash(transport, 2_000, 3);
        eprintln!("{transport:?}: {report}");
        assert!(report.answered * 1000 >= report.offered * 995, "{transport:?}: {report}");
        assert_eq!((report.duplicates, report.strayed), (0, 0), "{transport:?}: {report}");
    }
    assert_eq!(lab.netdp.counter("snat_allocated"), 2 * 3 * 4 * 2_000);
}

/// IPv6 forwarding takes the default route away that a router advertises (G13), unless one is careful: on a kernel
/// that has it by interface, and on one that has not.
#[test]
#[ignore = "needs root"]
fn an_advertised_default_route_survives() {
    for without in [None, Some("force-forwarding")] {
        let mut lab = lab();
        lab.netdp.variables.extend(without.map(|feature| ("NETDP_WITHOUT", feature.into())));
        lab.world.sh(&format!("ip addr add 2001:db8:99::2/64 dev {WORLD_LINK} nodad"));
        lab.host.sh(&format!("ip addr add 2001:db8:99::1/64 dev {UPLINK} nodad"));
        router::advertise(&lab);
        let before = sysctl::read_all(&lab.host);
        for _ in 0..2 {
            lab.netdp.ok("network create both --subnet 10.50.0.0/24 --subnet fd00:50::/64");
            let netns = lab.netns("a");
            lab.netdp.ok(&format!("attach {} --network both", netns.name()));
            netns.sh("ping -6 -c 1 -W 2 2001:db8:99::2");
            assert!(router::default_route(&lab).contains("proto ra"), "{without:?}, with an endpoint");
            lab.netdp.ok("down");
            lab.remove_netns("a");
            assert!(router::default_route(&lab).contains("proto ra"), "{without:?}, after down");
            let after = sysctl::read_all(&lab.host);
            assert_eq!(sysctl::changed(&before, &after), Vec::<String>::new(), "{without:?}");
        }
    }
}

/// The instance's files are gone, its rules are not.
#[test]
#[ignore = "needs root"]
fn rules_without_an_instance_are_removed() {
    let lab = lab();
    lab.container("a", "-p 8088:80");
    std::fs::remove_dir_all(lab.netdp.state()).expect("the instance's directory");
    assert!(!rules(&lab.host, Backend::Nft).is_empty());
    lab.netdp.ok("down");
    assert_eq!(rules(&lab.host, Backend::Nft), Vec::<String>::new());
}

#[test]
#[ignore = "needs root"]
fn the_ipv6_loopback_is_refused_with_a_reason() {
    let lab = lab();
    lab.container("a", "");
    let error = lab.netdp.refused(2, "publish a [::1]:8080:80");
    assert!(error.contains("[::1]") && error.contains("127.0.0.1"), "{error}");
}
