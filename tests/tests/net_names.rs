//! Endpoints and the host by name, in `ip netns exec` and in `netdp run` (S7).

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use netdp_tests::lab::{Container, HOST, Lab};
use netdp_tests::netdp::Netdp;
use netdp_tests::netns::Netns;
use netdp_tests::on_every_datapath;
use netdp_tests::process::{Daemon, eventually};
use netdp_tests::server::Server;

const PORT: u16 = 7000;
/// Where `ip netns exec` looks.
const NETNS: &str = "/etc/netns";
/// The host's name.
const HOST_NAME: &str = "host.netdp.internal";
const FILES: [&str; 2] = ["hosts", "resolv.conf"];

on_every_datapath!(
    neighbours_and_the_host_have_names,
    a_running_command_sees_who_comes_and_goes,
    the_host_is_reached_by_name,
    what_the_host_knows_stays_known,
    a_second_network_adds_its_names,
    files_of_others_are_left_alone,
    instances_leave_each_others_files,
    what_was_left_behind_goes,
    reserved_names_are_refused,
);

/// What a command in `ip netns exec` makes of a name, without asking a resolver; none if it knows none.
fn resolve(netns: &Netns, name: &str) -> Option<String> {
    let output = Command::new("ip")
        .args(["netns", "exec", netns.name(), "getent", "-s", "files", "ahostsv4", name])
        .output();
    first_address(&output.expect("running ip"))
}

/// The same for the mounts of a process that runs.
fn resolve_beside(pid: u32, name: &str) -> Option<String> {
    let output = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-m", "-n", "getent", "-s", "files", "ahostsv4", name])
        .output();
    first_address(&output.expect("running nsenter"))
}

fn first_address(output: &std::process::Output) -> Option<String> {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    output.status.success().then(|| text.split_whitespace().next().unwrap_or_default().to_owned())
}

fn address(container: &Container) -> Option<String> {
    Some(container.address.to_string())
}

fn dir(netns: &Netns) -> PathBuf {
    Path::new(NETNS).join(netns.name())
}

fn neighbours_and_the_host_have_names(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.50.0.0/24");
    let (a, b) = (lab.container("a", ""), lab.container("b", ""));
    let red = lab.container("red", "--network red");
    for from in [&a, &b] {
        assert_eq!(resolve(&from.netns, "a"), address(&a));
        assert_eq!(resolve(&from.netns, "b"), address(&b));
        assert_eq!(resolve(&from.netns, HOST_NAME), Some(from.gateway.to_string()));
        assert_eq!(resolve(&from.netns, "localhost"), Some("127.0.0.1".into()));
        assert_eq!(resolve(&from.netns, "red"), None, "another network's");
    }
    assert_eq!(resolve(&red.netns, HOST_NAME), Some("10.50.0.1".into()));
    // `run` is a neighbour like others, and has the same names.
    let seen = lab.netdp.ok("run --name r -- getent ahostsv4 a");
    assert!(seen.starts_with(&a.address.to_string()), "{seen}");
    lab.netdp.ok("detach b");
    assert_eq!((resolve(&a.netns, "b"), resolve(&a.netns, "a")), (None, address(&a)));
    assert!(!dir(&b.netns).exists());
    lab.netdp.ok("down");
    assert!(!dir(&a.netns).exists() && !dir(&red.netns).exists());
}

