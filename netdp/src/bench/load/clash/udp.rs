//! Many UDP flows at once.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use super::super::poll::Poll;
use super::super::split;
use super::{Fate, time_left};
use crate::bench::Error;

/// Sends one datagram from each source at once and waits for the answers.
///
/// The payload is the source, so that an answer to another flow is noticed.
pub(super) fn open(
    sources: &[SocketAddr],
    to: SocketAddr,
    ready: Result<(), Error>,
    start: &Barrier,
) -> Result<Vec<Fate>, Error> {
    let sockets = ready.and_then(|()| sockets(sources, to));
    // Nobody may be missing at the barrier, whatever went wrong before it.
    start.wait();
    let (mut poll, sockets) = sockets?;
    let mut fates = vec![Fate::default(); sockets.len()];
    let mut sent_at = vec![Instant::now(); sockets.len()];
    for (number, (source, socket)) in sources.iter().zip(&sockets).enumerate() {
        sent_at[number] = Instant::now();
        fates[number].refused = socket.send(source.to_string().as_bytes()).is_err();
    }
    let since = Instant::now();
    let mut open = fates.iter().filter(|fate| !fate.refused).count();
    while let (1.., Some(left)) = (open, time_left(since)) {
        for number in poll.wait(left.min(Duration::from_millis(100))) {
            let settled = receive(sources[number], &sockets[number], sent_at[number], &mut fates[number]);
            open -= usize::from(settled);
        }
    }
    Ok(fates)
}

fn sockets(sources: &[SocketAddr], to: SocketAddr) -> Result<(Poll, Vec<UdpSocket>), Error> {
    let poll = Poll::new()?;
    let mut sockets = Vec::with_capacity(sources.len());
    for (number, source) in sources.iter().enumerate() {
        let socket = connected(*source, to).map_err(Error::system(format!("binding UDP {source}")))?;
        poll.add(&socket, number)?;
        sockets.push(socket);
    }
    Ok((poll, sockets))
}

fn connected(source: SocketAddr, to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(source)?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Reads one answer; true if it settles the flow.
fn receive(source: SocketAddr, socket: &UdpSocket, sent_at: Instant, fate: &mut Fate) -> bool {
    let mut buffer = [0; 256];
    let settled = fate.seen_as.is_some() || fate.refused;
    match socket.recv(&mut buffer) {
        Ok(length) => {
            let text = String::from_utf8_lossy(&buffer[..length]);
            fate.strayed |= text.split_whitespace().nth(2) != Some(&source.to_string());
            fate.seen_as = split(&text).map(|(_, peer)| peer);
            fate.latency = sent_at.elapsed();
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(_) => fate.refused = fate.seen_as.is_none(),
    }
    !settled && (fate.seen_as.is_some() || fate.refused)
}
