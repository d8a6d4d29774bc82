//! Containers open flows to one destination, from the same source ports, at the same instant.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use super::{Case, Round};
use crate::bench::arena::{Arena, Shape, WORLD};
use crate::bench::load::{Clash, ClashReport, Peer, Server, Transport};
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Sample};
use crate::bench::stats;
use crate::bench::{Error, stop};

const CLIENTS: usize = 4;
/// The first source port of every container.
const SOURCE: u16 = 20_000;
/// The first destination port: each round has its own, towards which every port is free.
const PORT: u16 = 7000;
/// Destination ports before they come round again, long after the flows of the first are over.
const PORTS: u16 = 1000;
/// How long closing may take.
const PATIENCE: Duration = Duration::from_secs(10);

struct Race {
    transport: Transport,
    flows: u16,
}

/// TCP and UDP.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let flows = effort.choose(4_000, 500);
    Transport::ALL.map(|transport| Box::new(Race { transport, flows }) as Box<dyn Case>).into()
}

impl Case for Race {
    fn name(&self) -> String {
        self.transport.name().into()
    }

    fn about(&self) -> String {
        format!(
            "{CLIENTS} containers open {} {} flows each to one destination from the same source ports at the same \
             instant",
            self.flows,
            self.transport.name().to_uppercase()
        )
    }

    fn metrics(&self) -> Vec<Metric> {
        let count = |name| Metric::new(name, "", Better::Lower);
        let time = |name| Metric::new(name, "ms", Better::Lower);
        let mut metrics = vec![count("lost"), count("slow"), count("refused"), time("p50"), time("p99")];
        metrics.extend([time("p99.9"), time("slowest")]);
        if self.transport == Transport::Tcp {
            metrics.insert(3, count("syn_again"));
        }
        metrics
    }

    fn shape(&self) -> Shape {
        Shape { clients: CLIENTS, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let ports: Vec<u16> = (PORT..PORT + PORTS).collect();
        crate::bench::load::socket::allow_files(ports.len())?;
        let server = Server::start(&arena.world, self.transport, "world", WORLD.into(), &ports)?;
        let clients: Vec<Peer<'a>> = arena
            .clients
            .iter()
            .map(|client| Peer { ns: &client.ns, address: client.address.into() })
            .collect();
        Ok(Box::new(move |round| {
            let port = PORT + u16::try_from(round % u32::from(PORTS)).unwrap_or(0);
            let to = SocketAddr::new(WORLD.into(), port);
            let clash =
                Clash { clients: &clients, source_ports: self.source_ports(), to, transport: self.transport };
            let report = clash.run(&arena.world)?;
            // The next round needs the files.
            closed(&server)?;
            Ok(sample(arena, &report))
        }))
    }
}

impl Race {
    fn source_ports(&self) -> Range<u16> {
        SOURCE..SOURCE + self.flows
    }
}

fn sample(arena: &Arena, report: &ClashReport) -> Sample {
    let mut milliseconds: Vec<f64> = report.latencies.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    milliseconds.sort_by(f64::total_cmp);
    let percentile = |share| stats::percentile(&milliseconds, share).unwrap_or(f64::NAN);
    let mut sample = Sample::new([
        ("lost", report.lost() as f64),
        ("slow", report.slow as f64),
        ("refused", report.refused as f64),
        ("syn_again", report.syn_retransmitted as f64),
        ("p50", percentile(0.5)),
        ("p99", percentile(0.99)),
        ("p99.9", percentile(0.999)),
        ("slowest", percentile(1.0)),
        ("duplicates", report.duplicates as f64),
    ]);
    sample.invalid_if(report.answered == 0, || "no flow was answered".into());
    sample.invalid_if(report.overflows > 0, || format!("the server's sockets dropped {}", report.overflows));
    let expected = |address| (0..arena.clients.len()).any(|client| arena.seen_as(client) == address);
    let strange = report.seen_as.keys().find(|address| !expected(**address));
    sample.invalid_if(strange.is_some(), || format!("the server saw flows from {strange:?}"));
    sample.invalid_if(report.strayed + duplicated(report, arena) > 0, || {
        format!("{} answers to other flows, {} flows that share a port", report.strayed, report.duplicates)
    });
    sample
}

/// Containers' own addresses tell flows apart where nothing translates.
fn duplicated(report: &ClashReport, arena: &Arena) -> usize {
    if arena.competitor.translates() { report.duplicates } else { 0 }
}

fn closed(server: &Server) -> Result<(), Error> {
    let since = Instant::now();
    while server.open() > 0 && since.elapsed() < PATIENCE {
        stop::check()?;
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
