//! `cargo xtask demo`: the main job, in namespaces of its own.

use anyhow::{Result, bail};

use crate::command::{cargo, is_root, run, target_directory};
use crate::setup;

/// Options of the demo.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave out the comparison with MASQUERADE.
    #[arg(long)]
    quick: bool,
}

/// Builds netdp and runs the demo program of the tests' lab with it.
pub(crate) fn run_demo(args: &Args) -> Result<()> {
    if !is_root() {
        bail!("the demo makes network namespaces and loads BPF programs: run `cargo xtask demo` as root");
    }
    setup::run(setup::Needs::Everything)?;
    run(cargo().args(["build", "--release", "--package", "netdp"]))?;
    let mut demo = cargo();
    demo.args(["run", "--quiet", "--package", "netdp-tests", "--bin", "netdp-demo"]);
    demo.env("NETDP_BIN", target_directory()?.join("release/netdp"));
    if args.quick {
        demo.args(["--", "--quick"]);
    }
    run(&mut demo)
}
