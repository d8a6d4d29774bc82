//! The work, a file for each kind.

use super::Error;
use super::arena::{Arena, Shape};
use super::competitor::Competitor;
use super::options::Effort;
use super::results::{Metric, Run, Sample};

mod attach;
mod bulk;
mod churn;
mod dns;
mod flows;
mod forward;
mod memory;
mod publish;
mod race;
mod tools;

/// One round on a prepared arena, given its number (0: warm-up).
pub(super) type Round<'a> = Box<dyn FnMut(u32) -> Result<Sample, Error> + 'a>;

/// One kind of work, the same for every competitor.
pub(super) trait Case {
    /// Its name within the workload.
    fn name(&self) -> String;
    /// What is done, in a sentence.
    fn about(&self) -> String;
    /// What is measured; what it is about comes first.
    fn metrics(&self) -> Vec<Metric>;
    /// Whether the work means anything for a competitor.
    fn suits(&self, competitor: Competitor) -> bool {
        competitor != Competitor::Direct
    }
    /// Why a competitor that it suits can't do it on this machine; none: it can.
    fn obstacle(&self, _competitor: Competitor) -> Option<String> {
        None
    }
    /// The arena that it needs.
    fn shape(&self) -> Shape;
    /// Starts servers and opens flows; what is measured is the rounds.
    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error>;
    /// Derives values from all competitors' rounds.
    fn finish(&self, _runs: &mut [Run]) {}
}

/// Makes a workload's cases for that much effort and so many rounds.
type Cases = fn(Effort, u32) -> Vec<Box<dyn Case>>;

/// Every workload by name, in the order in which they are measured, with what makes a round count.
const ALL: [(&str, Cases, &str); 10] = [
    (
        "race",
        race::cases,
        "the server saw the right address and no two flows as one, every answer belonged to its flow, and the \
         server's own sockets dropped nothing",
    ),
    (
        "churn",
        churn::cases,
        "the server saw the right address; connections that both ends did not close in order are `failed`",
    ),
    (
        "forward",
        forward::cases,
        "a program at the far end counted at least 99.9 % of the packets with the right addresses and ports, and none \
         otherwise",
    ),
    (
        "flows",
        flows::cases,
        "a program at the far end counted the packets, and none came untranslated; those that did not come are `lost`",
    ),
    ("dns", dns::cases, "the server saw the right address; questions without an answer are `lost`"),
    ("bulk", bulk::cases, "bytes were counted where they arrived, on streams from the right address"),
    (
        "publish",
        publish::cases,
        "at least 99.9 % of the packets to the last of the ports reached the container at its own port",
    ),
    ("attach", attach::cases, "every command succeeded (that traffic then flows is what the others check)"),
    ("memory", memory::cases, "a packet of every flow arrived, translated"),
    (
        "tools",
        tools::cases,
        "the tool itself says that all went well; the world knows no way to an address that was not translated",
    ),
];

/// Their names.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, ..)| *name).collect()
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Cases)> {
    ALL.into_iter().map(|(name, cases, _)| (name, cases))
}

/// What makes a round of a workload count; else it is reported as invalid.
pub(super) fn self_check(workload: &str) -> Option<&'static str> {
    ALL.iter().find(|(name, ..)| *name == workload).map(|(_, _, check)| *check)
}
