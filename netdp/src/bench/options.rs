//! What to measure and how long.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::{Error, workload};
use crate::cli;

/// Rounds of a full run: with five, the interval from the least to the greatest holds the true median in 94 % of runs.
const ROUNDS: u32 = 5;
/// Rounds of a quick one.
const QUICK_ROUNDS: u32 = 3;
/// What a quick run allots to its cases, so that all is over within two minutes.
const QUICK_BUDGET: Duration = Duration::from_secs(90);

/// A run's options, checked.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// How much work.
    pub(super) effort: Effort,
    /// Rounds of each competitor in each case.
    pub(super) rounds: u32,
    /// How long all of it may take; none: as long as it does. Each case gets at least one round.
    pub(super) budget: Option<Duration>,
    /// Names of workloads; none: all.
    pub(super) only: Vec<String>,
    /// Where the report goes; none: nowhere.
    pub(super) out: Option<PathBuf>,
}

/// How much work a round is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Effort {
    /// What finds the differences.
    Full,
    /// All of it within two minutes.
    Quick,
}

impl Effort {
    /// One of two sizes or lengths.
    pub(super) fn choose<T>(self, full: T, quick: T) -> T {
        match self {
            Self::Full => full,
            Self::Quick => quick,
        }
    }

    /// The length of a round's measurement by time.
    pub(super) fn duration(self, full: Duration) -> Duration {
        /// Still hundreds of thousands of packets.
        const QUICK: Duration = Duration::from_millis(150);
        self.choose(full, QUICK)
    }
}

impl Options {
    /// Checks the arguments and makes the report's directory, before anything else is made.
    pub(super) fn new(args: &cli::Bench, json: bool) -> Result<Self, Error> {
        let known = workload::names();
        for name in &args.only {
            if !known.contains(&name.as_str()) {
                return Err(Error::NoWorkload { name: name.clone(), known: known.join(", ") });
            }
        }
        let effort = if args.quick { Effort::Quick } else { Effort::Full };
        let rounds = args.rounds.unwrap_or(effort.choose(ROUNDS, QUICK_ROUNDS));
        let budget = (args.quick && args.rounds.is_none()).then_some(QUICK_BUDGET);
        let out = match (&args.out, json) {
            (Some(dir), _) => Some(dir.clone()),
            (None, true) => None,
            (None, false) => Some(default_dir()),
        };
        if let Some(dir) = &out {
            let out = |why| Error::Out { dir: dir.display().to_string(), why };
            fs::create_dir_all(dir).map_err(out)?;
            // A directory on a read-only file system exists, too.
            let probe = dir.join(".netdp-bench");
            let out = |why| Error::Out { dir: dir.display().to_string(), why };
            fs::write(&probe, []).and_then(|()| fs::remove_file(&probe)).map_err(out)?;
        }
        Ok(Self { effort, rounds, budget, only: args.only.clone(), out })
    }

    /// Whether a workload is wanted.
    pub(super) fn wants(&self, workload: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == workload)
    }
}

/// A name of its own for every run: a long measurement is not overwritten by the next.
fn default_dir() -> PathBuf {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    PathBuf::from(format!("netdp-bench-{}", now.as_secs()))
}
