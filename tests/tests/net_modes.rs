//! `--network none|host|container:NAME`: namespaces without an interface of netdp's (S5).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::lab::{Lab, UPLINK, WORLD};
use netdp_tests::netns::{Netns, OwnedNetns};
use netdp_tests::on_every_datapath;
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use serde_json::{Value, json};

const PORT: u16 = 7000;

on_every_datapath!(
    none_has_only_loopback,
    host_is_the_hosts_namespace,
    container_shares_a_namespace,
    a_lender_stays_as_long_as_it_lends,
    what_is_gone_is_collected,
    a_namespace_that_is_there_is_refused,
    there_is_nothing_to_publish,
    run_has_the_same_modes,
    down_removes_the_names_and_no_more,
);

/// The file of a namespace that netdp makes.
fn file(name: &str) -> PathBuf {
    Path::new("/run/netns").join(name)
}

fn inode(name: &str) -> u64 {
    fs::metadata(file(name)).expect("a namespace").ino()
}

fn listed(lab: &Lab, name: &str) -> Value {
    let endpoint = lab.netdp.json(&format!("inspect {name}"));
    assert_eq!(endpoint["addresses"], json!([]));
    assert_eq!(endpoint["ifname"], Value::Null);
    json!([endpoint["network"], endpoint["state"]])
}

fn none_has_only_loopback(lab: &Lab) {
    let name = format!("{}-n", lab.id);
    lab.netdp.refused(2, &format!("attach {name} --network none"));
    lab.netdp.ok(&format!("attach {name} --create --network none"));
    let netns = Netns::named(&name);
    assert_eq!(netns.sh("ip -o link").lines().count(), 1);
    netns.sh("ping -c 1 -W 1 127.0.0.1");
    assert!(!netns.try_sh(&format!("ping -c 1 -W 1 {WORLD}")).status.success());
    assert_eq!(listed(lab, &name), json!(["none", "up"]));
    assert!(lab.netdp.ok("ls").contains(&name));
    drop(netns);
    lab.netdp.ok(&format!("detach {name}"));
    assert!(!file(&name).exists());
    // One that is there gets nothing, and stays.
    let there = lab.netns("there");
    lab.netdp.ok(&format!("attach {} --network none", there.name()));
    // It may have an interface later, by another name.
    let (a, _tcp) = (lab.attach("a", &there, ""), Server::tcp(&lab.world, "world", WORLD, &[PORT]));
    answered(&a.netns, Transport::Tcp, (WORLD, PORT), "world");
    lab.netdp.ok("detach a");
    lab.netdp.ok(&format!("detach {}", there.name()));
    assert!(file(there.name()).exists());
}

fn host_is_the_hosts_namespace(lab: &Lab) {
    let name = format!("{}-h", lab.id);
    lab.netdp.ok(&format!("attach {name} --name h --create --network host"));
    assert_eq!(inode(&name), inode(lab.host.name()));
    let links =
        Command::new("ip").args(["netns", "exec", &name, "ip", "-o", "link"]).output().expect("running ip");
    assert!(String::from_utf8_lossy(&links.stdout).contains(UPLINK), "{links:?}");
    assert_eq!(listed(lab, "h"), json!(["host", "up"]));
    let error = lab.netdp.refused(2, &format!("attach {name} --name again"));
    assert!(error.contains("the host's own network namespace"), "{error}");
    let links = lab.host.sh("ip -o link");
    lab.netdp.ok("detach h");
    assert!(!file(&name).exists());
    assert_eq!(lab.host.sh("ip -o link"), links);
}

