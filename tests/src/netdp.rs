//! The netdp program, called as a user calls it.

use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// A command that takes longer than this is stuck.
const TIMEOUT_S: &str = "180";
/// So many lines of a listing are shown beside a failure.
const REPORTED_LINES: usize = 40;

/// netdp, acting on one lab's host.
#[derive(Clone, Debug)]
pub struct Netdp {
    /// The program.
    pub binary: PathBuf,
    /// The instance.
    pub instance: String,
    /// The name of the host's namespace.
    pub host: String,
    /// The datapath's name.
    pub datapath: &'static str,
    /// Variables of its environment.
    pub variables: Vec<(&'static str, String)>,
}

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    /// Its exit code.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
}

impl Netdp {
    /// The program that `cargo xtask test` built, or the one where cargo puts it.
    pub fn default_binary() -> PathBuf {
        if let Some(path) = env::var_os("NETDP_BIN") {
            return path.into();
        }
        let test = env::current_exe().expect("the test's own path");
        // target/debug/deps/net_x-hash, target/debug/netdp-demo
        let target = test.ancestors().find(|path| path.join("release/netdp").is_file());
        target
            .map(|target| target.join("release/netdp"))
            .expect("no netdp: run `cargo xtask test`, or set NETDP_BIN")
    }

    /// A command of this instance, ready to run; `line` is split at spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "2", TIMEOUT_S])
            .arg(&self.binary)
            .args(self.options())
            .envs(self.variables.clone())
            .args(line.split_whitespace());
        command
    }

    /// The options that every command gets.
    pub fn options(&self) -> [&str; 6] {
        ["--instance", &self.instance, "--host-netns", &self.host, "--datapath", self.datapath]
    }

    /// Runs it, whatever comes of it.
    pub fn run(&self, line: &str) -> Outcome {
        let output = self.command(line).output();
        Outcome::of(&output.unwrap_or_else(|error| panic!("running {}: {error}", self.binary.display())))
    }

    /// Runs what must work, and returns its stdout.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.code, 0, "netdp {line}: {}", outcome.stderr);
        outcome.stdout
    }

    /// Runs what must be refused with this exit code and one `error: …` line, and returns that line.
    #[track_caller]
    pub fn refused(&self, code: i32, line: &str) -> String {
        let outcome = self.run(line);
        assert_eq!(outcome.code, code, "netdp {line}: {outcome:?}");
        let errors = outcome.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "netdp {line}: stderr is not one `error: …` line: {}", outcome.stderr);
        outcome.stderr
    }

    /// Runs a listing with `--json`.
    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        let stdout = self.ok(&format!("--json {line}"));
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("netdp --json {line}: {error}: {stdout}"))
    }

    /// One number of `stats`; 0 when there is none of that name.
    #[track_caller]
    pub fn counter(&self, name: &str) -> u64 {
        let stats = self.json("stats");
        let value = stats.get(name).or_else(|| stats.get("drops").and_then(|drops| drops.get(name)));
        value.and_then(Value::as_u64).unwrap_or(0)
    }

    /// The instance's pins.
    pub fn pins(&self) -> PathBuf {
        Path::new("/sys/fs/bpf/netdp").join(&self.instance)
    }

    /// The command lines of processes that run netdp for this instance.
    pub fn processes(&self) -> Vec<String> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = entries.filter_map(|entry| fs::read_to_string(entry.path().join("cmdline")).ok());
        lines.filter(|line| line.contains(&self.instance) && line.contains("netdp")).collect()
    }

    /// The instance's state directory.
    pub fn state(&self) -> PathBuf {
        Path::new("/run/netdp").join(&self.instance)
    }

    /// What to look at when a test failed.
    pub fn report(&self) -> String {
        let mut report = String::new();
        for line in ["ls", "stats", "flows"] {
            let outcome = self.run(line);
            let _ = writeln!(report, "--- netdp {line}");
            let mut lines = outcome.stdout.lines();
            for shown in lines.by_ref().take(REPORTED_LINES).chain(outcome.stderr.lines()) {
                let _ = writeln!(report, "{shown}");
            }
            let more = lines.count();
            if more > 0 {
                let _ = writeln!(report, "and {more} lines more");
            }
        }
        report
    }
}

impl Outcome {
    /// Reads a finished command's output.
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
