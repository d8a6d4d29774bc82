//! Churn: a few connections at a time, one after the other, all to one destination.

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::backlog;
use crate::counters::Retransmissions;
use crate::lab::Container;
use crate::netns::Netns;
use crate::socket;

/// Connections that each container has at a time.
pub const AT_ONCE: usize = 16;
/// Threads of the server: one for each connection of four containers.
const SERVED_AT_ONCE: usize = 4 * AT_ONCE;
/// Longer than a SYN that is sent again takes, shorter than what a test should hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who closes a connection first, and is left with its TIME_WAIT.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClosesFirst {
    /// As web servers do: its TIME_WAIT judges the next SYN on the same port.
    Server,
    /// The containers'.
    Client,
}

/// For how long there is churn.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// Each client has opened so many connections.
    Connections(u64),
    /// So much time is over.
    Elapsed(Duration),
}

/// A server whose connections are over as soon as they are opened.
#[derive(Debug)]
pub struct ChurnServer {
    at: SocketAddr,
    netns: Netns,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl ChurnServer {
    /// Listens.
    pub fn new(netns: &Netns, at: (IpAddr, u16), first: ClosesFirst) -> Self {
        let at = SocketAddr::from(at);
        let listener = netns.enter(|| socket::tcp_listening(at));
        let listener = listener.unwrap_or_else(|error| panic!("listening on {at}: {error}"));
        listener.set_nonblocking(false).expect("blocking");
        let listener = Arc::new(listener);
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..SERVED_AT_ONCE)
            .map(|_| {
                let (listener, stop) = (Arc::clone(&listener), Arc::clone(&stop));
                netns.spawn(move || serve(&listener, first, &stop))
            })
            .collect();
        Self { at, netns: netns.clone(), stop, threads }
    }
}

impl Drop for ChurnServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Each thread waits for one more connection.
        for _ in 0..self.threads.len() {
            let _ = self.netns.enter(|| TcpStream::connect(self.at));
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(listener: &TcpListener, first: ClosesFirst, stop: &AtomicBool) {
    while let Ok((mut stream, _)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        // A client that has gone away has counted that.
        let _ = match first {
            ClosesFirst::Server => stream.write_all(b"x"),
            ClosesFirst::Client => stream.read_to_end(&mut Vec::new()).map(drop),
        };
    }
}

/// What became of the connections.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChurnReport {
    /// Those that were opened and closed in order.
    pub connections: u64,
    /// Those that were not.
    pub failed: u64,
    /// SYN and SYN-ACK that were sent again, by all clients and the server.
    pub syn_retransmitted: u64,
    /// Packets that the machine itself has thrown away meanwhile.
    pub backlog_drops: u64,
    /// How long all of it took.
    pub elapsed: Duration,
}

impl ChurnReport {
    /// Connections per second.
    pub fn rate(&self) -> f64 {
        self.connections as f64 / self.elapsed.as_secs_f64()
    }
}

impl fmt::Display for ChurnReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections, failed, syn_retransmitted, .. } = self;
        write!(f, "{:>7.0}/s {connections:>8} {failed:>7} {syn_retransmitted:>8}", self.rate())
    }
}

/// Opens connections to the server, [`AT_ONCE`] from each container.
pub fn churn(clients: &[Container], server: &ChurnServer, first: ClosesFirst, until: Until) -> ChurnReport {
    let namespaces = || clients.iter().map(|client| &client.netns).chain([&server.netns]);
    let before = (Retransmissions::of(namespaces()), backlog::dropped());
    let (done, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let start = Instant::now();
    let threads: Vec<JoinHandle<()>> = clients
        .iter()
        .flat_map(|client| std::iter::repeat_n(client, AT_ONCE))
        .map(|client| {
            let (done, failed, to) = (Arc::clone(&done), Arc::clone(&failed), server.at);
            client.netns.spawn(move || {
                let mut opened = 0;
                while goes_on(until, opened, start) {
                    opened += 1;
                    let counter = if exchange(to, first).is_ok() { &done } else { &failed };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a client");
    }
    ChurnReport {
        connections: done.load(Ordering::Relaxed),
        failed: failed.load(Ordering::Relaxed),
        elapsed: start.elapsed(),
        syn_retransmitted: Retransmissions::of(namespaces()).since(before.0).syn,
        backlog_drops: backlog::dropped() - before.1,
    }
}

fn goes_on(until: Until, opened: u64, start: Instant) -> bool {
    match until {
        Until::Connections(wanted) => opened < wanted,
        Until::Elapsed(wanted) => start.elapsed() < wanted,
    }
}

/// One connection, to its orderly end.
fn exchange(to: SocketAddr, first: ClosesFirst) -> io::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    let expected = match first {
        ClosesFirst::Server => b"x".as_slice(),
        ClosesFirst::Client => {
            stream.write_all(b"x")?;
            stream.shutdown(Shutdown::Write)?;
            b""
        }
    };
    stream.read_to_end(&mut answer)?;
    if answer == expected { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}
