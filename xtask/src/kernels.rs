//! `cargo xtask test --kernels`: Debian's kernels in qemu, with the programs' loads and a core of the scenarios.

use std::panic::resume_unwind;
use std::path::PathBuf;
use std::thread::{self, ScopedJoinHandle};

use anyhow::{Context as _, Result};

use self::boot::Report;
use self::package::Kernel;
use crate::command::{cargo, find, output, run, target_directory};
use crate::{apt, setup};

mod boot;
mod image;
mod package;

/// What the tests need on this machine, beside what [`setup`] installs: a program and the package that it comes in.
const TOOLS: [(&str, &str); 3] =
    [("qemu-system-x86_64", "qemu-system-x86"), ("busybox", "busybox-static"), ("depmod", "kmod")];

/// The kernels that are booted: the beginnings of their releases. Without and with TCX (6.6).
const SERIES: [&str; 2] = ["6.1", "6.12"];

/// A test program and how it is run.
pub(crate) struct Core {
    /// Its name.
    test: &'static str,
    /// Its arguments: what is run of it.
    args: &'static str,
}

/// What runs on each kernel: the programs' loads and the verifier's budget, how they are attached, and the main job in
/// both families with a race and nothing left behind. Each loads the programs once, which is most of the time that it
/// takes here: the verifier is emulated, too. Other scenarios are left to the machine's own kernel.
const CORE: [Core; 3] = [
    Core { test: "kernel_programs", args: "--include-ignored" },
    Core {
        test: "kernel_doctor",
        args: "--include-ignored --exact programs_load_and_are_attached_as_the_kernel_can",
    },
    Core { test: "net_core", args: "--include-ignored --exact ebpf" },
];

/// A test program that was built.
pub(crate) struct Built {
    core: Core,
    path: PathBuf,
}

/// Boots every kernel, all at the same time; what their tests did.
pub(crate) fn test() -> Result<Vec<Report>> {
    setup::run(setup::Needs::Everything)?;
    let missing = TOOLS.iter().filter(|(program, _)| find(program).is_none());
    let missing: Vec<String> = missing.map(|(_, package)| (*package).into()).collect();
    apt::install(&missing, "other kernels are booted with them")?;
    let target = target_directory()?;
    run(cargo().args(["build", "--release", "--package", "netdp"]))?;
    let tests = build()?;
    let images = SERIES.into_iter().map(|series| {
        let kernel = package::unpacked(&target.join("kernels"), series)?;
        let initramfs = image::make(&kernel, &target.join("release/netdp"), &tests)?;
        Ok((kernel, initramfs))
    });
    let images: Vec<(Kernel, PathBuf)> = images.collect::<Result<_>>()?;
    thread::scope(|scope| {
        let boot = |(kernel, initramfs): &(Kernel, PathBuf)| boot::run(kernel, initramfs, tests.len());
        let boots: Vec<_> = images.iter().map(|image| scope.spawn(move || boot(image))).collect();
        let join = |boot: ScopedJoinHandle<'_, _>| boot.join().unwrap_or_else(|panic| resume_unwind(panic));
        boots.into_iter().map(join).collect()
    })
}

/// Builds the core's test programs.
fn build() -> Result<Vec<Built>> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--message-format", "json", "--package", "netdp-tests"]);
    for core in &CORE {
        build.args(["--test", core.test]);
    }
    let messages = output(&mut build)?;
    let executables = messages.lines().filter_map(|line| {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    let executables: Vec<PathBuf> = executables.collect();
    CORE.into_iter()
        .map(|core| {
            // NAME-HASH
            let is_it = |path: &&PathBuf| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.rsplit_once('-').is_some_and(|(name, _)| name == core.test)
            };
            let path = executables.iter().find(is_it).cloned();
            let path =
                path.with_context(|| format!("cargo names no executable of the test {}", core.test))?;
            Ok(Built { core, path })
        })
        .collect()
}
