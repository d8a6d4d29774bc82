//! Network namespaces of the tests' own: made, entered by threads and processes, removed with all in them.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use netdp::net::{NetNs, NetNsId};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Where `ip netns` keeps names.
const RUN_NETNS: &str = "/run/netns";

/// A way into a network namespace. It keeps the namespace alive, as every open file of it does.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    ns: Arc<NetNs>,
}

impl Netns {
    /// Opens the namespace of that name.
    pub fn named(name: &str) -> Self {
        Self::open(name, &Path::new(RUN_NETNS).join(name))
    }

    /// Opens the namespace that a process is in.
    pub fn of_pid(pid: u32) -> Self {
        Self::open(&format!("pid-{pid}"), &PathBuf::from(format!("/proc/{pid}/ns/net")))
    }

    fn open(name: &str, path: &Path) -> Self {
        let ns = NetNs::open(path).unwrap_or_else(|error| panic!("opening {}: {error}", path.display()));
        Self { name: name.into(), ns: Arc::new(ns) }
    }

    /// Its name in /run/netns.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a function in the namespace, on a thread of its own.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.join();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a thread in the namespace.
    pub fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let netns = self.clone();
        thread::spawn(move || {
            netns.join();
            work()
        })
    }

    /// Moves the calling thread into the namespace, for good: only for threads that end afterwards.
    pub fn join(&self) {
        setns(self.fd(), CloneFlags::CLONE_NEWNET)
            .unwrap_or_else(|error| panic!("setns {}: {error}", self.name));
    }

    /// A command that will run in the namespace; its mounts stay the machine's (unlike `ip netns exec`).
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let ns = Arc::clone(&self.ns);
        let enter = move || setns(ns.fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
        // SAFETY: between fork and exec the closure does one system call and allocates nothing.
        unsafe { command.pre_exec(enter) };
        command
    }

    /// Runs a command line (split at spaces) and returns what it did.
    #[track_caller]
    pub fn try_sh(&self, line: &str) -> Output {
        let mut words = line.split_whitespace();
        let program = words.next().expect("a command");
        let output = self.command(program).args(words).output();
        output.unwrap_or_else(|error| panic!("running `{line}` in {}: {error}", self.name))
    }

    /// Runs a command line that must succeed, and returns its stdout.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "`{line}` in {}: {}: {stderr}", self.name, output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes a sysctl of the namespace, named as under /proc/sys.
    pub fn set_sysctl(&self, path: &str, value: &str) {
        let written = self.enter(|| fs::write(Path::new("/proc/sys").join(path), value));
        written.unwrap_or_else(|error| panic!("setting {path} to {value} in {}: {error}", self.name));
    }

    /// The processes in the namespace, this one left out.
    pub fn processes(&self) -> Vec<u32> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| *pid != std::process::id())
            .filter(|pid| {
                let NetNsId { dev, inode } = self.id();
                fs::metadata(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|theirs| (theirs.dev(), theirs.ino()) == (dev, inode))
            })
            .collect()
    }
}

impl std::ops::Deref for Netns {
    type Target = NetNs;

    fn deref(&self) -> &NetNs {
        &self.ns
    }
}

/// A namespace that the tests made, with a name; dropping it kills what runs in it and removes it.
#[derive(Debug)]
pub struct OwnedNetns(Netns);

impl OwnedNetns {
    /// Makes a namespace as users do, with `ip netns add`. Its `lo` is up.
    pub fn create(name: &str) -> Self {
        ip(&["netns", "add", name]);
        let owned = Self(Netns::named(name));
        owned.sh("ip link set lo up");
        owned
    }

    /// Takes over a namespace that exists, to remove it.
    pub fn adopt(name: &str) -> Self {
        Self(Netns::named(name))
    }
}

impl std::ops::Deref for OwnedNetns {
    type Target = Netns;

    fn deref(&self) -> &Netns {
        &self.0
    }
}

impl Drop for OwnedNetns {
    fn drop(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(2);
        loop {
            let processes = self.processes();
            for pid in &processes {
                let _ = kill(Pid::from_raw((*pid).cast_signed()), Signal::SIGKILL);
            }
            if processes.is_empty() || Instant::now() > deadline {
                break;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = Command::new("ip").args(["netns", "del", self.name()]).output();
    }
}

/// The names of all named namespaces.
pub fn names() -> Vec<String> {
    let entries = fs::read_dir(RUN_NETNS).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("running ip");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {}: {stderr}", arguments.join(" "));
}
