//! What was measured: `results.json`, with every sample.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::competitor::Competitor;
use super::machine::Machine;
use super::stats::Summary;

/// Changes when an older netdp could not read it any more.
pub const SCHEMA: u32 = 1;

/// The competitor that ratios are to.
pub const REFERENCE: Competitor = Competitor::Plain;

/// A run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Where, and with what.
    pub machine: Machine,
    /// Whether it was a quick one.
    pub quick: bool,
    /// Rounds of each competitor, after one that is not counted.
    pub rounds: u32,
    /// How long all of it took.
    pub seconds: f64,
    /// What was measured, in that order.
    pub cases: Vec<CaseResult>,
}

/// One kind of work.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CaseResult {
    /// What it belongs to, as `--only` names it.
    pub workload: String,
    /// Which one of that workload's.
    pub case: String,
    /// What is done, in a sentence.
    pub about: String,
    /// What was measured; the first is what it is about.
    pub metrics: Vec<Metric>,
    /// Who did it.
    pub runs: Vec<Run>,
}

/// Something that is measured in every round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// Its key in [`Sample::metrics`].
    pub name: String,
    /// Its unit; empty: a count.
    pub unit: String,
    /// Which is better.
    pub better: Better,
}

/// Which of two values is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Better {
    /// The greater one.
    Higher,
    /// The lesser one.
    Lower,
}

/// One competitor's rounds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Run {
    /// Whose.
    pub competitor: Competitor,
    /// Why it was not measured; none: it was.
    pub absent: Option<String>,
    /// Its rounds.
    pub samples: Vec<Sample>,
}

/// One round of one competitor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Sample {
    /// The round's number; samples of one number were measured side by side.
    pub round: u32,
    /// Values by name: the case's metrics, CPU time and counters.
    pub metrics: BTreeMap<String, f64>,
    /// A value for each second, where the case has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<f64>,
    /// What the self-check found wrong; none: the sample counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid: Option<String>,
}

impl Metric {
    /// A metric.
    pub(super) fn new(name: &str, unit: &str, better: Better) -> Self {
        Self { name: name.into(), unit: unit.into(), better }
    }

    /// Its name with its unit.
    pub fn title(&self) -> String {
        let name = self.name.replace('_', " ");
        if self.unit.is_empty() { name } else { format!("{name} [{}]", self.unit) }
    }
}

impl Sample {
    /// Of these values.
    pub(super) fn new<const N: usize>(metrics: [(&str, f64); N]) -> Self {
        let metrics = metrics.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self { metrics, ..Self::default() }
    }

    /// Marks the sample as one that does not count, unless it is so already.
    pub(super) fn invalid_if(&mut self, wrong: bool, why: impl FnOnce() -> String) {
        if wrong && self.invalid.is_none() {
            self.invalid = Some(why());
        }
    }
}

impl Run {
    /// The values of a metric in the rounds that count.
    pub fn values(&self, metric: &str) -> impl Iterator<Item = f64> {
        self.valid().filter_map(move |sample| sample.metrics.get(metric).copied())
    }

    /// A metric over the rounds that count.
    pub fn summary(&self, metric: &str) -> Option<Summary> {
        Summary::of(self.values(metric))
    }

    /// Why it does not count: it was not measured, or a self-check failed.
    pub fn problem(&self) -> Option<&str> {
        let invalid = self.samples.iter().find_map(|sample| sample.invalid.as_deref());
        self.absent.as_deref().or(invalid)
    }

    fn valid(&self) -> impl Iterator<Item = &Sample> {
        self.samples.iter().filter(|sample| sample.invalid.is_none())
    }
}

impl CaseResult {
    /// Workload and case.
    pub fn title(&self) -> String {
        format!("{}: {}", self.workload, self.case)
    }

    /// A competitor's rounds.
    pub fn run(&self, competitor: Competitor) -> Option<&Run> {
        self.runs.iter().find(|run| run.competitor == competitor)
    }

    /// How a metric of one competitor relates to another's, round by round: what disturbed both disturbs it less.
    pub fn ratio(&self, metric: &str, of: Competitor, to: Competitor) -> Option<Summary> {
        let (of, to) = (self.run(of)?, self.run(to)?);
        let ratios = of.valid().filter_map(|sample| {
            let other = to.valid().find(|other| other.round == sample.round)?;
            Some(sample.metrics.get(metric)? / other.metrics.get(metric)?)
        });
        Summary::of(ratios)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(competitor: Competitor, values: &[f64]) -> Run {
        let sample = |(round, value): (usize, &f64)| Sample {
            round: u32::try_from(round).expect("few"),
            ..Sample::new([("cost", *value)])
        };
        Run { competitor, absent: None, samples: values.iter().enumerate().map(sample).collect() }
    }

    fn case(runs: Vec<Run>) -> CaseResult {
        let metrics = vec![Metric::new("cost", "ns", Better::Lower)];
        CaseResult { workload: "w".into(), case: "c".into(), about: String::new(), metrics, runs }
    }

    /// A machine that became twice as slow in the middle changes no ratio.
    #[test]
    fn ratios_are_of_the_same_round() {
        let case = case(vec![
            run(Competitor::NetdpEbpf, &[5.0, 10.0, 10.0]),
            run(Competitor::Plain, &[10.0, 20.0, 20.0]),
        ]);
        let ratio = case.ratio("cost", Competitor::NetdpEbpf, Competitor::Plain).expect("a ratio");
        assert_eq!((ratio.low, ratio.median, ratio.high), (0.5, 0.5, 0.5));
        assert_eq!(case.ratio("cost", Competitor::Direct, Competitor::Plain), None);
    }

    #[test]
    fn what_failed_its_check_counts_nowhere() {
        let mut bad = run(Competitor::NetdpEbpf, &[5.0, 500.0, 7.0]);
        bad.samples[1].invalid_if(true, || "nothing arrived".into());
        assert_eq!(bad.problem(), Some("nothing arrived"));
        assert_eq!(bad.summary("cost").map(|summary| summary.high), Some(7.0));
        let case = case(vec![bad, run(Competitor::Plain, &[5.0, 5.0, 5.0])]);
        let ratio = case.ratio("cost", Competitor::NetdpEbpf, Competitor::Plain).expect("a ratio");
        assert_eq!((ratio.rounds, ratio.high), (2, 1.4));
    }
}
