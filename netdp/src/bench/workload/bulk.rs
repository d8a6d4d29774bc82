//! TCP on connections that last: as much as they carry, and one byte there and back.

use std::net::SocketAddr;
use std::time::Duration;

use super::dns;
use super::{Case, Round};
use crate::bench::Error;
use crate::bench::arena::{Arena, Shape, WORLD};
use crate::bench::load::bulk::{self, Ask, StreamServer};
use crate::bench::load::{Peer, exchange};
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Sample};

const PORT: u16 = 5201;
const GIGA: f64 = 1e9;

struct Bulk {
    ask: Ask,
    streams: usize,
    duration: Duration,
}

/// Both directions, one stream and eight, and TCP_RR.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let duration = effort.duration(Duration::from_secs(2));
    let full = [(Ask::Take, 1), (Ask::Take, 8), (Ask::Give, 1), (Ask::Give, 8), (Ask::Echo, 1)];
    let wanted = full
        .into_iter()
        .filter(|(ask, streams)| effort == Effort::Full || (*streams == 1 && *ask != Ask::Give));
    wanted.map(|(ask, streams)| Box::new(Bulk { ask, streams, duration }) as Box<dyn Case>).collect()
}

impl Case for Bulk {
    fn name(&self) -> String {
        let streams = if self.streams == 1 { "1 stream".into() } else { format!("{} streams", self.streams) };
        match self.ask {
            Ask::Take => format!("out, {streams}"),
            Ask::Give => format!("in, {streams}"),
            Ask::Echo => "request, response".into(),
        }
    }

    fn about(&self) -> String {
        let seconds = self.duration.as_secs_f64();
        match self.ask {
            Ask::Take => format!("a container sends by TCP for {seconds} s, offloads on"),
            Ask::Give => format!("a container receives by TCP for {seconds} s, offloads on"),
            Ask::Echo => format!("one byte there and back on one TCP connection for {seconds} s"),
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        match self.ask {
            Ask::Take | Ask::Give => vec![Metric::new("rate", "Gb/s", Better::Higher)],
            Ask::Echo => dns::rate_and_latencies(),
        }
    }

    fn shape(&self) -> Shape {
        Shape { clients: 1, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let to = SocketAddr::new(WORLD.into(), PORT);
        let server = StreamServer::new(&arena.world, to, arena.seen_as(0).into())?;
        let client = &arena.clients[0];
        let client = Peer { ns: &client.ns, address: client.address.into() };
        Ok(Box::new(move |_| {
            let mut sample = if self.ask == Ask::Echo {
                dns::sample(&exchange::on_a_connection(client, to, self.duration)?)
            } else {
                let bytes = bulk::throughput(client, (&server, to), (self.ask, self.streams), self.duration)?;
                let mut sample = Sample::new([("rate", bytes * 8.0 / GIGA)]);
                sample.invalid_if(bytes == 0.0, || "nothing arrived".into());
                sample
            };
            let strange = server.strange();
            sample.invalid_if(strange > 0, || {
                format!("{strange} streams came from another address than they should")
            });
            Ok(sample)
        }))
    }
}
