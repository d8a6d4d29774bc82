//! No footprint: no host-wide sysctl while it runs, nothing at all afterwards (G13).

use std::fs;
use std::path::Path;
use std::sync::Mutex;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::footprint::{Footprint, Objects, settle};
use netdp_tests::lab::{Lab, UPLINK, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use netdp_tests::sysctl;
use netdp_tests::variant::Datapath;
use netdp_tests::{on_every_datapath, on_every_datapath_and_clsact};

const PORT: u16 = 7000;

/// Mounts are the whole machine's: these tests do not run beside each other.
static ALONE: Mutex<()> = Mutex::new(());

on_every_datapath!(no_host_wide_sysctl_is_written);
on_every_datapath_and_clsact!(
    down_leaves_nothing,
    down_leaves_what_others_changed,
    a_failed_command_changes_nothing,
);

fn alone() -> std::sync::MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn no_host_wide_sysctl_is_written(lab: &Lab) {
    let _alone = alone();
    let before = sysctl::read_all(&lab.host);
    let machine = Netns::of_pid(std::process::id());
    let machine_before = sysctl::read_all(&machine);
    lab.netdp.ok("network create red --subnet 10.50.0.0/24");
    let a = lab.container("a", "-p 8088:80 -p 127.0.0.1:8089:80");
    lab.container("b", "--network red");
    let _world = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    answered(&a.netns, Transport::Tcp, (WORLD, PORT), "world");
    let after = sysctl::read_all(&lab.host);
    let mut changed = sysctl::changed(&before, &after);
    if lab.variant.datapath == Datapath::Iptables {
        // Answers come by the uplink, and IPv4 asks the interface by which a packet comes.
        changed.retain(|name| !name.starts_with(&format!("net/ipv4/conf/{UPLINK}/forwarding: 0 -> 1")));
    }
    assert_eq!(changed, Vec::<String>::new());
    let per_interface = |name: &&str| name.contains("/conf/") || name.contains("/neigh/");
    let others: Vec<&str> =
        sysctl::added(&before, &after).into_iter().filter(|name| !per_interface(name)).collect();
    assert_eq!(others, Vec::<&str>::new());
    assert_eq!(sysctl::changed(&machine_before, &sysctl::read_all(&machine)), Vec::<String>::new());
    // Before others may look: the last instance unmounts what the first one mounted.
    lab.netdp.ok("down");
}

fn down_leaves_nothing(lab: &Lab) {
    let _alone = alone();
    settle(&lab.host);
    let before = Footprint::of(&lab.host);
    for round in 0..2 {
        lab.netdp.ok("network create red --subnet 10.50.0.0/24");
        let a = lab.container(&format!("a{round}"), "-p 8088:80 -p 127.0.0.1:8089:80");
        lab.container(&format!("b{round}"), "--network red -p 8090:80/udp");
        let world = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
        answered(&a.netns, Transport::Tcp, (WORLD, PORT), "world");
        drop(world);
        let objects = Objects::pinned(&lab.netdp);
        assert_eq!(objects.is_empty(), lab.variant.datapath == Datapath::Iptables);
        lab.netdp.ok("down");
        assert_eq!(before.differences(&Footprint::of(&lab.host)), Vec::<String>::new());
        assert!(!lab.netdp.pins().exists() && !lab.netdp.state().exists());
        // The kernel frees them after a grace period.
        eventually("programs and maps gone", || objects.still_there().is_empty());
        assert!(!a.netns.try_sh("ip link show eth0").status.success(), "eth0 is left in the container");
        // Nothing to do is no error.
        lab.netdp.ok("down");
    }
}

/// What somebody else did meanwhile stays: sysctls, rules, routes, addresses, qdiscs, what is pinned beside netdp.
fn down_leaves_what_others_changed(lab: &Lab) {
    let _alone = alone();
    settle(&lab.host);
    let pristine = Footprint::of(&lab.host);
    lab.container("a", "-p 8088:80");
    // Only there with eBPF, or if somebody else mounted it.
    let foreign = (lab.variant.datapath == Datapath::Ebpf)
        .then(|| Path::new("/sys/fs/bpf").join(format!("{}-foreign", lab.id)));
    if let Some(foreign) = &foreign {
        fs::create_dir(foreign).expect("a directory of somebody else's");
    }
    for line in [
        "sysctl -qw net.ipv4.ip_forward=1",
        "sysctl -qw net.ipv4.conf.up0.rp_filter=2",
        "ip addr add 10.77.0.1/24 dev up0",
        "ip route add 10.78.0.0/16 via 10.99.0.3",
        "iptables -w -A FORWARD -s 10.79.0.0/16 -j ACCEPT",
    ] {
        lab.host.sh(line);
    }
    // Without TCX there is one already.
    if !lab.host.sh("tc qdisc show dev up0").contains("clsact") {
        lab.host.sh("tc qdisc add dev up0 clsact");
    }
    let filter = ["filter", "add", "dev", "up0", "ingress", "pref", "7", "bpf", "bytecode", "1,6 0 0 0,"];
    let filter = lab.host.command("tc").args(filter).output().expect("running tc");
    assert!(filter.status.success(), "{filter:?}");
    let ours_is_mounted = Path::new("/run/netdp/.mounted-bpffs").exists();
    let down = lab.netdp.run("down");
    let stays = foreign.as_ref().is_none_or(|foreign| foreign.exists());
    // The directory is the machine's: it goes whatever comes of this.
    if let Some(foreign) = &foreign {
        fs::remove_dir(foreign).expect("removing it");
    }
    assert!(stays && down.code == 0, "{down:?}");
    let last = !Path::new("/sys/fs/bpf/netdp").exists();
    let is_told = foreign.is_some() && ours_is_mounted && last;
    assert_eq!(down.stderr.contains("/sys/fs/bpf stays mounted"), is_told, "{down:?}");
    let after = Footprint::of(&lab.host);
    let changes = pristine.differences(&after);
    let theirs = [
        "ip_forward",
        "forwarding",
        "rp_filter",
        "accept_redirects",
        "10.77.",
        "10.78.",
        "clsact",
        "tables-save",
        "nft list",
        "bpf ",
    ];
    let ours: Vec<&String> =
        changes.iter().filter(|line| !theirs.iter().any(|part| line.contains(part))).collect();
    assert!(ours.is_empty(), "{ours:#?}");
    for kept in ["10.77.0.1/24", "10.78.0.0/16", "10.79.0.0/16", "clsact"] {
        assert!(after.listings.iter().any(|line| line.contains(kept)), "{kept} is gone");
    }
    let filters = lab.host.sh("tc filter show dev up0 ingress");
    assert!(filters.contains("pref 7") && !filters.contains("from_world"), "{filters}");
    assert_eq!(
        (
            after.sysctls["net/ipv4/ip_forward"].as_str(),
            after.sysctls["net/ipv4/conf/up0/rp_filter"].as_str()
        ),
        ("1", "2")
    );
    // Now that nothing of others is there, the next one unmounts.
    lab.netdp.ok("down");
}

fn a_failed_command_changes_nothing(lab: &Lab) {
    let _alone = alone();
    lab.container("a", "-p 8088:80");
    settle(&lab.host);
    let before = Footprint::of(&lab.host);
    let (endpoints, networks) = (lab.netdp.json("ls"), lab.netdp.json("network ls"));
    let other = lab.netns("other");
    for options in [
        "-p 8090:80 -p 8088:80",
        "--ip 192.0.2.1",
        "--ifname waytoolongforalinux",
        "--mac 01:00:00:00:00:01",
        "--network nowhere",
        "--ifname lo",
    ] {
        let outcome = lab.netdp.run(&format!("attach {} --name other {options}", other.name()));
        assert_ne!(outcome.code, 0, "attach {options}: {outcome:?}");
        assert_eq!(before.differences(&Footprint::of(&lab.host)), Vec::<String>::new(), "after {options}");
        assert_eq!(
            (lab.netdp.json("ls"), lab.netdp.json("network ls")),
            (endpoints.clone(), networks.clone())
        );
    }
    assert_eq!(other.sh("ip -o link").lines().count(), 1, "only lo");
    lab.netdp.ok("down");
}
