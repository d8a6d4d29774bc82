//! A run's results for people: a table on the terminal, a page with plots in a directory.

use std::fs;
use std::path::Path;

use super::Error;
use super::competitor::Competitor;
use super::results::{CaseResult, Metric, REFERENCE, Results, Run};
use super::stats::Summary;
use super::targets::{self, Outcome};
use super::workload;
use crate::output;

mod html;
mod plot;

/// Columns before those of the metrics.
const WHO: &str = "COMPETITOR";

/// What a quick run can't tell.
const QUICK: &str = "a quick run: fewer and shorter cases, and fewer rounds where time runs out: it shows large differences only";

/// Writes `results.json`, the plots and `report.html`.
pub(super) fn write(dir: &Path, results: &Results) -> Result<(), Error> {
    let json = serde_json::to_string_pretty(results).map_err(Error::system("writing results.json"))?;
    let put = |name: &str, text: &str| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::system(format!("writing {}", path.display())))
    };
    put("results.json", &json)?;
    let plots = plot::all(results)?;
    for plot in &plots {
        put(&plot.file, &plot.svg)?;
    }
    put("report.html", &html::page(results, &plots))
}

/// Prints the tables.
pub(super) fn print(results: &Results) -> Result<(), crate::Error> {
    for line in results.machine.lines() {
        output::line(line)?;
    }
    if results.quick {
        output::line(QUICK)?;
    }
    output::line(format!(
        "medians of {} interleaved rounds after a warm-up; +- is half of the interval that holds the median with 90 % \
         confidence{}; ratios are round by round, to {}, ~ where 1 is within their interval",
        results.rounds,
        if results.rounds < 5 { " (with fewer than five rounds: with less)" } else { "" },
        REFERENCE.title(),
    ))?;
    for case in &results.cases {
        output::line(format!("\n{}\n{}", case.title(), case.about))?;
        if let Some(check) = workload::self_check(&case.workload) {
            output::line(format!("a round counts if {check}"))?;
        }
        output::rows(&head(case), rows(case))?;
        for (competitor, problem) in problems(case) {
            output::line(format!("{}: {problem}", competitor.title()))?;
        }
    }
    let outcomes = targets::judge(results);
    if !outcomes.is_empty() {
        output::line("\nTargets")?;
        let row =
            |outcome: &Outcome| vec![outcome.mark().into(), outcome.what.clone(), outcome.found.clone()];
        output::rows(&["", "WHAT", "FOUND"].map(Into::into), outcomes.iter().map(row).collect())?;
    }
    Ok(())
}

/// The table's head: names and units.
fn head(case: &CaseResult) -> Vec<String> {
    let metrics = case.metrics.iter().map(Metric::title);
    [WHO.to_owned()]
        .into_iter()
        .chain(metrics)
        .chain(["ratio".into(), "cpu [s]".into(), "counters".into()])
        .collect()
}

/// A row for each competitor that was measured.
fn rows(case: &CaseResult) -> Vec<Vec<String>> {
    case.runs.iter().map(|run| row(case, run)).collect()
}

fn row(case: &CaseResult, run: &Run) -> Vec<String> {
    let cell = |metric: &Metric| run.summary(&metric.name).map_or_else(|| "-".into(), |found| shown(&found));
    let mut cells = vec![run.competitor.title().to_owned()];
    cells.extend(case.metrics.iter().map(cell));
    cells.push(ratio(case, run));
    cells.push(run.summary("cpu").map_or_else(|| "-".into(), |cpu| number(cpu.median)));
    cells.push(counters(case, run));
    cells
}

/// Of the first metric, to the reference.
fn ratio(case: &CaseResult, run: &Run) -> String {
    let metric = case.metrics.first().map(|metric| metric.name.as_str()).unwrap_or_default();
    let reference = case.run(REFERENCE).is_some_and(|reference| reference.competitor == run.competitor);
    match case.ratio(metric, run.competitor, REFERENCE) {
        _ if reference => "1".into(),
        Some(ratio) if ratio.contains(1.0) => format!("~{:.2}", ratio.median),
        Some(ratio) => format!("{:.2}", ratio.median),
        None => "-".into(),
    }
}

/// What is counted beside the metrics, where it is not zero.
fn counters(case: &CaseResult, run: &Run) -> String {
    let known = |name: &str| name == "cpu" || case.metrics.iter().any(|metric| metric.name == name);
    let names = run.samples.first().map(|sample| sample.metrics.keys().cloned().collect::<Vec<_>>());
    let names = names.unwrap_or_default().into_iter().filter(|name| !known(name));
    let shown = names.filter_map(|name| {
        let median = run.summary(&name)?.median;
        (median != 0.0).then(|| format!("{name} {}", number(median)))
    });
    output::joined(shown)
}

/// Who does not count, and why.
fn problems(case: &CaseResult) -> Vec<(Competitor, String)> {
    let problem = |run: &Run| {
        let prefix = if run.absent.is_some() { "not measured" } else { "INVALID" };
        Some((run.competitor, format!("{prefix}: {}", run.problem()?)))
    };
    case.runs.iter().filter_map(problem).collect()
}

/// A median with its interval.
fn shown(summary: &Summary) -> String {
    let spread = summary.spread();
    let percent = (spread * 100.0).round();
    if percent == 0.0 {
        number(summary.median)
    } else {
        format!("{} +-{percent:.0}%", number(summary.median))
    }
}

/// Three digits, or all before the point.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_about_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.0123, "0.012"), (1.234, "1.23"), (12.34, "12.3"), (45_500.0, "45500")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_spread_is_shown_where_there_is_one() {
        let shown = |values: [f64; 3]| shown(&Summary::of(values).expect("values"));
        assert_eq!(shown([10.0, 10.0, 10.0]), "10.0");
        assert_eq!(shown([9.0, 10.0, 11.0]), "10.0 +-10%");
    }
}
