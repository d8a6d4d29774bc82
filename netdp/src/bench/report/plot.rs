//! One SVG for each case: bars of its first metric, or lines over time where it has a series.

use plotters::prelude::*;

use super::number;
use crate::bench::Error;
use crate::bench::competitor::Competitor;
use crate::bench::results::{CaseResult, Metric, Results, Run};

/// Pixels.
const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 34;
const LINES_HEIGHT: u32 = 420;
const MARGIN: u32 = 12;
const CAPTION: u32 = 40;
const NAMES: u32 = 210;
/// Room for a bar's number, as a part of the longest bar.
const ROOM: f64 = 1.2;

/// A drawing.
#[derive(Debug)]
pub(super) struct Plot {
    /// The case's title.
    pub(super) title: String,
    /// The file's name.
    pub(super) file: String,
    /// The drawing.
    pub(super) svg: String,
}

/// Draws every case that was measured.
pub(super) fn all(results: &Results) -> Result<Vec<Plot>, Error> {
    let mut plots = Vec::new();
    for case in &results.cases {
        let title = case.title();
        let failed =
            |error: &dyn std::fmt::Display| Error::Plot { what: title.clone(), why: error.to_string() };
        let mut svg = String::new();
        let has_series = case.runs.iter().any(|run| !series(run).is_empty());
        let drawn = if has_series { lines(case, &mut svg) } else { bars(case, &mut svg) };
        if drawn.map_err(|error| failed(&error))? {
            plots.push(Plot { file: format!("{}.svg", file_name(&title)), title, svg });
        }
    }
    Ok(plots)
}

type Drawn = Result<bool, Box<dyn std::error::Error>>;

/// Horizontal bars with the interval as a whisker.
fn bars(case: &CaseResult, svg: &mut String) -> Drawn {
    // A count that is zero everywhere is good news, and an empty picture.
    let differs =
        |metric: &&Metric| case.runs.iter().flat_map(|run| run.values(&metric.name)).any(|value| value > 0.0);
    let Some(metric) = case.metrics.iter().find(differs) else { return Ok(false) };
    let found: Vec<_> =
        case.runs.iter().filter_map(|run| Some((run.competitor, run.summary(&metric.name)?))).collect();
    let longest = found.iter().map(|(_, summary)| summary.high).fold(0.0, f64::max);
    if found.is_empty() || longest <= 0.0 {
        return Ok(false);
    }
    let count = u32::try_from(found.len())?;
    let area =
        SVGBackend::with_string(svg, (WIDTH, count * BAR_HEIGHT + CAPTION + 4 * MARGIN)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: {}", case.title(), metric.title()), ("sans-serif", 18))
        .margin(MARGIN)
        .y_label_area_size(NAMES)
        .x_label_area_size(2 * MARGIN)
        .build_cartesian_2d(0.0..longest * ROOM, 0.0..f64::from(count))?;
    chart.configure_mesh().disable_mesh().disable_y_axis().x_labels(6).draw()?;
    for (row, (competitor, summary)) in found.iter().rev().enumerate() {
        let (bottom, middle) = (f64::from(u32::try_from(row)?) + 0.15, f64::from(u32::try_from(row)?) + 0.5);
        let colour = colour(*competitor);
        let bar = Rectangle::new([(0.0, bottom), (summary.median, bottom + 0.7)], colour.filled());
        chart.draw_series([bar])?;
        let whisker = PathElement::new([(summary.low, middle), (summary.high, middle)], BLACK);
        chart.draw_series([whisker])?;
        let label = Text::new(
            format!(" {}", number(summary.median)),
            (summary.high.max(summary.median), middle + 0.2),
            ("sans-serif", 14),
        );
        chart.draw_series([label])?;
        let (_, y) = chart.backend_coord(&(0.0, middle));
        area.draw(&Text::new(competitor.title(), (i32::try_from(MARGIN)?, y - 8), ("sans-serif", 14)))?;
    }
    area.present()?;
    drop(chart);
    drop(area);
    Ok(true)
}

/// A line for each competitor, over seconds.
fn lines(case: &CaseResult, svg: &mut String) -> Drawn {
    let Some(metric) = case.metrics.first() else { return Ok(false) };
    let all: Vec<(Competitor, Vec<f64>)> = case
        .runs
        .iter()
        .map(|run| (run.competitor, series(run)))
        .filter(|(_, series)| !series.is_empty())
        .collect();
    let seconds = all.iter().map(|(_, series)| series.len()).max().unwrap_or(0);
    let highest = all.iter().flat_map(|(_, series)| series).copied().fold(0.0, f64::max);
    if highest <= 0.0 {
        return Ok(false);
    }
    let area = SVGBackend::with_string(svg, (WIDTH, LINES_HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: {}", case.title(), metric.title()), ("sans-serif", 18))
        .margin(MARGIN)
        .y_label_area_size(80)
        .x_label_area_size(36)
        .build_cartesian_2d(1.0..f64::from(u32::try_from(seconds.max(2))?), 0.0..highest * ROOM)?;
    chart.configure_mesh().x_desc("second").light_line_style(WHITE).draw()?;
    for (competitor, series) in &all {
        let colour = colour(*competitor);
        let points = (1u32..).map(f64::from).zip(series.iter().copied());
        let style = colour.stroke_width(if competitor.is_netdp() { 3 } else { 2 });
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(competitor.title())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(3)));
    }
    chart.configure_series_labels().border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.9)).draw()?;
    area.present()?;
    drop(chart);
    drop(area);
    Ok(true)
}

/// Second by second, the median of the rounds.
fn series(run: &Run) -> Vec<f64> {
    let valid = || run.samples.iter().filter(|sample| sample.invalid.is_none());
    let seconds = valid().map(|sample| sample.series.len()).min().unwrap_or(0);
    (0..seconds)
        .filter_map(|second| crate::bench::stats::Summary::of(valid().map(|sample| sample.series[second])))
        .map(|summary| summary.median)
        .collect()
}

/// netdp stands out; what is alike has similar colours, and all can be told apart without red and green.
fn colour(competitor: Competitor) -> RGBColor {
    match competitor {
        Competitor::NetdpEbpf => RGBColor(0, 114, 178),
        Competitor::NetdpIptables => RGBColor(86, 180, 233),
        Competitor::Masquerade => RGBColor(213, 94, 0),
        Competitor::RandomFully => RGBColor(230, 159, 0),
        Competitor::Nftables => RGBColor(204, 121, 167),
        Competitor::Plain => RGBColor(90, 90, 90),
        Competitor::Direct => RGBColor(190, 190, 190),
        Competitor::Redirect => RGBColor(0, 158, 115),
        Competitor::RedirectNextHop => RGBColor(120, 200, 170),
    }
}

fn file_name(title: &str) -> String {
    let words = title.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("-").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_have_plain_names() {
        assert_eq!(file_name("forward: out, 60 B, 1 flow"), "forward-out-60-b-1-flow");
    }
}
