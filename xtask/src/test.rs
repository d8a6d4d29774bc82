//! `cargo xtask test`: every tier of tests, one line each, and the sum as the last line.

use std::io::{BufRead as _, BufReader};
use std::ops::AddAssign;
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::ValueEnum;

use crate::command::{self, cargo, is_root, shown, target_directory};
use crate::{captures, kernels, setup};

/// More than there are CPUs: most of a network test is waiting, and the race tests lock the others of their file out.
const ROOT_TEST_THREADS: &str = "--test-threads=6";

/// Options of the tests.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only these tiers.
    #[arg(value_name = "TIER")]
    tiers: Vec<Tier>,
    /// Boot Debian's Linux 6.1 and 6.12 in qemu and run a core of the tests there, instead of the tiers.
    #[arg(long, conflicts_with = "tiers")]
    kernels: bool,
}

/// A tier of tests, cheapest first.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Tier {
    /// The claim protocol, model-checked over all interleavings.
    Protocol,
    /// The NAT core and the control plane's pure parts, on the host.
    Core,
    /// The programs in the kernel, one packet at a time.
    Kernel,
    /// Real traffic in network namespaces.
    Net,
}

/// What tests did.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// Where tests panicked, and why.
    pub(crate) panics: Vec<String>,
}

/// Runs the tiers; fails when a test or a build failed.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    if args.kernels {
        let start = Instant::now();
        let reports = kernels::test()?;
        println!();
        let mut tally = Tally::default();
        for report in reports {
            println!("{report}");
            tally += report.tally;
        }
        println!("tier kernels  {tally} in {} s\n{tally}", start.elapsed().as_secs());
        return Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    setup::run(setup::Needs::Everything)?;
    let all = [Tier::Protocol, Tier::Core, Tier::Kernel, Tier::Net];
    let tiers = all.into_iter().filter(|tier| args.tiers.is_empty() || args.tiers.contains(tier));
    let mut sum = Tally::default();
    let mut lines = Vec::new();
    for tier in tiers {
        let start = Instant::now();
        let tally = run_tier(tier)?;
        let name = format!("{tier:?}").to_lowercase();
        lines.push(format!("tier {name:<8} {tally} in {} s", start.elapsed().as_secs()));
        sum += tally;
    }
    println!();
    for line in lines {
        println!("{line}");
    }
    if !is_root() {
        println!("the kernel and net tiers need root and were skipped: run `cargo xtask test` as root");
    }
    for panic in &sum.panics {
        println!("{panic}");
    }
    println!("{sum}");
    Ok(if sum.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Broken variants of the flow protocol, each with the test that finds it out (compiled so that it must panic).
const MUTANTS: [(&str, &str); 4] = [
    ("mutant-check-then-insert", "claims::two_flows_and_one_port"),
    ("mutant-no-generation", "removals::refresh_or_expire"),
    ("mutant-judge-once", "recycling::late_segment"),
    ("mutant-no-owner", "recycling::late_segment"),
];

fn run_tier(tier: Tier) -> Result<Tally> {
    let mut tally = run_tests(tier)?;
    if tier == Tier::Protocol {
        for (feature, test) in MUTANTS {
            let mut tests = protocol()?;
            let one = counted(tests.args(["--features", feature, "--", "--exact", test]))?;
            tally += Tally { skipped: 0, ..one };
        }
    }
    Ok(tally)
}

/// The model checker's tests.
fn protocol() -> Result<Command> {
    let mut tests = cargo();
    // Its own directory: RUSTFLAGS are part of everything's fingerprint.
    let target = target_directory()?.join("loom");
    tests.args(["test", "--no-fail-fast", "--release", "--package", "netdp-common", "--test", "protocol"]);
    tests.env("RUSTFLAGS", "--cfg loom").env("CARGO_TARGET_DIR", target);
    Ok(tests)
}

fn run_tests(tier: Tier) -> Result<Tally> {
    let mut tests = cargo();
    tests.args(["test", "--no-fail-fast"]);
    match tier {
        Tier::Protocol => tests = protocol()?,
        Tier::Core => {
            tests.args(["--workspace", "--exclude", "netdp-ebpf", "--exclude", "netdp-tests"]);
        }
        Tier::Kernel => {
            tests.args(["--package", "netdp-tests", "--test", "kernel_*"]);
        }
        Tier::Net => {
            tests.args(["--package", "netdp-tests", "--lib", "--test", "net_*"]);
        }
    }
    if matches!(tier, Tier::Kernel | Tier::Net) {
        command::run(cargo().args(["build", "--release", "--package", "netdp"]))?;
        tests.env("NETDP_BIN", target_directory()?.join("release/netdp"));
        tests.args(["--", ROOT_TEST_THREADS]);
        if is_root() {
            tests.arg("--include-ignored");
        }
        if tier == Tier::Net {
            with_captures(&mut tests);
        }
        if tier == Tier::Kernel && command::kernel()? < PAGE_FRAGMENTS {
            println!("tests of packets in page fragments are skipped: they need Linux 6.19");
            tests.args(["--skip", "page_fragments"]);
        }
    }
    counted(&mut tests)
}

/// Gives the tests their captured frames, or skips those that need them.
fn with_captures(tests: &mut Command) {
    match captures::directory() {
        Ok(directory) => tests.env("NETDP_CAPTURES", directory),
        Err(error) => {
            println!("tests of captured frames are skipped: {error:#}");
            tests.args(["--skip", "captured"])
        }
    };
}

/// Runs `cargo test`, passes its output on and adds up the results of its test programs.
fn counted(tests: &mut Command) -> Result<Tally> {
    println!("+ {}", shown(tests));
    let mut child =
        tests.stdout(Stdio::piped()).spawn().with_context(|| format!("running `{}`", shown(tests)))?;
    let mut tally = Tally::default();
    let mut panicked_at = None;
    for line in BufReader::new(child.stdout.take().context("no stdout")?).lines() {
        let line = line?;
        println!("{line}");
        if let Some(at) = panicked_at.take() {
            tally.panics.push(format!("{at} {line}"));
        }
        if line.starts_with("thread '") && line.contains("panicked at") {
            panicked_at = Some(line);
        } else if let Some(one) = parse_result(&line) {
            tally += one;
        }
    }
    // A test program that doesn't compile or dies without a result line is a failure, too.
    if !child.wait()?.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// The first kernel whose BPF_PROG_TEST_RUN knows them.
const PAGE_FRAGMENTS: (u32, u32) = (6, 19);

/// Reads `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; …`.
pub(crate) fn parse_result(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let count = |what: &str| {
        let words = counts.split("; ").find_map(|part| part.strip_suffix(what));
        words.and_then(|number| number.trim().parse().ok())
    };
    let skipped = count("ignored")? + count("filtered out")?;
    Some(Tally { passed: count("passed")?, failed: count("failed")?, skipped, panics: Vec::new() })
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.panics.extend(other.panics);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::parse_result;

    #[test]
    fn reads_what_libtest_prints() {
        let line = "test result: FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 2 filtered out; finished in 0.00s";
        let tally = parse_result(line).expect("a result line");
        assert_eq!(tally.to_string(), "12 passed, 1 failed, 5 skipped");
        assert!(parse_result("test a ... ok").is_none());
    }
}
