//! Debian packages.

use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{find, is_root, run};

/// A program of the tests and the Debian package it comes in.
const TOOLS: [(&str, &str); 10] = [
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("ethtool", "ethtool"),
    ("ping", "iputils-ping"),
    ("curl", "curl"),
    ("dig", "dnsutils"),
    ("dnsmasq", "dnsmasq-base"),
    ("iperf3", "iperf3"),
    ("wrk", "wrk"),
];

/// Packages of the test tools that are not on this machine.
pub(crate) fn missing_tools() -> Vec<String> {
    TOOLS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| (*package).into())
        .collect()
}

/// Which of these packages are not installed.
pub(crate) fn missing(packages: &[String]) -> Vec<String> {
    packages.iter().filter(|package| !is_installed(package)).cloned().collect()
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout == b"installed")
}

/// Installs packages; asks for nothing.
pub(crate) fn install(packages: &[String], why: &str) -> Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    println!("setup: {why}: Debian packages {}", packages.join(" "));
    if find("apt-get").is_none() {
        bail!("no apt-get here; install what these Debian packages have: {}", packages.join(" "));
    }
    update()?;
    run(as_root("apt-get")?.args(["install", "-q", "-y", "--no-install-recommends"]).args(packages))
}

/// Reads the package sources' lists anew.
pub(crate) fn update() -> Result<()> {
    run(as_root("apt-get")?.args(["update", "-q"]))
}

fn as_root(program: &str) -> Result<Command> {
    let mut command = if is_root() {
        Command::new(program)
    } else if find("sudo").is_some() {
        let mut sudo = Command::new("sudo");
        sudo.args(["DEBIAN_FRONTEND=noninteractive", program]);
        sudo
    } else {
        bail!("installing packages needs root: run `cargo xtask setup` as root once");
    };
    command.env("DEBIAN_FRONTEND", "noninteractive");
    Ok(command)
}
