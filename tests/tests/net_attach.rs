//! Ways to attach, and what the interfaces look like afterwards (S5, S6).

use std::net::Ipv4Addr;
use std::thread;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::lab::{Lab, WORLD};
use netdp_tests::netns::{Netns, OwnedNetns};
use netdp_tests::on_every_datapath;
use netdp_tests::process::{Daemon, eventually};
use netdp_tests::server::Server;

const PORT: u16 = 7000;

on_every_datapath!(
    a_running_process_is_attached_by_pid,
    both_ends_are_shown_and_true,
    the_address_and_names_are_as_asked,
    a_missing_namespace_is_created_only_when_asked,
    a_second_network_leaves_the_default_route,
    twenty_commands_at_once_are_safe,
    what_makes_no_sense_is_refused,
    run_gives_a_command_a_network_and_cleans_up,
);

/// S6: as with `docker run --network none`.
fn a_running_process_is_attached_by_pid(lab: &Lab) {
    let mut unshare = std::process::Command::new("unshare");
    let sleeper = Daemon::start(unshare.args(["--net", "sleep", "1000"]));
    let ours = Netns::of_pid(std::process::id());
    eventually("unshare", || !ours.processes().contains(&sleeper.pid()));
    let netns = Netns::of_pid(sleeper.pid());
    lab.netdp.ok(&format!("attach pid:{} --name p", sleeper.pid()));
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    answered(&netns, Transport::Udp, (WORLD, PORT), "world");
    netns.sh(&format!("ping -c 1 -W 2 {WORLD}"));
    lab.netdp.ok("detach p");
    let second = lab.netdp.ok(&format!("attach pid:{}", sleeper.pid()));
    let endpoint = lab.netdp.json(&format!("inspect pid-{}", sleeper.pid()));
    assert_eq!(endpoint["ifname"], "eth0", "{second}");
}

fn both_ends_are_shown_and_true(lab: &Lab) {
    let a = lab.container("a", "");
    let endpoint = lab.netdp.json("inspect a");
    let (index, host_index) = (&endpoint["ifindex"], &endpoint["host_ifindex"]);
    let (mac, host_ifname) = (endpoint["mac"].as_str().expect("mac"), &a.host_ifname);
    let inner = a.netns.sh("ip -o link show eth0");
    assert!(inner.starts_with(&format!("{index}: eth0@if{host_index}:")), "{inner}");
    assert!(inner.contains(mac), "{mac} is not in {inner}");
    let outer = lab.host.sh(&format!("ip -d -o link show {host_ifname}"));
    assert!(outer.starts_with(&format!("{host_index}: {host_ifname}@if{index}:")), "{outer}");
    assert!(outer.contains("master netdp0") && outer.contains("learning off flood off"), "{outer}");
    let fdb = lab.host.sh(&format!("bridge fdb show dev {host_ifname}"));
    assert!(fdb.lines().any(|line| line.starts_with(mac) && line.contains("static")), "{fdb}");
    let neighbours = lab.host.sh("ip neigh show dev netdp0");
    let entry = format!("{} lladdr {mac} PERMANENT", a.address);
    assert!(neighbours.contains(&entry), "no `{entry}` in {neighbours}");
    let listed = lab.netdp.ok("ls");
    assert!(listed.contains(host_ifname.as_str()) && listed.contains(&a.address.to_string()), "{listed}");
}

fn the_address_and_names_are_as_asked(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.50.0.0/24 --gateway 10.50.0.254 --bridge red0 --mtu 1400");
    let netns = lab.netns("a");
    let options = "--network red --ip 10.50.0.77 --mac 02:00:00:00:00:77 --ifname net0";
    lab.netdp.ok(&format!("attach {} {options}", netns.name()));
    let endpoint = lab.netdp.json(&format!("inspect {}", netns.name()));
    assert_eq!(endpoint["addresses"][0], "10.50.0.77/24");
    assert_eq!((&endpoint["mac"], &endpoint["ifname"]), (&"02:00:00:00:00:77".into(), &"net0".into()));
    let link = netns.sh("ip -o link show net0");
    assert!(link.contains("02:00:00:00:00:77") && link.contains("mtu 1400"), "{link}");
    assert!(netns.sh("ip -4 route show default").contains("via 10.50.0.254"));
    let taken = lab.netns("b");
    let error = lab.netdp.refused(2, &format!("attach {} --network red --ip 10.50.0.77", taken.name()));
    assert!(error.contains("10.50.0.77"), "{error}");
    lab.netdp.refused(2, &format!("attach {} --network red --ip 10.51.0.1", taken.name()));
    lab.netdp.refused(2, &format!("attach {} --network nowhere", taken.name()));
    assert!(!taken.try_sh("ip link show eth0").status.success(), "a refused attach left an interface");
}

