//! `cargo xtask setup`: what is missing, and only that.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::command::{self, find, output};
use crate::{apt, linker};

/// What the caller is about to do.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Needs {
    /// Build the eBPF programs.
    Build,
    /// Build, check, and run tests and the demo.
    Everything,
}

/// Installs what is missing and says what it installs; silent but for one line when nothing is.
pub(crate) fn run(needs: Needs) -> Result<()> {
    let components = missing_components()?;
    let tools = if needs == Needs::Everything { apt::missing_tools() } else { Vec::new() };
    if components.is_empty() && tools.is_empty() && linker::is_ready() {
        println!("setup: nothing is missing");
        return Ok(());
    }
    add_components(&components)?;
    apt::install(&tools, "the tests and the demo use them")?;
    linker::install()?;
    println!("setup: done");
    Ok(())
}

fn missing_components() -> Result<Vec<&'static str>> {
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let library = Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs");
    let mut missing = Vec::new();
    if !library.is_file() {
        missing.push("rust-src");
    }
    for (component, program) in [("clippy", "cargo-clippy"), ("rustfmt", "cargo-fmt")] {
        if output(Command::new(program).arg("--version")).is_err() {
            missing.push(component);
        }
    }
    Ok(missing)
}

fn add_components(components: &[&str]) -> Result<()> {
    if components.is_empty() {
        return Ok(());
    }
    println!("setup: Rust components {}", components.join(" "));
    if find("rustup").is_none() {
        bail!("no rustup in PATH; install the Rust components {} another way", components.join(" "));
    }
    command::run(Command::new("rustup").args(["component", "add"]).args(components))
}
