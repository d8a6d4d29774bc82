//! Tools that people measure with, where they are installed: iperf3(1) and wrk(1).

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::{Case, Round};
use crate::bench::arena::{Arena, Shape, WORLD};
use crate::bench::competitor::Competitor;
use crate::bench::load::http;
use crate::bench::options::Effort;
use crate::bench::results::{Better, Metric, Sample};
use crate::bench::{Error, command};

const IPERF_PORT: u16 = 5202;
const HTTP_PORT: u16 = 80;
const GIGA: f64 = 1e9;
/// Connections that wrk keeps open.
const CONNECTIONS: u32 = 32;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Tool {
    IperfOut,
    IperfIn,
    Wrk,
}

struct Measured {
    tool: Tool,
    effort: Effort,
    /// Whole seconds: both tools know no shorter time.
    duration: Duration,
}

/// iperf3 in both directions, and wrk.
pub(super) fn cases(effort: Effort, _rounds: u32) -> Vec<Box<dyn Case>> {
    let duration = Duration::from_secs(effort.choose(3, 1));
    let tools =
        effort.choose(vec![Tool::IperfOut, Tool::IperfIn, Tool::Wrk], vec![Tool::IperfOut, Tool::Wrk]);
    tools.into_iter().map(|tool| Box::new(Measured { tool, effort, duration }) as Box<dyn Case>).collect()
}

impl Tool {
    const fn program(self) -> &'static str {
        match self {
            Self::IperfOut | Self::IperfIn => "iperf3",
            Self::Wrk => "wrk",
        }
    }

    /// Whether it is there; asked for its version.
    fn is_installed(self) -> bool {
        let mut asked = Command::new(self.program());
        asked.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // wrk says its version and exits with 1.
        asked.status().is_ok()
    }
}

impl Case for Measured {
    fn name(&self) -> String {
        match self.tool {
            Tool::IperfOut => "iperf3, out".into(),
            Tool::IperfIn => "iperf3, in".into(),
            Tool::Wrk => "wrk".into(),
        }
    }

    fn about(&self) -> String {
        let seconds = self.duration.as_secs();
        match self.tool {
            Tool::IperfOut => format!("a container's iperf3 sends one TCP stream for {seconds} s"),
            Tool::IperfIn => format!("a container's iperf3 receives one TCP stream for {seconds} s"),
            Tool::Wrk => {
                format!("a container's wrk asks by HTTP on {CONNECTIONS} connections for {seconds} s")
            }
        }
    }

    fn metrics(&self) -> Vec<Metric> {
        let unit = if self.tool == Tool::Wrk { "/s" } else { "Gb/s" };
        vec![Metric::new("rate", unit, Better::Higher)]
    }

    /// A second for each is much of a quick run: there, what netdp replaces, and routing alone.
    fn suits(&self, competitor: Competitor) -> bool {
        match competitor {
            Competitor::Plain | Competitor::Masquerade | Competitor::NetdpEbpf => true,
            Competitor::Direct => false,
            _ => self.effort == Effort::Full,
        }
    }

    fn obstacle(&self, _competitor: Competitor) -> Option<String> {
        (!self.tool.is_installed()).then(|| format!("{} is not installed", self.tool.program()))
    }

    fn shape(&self) -> Shape {
        Shape { clients: 1, flows: None }
    }

    fn prepare<'a>(&'a self, arena: &'a Arena) -> Result<Round<'a>, Error> {
        let (client, seconds) = (&arena.clients[0].ns, self.duration.as_secs());
        if self.tool == Tool::Wrk {
            let server = http::Server::start(&arena.world, SocketAddr::new(WORLD.into(), HTTP_PORT))?;
            let line =
                format!("wrk --threads 1 --connections {CONNECTIONS} --duration {seconds}s http://{WORLD}/");
            return Ok(Box::new(move |_| {
                // It answers as long as the rounds go on.
                let _server = &server;
                Ok(requests(&command::run(client, &line)?))
            }));
        }
        let server = format!("iperf3 --server --forceflush --port {IPERF_PORT}");
        let server = command::Background::start(&arena.world, &server, "Server listening")?;
        let reverse = if self.tool == Tool::IperfIn { " --reverse" } else { "" };
        let line = format!("iperf3 --client {WORLD} --port {IPERF_PORT} --json --time {seconds}{reverse}");
        Ok(Box::new(move |_| {
            let _server = &server;
            Ok(throughput(&command::run(client, &line)?))
        }))
    }
}

/// What iperf3 says arrived.
fn throughput(said: &str) -> Sample {
    let said: Option<Value> = serde_json::from_str(said).ok();
    let received = said.as_ref().and_then(|said| said["end"]["sum_received"]["bits_per_second"].as_f64());
    let mut sample = Sample::new([("rate", received.unwrap_or(f64::NAN) / GIGA)]);
    sample.invalid_if(received.is_none_or(|bits| bits == 0.0), || "iperf3 says that nothing arrived".into());
    sample
}

/// What wrk says was answered.
fn requests(said: &str) -> Sample {
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:")?.trim().parse::<f64>().ok());
    let mut sample = Sample::new([("rate", rate.unwrap_or(f64::NAN))]);
    sample.invalid_if(rate.is_none_or(|rate| rate == 0.0), || "wrk says that nothing was answered".into());
    for wrong in ["Socket errors:", "Non-2xx or 3xx responses:"] {
        let line = said.lines().find(|line| line.trim_start().starts_with(wrong));
        sample.invalid_if(line.is_some(), || format!("wrk says: {}", line.unwrap_or_default().trim()));
    }
    sample
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_tools_say_is_read() {
        let iperf = r#"{"end":{"sum_received":{"bits_per_second":1.5e10}}}"#;
        assert_eq!(throughput(iperf).metrics["rate"], 15.0);
        assert!(throughput(r#"{"error":"unable to connect"}"#).invalid.is_some());
        let wrk = "Running 2s test\n  1000 requests in 2.00s\nRequests/sec:    500.25\nTransfer/sec: 1MB\n";
        assert_eq!((requests(wrk).metrics["rate"], requests(wrk).invalid), (500.25, None));
        let errors = format!("{wrk}  Socket errors: connect 0, read 3, write 0, timeout 0\n");
        let said = requests(&errors).invalid.expect("invalid");
        assert_eq!(said, "wrk says: Socket errors: connect 0, read 3, write 0, timeout 0");
    }
}
