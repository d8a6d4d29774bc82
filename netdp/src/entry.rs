//! The first thing a process does, before it has a second thread: it moves to where the host is.
//!
//! Pins live in the host's mount namespace. `ip netns exec` gives its command a private one with a fresh `/sys`:
//! what is pinned there dies with the command. So netdp goes back to the mount namespace of pid 1; only what `run`
//! starts goes where the caller was. And with `--host-netns`, the whole process is in that network namespace.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use crate::cli::{Cli, Command, DatapathChoice};
use crate::error::Error;
use crate::net::NetNs;
use crate::refusal::Refusal;
use crate::target::Target;

/// What netdp needs on every datapath: the numbers are the kernel's (`linux/capability.h`).
const CAPABILITIES: [(u32, &str); 2] = [(12, "CAP_NET_ADMIN"), (21, "CAP_SYS_ADMIN")];
/// What the eBPF datapath needs, where it is asked for.
const BPF: (u32, &str) = (39, "CAP_BPF");

/// Where the caller was, as far as commands need it.
#[derive(Debug, Default)]
pub struct Caller {
    /// Its mount namespace, if that is another than the host's.
    pub mounts: Option<OwnedFd>,
    /// Its working directory.
    pub cwd: Option<OwnedFd>,
    /// `attach` with a path: that file, which may only be visible to the caller.
    pub target: Option<File>,
}

/// Moves the process to the host that the command line names. Must be called while there is only one thread.
pub fn enter(cli: &mut Cli) -> Result<Caller, Error> {
    if !needs_host(&cli.command) {
        return Ok(Caller::default());
    }
    let missing = missing_capabilities(cli.global.datapath);
    if !missing.is_empty() {
        let command = cli.command.verb();
        // Doctor says what is missing.
        return if command == "doctor" {
            Ok(Caller::default())
        } else {
            Err(Error::Privilege { command, missing })
        };
    }
    let mut caller = Caller { cwd: open_dir(Path::new(".")), ..Caller::default() };
    let host = cli.global.host_netns.clone();
    let host_file = host.as_ref().filter(|host| host.contains('/')).map(File::open);
    if let Command::Attach(attach) = &mut cli.command {
        caller.target = open_target(&mut attach.target)?;
    }
    caller.mounts = enter_host_mounts()?;
    if let Some(host) = host {
        enter_host_netns(&host, host_file.as_ref())?;
    }
    Ok(caller)
}

fn needs_host(command: &Command) -> bool {
    match command {
        Command::Completions { .. } | Command::Man { .. } => false,
        Command::Bench(bench) => bench.compare.is_empty(),
        _ => true,
    }
}

/// The capabilities that the process lacks, as text.
pub fn missing_capabilities(datapath: DatapathChoice) -> String {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    let lacks = |(bit, name): &(u32, &'static str)| (effective >> bit & 1 == 0).then_some(*name);
    let bpf = (datapath == DatapathChoice::Ebpf).then_some(&BPF);
    CAPABILITIES.iter().chain(bpf).filter_map(lacks).collect::<Vec<_>>().join(", ")
}

/// Opens a path while the caller's mounts are in view; makes it absolute for the state.
fn open_target(target: &mut Target) -> Result<Option<File>, Error> {
    let Target::Path(path) = target else {
        return Ok(None);
    };
    let bad = |why: std::io::Error, path: &Path| Refusal::BadTarget {
        target: path.display().to_string(),
        why: why.to_string(),
    };
    let absolute = std::path::absolute(&*path).map_err(|error| bad(error, path))?;
    let file = File::open(&absolute).map_err(|error| bad(error, path))?;
    *path = absolute;
    Ok(Some(file))
}

/// Enters the host's mount namespace, and returns the one that was left; none if this is the host's.
fn enter_host_mounts() -> Result<Option<OwnedFd>, Error> {
    if is_host_mounts(Path::new("/proc/self")) {
        return Ok(None);
    }
    let doing = "entering the host's mount namespace, where pins live (netdp runs in another one, as ip netns exec makes)";
    let ours = File::open("/proc/self/ns/mnt").map_err(Error::system(doing))?;
    let theirs = host_mounts().map_err(Error::system(doing))?;
    let cwd = std::env::current_dir();
    setns(theirs.as_fd(), CloneFlags::CLONE_NEWNS).map_err(Error::system(doing))?;
    if let Ok(cwd) = cwd {
        // Relative paths were opened before; this is for what a message may name.
        let _ = std::env::set_current_dir(cwd);
    }
    Ok(Some(ours.into()))
}

/// Pid 1's mount namespace. Where pid 1 can't be looked into (it may have more capabilities than root has here),
/// that of another process in the same one.
fn host_mounts() -> std::io::Result<File> {
    let first = File::open("/proc/1/ns/mnt");
    if first.is_ok() {
        return first;
    }
    let processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let beside =
        |path: &PathBuf| is_host_mounts(path).then(|| File::open(path.join("ns/mnt")).ok()).flatten();
    processes.filter(|path| path.join("ns").exists()).find_map(|path| beside(&path)).map_or(first, Ok)
}

/// Whether a process has pid 1's mounts. Mount identifiers are never shared by two mount namespaces.
fn is_host_mounts(process: &Path) -> bool {
    if let (Ok(host), Ok(theirs)) = (fs::read_link("/proc/1/ns/mnt"), fs::read_link(process.join("ns/mnt"))) {
        return host == theirs;
    }
    match (mount_id(Path::new("/proc/1")), mount_id(process)) {
        (Some(host), Some(theirs)) => host == theirs,
        // Nothing can be told about pid 1: the best that there is, is where we are.
        (None, _) => process == Path::new("/proc/self"),
        (_, None) => false,
    }
}

/// The identifier of a process's first mount.
fn mount_id(process: &Path) -> Option<String> {
    let mounts = fs::read_to_string(process.join("mountinfo")).ok()?;
    mounts.split_whitespace().next().map(ToOwned::to_owned)
}

fn enter_host_netns(name: &str, file: Option<&std::io::Result<File>>) -> Result<(), Error> {
    let no_host = |why: String| Refusal::NoHost { name: name.into(), why };
    let opened = match file {
        Some(Ok(file)) => NetNs::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd()))),
        // Not there for the caller: perhaps for the host.
        Some(Err(_)) => NetNs::open(Path::new(name)),
        None => NetNs::named(name),
    };
    let host = opened.map_err(|error| no_host(error.to_string()))?;
    setns(host.fd(), CloneFlags::CLONE_NEWNET)
        .map_err(Error::system(format!("entering the network namespace {name}")))
}

fn open_dir(path: &Path) -> Option<OwnedFd> {
    nix::fcntl::open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok()
}
