//! Questions and answers by UDP, each from a new port: what a resolver sees.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{Arena, Shape, WORLD};
use crate::bench::load::exchange::{self, Answers};
use crate::bench::load::{Peer, Server, Transport};
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Sample};
use crate::bench::stats;

const CLIENTS: usize = 4;
const PORT: u16 = 53;

struct Questions {
    duration: Duration,
}

/// The only one.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    vec![Box::new(Questions { duration: effort.duration(Duration::from_secs(2)) })]
}

impl Case for Questions {
    fn name(&self) -> String {
        "request, response".into()
    }

    fn about(&self) -> String {
        format!("{CLIENTS} containers ask one server one question after the other, each from a new UDP port")
    }

    fn metrics(&self) -> Vec<Metric> {
        let mut metrics = rate_and_latencies();
        metrics.push(Metric::new("lost", "", Better::Lower));
        metrics
    }

    fn shape(&self) -> Shape {
        Shape { clients: CLIENTS, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let server = Server::start(&arena.world, Transport::Udp, "world", WORLD.into(), &[PORT])?;
        let peer = |(number, client): (usize, &'a crate::bench::arena::Client)| {
            (Peer { ns: &client.ns, address: client.address.into() }, arena.seen_as(number))
        };
        let clients: Vec<_> = arena.clients.iter().enumerate().map(peer).collect();
        Ok(Box::new(move |_| {
            // It answers as long as the rounds go on.
            let _server = &server;
            let answers = exchange::datagrams(&clients, SocketAddr::new(WORLD.into(), PORT), self.duration)?;
            let mut sample = sample(&answers);
            sample.metrics.insert("lost".into(), answers.lost as f64);
            Ok(sample)
        }))
    }
}

/// Metrics of questions and answers.
pub(super) fn rate_and_latencies() -> Vec<Metric> {
    let time = |name| Metric::new(name, "us", Better::Lower);
    let mut metrics = vec![Metric::new("rate", "/s", Better::Higher)];
    metrics.extend(["p50", "p99", "p99.9"].map(time));
    metrics
}

/// Their values.
pub(super) fn sample(answers: &Answers) -> Sample {
    let mut times: Vec<f64> = answers.latencies.iter().map(|time| time.as_secs_f64() * 1e6).collect();
    times.sort_by(f64::total_cmp);
    let percentile = |share| stats::percentile(&times, share).unwrap_or(f64::NAN);
    let mut sample = Sample::new([
        ("rate", times.len() as f64 / answers.elapsed.as_secs_f64()),
        ("p50", percentile(0.5)),
        ("p99", percentile(0.99)),
        ("p99.9", percentile(0.999)),
    ]);
    sample.invalid_if(times.is_empty(), || "no question was answered".into());
    let strange = answers.strange;
    sample.invalid_if(strange.is_some(), || format!("the server saw questions from {strange:?}"));
    sample
}
