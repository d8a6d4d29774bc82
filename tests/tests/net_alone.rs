//! The datapath stands alone: no netdp process, no open file, only pins (G7).

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use netdp_tests::ask::{Transport, answered, ask};
use netdp_tests::footprint::{Objects, files_below};
use netdp_tests::lab::{HOST, Lab, WORLD, WORLD_2, WORLD_LINK};
use netdp_tests::server::Server;
use netdp_tests::variant::{Datapath, Family};
use netdp_tests::{on_every_datapath, on_every_datapath_in_both_families};

const PORT: u16 = 7000;

on_every_datapath!(
    traffic_needs_no_process,
    what_is_made_survives_ip_netns_exec,
    a_killed_command_leaves_a_working_instance,
    commands_between_packets_lose_none,
);
on_every_datapath_in_both_families!(changes_of_the_host_are_followed);

fn traffic_needs_no_process(lab: &Lab) {
    let web = lab.container("web", &format!("-p 8088:{PORT}"));
    assert_eq!(lab.netdp.processes(), Vec::<String>::new());
    if lab.variant.datapath == Datapath::Ebpf {
        assert!(
            !files_below(&lab.netdp.pins()).is_empty(),
            "nothing is pinned below {}",
            lab.netdp.pins().display()
        );
        assert!(!Objects::pinned(&lab.netdp).programs.is_empty());
    }
    let _world = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    let _web = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    answered(&web.netns, Transport::Tcp, (WORLD, PORT), "world");
    answered(&lab.world, Transport::Tcp, (HOST, 8088), "web");
    assert_eq!(lab.netdp.processes(), Vec::<String>::new(), "no proxy appeared");
}

/// `ip netns exec` gives its command a mount namespace that dies with it; the pins must not.
fn what_is_made_survives_ip_netns_exec(lab: &Lab) {
    let netns = lab.netns("a");
    let mut attach = Command::new("ip");
    attach.args(["netns", "exec", lab.host.name()]).arg(&lab.netdp.binary);
    attach.args(["--instance", &lab.netdp.instance, "--datapath", lab.netdp.datapath]);
    let output = attach.args(["attach", netns.name(), "--name", "a"]).output().expect("running ip");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    if lab.variant.datapath == Datapath::Ebpf {
        assert!(!files_below(&lab.netdp.pins()).is_empty(), "the pins died with the mount namespace");
    }
    let a = lab.inspect("a", &netns);
    let _world = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    answered(&a.netns, Transport::Tcp, (WORLD, PORT), "world");
}

/// `kill -9` at some instant: the next command works, and so does what was there before.
fn a_killed_command_leaves_a_working_instance(lab: &Lab) {
    let web = lab.container("web", &format!("-p 8088:{PORT}"));
    let _web = Server::tcp(&web.netns, "web", web.address, &[PORT]);
    let victim = lab.netns("victim");
    for milliseconds in [1, 3, 6, 10, 15, 25, 40] {
        let mut attach = Command::new(&lab.netdp.binary);
        attach.args(lab.netdp.options()).args(["attach", victim.name(), "--name", "victim"]);
        let mut child = attach.spawn().expect("running netdp");
        std::thread::sleep(Duration::from_millis(milliseconds));
        let _ = child.kill();
        let _ = child.wait();
        answered(&lab.world, Transport::Tcp, (HOST, 8088), "web");
        lab.netdp.run("detach victim");
        lab.netdp.ok(&format!("attach {} --name victim", victim.name()));
        victim.sh(&format!("ping -c 1 -W 2 {WORLD}"));
        lab.netdp.ok("detach victim");
    }
}

/// Changes beside a running transfer do not touch it.
fn commands_between_packets_lose_none(lab: &Lab) {
    let a = lab.container("a", "");
    let spare = lab.netns("spare");
    let _world = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    std::thread::scope(|scope| {
        let client = &a;
        let transfer = scope.spawn(move || {
            for _ in 0..20 {
                netdp_tests::ask::echo_bulk(&client.netns, (WORLD, PORT), 1 << 20);
            }
        });
        while !transfer.is_finished() {
            lab.netdp.ok(&format!("attach {} --name spare -p 8099:80", spare.name()));
            lab.netdp.ok("publish spare 8100:80");
            lab.netdp.ok("unpublish spare 8100:80");
            lab.netdp.ok("detach spare");
        }
        transfer.join().expect("the transfer");
    });
}

/// A neighbour's new MAC, another next hop, another uplink: each within a second, for flows that go on and for new ones.
fn changes_of_the_host_are_followed(lab: &Lab) {
    /// Behind the world.
    const FAR: Ipv4Addr = Ipv4Addr::new(10, 97, 0, 2);
    /// The ends of a second uplink's link.
    const SECOND: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 98, 0, 1), Ipv4Addr::new(10, 98, 0, 2)];
    let family = lab.variant.family;
    let (far, host_prefix) = (lab.at(FAR), if family == Family::V4 { 32 } else { 128 });
    lab.world.sh(&format!("ip addr add {far}/{host_prefix} dev lo nodad"));
    lab.world.sh(&format!("ip link add w1 type veth peer name up1 netns {}", lab.host.name()));
    for (netns, link, address) in [(&lab.host, "up1", SECOND[0]), (&lab.world, "w1", SECOND[1])] {
        netns.sh(&format!("ip addr add {} dev {link} nodad", family.with_prefix(address, 24)));
        netns.sh(&format!("ip link set {link} up"));
    }
    let a = lab.container("a", "");
    let _far = Server::udp(&lab.world, "far", far, &[PORT]);
    let route =
        |via: Ipv4Addr| lab.host.sh(&format!("ip route replace {far}/{host_prefix} via {}", lab.at(via)));
    let peer = || ask(&a.netns, Transport::Udp, (far, PORT)).map(|answer| answer.peer.ip());
    route(WORLD);
    assert_eq!(peer().expect("by the first uplink"), lab.at(HOST));
    let flow = a.netns.enter(|| {
        let socket = UdpSocket::bind((a.address, 0))?;
        socket.connect((far, PORT))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        Ok::<_, std::io::Error>(socket)
    });
    let flow = flow.expect("a socket");
    let goes_on = |what: &str| {
        let started = Instant::now();
        while flow.send(b"on").is_err() || flow.recv(&mut [0; 256]).is_err() {
            assert!(started.elapsed() < Duration::from_secs(2), "{what}: not after {:?}", started.elapsed());
        }
    };
    goes_on("the flow");
    // Who has a new MAC says so.
    let notify = if family == Family::V4 { ("ipv4", "arp_notify") } else { ("ipv6", "ndisc_notify") };
    lab.world.set_sysctl(&format!("net/{}/conf/{WORLD_LINK}/{}", notify.0, notify.1), "1");
    lab.world.sh(&format!("ip link set {WORLD_LINK} address 02:00:00:00:99:99"));
    goes_on("a neighbour's MAC");
    // The next hop's other address.
    route(WORLD_2);
    goes_on("another next hop");
    // Connections can't take their address along; new ones have the other.
    route(SECOND[1]);
    let started = Instant::now();
    while peer().ok() != Some(lab.at(SECOND[0])) {
        assert!(started.elapsed() < Duration::from_secs(2), "another uplink: {:?}", peer());
    }
    assert_eq!(lab.netdp.processes(), Vec::<String>::new());
}
