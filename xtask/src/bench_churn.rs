//! `cargo xtask bench-churn`: connections per second to one destination, beside plain routing and `MASQUERADE`.

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, run, target_directory};
use crate::setup;

/// Options of the measurement.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds for each row.
    #[arg(long, default_value_t = 10)]
    seconds: u16,
}

/// Builds netdp and the measuring program and runs it; it makes network namespaces of its own.
pub(crate) fn run_bench(args: &Args) -> Result<()> {
    if !is_root() {
        bail!("loading BPF programs needs root: run `cargo xtask bench-churn` as root");
    }
    setup::run(setup::Needs::Everything)?;
    run(cargo().args(["build", "--release", "--package", "netdp"]))?;
    let mut bench = cargo();
    bench.args(["run", "--quiet", "--release", "--package", "netdp-tests", "--bin", "bench-churn", "--"]);
    bench.arg(args.seconds.to_string());
    bench.env("NETDP_BIN", target_directory()?.join("release/netdp"));
    run(&mut bench)
}
