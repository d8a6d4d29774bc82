//! The datapath stands alone: no netdp process, no open file, only pins (G7).

use std::fs;
use std::process::Command;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::footprint::{Objects, files_below};
use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::netdp::Netdp;
use netdp_tests::on_every_datapath;
use netdp_tests::server::Server;
use netdp_tests::variant::Datapath;

const PORT: u16 = 7000;

on_every_datapath!(
    traffic_needs_no_process,
    what_is_made_survives_ip_netns_exec,
    a_killed_command_leaves_a_working_instance,
    commands_between_packets_lose_none,
);

/// Processes that run netdp for this instance.
fn processes(netdp: &Netdp) -> Vec<String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(&netdp.instance) && line.contains("netdp")).collect()
}

fn traffic_needs_no_process(lab: &Lab) {
    let web = lab.container("web", &format!("-p 8088:{PORT}"));
    assert_eq!(processes(&lab.netdp), Vec::<String>::new());
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
    assert_eq!(processes(&lab.netdp), Vec::<String>::new(), "no proxy appeared");
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
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
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
