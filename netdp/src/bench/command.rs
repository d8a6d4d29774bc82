//! Programs that wire a competitor: netdp itself, iptables, nft.

use std::io::{self, BufRead, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Error;
use crate::net::NetNs;

/// A competitor that needs longer for one step can't be measured.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Runs a command line (split at spaces) in a namespace; returns its standard output.
pub(super) fn run(ns: &NetNs, line: &str) -> Result<String, Error> {
    run_with_input(ns, line, "")
}

/// The same with this on its standard input.
pub(super) fn run_with_input(ns: &NetNs, line: &str, input: &str) -> Result<String, Error> {
    finish(in_ns(ns, line)?, line, input, Some(PATIENCE))
}

fn in_ns(ns: &NetNs, line: &str) -> Result<Command, Error> {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or_default());
    command.args(words);
    let file = ns.fd().try_clone_to_owned().map_err(Error::system("duplicating a namespace's file"))?;
    let enter = move || setns(&file, CloneFlags::CLONE_NEWNET).map_err(io::Error::from);
    // SAFETY: between fork and exec the closure does one system call and allocates nothing.
    unsafe { command.pre_exec(enter) };
    Ok(command)
}

/// Runs netdp (this very binary) for an instance whose host is this namespace.
pub(super) fn netdp(instance: &str, host: &NetNs, arguments: &[String]) -> Result<String, Error> {
    let mut command = Command::new("/proc/self/exe");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("NETDP_")) {
        command.env_remove(name);
    }
    command.args(["--instance", instance, "--host-netns", &path(host)]).args(arguments);
    // What is taken down must be, however long it takes.
    let patience = (arguments != ["down"]).then_some(PATIENCE);
    finish(command, &format!("netdp {}", arguments.join(" ")), "", patience)
}

/// A program that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Background(Child);

impl Background {
    /// Runs a command line (split at spaces) in a namespace, and waits for a line that begins so.
    pub(super) fn start(ns: &NetNs, line: &str, ready: &str) -> Result<Self, Error> {
        let failed = |why: String| Error::Command { line: shown(line), why };
        let mut command = in_ns(ns, line)?;
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = Self(command.spawn().map_err(|error| failed(error.to_string()))?);
        let (done, watchdog) = watch(child.0.id(), PATIENCE);
        let stdout = child.0.stdout.take().map(BufReader::new);
        let mut lines = stdout.into_iter().flat_map(BufRead::lines).map_while(Result::ok);
        let is_ready = lines.any(|line| line.starts_with(ready));
        drop(done);
        let late = watchdog.join().unwrap_or(false);
        if late || !is_ready {
            return Err(failed(format!("it ended, or was not ready after {} s", PATIENCE.as_secs())));
        }
        // Whatever else it says is not read, and must not stop it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(child)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A path that stands for a namespace as long as it is open here, for every process.
pub(super) fn path(ns: &NetNs) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), ns.fd().as_raw_fd())
}

fn finish(
    mut command: Command,
    line: &str,
    input: &str,
    patience: Option<Duration>,
) -> Result<String, Error> {
    let failed = |why: String| Error::Command { line: shown(line), why };
    // A process group of its own: Ctrl-C ends the run, which then cleans up, and not the step it is at.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(|error| failed(error.to_string()))?;
    }
    let watched = patience.map(|patience| watch(child.id(), patience));
    let output = child.wait_with_output();
    let late = watched.is_some_and(|(done, watchdog)| {
        drop(done);
        watchdog.join().unwrap_or(false)
    });
    if late {
        return Err(failed(format!("not done after {} s", PATIENCE.as_secs())));
    }
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        return Err(failed(format!("{}: {}", output.status, stderr.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Kills a process that takes too long, unless the sender is dropped before; the thread tells whether it did.
fn watch(pid: u32, patience: Duration) -> (Sender<()>, JoinHandle<bool>) {
    let (done, wait) = channel();
    let watchdog = std::thread::spawn(move || {
        let late = wait.recv_timeout(patience) == Err(RecvTimeoutError::Timeout);
        if late {
            // It may have ended just now.
            let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL);
        }
        late
    });
    (done, watchdog)
}

/// A command line as far as a message needs it.
fn shown(line: &str) -> String {
    const LONG: usize = 100;
    if line.chars().count() > LONG {
        format!("{}...", line.chars().take(LONG).collect::<String>())
    } else {
        line.into()
    }
}
