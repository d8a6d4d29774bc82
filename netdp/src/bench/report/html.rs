//! `report.html`: one file that needs no network.

use std::fmt::Write as _;

use super::plot::Plot;
use super::{QUICK, head, problems, rows};
use crate::bench::competitor::Competitor;
use crate::bench::results::{CaseResult, Results};
use crate::bench::{targets, workload};

const STYLE: &str = "\
:root{color-scheme:light dark}\
body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.6rem}h2{font-size:1.2rem;margin-top:2.5rem}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums;display:block;overflow-x:auto}\
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid #8884;white-space:nowrap}\
th:first-child,td:first-child,td:last-child,th:last-child{text-align:left}\
tr.netdp{font-weight:600}tr.invalid{opacity:.5;text-decoration:line-through}\
.plot{background:#fff;border-radius:6px;max-width:100%}.plot svg{max-width:100%;height:auto}\
.met{color:#2a7}.missed{color:#c33}.problem{color:#c33}small{opacity:.7}";

/// What the figures are, and are not.
const METHOD: &str = "\
<details><summary>How to read this</summary><p>World, host and containers are network namespaces of one machine, \
connected by veth pairs, and the load is made on the same CPUs: compare the competitors with each other, not the \
figures with those of a network card. Every competitor has an arena of its own, all at the same time, and they take \
turns in each round. What sending a packet itself costs (`no host`) is measured in the same round and taken off the \
costs per packet; `with sender` is the whole. `cpu` is the time that all of the machine's CPUs were busy meanwhile, the \
load's own included. Counters are those of the kernel and of netdp, where they are not zero. A line that is struck \
through failed its check or could not be measured; why stands below the table.<dl>";

/// The whole page.
pub(super) fn page(results: &Results, plots: &[Plot]) -> String {
    let mut html = String::new();
    let _ = write!(
        html,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>\
         <title>netdp bench</title><style>{STYLE}</style><h1>netdp bench</h1><p>{}<p><small>Medians of {} interleaved \
         rounds after a warm-up, {:.0} s in all. ± is half of the interval that holds the median with 90 % confidence \
         (with fewer than five rounds: with less). Ratios are round by round, to plain routing; ~: within noise.\
         </small>",
        results.machine.lines().iter().map(|line| escaped(line)).collect::<Vec<_>>().join("<br>"),
        results.rounds,
        results.seconds,
    );
    if results.quick {
        let _ = write!(html, "<p class=problem>This is {QUICK}.");
    }
    html.push_str(METHOD);
    for competitor in Competitor::ALL {
        let _ = write!(html, "<dt>{}<dd>{}", competitor.title(), competitor.about());
    }
    html.push_str("</dl></details>");
    html.push_str(&targets_table(results));
    for case in &results.cases {
        html.push_str(&section(case, plots));
    }
    html.push_str("</html>\n");
    html
}

fn section(case: &CaseResult, plots: &[Plot]) -> String {
    let mut html = format!("<h2>{}</h2><p>{}", escaped(&case.title()), escaped(&case.about));
    if let Some(check) = workload::self_check(&case.workload) {
        let _ = write!(html, "<br><small>A round counts if {}.</small>", escaped(check));
    }
    for plot in plots.iter().filter(|plot| plot.title == case.title()) {
        let _ = write!(html, "<div class=plot>{}</div>", plot.svg);
    }
    html.push_str("<table><tr>");
    for cell in head(case) {
        let _ = write!(html, "<th>{}", escaped(&cell));
    }
    for (run, cells) in case.runs.iter().zip(rows(case)) {
        let mut classes = Vec::new();
        classes.extend(run.competitor.is_netdp().then_some("netdp"));
        classes.extend(run.problem().is_some().then_some("invalid"));
        let _ = write!(html, "<tr class='{}'>", classes.join(" "));
        for cell in cells {
            let _ = write!(html, "<td>{}", escaped(&cell).replace("+-", "±"));
        }
    }
    html.push_str("</table>");
    for (competitor, problem) in problems(case) {
        let _ = write!(html, "<p class=problem>{}: {}", competitor.title(), escaped(&problem));
    }
    html
}

fn targets_table(results: &Results) -> String {
    let outcomes = targets::judge(results);
    if outcomes.is_empty() {
        return String::new();
    }
    let mut html = String::from("<h2>Targets</h2><table>");
    for outcome in outcomes {
        let class = match outcome.met {
            Some(true) => "met",
            Some(false) => "missed",
            None => "",
        };
        let _ = write!(
            html,
            "<tr><td class='{class}'>{}<td>{}<td>{}",
            outcome.mark(),
            escaped(&outcome.what),
            escaped(&outcome.found)
        );
    }
    html.push_str("</table>");
    html
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_not_markup() {
        assert_eq!(escaped("a<b & c>d"), "a&lt;b &amp; c&gt;d");
    }
}
