//! Churn: a few connections at a time, one after the other, all to one destination.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Peer, socket};
use crate::bench::{Error, counters, stop};
use crate::net::NetNs;

/// Connections that each container has at a time.
pub const AT_ONCE: usize = 16;
/// Longer than a SYN that is sent again takes.
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
    /// Each of a client's threads has opened so many connections.
    Connections(u64),
    /// So much time is over.
    Elapsed(Duration),
}

impl Until {
    fn goes_on(self, opened: u64, start: Instant) -> bool {
        match self {
            Self::Connections(wanted) => opened < wanted,
            Self::Elapsed(wanted) => start.elapsed() < wanted,
        }
    }

    /// Whole seconds of it, if that is known before.
    fn seconds(self) -> u64 {
        match self {
            Self::Connections(_) => 0,
            Self::Elapsed(wanted) => wanted.as_secs(),
        }
    }
}

/// A server whose connections are over as soon as they are opened.
#[derive(Debug)]
pub struct ChurnServer<'a> {
    at: SocketAddr,
    ns: &'a NetNs,
    stop: Arc<AtomicBool>,
    /// An address that it saw and should not have.
    strange: Arc<Mutex<Option<IpAddr>>>,
    threads: Vec<JoinHandle<()>>,
}

impl<'a> ChurnServer<'a> {
    /// Listens; `expected` are the addresses that it should see.
    pub fn new(
        ns: &'a NetNs,
        at: SocketAddr,
        first: ClosesFirst,
        threads: usize,
        expected: &[IpAddr],
    ) -> Result<Self, Error> {
        let listener = ns.run(|| socket::tcp_listening(at))?;
        let listener = listener.and_then(|listener| listener.set_nonblocking(false).map(|()| listener));
        let listener = Arc::new(listener.map_err(Error::system(format!("listening on {at}")))?);
        let (stop, strange) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
        let threads = (0..threads)
            .map(|_| {
                let (listener, stop) = (Arc::clone(&listener), Arc::clone(&stop));
                let (strange, expected) = (Arc::clone(&strange), expected.to_vec());
                std::thread::spawn(move || serve(&listener, first, &stop, &expected, &strange))
            })
            .collect();
        Ok(Self { at, ns, stop, strange, threads })
    }

    /// An address that it saw and should not have.
    pub fn strange(&self) -> Option<IpAddr> {
        *self.strange.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ChurnServer<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Each thread waits for one more connection.
        for _ in 0..self.threads.len() {
            let _ = self.ns.run(|| TcpStream::connect(self.at));
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(
    listener: &TcpListener,
    first: ClosesFirst,
    stop: &AtomicBool,
    expected: &[IpAddr],
    strange: &Mutex<Option<IpAddr>>,
) {
    while let Ok((mut stream, peer)) = listener.accept() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if !expected.contains(&peer.ip()) {
            *strange.lock().unwrap_or_else(PoisonError::into_inner) = Some(peer.ip());
        }
        // A client that has gone away has counted that.
        let _ = match first {
            ClosesFirst::Server => stream.write_all(b"x"),
            ClosesFirst::Client => stream.read_to_end(&mut Vec::new()).map(drop),
        };
    }
}

/// What became of the connections.
#[derive(Clone, Debug, Default)]
pub struct ChurnReport {
    /// Those that were opened and closed in order.
    pub connections: u64,
    /// Those that were not.
    pub failed: u64,
    /// SYN and SYN-ACK that were sent again, by all clients and the server.
    pub syn_retransmitted: u64,
    /// How long all of it took.
    pub elapsed: Duration,
    /// Connections in each second, where it was to take so many.
    pub series: Vec<u64>,
    /// How long each took, from the first SYN to the last FIN.
    pub latencies: Vec<Duration>,
}

/// Opens connections to the server, [`AT_ONCE`] from each client.
pub fn churn(
    clients: &[Peer<'_>],
    server: &ChurnServer<'_>,
    first: ClosesFirst,
    until: Until,
) -> Result<ChurnReport, Error> {
    let namespaces = || clients.iter().map(|client| client.ns).chain([server.ns]);
    let before = counters::syn_retransmitted(namespaces())?;
    let seconds: Vec<AtomicU64> = (0..until.seconds()).map(|_| AtomicU64::new(0)).collect();
    let failed = AtomicU64::new(0);
    let start = Instant::now();
    let jobs = clients.iter().flat_map(|client| std::iter::repeat_n(client, AT_ONCE));
    let latencies = super::all(jobs, |_, client| {
        super::enter(client.ns)?;
        let (mut opened, mut latencies) = (0, Vec::new());
        while until.goes_on(opened, start) && !stop::requested() {
            opened += 1;
            let since = Instant::now();
            if exchange(server.at, first).is_err() {
                failed.fetch_add(1, Ordering::Relaxed);
                continue;
            }
            latencies.push(since.elapsed());
            let second = usize::try_from(start.elapsed().as_secs()).unwrap_or(usize::MAX);
            if let Some(count) = seconds.get(second) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(latencies)
    })?;
    let latencies = latencies.concat();
    Ok(ChurnReport {
        connections: latencies.len() as u64,
        failed: failed.into_inner(),
        elapsed: start.elapsed(),
        syn_retransmitted: counters::syn_retransmitted(namespaces())? - before,
        series: seconds.into_iter().map(AtomicU64::into_inner).collect(),
        latencies,
    })
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
