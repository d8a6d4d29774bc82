//! `cargo xtask bench-programs`: nanoseconds per packet and verified instructions of the programs in the kernel.

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, run};
use crate::setup;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure only these groups of paths.
    #[arg(value_name = "GROUP", value_parser = ["unchanging", "hot", "many", "new"])]
    groups: Vec<String>,
}

/// Builds the measuring program and runs it; it makes network namespaces of its own.
pub(crate) fn run_bench(args: &Args) -> Result<()> {
    if !is_root() {
        bail!("loading BPF programs needs root: run `cargo xtask bench-programs` as root");
    }
    setup::run(setup::Needs::Everything)?;
    let program = ["--package", "netdp-tests", "--bin", "bench-programs"];
    run(cargo().args(["run", "--quiet", "--release"]).args(program).arg("--").args(&args.groups))
}
