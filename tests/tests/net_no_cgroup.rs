//! A host without a cgroup2 tree: everything works but what the socket programs do, and netdp says so each time.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use netdp_tests::ask::{Transport, answered, unanswered};
use netdp_tests::lab::{HOST, Lab};
use netdp_tests::netdp::Outcome;
use netdp_tests::on_ebpf_only;
use netdp_tests::server::Server;

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;
/// What a warning begins with.
const WARNING: &str = "warning: the host itself does not reach published ports";

on_ebpf_only!(a_host_without_cgroup2: "it needs no cgroup");

/// Runs netdp where no cgroup2 tree is mounted: it goes to the mount namespace of pid 1, which is in this case made for
/// it.
fn without_cgroup2(lab: &Lab, line: &str) -> Outcome {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("the mounts");
    let trees = mounts.lines().filter(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let unmount: String =
        trees.filter_map(|line| line.split(' ').nth(1)).map(|tree| format!("umount -l {tree}; ")).collect();
    let netdp = lab.netdp.command(line);
    let mut command = Command::new("unshare");
    command
        .args(["--fork", "--pid", "--mount-proc", "sh", "-c"])
        .arg(format!("{unmount}exec \"$@\""))
        .arg("sh");
    command.arg(netdp.get_program()).args(netdp.get_args());
    Outcome::of(&command.output().expect("running unshare"))
}

#[track_caller]
fn warned(outcome: &Outcome) {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let warnings = outcome.stderr.lines().filter(|line| line.starts_with(WARNING)).count();
    assert_eq!(warnings, 1, "{outcome:?}");
}

fn a_host_without_cgroup2(lab: &Lab) {
    // Pins in a BPF file system that is mounted where no cgroup2 tree is would go with that mount namespace. Another
    // instance has it mounted before.
    let beside = Lab::new(lab.variant);
    beside.container("other", "");
    let web = lab.netns("web");
    let doctor = without_cgroup2(lab, "doctor");
    let found = doctor.stdout.lines().find(|line| line.contains("cgroup2")).unwrap_or_default();
    assert!(found.starts_with("WRONG") && found.contains("not mounted"), "{doctor:?}");
    warned(&without_cgroup2(lab, &format!("attach {} --name web -p {PUBLISHED}:{PORT}", web.name())));
    let endpoint = lab.inspect("web", &web);
    for interface in [(&lab.host, endpoint.host_ifname.as_str()), (&web, "eth0")] {
        lab.apply_offloads(interface.0, interface.1);
    }
    // Each of them, also when there is a tree again.
    warned(&without_cgroup2(lab, &format!("publish web 8089:{PORT}")));
    warned(&lab.netdp.run(&format!("publish web 8090:{PORT}")));
    let other = lab.netns("other");
    let quiet = lab.netdp.run(&format!("attach {} --name other", other.name()));
    assert!(quiet.code == 0 && !quiet.stderr.contains("warning"), "nothing is published: {quiet:?}");
    let doctor = lab.netdp.ok("doctor");
    let sockets = doctor.lines().find(|line| line.contains("host sockets")).unwrap_or_default();
    assert!(sockets.starts_with("WRONG"), "{doctor}");
    // What is said is so.
    let _server = Server::tcp(&web, "web", endpoint.address, &[PORT]);
    for port in [PUBLISHED, 8089, 8090] {
        answered(&lab.world, Transport::Tcp, (HOST, port), "web");
        answered(&other, Transport::Tcp, (HOST, port), "web");
        unanswered(&lab.host, Transport::Tcp, (HOST, port));
    }
    lab.host.enter(|| TcpListener::bind((HOST, PUBLISHED)).map(drop)).expect("nobody holds the port");
}
