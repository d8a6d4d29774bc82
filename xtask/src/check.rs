//! `cargo xtask check`: everything that reads the code and runs nothing.

use anyhow::Result;

use crate::command::{cargo, run};
use crate::setup;

/// Formatting, clippy for host and BPF, rustdoc. The first failure ends it.
pub(crate) fn run_all() -> Result<()> {
    setup::run(setup::Needs::Build)?;
    run(cargo().args(["fmt", "--all", "--check"]))?;
    let host = ["--workspace", "--exclude", "netdp-ebpf"];
    // Reading netdp takes no object: that is read itself.
    let no_object = ("AYA_BUILD_SKIP", "1");
    let clippy = ["--all-targets", "--", "-D", "warnings"];
    run(cargo().arg("clippy").args(host).args(clippy).env(no_object.0, no_object.1))?;
    // Only this child may use unstable flags: as a setting for everything it would change what other crates probe.
    run(cargo()
        .args(["clippy", "--package", "netdp-ebpf", "--target", "bpfel-unknown-none", "-Z", "build-std=core"])
        .args(["--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1"))?;
    run(cargo()
        .args(["doc", "--no-deps"])
        .args(host)
        .env("RUSTDOCFLAGS", "-D warnings")
        .env(no_object.0, no_object.1))
}
