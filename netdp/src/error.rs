//! Why a command failed, and which exit code that is.

use std::io;

use crate::plan::{allowed, ipam, mac, names, ports, sources, subnet, timeouts};
use crate::refusal::Refusal;
use crate::{bench, datapath, net, spec, state, target};

/// Exit code of a command that failed and changed nothing.
pub const FAILED: u8 = 1;
/// Exit code of bad usage or bad input.
pub const BAD_INPUT: u8 = 2;

/// How many characters of each end of a very long cause are shown.
const LONG: usize = 500;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Refused because of what is there.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A publish spec.
    #[error(transparent)]
    Spec(#[from] spec::Error),
    /// A name.
    #[error(transparent)]
    Name(#[from] names::Error),
    /// A subnet or gateway.
    #[error(transparent)]
    Subnet(#[from] subnet::Error),
    /// An address to use besides.
    #[error(transparent)]
    Allowed(#[from] allowed::Error),
    /// Clients of a published port.
    #[error(transparent)]
    Sources(#[from] sources::Error),
    /// A network's timeouts.
    #[error(transparent)]
    Timeouts(#[from] timeouts::Error),
    /// An address.
    #[error(transparent)]
    Ipam(#[from] ipam::Error),
    /// A MAC.
    #[error(transparent)]
    Mac(#[from] mac::Error),
    /// A port.
    #[error(transparent)]
    Ports(#[from] ports::Error),
    /// A TARGET.
    #[error(transparent)]
    Target(#[from] target::ParseError),
    /// The instance's files.
    #[error(transparent)]
    State(#[from] state::Error),
    /// The kernel's network objects.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// The datapath.
    #[error(transparent)]
    Datapath(#[from] datapath::Error),
    /// A measurement.
    #[error(transparent)]
    Bench(#[from] bench::Error),
    /// Neither datapath works here.
    #[error("no datapath works here: eBPF: {ebpf}; iptables: {iptables}")]
    NoDatapath {
        /// Why eBPF doesn't.
        ebpf: String,
        /// Why iptables doesn't.
        iptables: Box<Error>,
    },
    /// A system call or file operation.
    #[error("{doing}: {source}")]
    System {
        /// What was being done to what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// Not enough privilege.
    #[error("netdp {command} needs root ({missing}): run it with sudo")]
    Privilege {
        /// The verb.
        command: &'static str,
        /// The capabilities that are missing.
        missing: String,
    },
    /// Some parts of a removal failed; the rest was removed.
    #[error("{doing}: {}", failures.join("; "))]
    Incomplete {
        /// What was being removed.
        doing: String,
        /// Every failure.
        failures: Vec<String>,
    },
    /// A command failed, and so did undoing it.
    #[error("{cause}; undoing it failed too: {}", failures.join("; "))]
    NotUndone {
        /// Why the command failed.
        cause: Box<Error>,
        /// What could not be undone.
        failures: Vec<String>,
    },
}

impl Error {
    /// For `map_err` on system calls and file operations.
    pub fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source: source.into() }
    }

    /// The command's exit code.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Bench(error) if error.is_bad_input() => BAD_INPUT,
            Self::Refused(_)
            | Self::Spec(_)
            | Self::Name(_)
            | Self::Subnet(_)
            | Self::Allowed(_)
            | Self::Sources(_)
            | Self::Timeouts(_)
            | Self::Ipam(_)
            | Self::Mac(_)
            | Self::Ports(_)
            | Self::Target(_)
            | Self::Privilege { .. } => BAD_INPUT,
            Self::State(_)
            | Self::Net(_)
            | Self::Datapath(_)
            | Self::Bench(_)
            | Self::NoDatapath { .. }
            | Self::System { .. }
            | Self::Incomplete { .. }
            | Self::NotUndone { .. } => FAILED,
        }
    }

    /// The one line for standard error. Of a very long cause (a verifier's log) both ends; `-v` shows all of it.
    pub fn line(&self) -> String {
        format!("error: {}", shortened(&self.to_string()))
    }
}

/// One line, without the middle of a very long one.
pub fn shortened(text: &str) -> String {
    let text = text.trim().replace('\n', "; ");
    let chars: Vec<char> = text.chars().collect();
    if chars.len() <= 2 * LONG {
        return text;
    }
    tracing::info!(text, "without the middle taken out");
    let start: String = chars.iter().take(LONG).collect();
    let end: String = chars[chars.len() - LONG..].iter().collect();
    format!("{start} [...] {end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_input_and_failures_have_their_codes() {
        let refused: Error = Refusal::NetworkExists("blue".into()).into();
        let spec: Error = "0:80".parse::<spec::Spec>().unwrap_err().into();
        let name: Error = names::check("endpoint", "").unwrap_err().into();
        for error in [refused, spec, name] {
            assert_eq!(error.exit_code(), BAD_INPUT, "{error}");
        }
        let failed = Error::system("opening x")(io::Error::other("no"));
        assert_eq!(failed.exit_code(), FAILED);
        let undone = Error::NotUndone { cause: Box::new(failed), failures: vec!["deleting y: no".into()] };
        assert_eq!(undone.exit_code(), FAILED);
        assert_eq!(undone.line(), "error: opening x: no; undoing it failed too: deleting y: no");
    }

    #[test]
    fn a_long_cause_loses_its_middle() {
        let text = format!("start {} end", "x".repeat(10_000));
        let short = shortened(&text);
        assert!(short.starts_with("start") && short.ends_with("end") && short.len() < 1100, "{short}");
    }

    #[test]
    fn an_error_is_one_line() {
        let error = Error::Incomplete { doing: "x".into(), failures: vec!["a\nb".into()] };
        assert_eq!(error.line(), "error: x: a; b");
    }
}
