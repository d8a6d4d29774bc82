//! `netdp bench --compare A B`: two runs beside each other.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::Error;
use super::results::{Better, CaseResult, Metric, Results, Run, SCHEMA};
use super::stats::Summary;
use crate::output;

/// How a metric changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Change {
    /// It may be the same.
    WithinNoise,
    Better,
    Worse,
}

/// One metric of one competitor in both runs.
#[derive(Clone, Debug, Serialize)]
struct Row {
    case: String,
    competitor: &'static str,
    metric: String,
    a: Summary,
    b: Summary,
    ratio: f64,
    change: Change,
}

/// Reads both and prints what changed.
pub(super) fn run(json: bool, a: &Path, b: &Path) -> Result<(), crate::Error> {
    let (a, b) = (read(a)?, read(b)?);
    let rows = compare(&a, &b);
    if json {
        return output::json(&rows);
    }
    for (name, results) in [("A", &a), ("B", &b)] {
        for line in results.machine.lines() {
            output::line(format!("{name}: {line}"))?;
        }
    }
    output::line("within noise: the intervals of both medians overlap\n")?;
    let head = ["CASE", "COMPETITOR", "METRIC", "A", "B", "B/A", ""];
    output::table(head, rows.iter().map(cells).collect())
}

fn cells(row: &Row) -> [String; 7] {
    let change = match row.change {
        Change::WithinNoise => "within noise",
        Change::Better => "better",
        Change::Worse => "WORSE",
    };
    let ratio = if row.ratio.is_finite() { format!("{:.3}", row.ratio) } else { "-".into() };
    let shown =
        |summary: &Summary| format!("{:.4} ({:.4} to {:.4})", summary.median, summary.low, summary.high);
    let names = [row.case.clone(), row.competitor.to_owned(), row.metric.clone()];
    let [case, competitor, metric] = names;
    [case, competitor, metric, shown(&row.a), shown(&row.b), ratio, change.to_owned()]
}

/// Reads a run's results, from the file or its directory.
fn read(path: &Path) -> Result<Results, Error> {
    let not_results = |why: String| Error::NotResults { path: path.display().to_string(), why };
    let file = if path.is_dir() { path.join("results.json") } else { path.to_owned() };
    let text = fs::read_to_string(file).map_err(|error| not_results(error.to_string()))?;
    let results: Results = serde_json::from_str(&text).map_err(|error| not_results(error.to_string()))?;
    if results.schema != SCHEMA {
        return Err(not_results(format!("its schema is {}, and this netdp knows {SCHEMA}", results.schema)));
    }
    Ok(results)
}

/// What both have.
fn compare(a: &Results, b: &Results) -> Vec<Row> {
    let mut rows = Vec::new();
    for case in &a.cases {
        let same = |other: &&CaseResult| other.title() == case.title();
        let Some(other) = b.cases.iter().find(same) else { continue };
        for run in &case.runs {
            let Some(other) = other.run(run.competitor) else { continue };
            rows.extend(case.metrics.iter().filter_map(|metric| row(case, metric, run, other)));
        }
    }
    rows
}

fn row(case: &CaseResult, metric: &Metric, a: &Run, b: &Run) -> Option<Row> {
    let (first, second) = (a.summary(&metric.name)?, b.summary(&metric.name)?);
    let up = second.median > first.median;
    let change = match metric.better {
        _ if first.overlaps(&second) => Change::WithinNoise,
        Better::Higher if up => Change::Better,
        Better::Lower if !up => Change::Better,
        _ => Change::Worse,
    };
    Some(Row {
        case: case.title(),
        competitor: a.competitor.title(),
        metric: metric.title(),
        a: first,
        b: second,
        ratio: second.median / first.median,
        change,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::competitor::Competitor;
    use crate::bench::machine::Machine;
    use crate::bench::results::Sample;

    fn results(cost: [f64; 3], rate: [f64; 3]) -> Results {
        let sample = |round: usize| Sample {
            round: u32::try_from(round).expect("few"),
            ..Sample::new([("cost", cost[round]), ("rate", rate[round])])
        };
        let run =
            Run { competitor: Competitor::NetdpEbpf, absent: None, samples: (0..3).map(sample).collect() };
        let metrics =
            vec![Metric::new("cost", "ns", Better::Lower), Metric::new("rate", "/s", Better::Higher)];
        let case = CaseResult {
            workload: "forward".into(),
            case: "1 flow".into(),
            about: String::new(),
            metrics,
            runs: vec![run],
        };
        Results {
            schema: SCHEMA,
            machine: Machine::default(),
            quick: false,
            rounds: 3,
            seconds: 1.0,
            cases: vec![case],
        }
    }

    #[test]
    fn what_is_better_depends_on_the_metric() {
        let (a, b) =
            (results([200.0, 201.0, 202.0], [10.0, 11.0, 12.0]), results([180.0; 3], [8.0, 8.5, 9.0]));
        let changes = |a, b| compare(a, b).iter().map(|row| row.change).collect::<Vec<_>>();
        assert_eq!(changes(&a, &b), [Change::Better, Change::Worse]);
        assert_eq!(changes(&b, &a), [Change::Worse, Change::Better]);
        assert_eq!(changes(&a, &a), [Change::WithinNoise; 2]);
    }

    #[test]
    fn only_what_both_have_is_compared() {
        let a = results([200.0; 3], [10.0; 3]);
        let mut b = a.clone();
        b.cases[0].case = "10 flows".into();
        assert!(compare(&a, &b).is_empty());
        b.cases.clear();
        assert!(compare(&a, &b).is_empty());
    }

    #[test]
    fn results_survive_the_file_and_others_are_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("results.json");
        let results = results([200.0; 3], [10.0; 3]);
        fs::write(&path, serde_json::to_string(&results).expect("JSON")).expect("a file");
        for path in [dir.path(), &path] {
            let read = read(path).expect("results");
            assert_eq!(compare(&results, &read).len(), 2);
        }
        let newer = Results { schema: SCHEMA + 1, ..results };
        fs::write(&path, serde_json::to_string(&newer).expect("JSON")).expect("a file");
        for bad in [path.as_path(), Path::new("no/such/file"), Path::new("Cargo.toml")] {
            let error = read(bad).expect_err("no results");
            assert!(error.is_bad_input() && error.to_string().contains("--compare"), "{error}");
        }
    }
}