/// A shell that was started before its neighbour came, and after it is detached itself.
fn a_running_command_sees_who_comes_and_goes(lab: &Lab) {
    let a = lab.container("a", "");
    let shell = Daemon::start(Command::new("ip").args(["netns", "exec", a.netns.name(), "sleep", "1000"]));
    let mut run = lab.netdp.command("run --name r -- sleep 1000");
    let _run = Daemon::start(&mut run);
    eventually("both commands run", || {
        resolve_beside(shell.pid(), "r").is_some() && a.netns.processes().contains(&shell.pid())
    });
    let target = lab.netdp.json("inspect r")["netns"].as_str().expect("a target").to_owned();
    let running: u32 = target.strip_prefix("pid:").expect("a pid").parse().expect("a number");
    for _ in 0..3 {
        let b = lab.container("b", "");
        for pid in [shell.pid(), running] {
            assert_eq!(resolve_beside(pid, "b"), address(&b));
        }
        lab.netdp.ok("detach b");
        lab.remove_netns("b");
        for pid in [shell.pid(), running] {
            assert_eq!((resolve_beside(pid, "b"), resolve_beside(pid, "a")), (None, address(&a)));
        }
    }
    let b = lab.container("b", "");
    drop(b);
    lab.remove_netns("b");
    eventually("b is gone", || lab.netdp.ok("gc").contains("b: removed"));
    assert_eq!(resolve_beside(running, "b"), None, "after gc");
    lab.netdp.ok("detach a");
    assert_eq!((resolve_beside(running, "a"), resolve_beside(shell.pid(), "r")), (None, None));
}

/// S7.
fn the_host_is_reached_by_name(lab: &Lab) {
    let a = lab.container("a", "");
    for address in [a.gateway, Ipv4Addr::UNSPECIFIED.into()] {
        let _http = Server::http(&lab.host, "service", address, PORT);
        let url = format!("http://{HOST_NAME}:{PORT}/");
        let curl = ["curl", "-sS", "-m", "3", "--noproxy", "*", &url];
        let output = Command::new("ip")
            .args(["netns", "exec", a.netns.name()])
            .args(curl)
            .output()
            .expect("running ip");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.starts_with(&format!("service {}", a.address)), "{output:?}");
        let mut run = lab.netdp.command("run --name r --");
        let output = run.args(curl).output().expect("running netdp");
        assert!(String::from_utf8_lossy(&output.stdout).starts_with("service "), "{output:?}");
    }
    a.netns.sh(&format!("ping -c 1 -W 2 {HOST}"));
}

/// Without netdp, a command in `ip netns exec` sees the host's files.
fn what_the_host_knows_stays_known(lab: &Lab) {
    let words = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
        lines
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .filter(|line| !line.is_empty())
            .collect()
    };
    let a = lab.container("a", "");
    let read = |path: &Path| words(&fs::read_to_string(path).expect("a file"));
    let ours = read(&dir(&a.netns).join("hosts"));
    for line in read(Path::new("/etc/hosts")).iter().filter(|line| !line.contains("localhost")) {
        assert!(ours.contains(line), "{line:?} is not in {ours:?}");
    }
    let (host, ours) = (read(Path::new("/etc/resolv.conf")), read(&dir(&a.netns).join("resolv.conf")));
    let loopback = |line: &String| line.starts_with("nameserver 127.") || line.starts_with("nameserver ::1");
    assert!(!ours.iter().any(loopback), "{ours:?}");
    assert!(host.iter().filter(|line| !loopback(line)).all(|line| ours.contains(line)), "{host:?}, {ours:?}");
}

fn a_second_network_adds_its_names(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.50.0.0/24");
    let (a, b, c) = (lab.container("a", ""), lab.container("b", ""), lab.container("c", "--network red"));
    lab.attach("a-red", &a.netns, "--network red --ifname eth1");
    assert_eq!((resolve(&a.netns, "b"), resolve(&a.netns, "c")), (address(&b), address(&c)));
    assert_eq!(resolve(&c.netns, "a-red"), Some("10.50.0.3".into()));
    lab.netdp.ok("detach a-red");
    assert_eq!((resolve(&a.netns, "b"), resolve(&a.netns, "c")), (address(&b), None));
    assert_eq!(resolve(&c.netns, "a-red"), None);
}

