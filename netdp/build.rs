//! Builds the eBPF object that the binary carries, with the stable toolchain that builds the binary.
//!
//! `NETDP_EBPF_OBJECT=/path` takes a ready object instead, and those of `netdp bench` from beside it; `AYA_BUILD_SKIP=1` writes an empty one, so that
//! clippy and rust-analyzer need no BPF toolchain (the loader refuses it).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain, build_ebpf};

/// The datapath's object, and the programs of `netdp bench`.
const OBJECTS: [&str; 2] = ["netdp-ebpf", "netdp-bench"];

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=NETDP_EBPF_OBJECT");
    println!("cargo:rerun-if-env-changed=AYA_BUILD_SKIP");
    println!("cargo:rerun-if-changed=../netdp-common/src");
    let out = PathBuf::from(env::var("OUT_DIR").context("OUT_DIR")?);
    if let Some(ready) = env::var_os("NETDP_EBPF_OBJECT") {
        return copy_ready(Path::new(&ready), &out);
    }
    if env::var_os("AYA_BUILD_SKIP").is_some_and(|skip| skip == "1" || skip == "true") {
        let write = |object| fs::write(out.join(object), []).context("writing an empty object");
        return OBJECTS.into_iter().try_for_each(write);
    }
    check_tools()?;
    let root =
        Path::new(&env::var("CARGO_MANIFEST_DIR").context("CARGO_MANIFEST_DIR")?).join("../netdp-ebpf");
    let features: &[&str] = if env::var_os("CARGO_FEATURE_MUTANT_CHECK_THEN_INSERT").is_some() {
        &["mutant-check-then-insert"]
    } else {
        &[]
    };
    let toolchain = env::var("RUSTUP_TOOLCHAIN").unwrap_or_else(|_| "stable".to_owned());
    // SAFETY: a build script's main is single-threaded. The child cargo alone needs it: build-std on stable.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
    build_ebpf(
        [Package {
            name: "netdp-ebpf",
            root_dir: root.to_str().context("the path of netdp-ebpf is not UTF-8")?,
            no_default_features: false,
            features,
        }],
        Toolchain::Custom(&toolchain),
    )
}

fn copy_ready(ready: &Path, out: &Path) -> Result<()> {
    let copy = |from: &Path, object| {
        fs::copy(from, out.join(object))
            .with_context(|| format!("copying NETDP_EBPF_OBJECT={}", from.display()))
    };
    let [datapath, bench] = OBJECTS;
    copy(ready, datapath)?;
    copy(&ready.with_file_name(bench), bench)?;
    Ok(())
}

/// One line that names the remedy, instead of cargo's backtrace in the middle of a build.
fn check_tools() -> Result<()> {
    let linker = Command::new("bpf-linker").arg("--version").output();
    if !linker.is_ok_and(|output| output.status.success()) {
        bail!("netdp needs bpf-linker to build its eBPF programs: run `cargo xtask setup`");
    }
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot =
        Command::new(rustc).args(["--print", "sysroot"]).output().context("rustc --print sysroot")?;
    let sysroot = PathBuf::from(String::from_utf8(sysroot.stdout)?.trim());
    if !sysroot.join("lib/rustlib/src/rust/library/core").exists() {
        bail!("netdp needs the rust-src component to build its eBPF programs: run `cargo xtask setup`");
    }
    Ok(())
}
