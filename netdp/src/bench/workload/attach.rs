//! The control plane: how long it takes to attach a container and to detach it, the process's start included.

use std::time::{Duration, Instant};

use super::{Case, Round};
use crate::bench::arena::{self, Arena, Shape};
use crate::bench::competitor::Competitor;
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Sample};
use crate::bench::{Error, stop};

struct Attach {
    containers: usize,
}

/// One, and one after the other.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let sizes = effort.choose(vec![1, 100], vec![1]);
    sizes.into_iter().map(|containers| Box::new(Attach { containers }) as Box<dyn Case>).collect()
}

impl Case for Attach {
    fn name(&self) -> String {
        match self.containers {
            1 => "one".into(),
            100 => "a hundred".into(),
            containers => format!("{containers} in a row"),
        }
    }

    fn about(&self) -> String {
        "time of netdp attach and netdp detach on a network that exists, for each container".into()
    }

    fn metrics(&self) -> Vec<Metric> {
        vec![Metric::new("attach", "ms", Better::Lower), Metric::new("detach", "ms", Better::Lower)]
    }

    fn suits(&self, competitor: Competitor) -> bool {
        competitor.is_netdp()
    }

    fn shape(&self) -> Shape {
        Shape { clients: 1, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let namespaces = (0..self.containers).map(|_| arena::new_ns()).collect::<Result<Vec<_>, _>>()?;
        let Some(instance) = arena.netdp() else { return Ok(Box::new(|_| Ok(Sample::default()))) };
        let each = |time: Duration| time.as_secs_f64() * 1e3 / self.containers as f64;
        Ok(Box::new(move |_| {
            let since = Instant::now();
            // The arena's own container is the first.
            for (number, ns) in (1..).zip(&namespaces) {
                stop::check()?;
                instance.attach(&arena.host, number, ns)?;
            }
            let attached = since.elapsed();
            let since = Instant::now();
            for number in 1..=namespaces.len() {
                stop::check()?;
                instance.detach(&arena.host, number)?;
            }
            Ok(Sample::new([("attach", each(attached)), ("detach", each(since.elapsed()))]))
        }))
    }
}
