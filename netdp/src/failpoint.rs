//! Places where a test makes a command fail or die (feature `failpoints`, never in a release).
//!
//! Everything that changes the host, a file or a map passes [`pass`] first. Points are counted in the order in which a
//! command passes them: a test asks how many a command has (`NETDP_FAIL_TRACE=FILE`), and then runs it once for each,
//! with `NETDP_FAIL_AT=N` and `NETDP_FAIL_HOW=error|kill`. So a new step is tested without anybody thinking of it. (The
//! `fail` crate can't do this: its points are configured by name, it doesn't tell which were passed, and has no way to
//! die without unwinding.)

#[cfg(not(feature = "failpoints"))]
use std::io;

/// Called right before a change; `what` is for the trace.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub fn pass(_what: &str) -> io::Result<()> {
    Ok(())
}

#[cfg(feature = "failpoints")]
pub use enabled::pass;

#[cfg(feature = "failpoints")]
mod enabled {
    use std::env;
    use std::fs::OpenOptions;
    use std::io::{self, Write as _};
    use std::sync::atomic::{AtomicU32, Ordering};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::getpid;

    /// How many points this process has passed.
    static PASSED: AtomicU32 = AtomicU32::new(0);

    /// Called right before a change; `what` is for the trace.
    pub fn pass(what: &str) -> io::Result<()> {
        let number = PASSED.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(file) = env::var_os("NETDP_FAIL_TRACE") {
            let mut file = OpenOptions::new().append(true).create(true).open(file)?;
            writeln!(file, "{what}")?;
        }
        if env::var("NETDP_FAIL_AT").ok().and_then(|at| at.parse().ok()) != Some(number) {
            return Ok(());
        }
        if env::var("NETDP_FAIL_HOW").is_ok_and(|how| how == "kill") {
            kill(getpid(), Signal::SIGKILL)?;
        }
        Err(io::Error::other(format!("fail point {number} ({what})")))
    }
}