fn a_missing_namespace_is_created_only_when_asked(lab: &Lab) {
    let name = format!("{}-new", lab.id);
    let error = lab.netdp.refused(2, &format!("attach {name}"));
    assert!(error.contains("--create") && error.contains(&name), "{error}");
    lab.netdp.ok(&format!("attach {name} --create"));
    let netns = OwnedNetns::adopt(&name);
    netns.sh(&format!("ping -c 1 -W 2 {WORLD}"));
    netns.sh("ping -c 1 -W 2 127.0.0.1");
    lab.netdp.ok(&format!("detach {name}"));
}

fn a_second_network_leaves_the_default_route(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.50.0.0/24");
    let a = lab.container("a", "");
    let b = lab.container("b", "--network red");
    let routes = a.netns.sh("ip -4 route show default");
    let second = lab.attach("a-red", &a.netns, "--network red --ifname eth1");
    assert_eq!(a.netns.sh("ip -4 route show default"), routes);
    let _tcp = Server::tcp(&b.netns, "b", b.address, &[PORT]);
    let answer = answered(&a.netns, Transport::Tcp, (b.address, PORT), "b");
    assert_eq!(answer.peer.ip(), second.address);
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    answered(&a.netns, Transport::Udp, (WORLD, PORT), "world");
    lab.netdp.ok("detach a-red");
    answered(&a.netns, Transport::Udp, (WORLD, PORT), "world");
}

fn twenty_commands_at_once_are_safe(lab: &Lab) {
    const COUNT: usize = 20;
    let namespaces: Vec<Netns> = (0..COUNT).map(|number| lab.netns(&format!("c{number}"))).collect();
    let netdp = &lab.netdp;
    thread::scope(|scope| {
        for (number, netns) in namespaces.iter().enumerate() {
            let line = format!("attach {} --name c{number} -p {}:{PORT}", netns.name(), 8000 + number);
            scope.spawn(move || netdp.ok(&line));
        }
    });
    let list = lab.netdp.json("ls");
    let list = list.as_array().expect("an array");
    let addresses: std::collections::BTreeSet<_> =
        list.iter().map(|one| one["addresses"].to_string()).collect();
    assert_eq!((list.len(), addresses.len()), (COUNT, COUNT));
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    for (number, netns) in namespaces.iter().enumerate() {
        answered(netns, Transport::Udp, (WORLD, PORT), "world");
        let _tcp = Server::tcp(netns, "c", Ipv4Addr::UNSPECIFIED, &[PORT]);
        let port = 8000 + u16::try_from(number).expect("few");
        answered(&lab.world, Transport::Tcp, (netdp_tests::lab::HOST, port), "c");
    }
    thread::scope(|scope| {
        for number in 0..COUNT {
            scope.spawn(move || netdp.ok(&format!("detach c{number}")));
        }
    });
    assert_eq!(lab.netdp.json("ls").as_array().map(Vec::len), Some(0));
}

fn what_makes_no_sense_is_refused(lab: &Lab) {
    let a = lab.container("a", "");
    for line in [
        format!("attach {}", lab.host.name()),
        format!("attach {} --name x --network host", a.netns.name()),
        format!("attach {} --name x --network container:a", a.netns.name()),
        "attach pid:0".to_owned(),
        "attach /dev/null".to_owned(),
        "network create default2 --subnet 10.50.0.0/33".to_owned(),
        "network create bad/name --subnet 10.50.0.0/24".to_owned(),
        "publish a 80:80:80:80".to_owned(),
        "publish nobody 80:80".to_owned(),
        "unpublish a 81:81".to_owned(),
        "inspect nobody".to_owned(),
        "detach nobody".to_owned(),
        "network rm nobody".to_owned(),
        "frobnicate".to_owned(),
    ] {
        let outcome = lab.netdp.run(&line);
        assert_eq!(outcome.code, 2, "netdp {line}: {outcome:?}");
        assert!(outcome.stderr.contains("error: ") && outcome.stdout.is_empty(), "netdp {line}: {outcome:?}");
    }
    assert_eq!(lab.netdp.json("ls").as_array().map(Vec::len), Some(1));
}

fn run_gives_a_command_a_network_and_cleans_up(lab: &Lab) {
    lab.netdp.ok(&format!("run --name r -- ping -c 1 -W 2 {WORLD}"));
    lab.netdp.ok("run --name r -- ping -c 1 -W 2 127.0.0.1");
    let hosts = lab.netdp.ok("run --name r -- cat /etc/hosts");
    assert!(
        hosts.contains("host.netdp.internal") && hosts.lines().any(|line| line.trim_end().ends_with("\tr")),
        "{hosts}"
    );
    let mut exit = lab.netdp.command("run --name r --");
    let status = exit.args(["sh", "-c", "exit 7"]).status().expect("running netdp");
    assert_eq!(status.code(), Some(7), "the exit code is passed on");
    assert_eq!(lab.netdp.json("ls").as_array().map(Vec::len), Some(0), "an endpoint is left");
    assert!(!lab.host.sh("ip -o link show type veth").contains("master netdp0"), "a veth is left");
}
