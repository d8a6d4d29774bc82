//! bpf-linker: is there one that reads this rustc's bitcode, and if not, build it.

use std::env;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::apt;
use crate::command::{cargo, find, output, run};

/// The release that was tried with this workspace.
const VERSION: &str = "0.13.0";

/// Builds bpf-linker against the LLVM of `rustc`, unless the one in PATH works.
pub(crate) fn install() -> Result<()> {
    let llvm = rustc_llvm()?;
    let Err(reason) = try_out() else { return Ok(()) };
    println!("setup: {reason:#}");
    let packages = [
        format!("llvm-{llvm}-dev"),
        format!("libpolly-{llvm}-dev"),
        "zlib1g-dev".into(),
        "libzstd-dev".into(),
        "libxml2-dev".into(),
    ];
    apt::install(&apt::missing(&packages), &format!("bpf-linker is built against LLVM {llvm}"))?;
    println!("setup: building bpf-linker {VERSION} with cargo (about a minute)");
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let path = env::var("PATH").unwrap_or_default();
    run(cargo()
        .args(["install", "bpf-linker", "--version", VERSION, "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{llvm}")])
        .env("LLVM_PREFIX", &prefix)
        .env("PATH", format!("{prefix}/bin:{path}"))
        .env_remove("CARGO_TARGET_DIR"))?;
    try_out().context("bpf-linker was installed; is cargo's bin directory in PATH?")
}

/// Whether a bpf-linker that works is there.
pub(crate) fn is_ready() -> bool {
    try_out().is_ok()
}

/// The LLVM major version of rustc: bpf-linker must read the bitcode that rustc writes.
fn rustc_llvm() -> Result<String> {
    let version = output(Command::new("rustc").arg("-vV"))?;
    let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    let major = llvm.and_then(|llvm| llvm.split('.').next());
    major.map(str::to_owned).context("rustc -vV names no LLVM version")
}

/// Has rustc write bitcode and bpf-linker read it: a linker of an older LLVM fails here and not in the build.
fn try_out() -> Result<()> {
    find("bpf-linker").context("no bpf-linker in PATH")?;
    let directory = env::temp_dir().join(format!("netdp-linker-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let source = directory.join("probe.rs");
    let bitcode = directory.join("probe.bc");
    let object = directory.join("probe.o");
    let probe = (|| {
        fs::write(&source, PROBE)?;
        output(
            Command::new("rustc")
                .args(["--crate-type=lib", "--emit=llvm-bc", "-O", "-o"])
                .args([&bitcode, &source]),
        )?;
        output(
            Command::new("bpf-linker")
                .args(["--target=bpfel", "--export=probe", "-o"])
                .args([&object, &bitcode]),
        )
    })();
    fs::remove_dir_all(&directory)?;
    probe.context("the bpf-linker in PATH does not read this rustc's bitcode").map(|_| ())
}

const PROBE: &str = "#![no_std]\n#[unsafe(no_mangle)]\npub extern \"C\" fn probe(n: u64) -> u64 { n }\n";
