//! Why a run failed.

use std::io;

use crate::net;

/// Why a run failed. What one competitor can't do is no error: it stands in the results.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A signal came.
    #[error("interrupted: everything that bench had made is removed")]
    Interrupted,
    /// No such workload.
    #[error("--only {name}: there is no such workload: choose from {known}")]
    NoWorkload {
        /// As given.
        name: String,
        /// Those that there are.
        known: String,
    },
    /// Where the report would go.
    #[error("--out {dir}: {why}: give a directory that can be written to")]
    Out {
        /// As given.
        dir: String,
        /// What is wrong with it.
        why: io::Error,
    },
    /// Not results of a run.
    #[error("--compare {path}: {why}: give the results.json of a run, or its directory")]
    NotResults {
        /// As given.
        path: String,
        /// What is wrong with it.
        why: String,
    },
    /// The kernel's network objects.
    #[error(transparent)]
    Net(#[from] net::Error),
    /// A system call.
    #[error("{doing}: {source}")]
    System {
        /// What was being done to what.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A program that wires a competitor.
    #[error("`{line}`: {why}")]
    Command {
        /// Its command line.
        line: String,
        /// What it said.
        why: String,
    },
    /// The bench's own BPF programs.
    #[error("{doing}: {why}")]
    Bpf {
        /// What was being done.
        doing: &'static str,
        /// What the kernel or aya said.
        why: String,
    },
    /// A plot.
    #[error("drawing {what}: {why}")]
    Plot {
        /// Which one.
        what: String,
        /// What plotters said.
        why: String,
    },
}

impl Error {
    /// For `map_err` on system calls.
    pub fn system<E: Into<io::Error>>(doing: impl Into<String>) -> impl FnOnce(E) -> Self {
        let doing = doing.into();
        move |source| Self::System { doing, source: source.into() }
    }

    /// For `map_err` on aya's errors, whose sources tell more.
    pub(super) fn bpf<E: std::error::Error>(doing: &'static str) -> impl FnOnce(E) -> Self {
        move |error| {
            let mut why = error.to_string();
            let mut source = error.source();
            while let Some(cause) = source {
                why = format!("{why}: {cause}");
                source = cause.source();
            }
            Self::Bpf { doing, why }
        }
    }

    /// Whether the command line was wrong.
    pub fn is_bad_input(&self) -> bool {
        matches!(self, Self::NoWorkload { .. } | Self::Out { .. } | Self::NotResults { .. })
    }
}