fn container_shares_a_namespace(lab: &Lab) {
    let (a, b) = (lab.container("a", "-p 8088:80"), lab.container("b", ""));
    let name = format!("{}-shared", lab.id);
    lab.netdp.ok(&format!("attach {name} --name s --create --network container:a"));
    let shared = OwnedNetns::adopt(&name);
    assert_eq!(inode(&name), inode(a.netns.name()));
    assert_eq!(listed(lab, "s"), json!(["container:a", "up"]));
    let _tcp = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    answered(&shared, Transport::Tcp, (WORLD, PORT), "world");
    // With the names that its lender has.
    let known = |name: &str| {
        let mut exec = Command::new("ip");
        exec.args(["netns", "exec", shared.name(), "getent", "-s", "files", "ahostsv4", name]);
        exec.status().expect("running ip").success()
    };
    assert!(known("a") && known("b") && known("host.netdp.internal"));
    lab.netdp.ok("detach b");
    assert!(!known("b") && known("a"));
    drop(b);
    // Who borrows lends as well.
    let third = format!("{}-third", lab.id);
    lab.netdp.ok(&format!("attach {third} --create --network container:s"));
    assert_eq!(inode(&third), inode(a.netns.name()));
    lab.netdp.ok(&format!("detach {third}"));
    lab.netdp.ok("detach s");
    assert!(!file(&name).exists() && file(a.netns.name()).exists());
    assert!(!Path::new("/etc/netns").join(&name).exists());
    answered(&a.netns, Transport::Tcp, (WORLD, PORT), "world");
}

fn a_lender_stays_as_long_as_it_lends(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.50.0.0/24");
    let a = lab.container("a", "");
    lab.attach("a-red", &a.netns, "--network red --ifname eth1");
    for name in ["s", "t"] {
        lab.netdp.ok(&format!("attach {}-{name} --name {name} --create --network container:a", lab.id));
    }
    let error = lab.netdp.refused(2, "detach a");
    assert!(error.contains("s, t has its namespace") && error.contains("container:a"), "{error}");
    // Its other interface was lent to nobody.
    lab.netdp.ok("detach a-red");
    lab.netdp.ok("detach s");
    let error = lab.netdp.refused(2, "detach a");
    assert!(error.contains(" t has"), "{error}");
    lab.netdp.ok("detach t");
    lab.netdp.ok("detach a");
    let left = [format!("{}-s", lab.id), format!("{}-t", lab.id)];
    assert!(left.iter().all(|name| !file(name).exists()));
}

fn what_is_gone_is_collected(lab: &Lab) {
    lab.container("a", "");
    let (s, n) = (format!("{}-s", lab.id), format!("{}-n", lab.id));
    lab.netdp.ok(&format!("attach {s} --name s --create --network container:a"));
    lab.netdp.ok(&format!("attach {n} --name n --create --network none"));
    lab.host.sh(&format!("ip netns del {s}"));
    assert_eq!(listed(lab, "s"), json!(["container:a", "gone"]));
    // A name that is gone can be given again.
    lab.netdp.ok(&format!("attach {s} --name s --create --network none"));
    assert_eq!(listed(lab, "s"), json!(["none", "up"]));
    lab.host.sh(&format!("ip netns del {s}"));
    lab.host.sh(&format!("ip netns del {n}"));
    assert_eq!(lab.netdp.ok("gc"), "n: removed\ns: removed\n");
    // The lender's own name goes: its namespace lives on with whom it was lent to.
    lab.netdp.ok(&format!("attach {s} --name s --create --network container:a"));
    lab.remove_netns("a");
    assert_eq!(lab.netdp.ok("gc"), "");
    let shared = Netns::named(&s);
    shared.sh(&format!("ping -c 1 -W 2 {WORLD}"));
    drop(shared);
    lab.netdp.ok("detach s");
    eventually("the namespace goes", || lab.netdp.ok("gc").contains("a: removed"));
    assert_eq!(lab.netdp.json("ls"), json!([]));
}

