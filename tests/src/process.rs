//! Programs that run beside a test and end with it.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::Signal;

/// A child process that is killed when dropped, or when the test's thread dies.
#[derive(Debug)]
pub struct Daemon(Child);

impl Daemon {
    /// Starts it, with no output.
    pub fn start(command: &mut Command) -> Self {
        let die_with_parent = || prctl::set_pdeathsig(Signal::SIGKILL).map_err(std::io::Error::from);
        // SAFETY: between fork and exec the closure does one system call and allocates nothing.
        unsafe { command.pre_exec(die_with_parent) };
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.unwrap_or_else(|error| panic!("starting {command:?}: {error}")))
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until something holds; panics with its name after five seconds.
#[track_caller]
pub fn eventually(what: &str, holds: impl Fn() -> bool) {
    within(Duration::from_secs(5), what, holds);
}

/// The same, with another patience.
#[track_caller]
pub fn within(patience: Duration, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not after {patience:?}");
        thread::sleep(Duration::from_millis(20));
    }
}
