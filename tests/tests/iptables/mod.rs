//! Others' rules, and a process that may not call bpf().

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Output, Stdio};

use netdp_tests::netns::Netns;
use netdp_tests::seccomp::forbid_bpf;

/// The two ways into the kernel.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Backend {
    /// nf_tables.
    Nft,
    /// x_tables.
    Legacy,
}

impl Backend {
    pub(crate) const ALL: [Self; 2] = [Self::Nft, Self::Legacy];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
        }
    }

    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Nft => Self::Legacy,
            Self::Legacy => Self::Nft,
        }
    }
}

/// What Docker and firewalld write, in short, and rules of an administrator's.
pub(crate) const OTHERS: &str = r#"*raw
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
-A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o tun0 -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 8081 -j DNAT --to-destination 172.17.0.2:80
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:DOCKER-ISOLATION-STAGE-1 - [0:0]
:DOCKER-USER - [0:0]
:FWD_public - [0:0]
-A INPUT -s 203.0.113.7/32 -m comment --comment "an administrator's" -j DROP
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER-ISOLATION-STAGE-1
-A FORWARD -j FWD_public
-A FORWARD -j REJECT --reject-with icmp-host-prohibited
-A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DROP
-A DOCKER-USER -j DROP
-A FWD_public -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"#;

/// Adds rules to a host's.
pub(crate) fn put(host: &Netns, backend: Backend, rules: &str) {
    let mut restore = host.command(format!("iptables-{}-restore", backend.name()));
    let started = restore.args(["--noflush", "--wait", "5"]).stdin(Stdio::piped()).spawn();
    let mut child = started.expect("starting iptables-restore");
    child.stdin.take().expect("stdin").write_all(rules.as_bytes()).expect("feeding iptables-restore");
    assert!(child.wait().expect("waiting for iptables-restore").success());
}

/// All rules of both families, with chains and policies that aren't the kernel's defaults, without counters.
pub(crate) fn rules(host: &Netns, backend: Backend) -> Vec<String> {
    let mut lines = Vec::new();
    for family in ["iptables", "ip6tables"] {
        let saved = host.sh(&format!("{family}-{}-save", backend.name()));
        let mut table = "";
        for line in saved.lines() {
            match line.strip_prefix('*') {
                Some(name) => table = name,
                None if line.starts_with('#') || line.contains(" ACCEPT [") || line == "COMMIT" => {}
                None => lines.push(format!("{family} {table} {}", without_counters(line))),
            }
        }
    }
    lines
}

fn without_counters(line: &str) -> String {
    line.split(" [").next().unwrap_or(line).to_owned()
}

/// An iptables-restore, and an ip6tables-restore, that fail when they are told to.
#[derive(Debug)]
pub(crate) struct FailingRestore {
    dir: tempfile::TempDir,
}

impl FailingRestore {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for program in ["iptables-restore", "ip6tables-restore"] {
            // What is tried again fails again, until netdp gives up; then it has to take back what it did.
            let script = format!(
                "#!/bin/sh\nn=$(($(cat $CALLS) + 1)); echo $n > $CALLS\n\
                 if [ $n -ge $FAIL_AT ] && [ $n -lt $((FAIL_AT + 3)) ]; then echo out of order >&2; exit 1; fi\n\
                 PATH=/usr/sbin:/sbin exec {program} \"$@\"\n"
            );
            let path = dir.path().join(program);
            fs::write(&path, script).expect("a script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("making it executable");
        }
        Self { dir }
    }

    /// Runs a command; the given call of either program fails, and its repetitions.
    pub(crate) fn run(&self, mut command: Command, fail_at: u32) -> Output {
        let calls = self.dir.path().join("calls");
        fs::write(&calls, "0").expect("a counter");
        let path = format!("{}:{}", self.dir.path().display(), std::env::var("PATH").expect("PATH"));
        command.env("CALLS", calls).env("FAIL_AT", fail_at.to_string()).env("PATH", path);
        command.output().expect("running netdp")
    }
}

/// Runs a command on a kernel that has no bpf(), as far as it can tell.
pub(crate) fn without_bpf(mut command: Command) -> Output {
    // SAFETY: between fork and exec there is one system call; nothing is allocated.
    unsafe { command.pre_exec(forbid_bpf) };
    command.output().expect("running netdp")
}
