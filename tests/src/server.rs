//! Servers that say who they are and whom they see.
//!
//! Each runs on one thread in its namespace, on any number of ports, and ends when dropped. A TCP server
//! greets with `NAME PEER\n` and then echoes; a UDP server answers `NAME PEER PAYLOAD`; an HTTP server
//! answers any request with `NAME PEER\n` as the body.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use netdp::bench::load::poll::Poll;

use crate::netns::Netns;
use crate::socket;

/// How soon a server notices that it shall end.
const TICK: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
    thread: Option<JoinHandle<()>>,
}

/// What a server has done, and is doing.
#[derive(Debug, Default)]
struct Counts {
    served: AtomicU64,
    open: AtomicUsize,
}

impl Server {
    /// Greets, then echoes.
    pub fn tcp(netns: &Netns, name: &str, address: impl Into<IpAddr>, ports: &[u16]) -> Self {
        Self::listening(netns, name, address.into(), ports, false)
    }

    /// Answers each request with whom it sees.
    pub fn http(netns: &Netns, name: &str, address: impl Into<IpAddr>, port: u16) -> Self {
        Self::listening(netns, name, address.into(), &[port], true)
    }

    /// Answers each datagram with whom it sees.
    pub fn udp(netns: &Netns, name: &str, address: impl Into<IpAddr>, ports: &[u16]) -> Self {
        let address = address.into();
        let sockets = netns.enter(|| {
            let bind = |on| socket::udp_bound(on).unwrap_or_else(|error| panic!("binding UDP {on}: {error}"));
            addresses(address, ports).map(bind).collect::<Vec<_>>()
        });
        let name = name.to_owned();
        Self::start(netns, move |stop, counts| answer_datagrams(&name, &sockets, stop, counts))
    }

    /// How many connections or datagrams it has served.
    pub fn served(&self) -> u64 {
        self.counts.served.load(Ordering::Relaxed)
    }

    /// How many connections it has open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    fn listening(netns: &Netns, name: &str, address: IpAddr, ports: &[u16], http: bool) -> Self {
        let listeners = netns.enter(|| {
            let listen =
                |on| socket::tcp_listening(on).unwrap_or_else(|error| panic!("listening on {on}: {error}"));
            addresses(address, ports).map(listen).collect::<Vec<_>>()
        });
        let name = name.to_owned();
        Self::start(netns, move |stop, counts| {
            Connections { name, http, listeners, open: HashMap::new(), next: 0 }.serve(stop, counts);
        })
    }

    fn start(netns: &Netns, work: impl FnOnce(&AtomicBool, &Counts) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let counts = Arc::new(Counts::default());
        let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&counts));
        let thread = netns.spawn(move || work(&stopped, &counted));
        Self { stop, counts, thread: Some(thread) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn addresses(address: IpAddr, ports: &[u16]) -> impl Iterator<Item = SocketAddr> {
    ports.iter().map(move |port| SocketAddr::new(address, *port))
}

fn answer_datagrams(name: &str, sockets: &[UdpSocket], stop: &AtomicBool, counts: &Counts) {
    let mut poll = Poll::new().expect("epoll_create");
    for (number, socket) in sockets.iter().enumerate() {
        socket.set_nonblocking(true).expect("nonblocking");
        poll.add(socket, number).expect("epoll_ctl");
    }
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        for number in poll.wait(TICK) {
            let socket = &sockets[number];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let mut answer = format!("{name} {peer} ").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                counts.served.fetch_add(1, Ordering::Relaxed);
                let _ = socket.send_to(&answer, peer);
            }
        }
    }
}

struct Connections {
    name: String,
    http: bool,
    listeners: Vec<TcpListener>,
    open: HashMap<usize, (TcpStream, SocketAddr)>,
    next: usize,
}

impl Connections {
    fn serve(&mut self, stop: &AtomicBool, counts: &Counts) {
        let mut poll = Poll::new().expect("epoll_create");
        for (number, listener) in self.listeners.iter().enumerate() {
            poll.add(listener, number).expect("epoll_ctl");
        }
        self.next = self.listeners.len();
        while !stop.load(Ordering::Relaxed) {
            for number in poll.wait(TICK) {
                if number < self.listeners.len() {
                    self.accept(number, &poll, counts);
                } else if self.read(number).is_none() {
                    self.open.remove(&number);
                }
            }
            counts.open.store(self.open.len(), Ordering::Relaxed);
        }
    }

    fn accept(&mut self, listener: usize, poll: &Poll, counts: &Counts) {
        while let Ok((mut stream, peer)) = self.listeners[listener].accept() {
            counts.served.fetch_add(1, Ordering::Relaxed);
            let _ = stream.set_nonblocking(true);
            let _ = stream.set_nodelay(true);
            if !self.http {
                // In one piece: one system call, one segment.
                let _ = stream.write_all(format!("{} {peer}\n", self.name).as_bytes());
            }
            poll.add(&stream, self.next).expect("epoll_ctl");
            self.open.insert(self.next, (stream, peer));
            self.next += 1;
        }
    }

    /// Echoes what there is to read, or answers the request; `None` ends the connection.
    fn read(&mut self, number: usize) -> Option<()> {
        let (stream, peer) = self.open.get_mut(&number)?;
        let mut buffer = [0; 65536];
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(()),
            Ok(0) | Err(_) => None,
            Ok(_) if self.http => {
                let body = format!("{} {peer}\n", self.name);
                let head =
                    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = stream.write_all(format!("{head}{body}").as_bytes());
                None
            }
            Ok(length) => echo(stream, &buffer[..length]),
        }
    }
}

/// Writes all of it, waiting where the peer does not read.
fn echo(stream: &mut TcpStream, data: &[u8]) -> Option<()> {
    stream.set_nonblocking(false).ok()?;
    stream.set_write_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(data).ok()?;
    stream.set_nonblocking(true).ok()
}