fn a_namespace_that_is_there_is_refused(lab: &Lab) {
    lab.container("a", "");
    let there = lab.netns("there");
    let missing = format!("{}-missing", lab.id);
    for (line, wanted) in [
        (format!("attach {} --network host", there.name()), "a namespace of its own"),
        (format!("attach {} --create --network host", there.name()), "a namespace of its own"),
        (format!("attach {} --create --network container:a", there.name()), "a namespace of its own"),
        (format!("attach pid:{} --network host", std::process::id()), "a namespace of its own"),
        (format!("attach {missing} --network host"), "--create"),
        (format!("attach {missing} --create --network container:nobody"), "no endpoint is called nobody"),
        (format!("attach {missing} --create --network container:"), "name is empty"),
        (format!("attach {missing} --create --network Host"), "no network is called Host"),
        (format!("attach {missing} --name a --create --network none"), "endpoint a exists already"),
        (format!("attach {} --network none", lab.host.name()), "the host's own network namespace"),
    ] {
        let error = lab.netdp.refused(2, &line);
        assert!(error.contains(wanted), "netdp {line}: {error}");
    }
    assert!(!file(&missing).exists());
    assert_eq!(lab.netdp.json("ls").as_array().map(Vec::len), Some(1));
}

fn there_is_nothing_to_publish(lab: &Lab) {
    lab.container("a", "");
    let name = format!("{}-x", lab.id);
    for mode in ["none", "host", "container:a"] {
        for option in ["-p 8080:80", "--ip 10.9.0.9", "--mac 02:00:00:00:00:09", "--ifname eth9"] {
            let error = lab.netdp.refused(2, &format!("attach {name} --create --network {mode} {option}"));
            assert!(error.contains(&format!("--network {mode}: there is nothing to translate")), "{error}");
        }
        lab.netdp.ok(&format!("attach {name} --name x --create --network {mode}"));
        for verb in ["publish x 8080:80", "unpublish x --all"] {
            let error = lab.netdp.refused(2, verb);
            assert!(error.contains(&format!("x has --network {mode}")), "{error}");
            assert!(error.contains("nothing to translate"), "{error}");
        }
        lab.netdp.ok("detach x");
    }
}

fn run_has_the_same_modes(lab: &Lab) {
    let a = lab.container("a", "");
    assert_eq!(lab.netdp.ok("run --network none -- ip -o link").lines().count(), 1);
    lab.netdp.ok("run --network none -- ping -c 1 -W 1 127.0.0.1");
    assert!(lab.netdp.ok("run --network host -- ip -o link").contains(UPLINK));
    let shared = lab.netdp.ok("run --network container:a -- ip -o -4 addr show eth0");
    assert!(shared.contains(&a.address.to_string()), "{shared}");
    let own = lab.netdp.ok("run --network container:a -- getent -s files ahostsv4 a");
    assert!(own.starts_with(&a.address.to_string()), "{own}");
    lab.netdp.ok(&format!("attach {}-s --name s --create --network container:a", lab.id));
    let shared = lab.netdp.ok("run --network container:s -- ip -o -4 addr show eth0");
    assert!(shared.contains(&a.address.to_string()), "{shared}");
    for (line, wanted) in [
        ("run --network container:a -p 80:80 -- true", "nothing to translate"),
        ("run --network host --name x -- true", "nothing to translate"),
        ("run --network container:nobody -- true", "no endpoint is called nobody"),
    ] {
        let error = lab.netdp.refused(2, line);
        assert!(error.contains(wanted), "netdp {line}: {error}");
    }
    assert_eq!(lab.netdp.json("ls").as_array().map(Vec::len), Some(2));
}

fn down_removes_the_names_and_no_more(lab: &Lab) {
    lab.container("a", "");
    let there = lab.netns("there");
    lab.netdp.ok(&format!("attach {} --name there --network none", there.name()));
    let names = ["none", "host", "container:a"].map(|mode| {
        let name = format!("{}-in-{}", lab.id, mode.replace(':', "-"));
        lab.netdp.ok(&format!("attach {name} --create --network {mode}"));
        name
    });
    let links = lab.host.sh(&format!("ip -o link show {UPLINK}"));
    lab.netdp.ok("down");
    assert!(names.iter().all(|name| !file(name).exists()));
    assert!(file(there.name()).exists());
    assert_eq!(lab.host.sh(&format!("ip -o link show {UPLINK}")), links);
}
