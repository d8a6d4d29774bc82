//! `cargo xtask fuzz`: cargo-fuzz on the NAT core, from the committed corpus on.

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{cargo, find, output, root, run, target_directory};
use crate::{apt, setup};

/// The release that was tried with this workspace.
const VERSION: &str = "0.13.2";

/// Where the crate is, from the workspace's root.
const CRATE: &str = "netdp-common/fuzz";

/// Its one target, and the name of its corpus.
const TARGET: &str = "packets";

/// Options of the fuzzer.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long.
    #[arg(value_name = "SECONDS", default_value_t = 60)]
    seconds: u32,
    /// Keep of everything found so far what reaches new code, as the committed corpus.
    #[arg(long)]
    minimize: bool,
}

/// Installs cargo-fuzz if it is missing, and runs it. An input that fails is in target/fuzz then.
pub(crate) fn run_fuzzer(args: &Args) -> Result<()> {
    setup::run(setup::Needs::Build)?;
    install()?;
    let target = target_directory()?.join("fuzz");
    let (found, committed) = (target.join("corpus"), root().join(CRATE).join("corpus").join(TARGET));
    fs::create_dir_all(&found)?;
    // Without sanitizers the stable toolchain is enough: the core has no unsafe code that reads or writes memory.
    let build = |command: &mut Command| {
        command.args(["--fuzz-dir", CRATE, "--sanitizer", "none", "--target-dir"]).arg(&target).arg(TARGET);
    };
    let mut fuzz = cargo();
    fuzz.args(["fuzz", "run"]);
    build(&mut fuzz);
    // The first directory takes what is found.
    fuzz.args([&found, &committed]).arg("--").arg(format!("-max_total_time={}", args.seconds));
    fuzz.args(["-max_len=1024", "-timeout=10", "-print_final_stats=1"]);
    fuzz.arg(format!("-artifact_prefix={}/", target.display()));
    run(&mut fuzz)?;
    if args.minimize {
        // libFuzzer copies from the others to the first what that lacks.
        let mut merge = cargo();
        merge.args(["fuzz", "run"]);
        build(&mut merge);
        merge.args([&committed, &found]).args([
            "--",
            "-set_cover_merge=1",
            "-use_counters=0",
            "-max_len=300",
        ]);
        run(&mut merge)?;
    }
    Ok(())
}

fn install() -> Result<()> {
    // libFuzzer is C++.
    if find("c++").is_none() {
        apt::install(&["g++".into()], "libFuzzer is built from C++")?;
    }
    if output(cargo().args(["fuzz", "--version"])).is_err() {
        println!("setup: building cargo-fuzz {VERSION} with cargo");
        let install = ["install", "cargo-fuzz", "--version", VERSION, "--locked"];
        run(cargo().args(install).env_remove("CARGO_TARGET_DIR"))?;
    }
    if output(cargo().args(["fuzz", "--version"])).is_err() {
        bail!("cargo-fuzz was installed; is cargo's bin directory in PATH?");
    }
    Ok(())
}
