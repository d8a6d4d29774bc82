//! Servers that say whom they see: a TCP server greets with `NAME PEER\n`, a UDP server answers `NAME PEER PAYLOAD`.
//!
//! Each runs on one thread in its namespace, on any number of ports, and ends when dropped.

use std::collections::HashMap;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::poll::Poll;
use super::{Transport, socket};
use crate::bench::Error;
use crate::net::NetNs;

/// How soon a server notices that it shall end.
const TICK: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    open: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on these ports.
    pub fn start(
        ns: &NetNs,
        transport: Transport,
        name: &str,
        address: IpAddr,
        ports: &[u16],
    ) -> Result<Self, Error> {
        let on = ports.iter().map(|port| SocketAddr::new(address, *port));
        let (stop, open) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (stopped, counted, name) = (Arc::clone(&stop), Arc::clone(&open), name.to_owned());
        let poll = Poll::new()?;
        // Sockets stay in the namespace they were made in: the thread needs not enter it.
        let thread = match transport {
            Transport::Tcp => {
                let listeners = ns.run(|| on.map(listen).collect::<Result<Vec<_>, _>>())??;
                for (number, listener) in listeners.iter().enumerate() {
                    poll.add(listener, number)?;
                }
                let connections = Connections { name, listeners, poll, open: HashMap::new(), next: 0 };
                std::thread::spawn(move || connections.serve(&stopped, &counted))
            }
            Transport::Udp => {
                let sockets = ns.run(|| on.map(bind).collect::<Result<Vec<_>, _>>())??;
                for (number, socket) in sockets.iter().enumerate() {
                    poll.add(socket, number)?;
                }
                std::thread::spawn(move || answer_datagrams(&name, &sockets, poll, &stopped))
            }
        };
        Ok(Self { stop, open, thread: Some(thread) })
    }

    /// How many connections it has open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

fn listen(on: SocketAddr) -> Result<TcpListener, Error> {
    socket::tcp_listening(on).map_err(Error::system(format!("listening on {on}")))
}

fn bind(on: SocketAddr) -> Result<UdpSocket, Error> {
    let bound = socket::udp_bound(on).and_then(|socket| socket.set_nonblocking(true).map(|()| socket));
    bound.map_err(Error::system(format!("binding UDP {on}")))
}

fn answer_datagrams(name: &str, sockets: &[UdpSocket], mut poll: Poll, stop: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        for number in poll.wait(TICK) {
            let socket = &sockets[number];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let mut answer = format!("{name} {peer} ").into_bytes();
                answer.extend_from_slice(&buffer[..length]);
                // Who is not answered counts that.
                let _ = socket.send_to(&answer, peer);
            }
        }
    }
}

struct Connections {
    name: String,
    listeners: Vec<TcpListener>,
    poll: Poll,
    open: HashMap<usize, TcpStream>,
    next: usize,
}

impl Connections {
    fn serve(mut self, stop: &AtomicBool, open: &AtomicUsize) {
        self.next = self.listeners.len();
        while !stop.load(Ordering::Relaxed) {
            for number in self.poll.wait(TICK) {
                if number < self.listeners.len() {
                    self.accept(number);
                } else if self.read(number).is_none() {
                    self.open.remove(&number);
                }
            }
            open.store(self.open.len(), Ordering::Relaxed);
        }
    }

    fn accept(&mut self, listener: usize) {
        while let Ok((mut stream, peer)) = self.listeners[listener].accept() {
            // In one piece: one system call, one segment. Who is not greeted counts that.
            let greeted = stream.write_all(format!("{} {peer}\n", self.name).as_bytes());
            let watched = stream.set_nonblocking(true).is_ok() && self.poll.add(&stream, self.next).is_ok();
            if greeted.is_ok() && watched {
                self.open.insert(self.next, stream);
                self.next += 1;
            }
        }
    }

    /// Reads what there is; `None` ends the connection.
    fn read(&mut self, number: usize) -> Option<()> {
        let mut buffer = [0; 4096];
        match self.open.get_mut(&number)?.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => Some(()),
            Ok(1..) => Some(()),
            Ok(0) | Err(_) => None,
        }
    }
}