fn files_of_others_are_left_alone(lab: &Lab) {
    let (plain, linked, edited) = (lab.netns("plain"), lab.netns("linked"), lab.netns("edited"));
    let text = "192.0.2.7 mine\n";
    fs::create_dir_all(dir(&plain)).expect("a directory");
    fs::write(dir(&plain).join("hosts"), text).expect("a file");
    fs::create_dir_all(dir(&linked)).expect("a directory");
    std::os::unix::fs::symlink("/nowhere", dir(&linked).join("hosts")).expect("a link");
    for netns in [&plain, &linked, &edited] {
        let name = netns.name().rsplit('-').next().expect("a role").to_owned();
        lab.attach(&name, netns, "");
    }
    assert_eq!(resolve(&plain, "mine"), Some("192.0.2.7".into()));
    assert!(dir(&plain).join("resolv.conf").exists(), "the other file is netdp's");
    // Its owner has taken over a file of ours.
    fs::write(dir(&edited).join("hosts"), text).expect("writing");
    fs::write(dir(&edited).join("other"), text).expect("writing");
    lab.container("late", "");
    lab.netdp.ok("down");
    for netns in [&plain, &edited] {
        assert_eq!(fs::read_to_string(dir(netns).join("hosts")).expect("the file"), text);
        assert!(!dir(netns).join("resolv.conf").exists());
    }
    assert!(dir(&linked).join("hosts").is_symlink() && !dir(&linked).join("resolv.conf").exists());
    for netns in [&plain, &linked, &edited] {
        fs::remove_dir_all(dir(netns)).expect("removing");
    }
    let _ = fs::remove_dir(NETNS);
}

fn instances_leave_each_others_files(lab: &Lab) {
    let other = Netdp { instance: format!("{}-2", lab.id), ..lab.netdp.clone() };
    let a = lab.container("a", "");
    let b = lab.netns("b");
    other.ok("network create green --subnet 10.52.0.0/24");
    other.ok(&format!("attach {} --name b --network green", b.name()));
    assert_eq!((resolve(&a.netns, "a"), resolve(&a.netns, "b")), (address(&a), None));
    assert!(resolve(&b, "b").is_some());
    // Of one namespace, the first instance has the files.
    other.ok(&format!("attach {} --name a2 --network green --ifname eth1", a.netns.name()));
    assert_eq!((resolve(&a.netns, "a"), resolve(&a.netns, "a2")), (address(&a), None));
    lab.netdp.ok("down");
    assert!(resolve(&b, "b").is_some(), "another instance's down took it");
    other.ok("gc");
    assert_eq!((resolve(&a.netns, "a"), resolve(&a.netns, "a2").is_some()), (None, true));
    other.ok("down");
    assert!(!dir(&a.netns).exists() && !dir(&b).exists());
}

/// Of a namespace that is not attached any more: a killed command's, or from before the machine was started again.
fn what_was_left_behind_goes(lab: &Lab) {
    let a = lab.container("a", "");
    let stale = Path::new(NETNS).join(format!("{}-stale", lab.id));
    let leave = || {
        fs::create_dir(&stale).expect("a directory");
        for file in FILES {
            fs::copy(dir(&a.netns).join(file), stale.join(file)).expect("copying");
        }
    };
    leave();
    lab.netdp.ok("gc");
    assert!(!stale.exists() && dir(&a.netns).exists());
    leave();
    // Torn by a power cut: written anew.
    fs::write(dir(&a.netns).join("hosts"), &fs::read(stale.join("hosts")).expect("reading")[..300])
        .expect("writing");
    lab.netdp.ok("gc");
    assert_eq!(resolve(&a.netns, "a"), address(&a));
    leave();
    fs::remove_dir_all(lab.netdp.state()).expect("removing the state");
    lab.host.sh("ip link del netdp0");
    lab.host.sh(&format!("ip link del {}", a.host_ifname));
    lab.netdp.ok("down");
    assert!(!stale.exists() && !dir(&a.netns).exists());
}

fn reserved_names_are_refused(lab: &Lab) {
    let netns = lab.netns("a");
    for name in ["localhost", "LocalHost", HOST_NAME] {
        let error = lab.netdp.refused(2, &format!("attach {} --name {name}", netns.name()));
        assert!(error.contains(name) && error.contains("--name"), "{error}");
        lab.netdp.refused(2, &format!("run --name {name} -- true"));
    }
}
