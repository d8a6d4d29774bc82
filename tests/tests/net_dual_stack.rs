//! Networks of both families: addresses, routes, neighbours, and what the host keeps. No translation: what a bridge and
//! the host's own stack do.

use std::fs;
use std::thread;

use netdp_tests::footprint::Footprint;
use netdp_tests::lab::Lab;
use netdp_tests::netdp::Netdp;
use netdp_tests::netns::Netns;
use netdp_tests::process::eventually;
use netdp_tests::variant::Datapath;
use netdp_tests::{on_ebpf_only, on_every_datapath, router, sysctl};
use serde_json::{Value, json};

/// The network of these tests.
const CREATE: &str = "network create blue --subnet fd50::/64 --subnet 10.50.0.0/24";
const BRIDGE: &str = "nd-blue";

on_every_datapath!(
    both_families_are_there_at_once,
    addresses_are_as_asked,
    a_second_network_leaves_both_default_routes,
    an_ipv6_network_needs_no_ipv4,
    an_advertised_default_route_survives,
    a_killed_command_is_undone,
    nothing_is_left,
    what_is_gone_is_collected,
    what_makes_no_sense_is_refused,
    switched_off_ipv6_is_named,
);
on_ebpf_only!(
    ports_are_published_for_both_families: "it can't publish at [::1]",
    networks_at_once_leave_the_default_alone: "it forwards from the uplinks, and has to switch that on",
);

