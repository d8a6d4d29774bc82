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

/// Every workload by name, in the order in which they are measured.
const ALL: [(&str, Cases); 9] = [
    ("race", race::cases),
    ("churn", churn::cases),
    ("forward", forward::cases),
    ("flows", flows::cases),
    ("dns", dns::cases),
    ("bulk", bulk::cases),
    ("publish", publish::cases),
    ("attach", attach::cases),
    ("memory", memory::cases),
];

/// Their names.
pub(super) fn names() -> Vec<&'static str> {
    ALL.iter().map(|(name, _)| *name).collect()
}

/// All of them.
pub(super) fn all() -> impl Iterator<Item = (&'static str, Cases)> {
    ALL.into_iter()
}
