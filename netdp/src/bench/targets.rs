//! What netdp on eBPF is to reach, as ratios and bounds of one run.

use super::competitor::Competitor;
use super::results::Results;

/// A bound.
#[derive(Clone, Copy, Debug)]
enum Bound {
    /// The metric itself is at most this.
    ItselfAtMost(f64),
    /// Its ratio to another competitor's is at most this.
    TimesAtMost(f64, Competitor),
    /// Its ratio to another competitor's is at least this.
    TimesAtLeast(f64, Competitor),
}

use Bound::{ItselfAtMost, TimesAtLeast, TimesAtMost};
use Competitor::{Plain, RandomFully, Redirect};

/// Workload, the beginning of the case's name, metric, bound.
const TARGETS: [(&str, &str, &str, Bound); 23] = [
    ("race", "tcp", "lost", ItselfAtMost(0.0)),
    ("race", "tcp", "slow", ItselfAtMost(0.0)),
    ("race", "udp", "lost", ItselfAtMost(0.0)),
    ("race", "udp", "slow", ItselfAtMost(0.0)),
    ("churn", "server closes first", "rate", TimesAtLeast(0.95, Plain)),
    ("churn", "client closes first", "rate", TimesAtLeast(0.95, Plain)),
    ("forward", "out, 60 B, 1 flow", "cost", TimesAtMost(0.9, Redirect)),
    ("forward", "out, 60 B, 10000 flows", "cost", TimesAtMost(1.1, Redirect)),
    ("forward", "out, 60 B, 1000000 flows", "cost", TimesAtMost(1.8, Redirect)),
    ("forward", "out, 60 B, 1 flow", "cost", TimesAtMost(1.0 / 3.5, RandomFully)),
    ("forward", "out, 60 B, 10000 flows", "cost", TimesAtMost(1.0 / 3.5, RandomFully)),
    ("flows", "udp, many remotes", "rate", TimesAtLeast(4.0, RandomFully)),
    ("dns", "request", "rate", TimesAtLeast(1.0, Plain)),
    ("bulk", "request", "rate", TimesAtLeast(1.0, Plain)),
    ("bulk", "out, 1 stream", "rate", TimesAtLeast(0.97, Plain)),
    ("bulk", "out, 8 streams", "rate", TimesAtLeast(0.97, Plain)),
    ("bulk", "in, 1 stream", "rate", TimesAtLeast(0.97, Plain)),
    ("bulk", "in, 8 streams", "rate", TimesAtLeast(0.97, Plain)),
    ("publish", "10000 ports", "time", ItselfAtMost(100.0)),
    ("publish", "a range of 10000", "time", ItselfAtMost(100.0)),
    ("attach", "one", "attach", ItselfAtMost(20.0)),
    ("attach", "a hundred", "attach", ItselfAtMost(20.0)),
    ("memory", "1000000 flows", "memory", ItselfAtMost(320.0)),
];

/// Whether a target is reached.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// The target.
    pub(super) what: String,
    /// What was measured.
    pub(super) found: String,
    /// None: it was not measured.
    pub(super) met: Option<bool>,
}

impl Outcome {
    /// For a table.
    pub(super) fn mark(&self) -> &'static str {
        match self.met {
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "invalid",
        }
    }
}

/// Judges what a run has measured; targets of other workloads are left out.
pub(super) fn judge(results: &Results) -> Vec<Outcome> {
    let measured = |target: &(&str, &str, &str, Bound)| outcome(results, *target);
    TARGETS.iter().filter_map(measured).collect()
}

fn outcome(results: &Results, (workload, case, metric, bound): (&str, &str, &str, Bound)) -> Option<Outcome> {
    let is_it = |name: &str| name == case || name.starts_with(&format!("{case},"));
    let found = results.cases.iter().find(|found| found.workload == workload && is_it(&found.case))?;
    let unit = &found.metrics.iter().find(|known| known.name == metric)?.unit;
    let (of, unit) = (Competitor::NetdpEbpf, if unit.is_empty() { "" } else { unit.as_str() });
    let (what, summary) = match bound {
        ItselfAtMost(most) => {
            (format!("at most {most} {unit}"), found.run(of).and_then(|run| run.summary(metric)))
        }
        TimesAtMost(most, to) => (format!("at most {most:.2} x {}", to.title()), found.ratio(metric, of, to)),
        TimesAtLeast(least, to) => {
            (format!("at least {least:.2} x {}", to.title()), found.ratio(metric, of, to))
        }
    };
    let met = summary.map(|summary| match bound {
        ItselfAtMost(most) | TimesAtMost(most, _) => summary.median <= most,
        TimesAtLeast(least, _) => summary.median >= least,
    });
    let found = summary.map_or_else(
        || "-".into(),
        |summary| format!("{:.2} ({:.2} to {:.2})", summary.median, summary.low, summary.high),
    );
    Some(Outcome { what: format!("{workload}: {case}: {metric} {}", what.trim_end()), found, met })
}
