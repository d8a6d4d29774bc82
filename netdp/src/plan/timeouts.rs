//! How long the idle flows of a network's endpoints live (`network create --timeout KEY=DURATION`).
//!
//! Whoever sets less than the RFCs ask for gets it, and is told what that costs: a network of its own is just the place
//! for what needs it, as a resolver or a metrics sink that is asked once from each port.

use std::fmt;
use std::time::Duration;

use humantime::{format_duration, parse_duration};
use netdp_common::flow::Timeouts;
use serde::{Deserialize, Serialize};

/// The longest: far below what the programs' clock can tell, and six times what Linux gives an established connection.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// Why a timeout is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not KEY=DURATION.
    #[error("`{0}` is no timeout: write KEY=DURATION, for instance udp=30s or tcp-established=2h")]
    Syntax(String),
    /// An unknown key.
    #[error("{0}: there is no such timeout: choose one of {keys}", keys = keys())]
    Key(String),
    /// Not a duration.
    #[error("{given}: {why}: write for instance 30s, 2h or 5d")]
    Duration {
        /// As given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// 0, a fraction of a second, or too long.
    #[error(
        "{0}: a timeout is a whole number of seconds, from 1s to {longest}: choose one of them",
        longest = format_duration(LONGEST)
    )]
    Range(String),
    /// One key twice.
    #[error("--timeout {0} was given twice: leave one of them out")]
    Twice(&'static str),
}

/// One of [`Timeouts`].
#[derive(Debug)]
struct Key {
    name: &'static str,
    field: fn(&mut Timeouts) -> &mut u32,
    /// What it should not be below, in seconds.
    least: u32,
    /// Who says so, and what a shorter one costs.
    because: &'static str,
}

/// In the order of the listing.
static KEYS: [Key; 8] = [
    Key {
        name: "tcp-half-open",
        field: |timeouts| &mut timeouts.tcp_half_open,
        least: 240,
        because: RFC_5382,
    },
    Key {
        name: "tcp-established",
        field: |timeouts| &mut timeouts.tcp_established,
        least: 7440,
        because: RFC_5382,
    },
    Key {
        name: "tcp-transitory",
        field: |timeouts| &mut timeouts.tcp_transitory,
        least: 240,
        because: RFC_5382,
    },
    Key {
        name: "tcp-closed",
        field: |timeouts| &mut timeouts.tcp_closed,
        least: 60,
        because: "remotes are in TIME_WAIT for as long, and may refuse the next connection from the port",
    },
    Key { name: "udp", field: |timeouts| &mut timeouts.udp, least: 120, because: RFC_4787 },
    Key { name: "udp-answered", field: |timeouts| &mut timeouts.udp_answered, least: 120, because: RFC_4787 },
    Key { name: "udp-stream", field: |timeouts| &mut timeouts.udp_stream, least: 120, because: RFC_4787 },
    Key {
        name: "icmp",
        field: |timeouts| &mut timeouts.icmp,
        least: 60,
        because: "RFC 5508 REQ-1 asks for that, and what is answered later is lost",
    },
];
const RFC_5382: &str = "RFC 5382 REQ-5 asks for that, and connections that are idle for longer are cut off";
const RFC_4787: &str = "RFC 4787 REQ-5 asks for that, and what comes in later is lost";

fn keys() -> String {
    KEYS.each_ref().map(|key| key.name).join(", ")
}

/// One `--timeout`.
#[derive(Clone, Copy, Debug)]
pub struct Given {
    key: &'static Key,
    seconds: u32,
}

/// Reads KEY=DURATION.
pub fn parse(text: &str) -> Result<Given, Error> {
    let (name, duration) = text.split_once('=').ok_or_else(|| Error::Syntax(text.into()))?;
    let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| Error::Key(text.into()))?;
    let duration = parse_duration(duration)
        .map_err(|error| Error::Duration { given: text.into(), why: error.to_string() })?;
    let whole = duration.subsec_nanos() == 0 && !duration.is_zero() && duration <= LONGEST;
    let seconds = u32::try_from(duration.as_secs()).ok().filter(|_| whole);
    seconds.map(|seconds| Given { key, seconds }).ok_or_else(|| Error::Range(text.into()))
}

impl Given {
    /// What is to be said about one that is shorter than it should be.
    pub fn advice(&self) -> Option<String> {
        let Key { name, least, because, .. } = *self.key;
        let least = format_duration(Duration::from_secs(least.into()));
        (self.seconds < self.key.least).then(|| {
            let given = format_duration(Duration::from_secs(self.seconds.into()));
            format!("--timeout {name}={given} is less than {least}: {because}")
        })
    }
}

