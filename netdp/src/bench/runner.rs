//! Rounds, interleaved: every competitor has its arena at the same time, and they take turns.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::arena::Arena;
use super::competitor::Competitor;
use super::machine::Machine;
use super::options::Options;
use super::results::{CaseResult, Results, Run, SCHEMA, Sample};
use super::workload::{self, Case, Round};
use super::{Error, counters, stop, sweep};

/// How often the bar moves by itself.
const TICK: Duration = Duration::from_millis(200);
/// The round that is not counted.
const WARM_UP: u32 = 0;

/// Measures everything that is wanted.
pub(super) fn measure(options: &Options) -> Result<Results, Error> {
    let since = Instant::now();
    sweep::run()?;
    let machine = Machine::this();
    let wanted = workload::all().filter(|(name, _)| options.wants(name));
    let cases: Vec<(&str, Box<dyn Case>)> = wanted
        .flat_map(|(name, cases)| {
            cases(options.effort, options.rounds).into_iter().map(move |case| (name, case))
        })
        .collect();
    let bar = Bar::new(cases.iter().map(|(_, case)| turns(case.as_ref(), options.rounds)).sum());
    let mut results = Vec::new();
    for (number, (workload, case)) in cases.iter().enumerate() {
        let began = since.elapsed();
        let left = u32::try_from(cases.len() - number).unwrap_or(u32::MAX);
        let share = options.budget.map(|budget| budget.saturating_sub(began) / left);
        let rounds = Rounds { most: options.rounds, until: share.map(|share| Instant::now() + share) };
        results.push(measure_case(workload, case.as_ref(), rounds, &bar)?);
        tracing::info!(workload, case = case.name(), seconds = (since.elapsed() - began).as_secs_f64());
    }
    Ok(Results {
        schema: SCHEMA,
        machine,
        quick: options.effort == super::options::Effort::Quick,
        rounds: options.rounds,
        seconds: since.elapsed().as_secs_f64(),
        cases: results,
    })
}

fn suited(case: &dyn Case) -> impl Iterator<Item = Competitor> {
    Competitor::ALL.into_iter().filter(|competitor| case.suits(*competitor))
}

fn turns(case: &dyn Case, rounds: u32) -> u64 {
    suited(case).count() as u64 * u64::from(rounds + 1)
}

/// How often, and how long.
#[derive(Clone, Copy)]
struct Rounds {
    most: u32,
    /// From then on, no further round begins; none: all are measured.
    until: Option<Instant>,
}

impl Rounds {
    fn is_over(self, number: u32) -> bool {
        number > self.most || number > 1 && self.until.is_some_and(|until| Instant::now() >= until)
    }
}

fn measure_case(workload: &str, case: &dyn Case, rounds: Rounds, bar: &Bar) -> Result<CaseResult, Error> {
    let title = format!("{workload}: {}", case.name());
    let mut runs: Vec<Run> = Vec::new();
    let mut arenas: Vec<Option<Arena>> = Vec::new();
    for competitor in suited(case) {
        bar.say(&title, "building", competitor);
        stop::check()?;
        let built = match competitor.missing().or_else(|| case.obstacle(competitor)) {
            Some(why) => Err(why),
            None => possible(Arena::new(competitor, case.shape()))?,
        };
        runs.push(Run { competitor, absent: built.as_ref().err().cloned(), samples: Vec::new() });
        arenas.push(built.ok());
    }
    let mut prepared: Vec<Option<Round<'_>>> = Vec::new();
    for (arena, run) in arenas.iter().zip(&mut runs) {
        bar.say(&title, "preparing", run.competitor);
        stop::check()?;
        let round = arena.as_ref().map(|arena| possible(case.prepare(arena))).transpose()?;
        prepared.push(take(round, run));
    }
    let mut number = WARM_UP;
    while !rounds.is_over(number) {
        for ((arena, prepared), run) in arenas.iter().zip(&mut prepared).zip(&mut runs) {
            bar.say(&title, &format!("round {number} of {}", rounds.most), run.competitor);
            stop::check()?;
            if let (Some(arena), Some(round)) = (arena, prepared.as_mut()) {
                let sample = possible(turn(arena, round, number))?;
                match sample {
                    Ok(sample) if number != WARM_UP => run.samples.push(sample),
                    Ok(_) => {}
                    Err(why) => {
                        run.absent = Some(why);
                        *prepared = None;
                    }
                }
            }
            bar.step();
        }
        number += 1;
    }
    bar.skip(runs.len() as u64 * u64::from(rounds.most + 1 - number));
    case.finish(&mut runs);
    Ok(CaseResult {
        workload: workload.into(),
        case: case.name(),
        about: case.about(),
        metrics: case.metrics(),
        runs,
    })
}

/// One round of one competitor, with what the machine and the kernel counted meanwhile.
fn turn(arena: &Arena, round: &mut Round<'_>, number: u32) -> Result<Sample, Error> {
    let (before, busy) = (arena.counters()?, counters::busy_seconds()?);
    let mut sample = round(number)?;
    let busy = counters::busy_seconds()? - busy;
    sample.round = number;
    // Some work leaves out what is not its own.
    sample.metrics.entry("cpu".into()).or_insert(busy);
    for ((name, after), (_, before)) in arena.counters()?.into_iter().zip(before) {
        sample.metrics.insert(name.into(), after.saturating_sub(before) as f64);
    }
    // JSON has no number for what was not measured.
    sample.metrics.retain(|_, value| value.is_finite());
    stop::check()?;
    Ok(sample)
}

/// What one competitor can't do is told in the results; an interruption ends the run.
fn possible<T>(result: Result<T, Error>) -> Result<Result<T, String>, Error> {
    match result {
        Err(Error::Interrupted) => Err(Error::Interrupted),
        Ok(value) => Ok(Ok(value)),
        Err(error) => Ok(Err(error.to_string())),
    }
}

fn take<T>(made: Option<Result<T, String>>, run: &mut Run) -> Option<T> {
    match made? {
        Ok(made) => Some(made),
        Err(why) => {
            run.absent = Some(why);
            None
        }
    }
}

/// Progress on a terminal; nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new(turns: u64) -> Self {
        let bar = ProgressBar::new(turns);
        // The template is right: it is tried by every run.
        let style = ProgressStyle::with_template("{bar:30} {percent:>3}% {elapsed} (left {eta}) {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    fn say(&self, case: &str, doing: &str, competitor: Competitor) {
        self.0.set_message(format!("{case}: {doing}: {}", competitor.title()));
    }

    fn step(&self) {
        self.0.inc(1);
    }

    fn skip(&self, turns: u64) {
        self.0.inc(turns);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
