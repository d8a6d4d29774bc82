//! Connection after connection to one destination, for longer than netfilter's ports last.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{self, Arena, Shape, WORLD};
use crate::bench::load::Peer;
use crate::bench::load::churn::{AT_ONCE, ChurnReport, ChurnServer, ClosesFirst, Until, churn};
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Sample};
use crate::bench::stats;

const CLIENTS: usize = 4;
/// The first destination port: each round has its own, towards which every port is free.
const PORT: u16 = 8000;
/// Netfilter's 64 512 ports last for three seconds, and come back after 120.
const LONG: Duration = Duration::from_secs(15);
const QUICK: Duration = Duration::from_secs(1);

struct Churn {
    first: ClosesFirst,
    duration: Duration,
}

/// Who closes first.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let duration = effort.choose(LONG, QUICK);
    let case = |first| Box::new(Churn { first, duration }) as Box<dyn Case>;
    effort
        .choose(vec![ClosesFirst::Server, ClosesFirst::Client], vec![ClosesFirst::Server])
        .into_iter()
        .map(case)
        .collect()
}

impl Case for Churn {
    fn name(&self) -> String {
        let who = if self.first == ClosesFirst::Server { "server" } else { "client" };
        format!("{who} closes first")
    }

    fn about(&self) -> String {
        format!(
            "{CLIENTS} containers open and close TCP connections to one destination for {} s, {} at a time",
            self.duration.as_secs(),
            CLIENTS * AT_ONCE
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        let count = |name| Metric::new(name, "", Better::Lower);
        let time = |name| Metric::new(name, "ms", Better::Lower);
        let mut metrics =
            vec![Metric::new("rate", "/s", Better::Higher), Metric::new("last_second", "/s", Better::Higher)];
        metrics.extend([time("p50"), time("p99"), time("p99.9"), count("failed"), count("syn_again")]);
        metrics
    }

    fn shape(&self) -> Shape {
        Shape { clients: CLIENTS, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        for client in &arena.clients {
            // Their own TIME_WAIT shall not run them out of ports.
            arena::set_sysctl(&client.ns, "net/ipv4/tcp_tw_reuse", "1")?;
            arena::set_sysctl(&client.ns, "net/ipv4/ip_local_port_range", "1024 65535")?;
        }
        let clients: Vec<Peer<'a>> = arena
            .clients
            .iter()
            .map(|client| Peer { ns: &client.ns, address: client.address.into() })
            .collect();
        let expected: Vec<IpAddr> = (0..CLIENTS).map(|client| arena.seen_as(client).into()).collect();
        Ok(Box::new(move |round| {
            // The kernel of the world remembers; the competitor starts each round with an empty table.
            arena.forget_flows()?;
            let port = PORT + u16::try_from(round).unwrap_or(0);
            let at = SocketAddr::new(WORLD.into(), port);
            let server = ChurnServer::new(&arena.world, at, self.first, CLIENTS * AT_ONCE, &expected)?;
            let report = churn(&clients, &server, self.first, Until::Elapsed(self.duration))?;
            let mut sample = sample(report);
            let strange = server.strange();
            sample.invalid_if(strange.is_some(), || format!("the server saw connections from {strange:?}"));
            Ok(sample)
        }))
    }
}

fn sample(report: ChurnReport) -> Sample {
    let mut times: Vec<f64> = report.latencies.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    times.sort_by(f64::total_cmp);
    let percentile = |share| stats::percentile(&times, share).unwrap_or(f64::NAN);
    let mut sample = Sample::new([
        ("rate", report.connections as f64 / report.elapsed.as_secs_f64()),
        ("last_second", report.series.last().map_or(f64::NAN, |count| *count as f64)),
        ("p50", percentile(0.5)),
        ("p99", percentile(0.99)),
        ("p99.9", percentile(0.999)),
        ("failed", report.failed as f64),
        ("syn_again", report.syn_retransmitted as f64),
    ]);
    sample.invalid_if(report.connections == 0, || "no connection was made".into());
    sample.series = report.series.into_iter().map(|count| count as f64).collect();
    sample
}
