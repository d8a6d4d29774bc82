//! Threads that really run at the same time.

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Keeps the calling thread on one CPU, chosen by its number: left alone, the scheduler may put threads that just
/// woke on the same one, and nothing races.
pub(crate) fn pin(number: usize) {
    let this = Pid::from_raw(0);
    let allowed = sched_getaffinity(this).expect("sched_getaffinity");
    let cpus: Vec<usize> = (0..CpuSet::count()).filter(|cpu| allowed.is_set(*cpu).unwrap_or(false)).collect();
    let mut one = CpuSet::new();
    one.set(cpus[number % cpus.len()]).expect("a CPU number");
    sched_setaffinity(this, &one).expect("sched_setaffinity");
}
