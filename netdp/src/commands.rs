//! The verbs, one file each.

use crate::bench;
use crate::cli::{Cli, Command};
use crate::entry::Caller;
use crate::error::Error;

pub mod attach;
pub mod completions;
pub mod detach;
pub mod doctor;
pub mod down;
pub mod endpoint;
pub mod flows;
pub mod gc;
pub mod heal;
pub mod inspect;
pub mod ls;
pub mod man;
pub mod monitor;
pub mod network;
pub mod publish;
pub mod repair;
pub mod run;
pub mod stats;
pub mod unpublish;

/// Runs a command; returns the exit code.
pub async fn run(cli: Cli, caller: Caller) -> Result<u8, Error> {
    let global = &cli.global;
    match cli.command {
        Command::Network(command) => network::run(global, command).await,
        Command::Attach(args) => attach::run(global, args, caller).await,
        Command::Detach { name } => detach::run(global, &name).await,
        Command::Publish(args) => publish::run(global, &args).await,
        Command::Unpublish(args) => unpublish::run(global, &args).await,
        Command::Run(args) => return run::run(global, args, caller).await,
        Command::Ls => ls::run(global).await,
        Command::Inspect { name } => inspect::run(global, &name).await,
        Command::Flows { command, filter } => flows::run(global, command, filter).await,
        Command::Stats { watch } => stats::run(global, watch).await,
        Command::Monitor => monitor::run(global).await,
        Command::Doctor { reachability } => doctor::run(global, reachability).await,
        Command::Bench(args) => bench::run(global.json, args).await,
        Command::Repair => repair::run(global).await,
        Command::Gc => gc::run(global).await,
        Command::Down => down::run(global).await,
        Command::Completions { shell } => completions::run(shell),
        Command::Man { dir } => man::run(&dir),
    }
    .map(|()| 0)
}
