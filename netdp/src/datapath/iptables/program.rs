//! iptables-save and iptables-restore: which ones, and running them.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde::{Deserialize, Serialize};

use super::super::Error;
use super::family::Family;
use crate::failpoint;

/// Which iptables to use, for tests and for hosts where netdp guesses wrong.
const OVERRIDE: &str = "NETDP_IPTABLES";
/// How long iptables-restore waits for others that change rules, in seconds.
const WAIT_S: &str = "10";
/// Where the programs are when PATH doesn't say so: users' PATH often leaves them out.
const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

/// A way into the kernel. Both have the kernel's hooks, and neither shows the other's rules.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Backend {
    /// What `iptables` is here.
    Default,
    /// nf_tables.
    Nft,
    /// x_tables.
    Legacy,
}

impl Backend {
    /// The one whose rules count on this host. An accepted packet can still be dropped by the other one's rules, so
    /// netdp's have to be where Docker's and the firewall's are: in `iptables`, unless it is empty and another isn't.
    pub(super) fn detect() -> Result<Self, Error> {
        match std::env::var(OVERRIDE).as_deref() {
            Ok("nft") => return Ok(Self::Nft),
            Ok("legacy") => return Ok(Self::Legacy),
            Ok(other) if !other.is_empty() => {
                let doing = format!("choosing an iptables by {OVERRIDE}={other}");
                return Err(Error { doing, cause: "there are nft and legacy".into() });
            }
            _ => {}
        }
        if !has_rules(&Self::Default.save(Family::V4)?) {
            let used = [Self::Legacy, Self::Nft]
                .into_iter()
                .find(|other| other.exists() && other.save(Family::V4).is_ok_and(|saved| has_rules(&saved)));
            return Ok(used.unwrap_or(Self::Default));
        }
        Ok(Self::Default)
    }

    /// What tells its programs from the other's.
    const fn infix(self) -> &'static str {
        match self {
            Self::Default => "",
            Self::Nft => "-nft",
            Self::Legacy => "-legacy",
        }
    }

    /// Its name for people.
    pub(super) fn name(self, family: Family) -> String {
        format!("{}{}", family.program(), self.infix())
    }

    fn exists(self) -> bool {
        find(&format!("{}-save", self.name(Family::V4))).is_some()
    }

    /// Whether a family's rules can be read here.
    pub(super) fn works(self, family: Family) -> bool {
        self.save(family).is_ok()
    }

    /// The version, for people.
    pub(super) fn version(self, family: Family) -> Result<String, Error> {
        let program = self.name(family);
        let output = command(&program)?.arg("--version").output();
        Ok(text(&program, output)?.trim().to_owned())
    }

    /// Every rule with its counters.
    pub(super) fn save(self, family: Family) -> Result<String, Error> {
        let program = format!("{}-save", self.name(family));
        text(&program, command(&program)?.arg("--counters").output())
    }

    /// Changes tables, each in one step.
    pub(super) fn restore(self, family: Family, input: &str) -> Result<(), Error> {
        let program = format!("{}-restore", self.name(family));
        failpoint::pass("change rules")
            .map_err(|cause| Error { doing: format!("running {program}"), cause: cause.into() })?;
        let started = command(&program)?
            .args(["--noflush", "--wait", WAIT_S])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let fed = started.and_then(|mut child| {
            let fed = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
            let output = child.wait_with_output()?;
            // A program that stops reading says why.
            if output.status.success() { fed.map(|()| output) } else { Ok(output) }
        });
        text(&program, fed).map(drop)
    }
}

fn has_rules(saved: &str) -> bool {
    saved.lines().any(|line| line.contains("-A "))
}

fn command(program: &str) -> Result<Command, Error> {
    let path = find(program).ok_or_else(|| Error {
        doing: format!("looking for {program}"),
        cause: "it is not installed: install iptables 1.8 or newer".into(),
    })?;
    Ok(Command::new(path))
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs: Vec<PathBuf> = std::env::split_paths(&path).chain(SBIN.map(PathBuf::from)).collect();
    dirs.iter().map(|dir: &PathBuf| dir.join(program)).find(|file: &PathBuf| Path::is_file(file))
}

/// What a program printed; what it complained about if it failed.
fn text(program: &str, output: io::Result<Output>) -> Result<String, Error> {
    let failed = |cause: Box<dyn std::error::Error + Send + Sync>| Error {
        doing: format!("running {program}"),
        cause,
    };
    let output = output.map_err(|error| failed(error.into()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("{}: {}", output.status, said.trim()).into()))
}
