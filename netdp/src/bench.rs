//! `netdp bench`: the same work through netdp and through what it replaces, side by side in one run.
//!
//! A run is read: `runner` takes the cases of each `workload`, builds one `arena` for every `competitor`
//! (namespaces of its own, wired by `wiring`), and measures them in interleaved rounds: A B C, A B C. Traffic comes
//! from `load`, threads of this process that entered a namespace. Each round of each competitor is one
//! `results::Sample`; `stats` makes medians and intervals of them, `report` shows them, `compare` puts two runs
//! beside each other.

mod arena;
mod command;
mod compare;
mod competitor;
pub mod counters;
mod error;
pub mod load;
mod machine;
mod options;
mod programs;
mod report;
pub mod results;
mod runner;
pub mod stats;
mod stop;
mod sweep;
mod targets;
mod wiring;
mod workload;

use std::path::PathBuf;

pub use error::Error;
use options::Options;

use crate::cli;
use crate::output;

/// Measures, or compares two runs that were measured.
pub async fn run(json: bool, args: cli::Bench) -> Result<(), crate::Error> {
    if let [first, second] = args.compare.as_slice() {
        return compare::run(json, first, second);
    }
    let options = Options::new(&args, json)?;
    let dir = options.out.clone();
    let results = stop::on_signals(move || runner::measure(&options)).await??;
    if let Some(dir) = &dir {
        report::write(dir, &results)?;
    }
    if json {
        return output::json(&results);
    }
    report::print(&results)?;
    say_where(dir)
}

fn say_where(dir: Option<PathBuf>) -> Result<(), crate::Error> {
    let Some(dir) = dir else { return Ok(()) };
    output::line(format!("\nreport.html, plots and results.json are in {}", dir.display()))
}
