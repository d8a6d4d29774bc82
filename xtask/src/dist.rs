//! `cargo xtask dist`: what a package contains, in target/dist.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::command::{self, cargo, output, target_directory};
use crate::setup;

/// Completions by shell: clap's name and the file name that the shell's packages use.
const COMPLETIONS: [(&str, &str); 3] = [("bash", "netdp.bash"), ("zsh", "_netdp"), ("fish", "netdp.fish")];

/// Builds the release binary and has it write its man pages and completions.
pub(crate) fn run() -> Result<()> {
    setup::run(setup::Needs::Build)?;
    command::run(cargo().args(["build", "--release", "--locked", "--package", "netdp"]))?;
    let target = target_directory()?;
    let binary = target.join("release/netdp");
    let dist = target.join("dist");
    let (man, completions) = (dist.join("man"), dist.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    fs::copy(&binary, dist.join("netdp")).with_context(|| format!("copying {}", binary.display()))?;
    command::run(Command::new(&binary).arg("man").arg(&man))?;
    for (shell, file) in COMPLETIONS {
        let script = output(Command::new(&binary).args(["completions", shell]))?;
        fs::write(completions.join(file), script)?;
    }
    println!("dist: {}", dist.display());
    Ok(())
}
