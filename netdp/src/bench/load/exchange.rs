//! One question, one answer, one after the other: as DNS clients do, and as on a connection.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::bulk::{self, Ask};
use super::{Peer, split};
use crate::bench::{Error, stop};

/// When a datagram counts as lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// What became of the questions.
#[derive(Debug, Default)]
pub(in crate::bench) struct Answers {
    /// Times to the answers.
    pub(in crate::bench) latencies: Vec<Duration>,
    /// Questions without one.
    pub(in crate::bench) lost: u64,
    /// An address that the server should not have seen.
    pub(in crate::bench) strange: Option<IpAddr>,
    /// How long all took.
    pub(in crate::bench) elapsed: Duration,
}

/// Every client asks one question after the other, each from a new socket and so from a new port.
pub(in crate::bench) fn datagrams(
    clients: &[(Peer<'_>, Ipv4Addr)],
    to: SocketAddr,
    duration: Duration,
) -> Result<Answers, Error> {
    let since = Instant::now();
    let all = super::all(clients, |_, (client, seen_as)| {
        super::enter(client.ns)?;
        let mut answers = Answers::default();
        while since.elapsed() < duration && !stop::requested() {
            let asked = Instant::now();
            match ask(to) {
                Ok(peer) => {
                    answers.latencies.push(asked.elapsed());
                    answers.strange = answers.strange.or((peer != IpAddr::V4(*seen_as)).then_some(peer));
                }
                Err(_) => answers.lost += 1,
            }
        }
        Ok(answers)
    })?;
    let mut sum = Answers { elapsed: since.elapsed(), ..Answers::default() };
    for answers in all {
        sum.latencies.extend(answers.latencies);
        sum.lost += answers.lost;
        sum.strange = sum.strange.or(answers.strange);
    }
    Ok(sum)
}

/// Whom the server saw.
fn ask(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.send(b"who am I?")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]);
    let (_, peer) = split(&text).ok_or(io::ErrorKind::InvalidData)?;
    Ok(peer.ip())
}

/// One byte there and one back on one connection (netperf's TCP_RR).
pub(in crate::bench) fn on_a_connection(
    client: Peer<'_>,
    to: SocketAddr,
    duration: Duration,
) -> Result<Answers, Error> {
    let mut answers = super::all([client], |_, client| {
        super::enter(client.ns)?;
        ping_pong(to, duration).map_err(Error::system(format!("exchanging bytes with {to}")))
    })?;
    Ok(answers.pop().unwrap_or_default())
}

fn ping_pong(to: SocketAddr, duration: Duration) -> io::Result<Answers> {
    let mut stream = bulk::connect(to, Ask::Echo)?;
    let (mut answers, since) = (Answers::default(), Instant::now());
    while since.elapsed() < duration && !stop::requested() {
        let asked = Instant::now();
        stream.write_all(b"?")?;
        stream.read_exact(&mut [0])?;
        answers.latencies.push(asked.elapsed());
    }
    answers.elapsed = since.elapsed();
    Ok(answers)
}