fn show(netns: &Netns, what: &str) -> Vec<String> {
    netns.sh(what).lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn both_families_are_there_at_once(lab: &Lab) {
    lab.netdp.ok(CREATE);
    let network = lab.netdp.json("network inspect blue");
    assert_eq!(network["subnets"], json!(["10.50.0.0/24", "fd50::/64"]), "IPv4 first");
    assert_eq!(network["gateways"], json!(["10.50.0.1", "fd50::1"]));
    let (a, b) = (lab.container("a", "--network blue"), lab.container("b", "--network blue"));
    // Without a wait: no address is tentative, and the bridge knows the way.
    for (from, to) in
        [(&a.netns, "fd50::1"), (&a.netns, "fd50::3"), (&b.netns, "fd50::2"), (&lab.host, "fd50::2")]
    {
        from.sh(&format!("ping -6 -c 1 -W 1 {to}"));
    }
    let endpoint = lab.netdp.json("inspect a");
    assert_eq!(endpoint["addresses"], json!(["10.50.0.2/24", "fd50::2/64"]));
    assert_eq!(endpoint["gateway"], json!(["10.50.0.1", "fd50::1"]));
    assert_eq!(lab.netdp.json("ls")[0]["addresses"], endpoint["addresses"]);
    for (netns, link) in [(&a.netns, "eth0"), (&lab.host, BRIDGE)] {
        let addresses = netns.sh(&format!("ip -6 addr show dev {link}"));
        assert!(!addresses.contains("tentative") && addresses.contains("fe80::"), "{addresses}");
    }
    for (family, gateway) in [("-4", "10.50.0.1"), ("-6", "fd50::1")] {
        let routes = show(&a.netns, &format!("ip {family} route show default"));
        let wanted = format!("default via {gateway} dev eth0");
        assert!(routes.len() == 1 && routes[0].starts_with(&wanted), "{routes:?}");
    }
    let neighbours = show(&lab.host, &format!("ip neigh show dev {BRIDGE} nud permanent"));
    let mac = endpoint["mac"].as_str().expect("mac");
    for addr in ["10.50.0.2", "fd50::2"] {
        let entry = format!("{addr} lladdr {mac} PERMANENT");
        assert!(neighbours.contains(&entry), "no `{entry}` in {neighbours:?}");
    }
    let knobs = |path: &str| sysctl::read_all(&lab.host)[path].clone();
    assert_eq!(knobs(&format!("net/ipv6/conf/{BRIDGE}/forwarding")), "1");
    assert_eq!(knobs(&format!("net/ipv6/conf/{BRIDGE}/accept_ra")), "0");
    assert_eq!(sysctl::read_all(&a.netns)["net/ipv6/conf/eth0/accept_ra"], "0");
    lab.netdp.ok("detach a");
    let neighbours = lab.host.sh(&format!("ip neigh show dev {BRIDGE} nud permanent"));
    assert!(neighbours.contains("fd50::3") && !neighbours.contains("fd50::2"), "{neighbours}");
}

fn addresses_are_as_asked(lab: &Lab) {
    lab.netdp.ok(&format!("{CREATE} --gateway fd50::fe --gateway 10.50.0.254 --mtu 1280"));
    assert_eq!(lab.netdp.json("network inspect blue")["gateways"], json!(["10.50.0.254", "fd50::fe"]));
    let a = lab.container("a", "--network blue --ip fd50::77 --ip 10.50.0.77");
    assert_eq!(lab.netdp.json("inspect a")["addresses"], json!(["10.50.0.77/24", "fd50::77/64"]));
    a.netns.sh("ping -6 -c 1 -W 1 fd50::fe");
    let routes = show(&a.netns, "ip -6 route show default");
    assert!(routes.len() == 1 && routes[0].starts_with("default via fd50::fe dev eth0"), "{routes:?}");
    lab.container("b", "--network blue --ip fd50::1");
    assert_eq!(lab.netdp.json("inspect b")["addresses"], json!(["10.50.0.1/24", "fd50::1/64"]));
}

fn a_second_network_leaves_both_default_routes(lab: &Lab) {
    lab.netdp.ok(CREATE);
    lab.netdp.ok("network create red --subnet 10.51.0.0/24 --subnet fd51::/64");
    let a = lab.container("a", "--network blue");
    let routes = || {
        show(&a.netns, "ip route show default").into_iter().chain(show(&a.netns, "ip -6 route show default"))
    };
    let before: Vec<String> = routes().collect();
    lab.attach("a-red", &a.netns, "--network red --ifname eth1");
    assert_eq!(routes().collect::<Vec<_>>(), before);
    a.netns.sh("ping -6 -c 1 -W 1 fd51::1");
    lab.netdp.ok("detach a-red");
    assert_eq!(routes().collect::<Vec<_>>(), before);
    a.netns.sh("ping -6 -c 1 -W 1 fd50::1");
}

fn an_ipv6_network_needs_no_ipv4(lab: &Lab) {
    lab.netdp.ok("network create six --subnet fd56::/64");
    let netns = lab.netns("a");
    lab.netdp.ok(&format!("attach {} --name a --network six -p 8080:80", netns.name()));
    assert_eq!(lab.netdp.json("inspect a")["addresses"], json!(["fd56::2/64"]));
    netns.sh("ping -6 -c 1 -W 1 fd56::1");
    assert_eq!(netns.sh("ip -4 addr show dev eth0"), "");
    let error = lab.netdp.refused(2, "publish a 127.0.0.1:8081:80");
    assert!(error.contains("no IPv4 address"), "{error}");
    lab.netdp.ok("down");
}

fn ports_are_published_for_both_families(lab: &Lab) {
    lab.netdp.ok(CREATE);
    lab.host.sh(&format!("ip -6 addr add 2001:db8::1/64 dev {} nodad", netdp_tests::lab::UPLINK));
    lab.container("a", "--network blue -p [::1]:8080:80 -p 127.0.0.1:8080:80 -p [::]:8090:80/udp");
    let published = || lab.netdp.json("inspect a")["published"].clone();
    let hosts = |published: &Value| {
        published.as_array().expect("a list").iter().map(|port| port["host_addr"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(hosts(&published()), [json!("::1"), json!("127.0.0.1"), Value::Null]);
    assert_eq!(lab.netdp.ok("publish a [2001:db8::1]:8080:80"), "80/tcp -> [2001:db8::1]:8080\n");
    let error = lab.netdp.refused(2, "publish a [2001:db8::2]:8080:80");
    assert!(error.contains("no address 2001:db8::2"), "{error}");
    let error = lab.netdp.refused(2, "publish a [::1]:8080:80");
    assert!(error.contains("endpoint a publishes 80/tcp -> [::1]:8080"), "{error}");
    lab.netdp.ok("unpublish a [::1]:8080:80 [2001:db8::1]:8080:80");
    assert_eq!(hosts(&published()), [json!("127.0.0.1"), Value::Null]);
    lab.container("four", "");
    let error = lab.netdp.refused(2, "publish four [::1]:8080:80");
    assert!(error.contains("no IPv6 address"), "{error}");
}

/// A host that becomes a router forgets what routers told it. It must not become one.
fn an_advertised_default_route_survives(lab: &Lab) {
    router::advertise(lab);
    lab.netdp.ok(CREATE);
    lab.container("a", "--network blue -p 8080:80");
    let kept = |after: &str| assert!(router::default_route(lab).contains("proto ra"), "gone after {after}");
    kept("attach");
    lab.netdp.ok("detach a");
    lab.netdp.ok("network rm blue");
    kept("network rm");
    lab.netdp.ok("down");
    kept("down");
    assert_eq!(sysctl::read_all(&lab.host)["net/ipv6/conf/all/forwarding"], "0");
}

/// The default that is switched on for a moment is every instance's.
fn networks_at_once_leave_the_default_alone(lab: &Lab) {
    const NETWORKS: usize = 6;
    let other = Netdp { instance: format!("{}-2", lab.id), ..lab.netdp.clone() };
    let instances = [&lab.netdp, &other];
    let before = sysctl::read_all(&lab.host);
    thread::scope(|scope| {
        for number in 0..NETWORKS {
            let netdp = instances[number % instances.len()];
            let line =
                format!("network create n{number} --subnet 10.6{number}.0.0/24 --subnet fd6{number}::/64");
            scope.spawn(move || netdp.ok(&line));
        }
    });
    let after = sysctl::read_all(&lab.host);
    other.ok("down");
    assert_eq!(sysctl::changed(&before, &after), Vec::<String>::new());
    let forwarding = |number| after[&format!("net/ipv6/conf/nd-n{number}/forwarding")].clone();
    assert!((0..NETWORKS).all(|number| forwarding(number) == "1"));
}

/// What lies there when a command is killed between the two writes to the default.
fn a_killed_command_is_undone(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.51.0.0/24");
    let before = sysctl::read_all(&lab.host);
    leave_behind(lab);
    lab.host.set_sysctl("net/ipv6/conf/default/forwarding", "1");
    lab.netdp.ok("gc");
    assert_eq!(sysctl::changed(&before, &sysctl::read_all(&lab.host)), Vec::<String>::new());
    // Its owner has made the host a router since: that stays.
    leave_behind(lab);
    lab.host.set_sysctl("net/ipv6/conf/all/forwarding", "1");
    lab.netdp.ok("gc");
    assert_eq!(sysctl::read_all(&lab.host)["net/ipv6/conf/default/forwarding"], "1");
}

fn leave_behind(lab: &Lab) {
    let state = fs::read(lab.netdp.state().join("state.json")).expect("the state");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    let list = json!({"revision": state["revision"], "steps": ["SwitchOffDefaultForwarding"]});
    fs::write(lab.netdp.state().join("undo.json"), list.to_string()).expect("writing the list");
}

fn nothing_is_left(lab: &Lab) {
    eventually("links up, addresses valid", || {
        let (links, addresses) = (lab.host.sh("ip -o link"), lab.host.sh("ip -o addr"));
        !links.contains("NO-CARRIER") && !links.contains("state DOWN") && !addresses.contains("tentative")
    });
    let listing = |lab: &Lab| {
        let mut footprint = Footprint::of(&lab.host);
        // The whole machine's: other tests mount and unmount.
        footprint.mounts.clear();
        footprint
    };
    let before = listing(lab);
    lab.netdp.ok(CREATE);
    let loopback = if lab.variant.datapath == Datapath::Ebpf { "-p [::1]:8081:80" } else { "" };
    lab.container("a", &format!("--network blue -p 8080:80 {loopback}"));
    lab.netdp.ok("down");
    assert_eq!(before.differences(&listing(lab)), Vec::<String>::new());
}

fn what_is_gone_is_collected(lab: &Lab) {
    lab.netdp.ok(CREATE);
    lab.container("a", "--network blue -p 8080:80");
    lab.container("b", "--network blue");
    lab.remove_netns("a");
    eventually("the veth goes", || {
        !lab.host.sh("ip -o link").contains("@if2: <") || lab.netdp.json("ls")[0]["state"] == "gone"
    });
    assert_eq!(lab.netdp.ok("gc"), "a: removed\n");
    let neighbours = lab.host.sh(&format!("ip neigh show dev {BRIDGE} nud permanent"));
    assert!(neighbours.contains("fd50::3") && !neighbours.contains("fd50::2"), "{neighbours}");
    // The lowest free addresses again.
    lab.container("c", "--network blue -p 8080:80");
    assert_eq!(lab.netdp.json("inspect c")["addresses"], json!(["10.50.0.2/24", "fd50::2/64"]));
}

fn what_makes_no_sense_is_refused(lab: &Lab) {
    lab.netdp.ok(CREATE);
    lab.netdp.ok("network create four --subnet 10.54.0.0/24");
    lab.container("a", "--network blue");
    let b = lab.netns("b");
    lab.host.sh("ip -6 route add fd99::/64 dev lo");
    let create = |rest: &str| format!("network create bad {rest}");
    let attach = |rest: &str| format!("attach {} {rest}", b.name());
    for (line, wanted) in [
        (create("--subnet fd60::"), "`fd60::` is no subnet"),
        (create("--subnet fd60::/129"), "is no subnet"),
        (create("--subnet fd60::5/64"), "write fd60::/64"),
        (create("--subnet fd60::/127"), "from 48 to 126"),
        (create("--subnet fd00::/8"), "from 48 to 126"),
        (create("--subnet fe80::/64"), "not for unicast"),
        (create("--subnet ff05::/64"), "not for unicast"),
        (create("--subnet fd60::/64 --subnet fd61::/64"), "at most one subnet of each family"),
        (create("--subnet fd50::/80"), "overlaps fd50::/64 (network blue)"),
        (create("--subnet fd50::/48"), "overlaps fd50::/64"),
        (create("--subnet fd99::/64"), "overlaps fd99::/64 (a route of this host)"),
        (create("--subnet fd60::/64 --gateway fd61::1"), "--gateway fd61::1 is no usable address"),
        (create("--subnet fd60::/64 --gateway fd60::"), "--gateway fd60:: is no usable address"),
        (create("--subnet fd60::/64 --gateway 10.60.0.1"), "no subnet of its family"),
        (create("--subnet fd60::/64 --gateway fd60::1 --gateway fd60::2"), "one gateway for each subnet"),
        (create("--subnet fd60::/64 --mtu 1279"), "from 1280 to"),
        (create("--subnet fd60::/64 --snat-to 2001:db8::9"), "no such address"),
        (create("--subnet 10.60.0.0/24 --snat-to 2001:db8::9"), "no subnet of its family"),
        (attach("--network blue --ip fd51::5"), "fd51::5 is not in network blue"),
        (attach("--network four --ip fd50::5"), "fd50::5 is not in network four"),
        (attach("--network blue --ip fd50::"), "reserved"),
        (attach("--network blue --ip fd50::1"), "taken by the gateway"),
        (attach("--network blue --ip fd50::2"), "taken by endpoint a"),
        (attach("--network blue --ip fd50::5 --ip fd50::6"), "one address of each family"),
        ("publish a [fe80::1]:80:80".to_owned(), "no address fe80::1"),
        ("publish a ::1:80:80".to_owned(), "no address"),
    ] {
        let error = lab.netdp.refused(2, &line);
        assert!(error.contains(wanted), "netdp {line}: {error}");
    }
    assert_eq!(b.sh("ip -o link").lines().count(), 1, "only lo");
    assert_eq!(lab.netdp.json("network ls").as_array().map(Vec::len), Some(2));
}

fn switched_off_ipv6_is_named(lab: &Lab) {
    let knob = "net/ipv6/conf/default/disable_ipv6";
    lab.host.set_sysctl(knob, "1");
    let error = lab.netdp.refused(2, CREATE);
    assert!(error.contains("this host has net.ipv6.conf.default.disable_ipv6=1"), "{error}");
    lab.netdp.ok("network create four --subnet 10.54.0.0/24");
    lab.host.set_sysctl(knob, "0");
    lab.netdp.ok(CREATE);
    let a = lab.netns("a");
    a.set_sysctl(knob, "1");
    let error = lab.netdp.refused(2, &format!("attach {} --network blue", a.name()));
    assert!(error.contains(&format!("{} has net.ipv6.conf.default.disable_ipv6=1", a.name())), "{error}");
    lab.netdp.ok(&format!("attach {} --network four", a.name()));
}
