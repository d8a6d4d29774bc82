//! As much as TCP carries, by streams that do nothing else.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::{Peer, socket};
use crate::bench::{Error, stop};
use crate::net::NetNs;

/// What one system call carries.
const CHUNK: usize = 128 << 10;
/// How soon a server notices that it shall end.
const TICK: Duration = Duration::from_millis(20);
/// How long a stream may stand still.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a client's first byte asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::bench) enum Ask {
    /// The client sends and the server counts.
    Take = b't' as isize,
    /// The server sends until the client closes.
    Give = b'g' as isize,
    /// Each byte comes back.
    Echo = b'e' as isize,
}

/// Serves any number of streams, each by its own thread.
#[derive(Debug)]
pub(in crate::bench) struct StreamServer {
    stop: Arc<AtomicBool>,
    received: Arc<AtomicU64>,
    /// Streams that came from another address than they should.
    strange: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl StreamServer {
    /// Listens; all streams should come from one address.
    pub(in crate::bench) fn new(ns: &NetNs, at: SocketAddr, expected: IpAddr) -> Result<Self, Error> {
        let listener =
            ns.run(|| socket::tcp_listening(at))?.map_err(Error::system(format!("listening on {at}")))?;
        let (stop, received) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let strange = Arc::new(AtomicU64::new(0));
        let (stopped, counted, noticed) = (Arc::clone(&stop), Arc::clone(&received), Arc::clone(&strange));
        let thread = std::thread::spawn(move || {
            accept(&listener, &stopped, &counted, |peer| {
                noticed.fetch_add(u64::from(peer != expected), Ordering::Relaxed);
            });
        });
        Ok(Self { stop, received, strange, thread: Some(thread) })
    }

    /// How many streams came from another address than they should.
    pub(in crate::bench) fn strange(&self) -> u64 {
        self.strange.load(Ordering::Relaxed)
    }

    /// How many bytes have come in.
    pub(in crate::bench) fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

impl Drop for StreamServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept(listener: &TcpListener, stop: &AtomicBool, received: &Arc<AtomicU64>, see: impl Fn(IpAddr)) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((stream, peer)) => {
                see(peer.ip());
                let received = Arc::clone(received);
                // It ends with its client. A client that fails says so itself.
                std::thread::spawn(move || {
                    let _ = serve(stream, &received);
                });
            }
            Err(_) => std::thread::sleep(TICK),
        }
    }
}

fn serve(mut stream: TcpStream, received: &AtomicU64) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut ask = [0];
    stream.read_exact(&mut ask)?;
    let mut buffer = vec![0; CHUNK];
    loop {
        if ask[0] == Ask::Give as u8 {
            stream.write_all(&buffer)?;
            continue;
        }
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        received.fetch_add(length as u64, Ordering::Relaxed);
        if ask[0] == Ask::Echo as u8 {
            stream.write_all(&buffer[..length])?;
        }
    }
}

/// Connects and asks.
pub(in crate::bench) fn connect(to: SocketAddr, ask: Ask) -> io::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&[ask as u8])?;
    Ok(stream)
}

/// Bytes per second that arrive on so many streams of one client at a time.
pub(in crate::bench) fn throughput(
    client: Peer<'_>,
    (server, to): (&StreamServer, SocketAddr),
    (ask, streams): (Ask, usize),
    duration: Duration,
) -> Result<f64, Error> {
    let (before, since) = (server.received(), Instant::now());
    let carried = super::all(0..streams, |_, _| {
        super::enter(client.ns)?;
        carry(to, ask, since, duration).map_err(Error::system(format!("a TCP stream with {to}")))
    })?;
    let elapsed = since.elapsed().as_secs_f64();
    // What was sent is not what arrived.
    let bytes = if ask == Ask::Take { server.received() - before } else { carried.iter().sum() };
    Ok(bytes as f64 / elapsed)
}

fn carry(to: SocketAddr, ask: Ask, since: Instant, duration: Duration) -> io::Result<u64> {
    let mut stream = connect(to, ask)?;
    let (mut buffer, mut bytes) = (vec![0; CHUNK], 0);
    while since.elapsed() < duration && !stop::requested() {
        bytes += match ask {
            Ask::Give => stream.read(&mut buffer)?,
            Ask::Take | Ask::Echo => stream.write(&buffer)?,
        } as u64;
    }
    Ok(bytes)
}