/// The timeouts of a network, in seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct NetworkTimeouts(#[serde(with = "Seconds")] pub Timeouts);

/// [`Timeouts`] as a document.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Timeouts")]
struct Seconds {
    tcp_half_open: u32,
    tcp_transitory: u32,
    tcp_established: u32,
    tcp_closed: u32,
    udp: u32,
    udp_answered: u32,
    udp_stream: u32,
    icmp: u32,
}

impl NetworkTimeouts {
    /// The defaults, but for those that were given.
    pub fn with(given: &[Given]) -> Result<Self, Error> {
        let mut timeouts = Timeouts::DEFAULT;
        for (number, Given { key, seconds }) in given.iter().enumerate() {
            if given[..number].iter().any(|earlier| earlier.key.name == key.name) {
                return Err(Error::Twice(key.name));
            }
            *(key.field)(&mut timeouts) = *seconds;
        }
        Ok(Self(timeouts))
    }
}

impl Default for NetworkTimeouts {
    fn default() -> Self {
        Self(Timeouts::DEFAULT)
    }
}

impl fmt::Display for NetworkTimeouts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut timeouts = self.0;
        let each = KEYS.each_ref().map(|key| {
            let seconds = *(key.field)(&mut timeouts);
            format!("{} {}", key.name, format_duration(Duration::from_secs(seconds.into())))
        });
        f.write_str(&each.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_one_timeout() {
        let given: Vec<Given> = (1u32..)
            .zip(&KEYS)
            .map(|(seconds, key)| parse(&format!("{}={seconds}s", key.name)).unwrap())
            .collect();
        let NetworkTimeouts(mut timeouts) = NetworkTimeouts::with(&given).unwrap();
        let set = KEYS.each_ref().map(|key| *(key.field)(&mut timeouts));
        assert_eq!(set, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(NetworkTimeouts::with(&[]).unwrap().0, Timeouts::DEFAULT);
    }

    #[test]
    fn durations() {
        let seconds = |text| parse(text).unwrap().seconds;
        assert_eq!(seconds("udp=30s"), 30);
        assert_eq!(seconds("tcp-established=2h 4m"), 7440);
        assert_eq!(seconds("tcp-established=5d"), 432_000);
        assert_eq!(seconds("icmp=30d"), 2_592_000);
        for (text, why) in [
            ("udp", "write KEY=DURATION"),
            ("tcp=5s", "choose one of tcp-half-open, "),
            ("udp=", "write for instance 30s"),
            ("udp=30", "write for instance 30s"),
            ("udp=-1s", "write for instance 30s"),
            ("udp=0s", "from 1s to 30days"),
            ("udp=1500ms", "a whole number of seconds"),
            ("udp=31d", "from 1s to"),
            ("udp=99999999999999999999y", "write for instance"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(why) && !error.contains('\n'), "{error}");
        }
        let twice = ["udp=1s", "icmp=1s", "udp=2s"].map(|text| parse(text).unwrap());
        assert_eq!(NetworkTimeouts::with(&twice), Err(Error::Twice("udp")));
    }

    /// What keeps the RFCs' minima needs no advice; the defaults do.
    #[test]
    fn advice_on_less_than_the_rfcs() {
        for key in &KEYS {
            let advice = |seconds| Given { key, seconds }.advice();
            let mut usual = Timeouts::DEFAULT;
            assert_eq!(advice(*(key.field)(&mut usual)), None, "{}", key.name);
            assert_eq!(advice(key.least), None, "{}", key.name);
            assert!(advice(key.least - 1).unwrap().starts_with(&format!("--timeout {}=", key.name)));
        }
    }

    #[test]
    fn as_a_document() {
        let timeouts = NetworkTimeouts::with(&[parse("udp-stream=1h").unwrap()]).unwrap();
        let document = serde_json::to_value(timeouts).unwrap();
        assert_eq!(document["udp_stream"], 3600);
        assert_eq!(document["icmp"], 60);
        assert_eq!(serde_json::from_value::<NetworkTimeouts>(document).unwrap(), timeouts);
        assert!(
            timeouts.to_string().contains("udp 2m, udp-answered 2m, udp-stream 1h, icmp 1m"),
            "{timeouts}"
        );
    }
}
