//! Many TCP connections at once.

use std::io::Read as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::super::poll::Poll;
use super::super::{socket, split};
use super::{Fate, time_left};
use crate::bench::Error;

/// Answers are read this often while connections are still being opened, so that none waits for the reader.
const READ_EVERY: usize = 32;

struct Connection {
    stream: TcpStream,
    since: Instant,
    greeting: String,
}

/// Connects from each source at once and waits for the server's greetings.
pub(super) fn open(
    sources: Vec<SocketAddr>,
    to: SocketAddr,
    ready: Result<(), Error>,
    start: &Barrier,
) -> Result<Vec<Fate>, Error> {
    let mut connections = Vec::with_capacity(sources.len());
    let poll = ready.and_then(|()| Poll::new());
    // Nobody may be missing at the barrier, whatever went wrong before it.
    start.wait();
    let fates = poll.and_then(|poll| open_all(sources, to, poll, &mut connections));
    // Until everybody has been answered nobody closes: the port of a closed connection may be the next one's.
    start.wait();
    fates
}

fn open_all(
    sources: Vec<SocketAddr>,
    to: SocketAddr,
    mut poll: Poll,
    connections: &mut Vec<Option<Connection>>,
) -> Result<Vec<Fate>, Error> {
    let mut fates = vec![Fate::default(); sources.len()];
    let mut open = sources.len();
    for (number, source) in sources.into_iter().enumerate() {
        let since = Instant::now();
        match socket::tcp_connecting(source, to) {
            Ok(stream) => {
                poll.add(&stream, number)?;
                connections.push(Some(Connection { stream, since, greeting: String::new() }));
            }
            Err(_) => {
                fates[number].refused = true;
                open -= 1;
                connections.push(None);
            }
        }
        if number % READ_EVERY == 0 {
            open -= read_ready(&mut poll, Duration::ZERO, connections, &mut fates);
        }
    }
    let since = Instant::now();
    while let (Some(left), 1..) = (time_left(since), open) {
        open -= read_ready(&mut poll, left.min(Duration::from_millis(100)), connections, &mut fates);
    }
    Ok(fates)
}

/// Reads what has come; returns how many flows that settled.
fn read_ready(
    poll: &mut Poll,
    at_most: Duration,
    connections: &mut [Option<Connection>],
    fates: &mut [Fate],
) -> usize {
    let mut settled = 0;
    for number in poll.wait(at_most) {
        let Some(connection) = connections.get_mut(number).and_then(Option::as_mut) else { continue };
        let fate = &mut fates[number];
        let mut buffer = [0; 256];
        match connection.stream.read(&mut buffer) {
            Ok(length @ 1..) => {
                connection.greeting.push_str(&String::from_utf8_lossy(&buffer[..length]));
                if connection.greeting.ends_with('\n') && fate.seen_as.is_none() {
                    fate.seen_as = split(&connection.greeting).map(|(_, peer)| peer);
                    fate.latency = connection.since.elapsed();
                    settled += 1;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => {
                fate.refused = fate.seen_as.is_none();
                settled += usize::from(fate.refused);
                connections[number] = None;
            }
        }
    }
    settled
}
