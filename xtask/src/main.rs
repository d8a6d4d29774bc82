//! `cargo xtask`: set-up, checks, tests, demo and packaging of netdp.
#![expect(clippy::print_stdout, reason = "a tool for people at a terminal")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod apt;
mod bench_programs;
mod captures;
mod check;
mod command;
mod demo;
mod dist;
mod fuzz;
mod kernels;
mod linker;
mod setup;
mod test;

/// Set-up, checks, tests, demo and packaging of netdp.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// What can be done.
#[derive(Subcommand)]
enum Task {
    /// Install what is missing on this machine, and say what.
    Setup,
    /// Formatting, clippy for the host and for the BPF target, rustdoc; warnings are errors.
    Check,
    /// Run every tier of tests; the kernel and network tiers need root.
    Test(test::Args),
    /// Fuzz the NAT core.
    Fuzz(fuzz::Args),
    /// Show the main job in network namespaces of its own, and clean up.
    Demo(demo::Args),
    /// Show what a packet costs in each program, and each program the verifier.
    BenchPrograms(bench_programs::Args),
    /// Release binary, man pages and completions in target/dist.
    Dist,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().task {
        Task::Setup => setup::run(setup::Needs::Everything)?,
        Task::Check => check::run_all()?,
        Task::Test(args) => return test::run(&args),
        Task::Fuzz(args) => fuzz::run_fuzzer(&args)?,
        Task::Demo(args) => demo::run_demo(&args)?,
        Task::BenchPrograms(args) => bench_programs::run_bench(&args)?,
        Task::Dist => dist::run()?,
    }
    Ok(ExitCode::SUCCESS)
}
