//! One question to a server: who are you, and whom do you see?

use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

pub use netdp::bench::load::Transport;
use netdp::bench::load::split;
use nix::sys::socket::{SockFlag, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::backlog::unless_dropped;
use crate::netns::Netns;
use crate::socket;

/// How long an answer may take; nothing in a lab takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait for an answer that must not come.
const IMPATIENCE: Duration = Duration::from_millis(700);

/// What a server said.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer {
    /// Its name.
    pub server: String,
    /// Whom it sees.
    pub peer: SocketAddr,
    /// The client's own address and port.
    pub local: SocketAddr,
}

/// The client's port in what a server said: `NAME PEER …`.
#[track_caller]
pub fn seen_port(answer: &str) -> u16 {
    let (_, peer) = split(answer).unwrap_or_else(|| panic!("not an answer: {answer:?}"));
    peer.port()
}

/// Asks from a namespace, any source.
pub fn ask(netns: &Netns, transport: Transport, to: (impl Into<IpAddr>, u16)) -> io::Result<Answer> {
    let to = socket_addr(to);
    question(netns, transport, any(to), to, PATIENCE)
}

/// Asks from a given source address and port (0: any).
pub fn ask_from(
    netns: &Netns,
    transport: Transport,
    from: (impl Into<IpAddr>, u16),
    to: (impl Into<IpAddr>, u16),
) -> io::Result<Answer> {
    question(netns, transport, socket_addr(from), socket_addr(to), PATIENCE)
}

/// Asserts that there is an answer, and from this server; returns it.
#[track_caller]
pub fn answered(netns: &Netns, transport: Transport, to: (impl Into<IpAddr>, u16), server: &str) -> Answer {
    let to = socket_addr(to);
    let answer = ask(netns, transport, (to.ip(), to.port()));
    let answer = answer.unwrap_or_else(|error| panic!("{} {transport:?} to {to:?}: {error}", netns.name()));
    assert_eq!(answer.server, server, "{} {transport:?} to {to:?} reached the wrong server", netns.name());
    answer
}

/// Asserts that there is none.
#[track_caller]
pub fn unanswered(netns: &Netns, transport: Transport, to: (impl Into<IpAddr>, u16)) {
    let to = socket_addr(to);
    let answer = question(netns, transport, any(to), to, IMPATIENCE);
    assert!(answer.is_err(), "{} {transport:?} reached {to:?}: {answer:?}", netns.name());
}

/// Sends this many bytes through the server's echo, both directions at once, and compares them.
#[track_caller]
pub fn echo_bulk(netns: &Netns, to: (impl Into<IpAddr>, u16), bytes: usize) {
    let to = socket_addr(to);
    let echoed = netns.enter(move || {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        reader.read_line(&mut String::new())?;
        let sent: Vec<u8> = (0..bytes).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
        let mut received = vec![0; bytes];
        thread::scope(|scope| {
            let writer = scope.spawn(|| stream.write_all(&sent));
            reader.read_exact(&mut received)?;
            writer.join().expect("the writer")
        })?;
        if received == sent { Ok(()) } else { Err(io::Error::other("the echo differs")) }
    });
    echoed.unwrap_or_else(|error| panic!("{} to {to:?}, {bytes} bytes: {error}", netns.name()));
}

fn question(
    netns: &Netns,
    transport: Transport,
    from: SocketAddr,
    to: SocketAddr,
    patience: Duration,
) -> io::Result<Answer> {
    netns.enter(move || match transport {
        Transport::Tcp => ask_tcp(from, to, patience),
        Transport::Udp => unless_dropped(|| ask_udp(from, to, patience), Result::is_ok),
    })
}

/// Any source address and port that can reach `to`.
fn any(to: SocketAddr) -> SocketAddr {
    let address = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(address, 0)
}

fn socket_addr((address, port): (impl Into<IpAddr>, u16)) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

fn ask_tcp(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    let fd = socket::tcp_bound(from, SockFlag::empty())?;
    // Linux bounds a blocking connect by the socket's send timeout.
    let seconds = libc::time_t::try_from(patience.as_secs()).unwrap_or(1);
    let micros = libc::suseconds_t::from(patience.subsec_micros());
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::new(seconds, micros))?;
    let mut stream = socket::tcp_connect(fd, to)?;
    stream.set_read_timeout(Some(patience))?;
    let local = stream.local_addr()?;
    let mut greeting = String::new();
    BufReader::new(stream.try_clone()?.take(256)).read_line(&mut greeting)?;
    check_echo(&mut stream)?;
    parse(&greeting, local)
}

/// The way back and forth carries data, not only a handshake.
fn check_echo(stream: &mut TcpStream) -> io::Result<()> {
    let sent = [0x5a; 100];
    let mut received = [0; 100];
    stream.write_all(&sent)?;
    stream.read_exact(&mut received)?;
    if received == sent { Ok(()) } else { Err(io::Error::other("the echo differs")) }
}

fn ask_udp(from: SocketAddr, to: SocketAddr, patience: Duration) -> io::Result<Answer> {
    let socket = udp_bound(from)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who")?;
    let mut buffer = [0; 512];
    let length = socket.recv(&mut buffer)?;
    parse(&String::from_utf8_lossy(&buffer[..length]), socket.local_addr()?)
}

/// A socket whose port another one has just had. A child of another test has a copy of that until it executes its program.
fn udp_bound(from: SocketAddr) -> io::Result<UdpSocket> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match UdpSocket::bind(from) {
            Err(error) if error.kind() == ErrorKind::AddrInUse && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            bound => return bound,
        }
    }
}

fn parse(text: &str, local: SocketAddr) -> io::Result<Answer> {
    let (server, peer) = split(text).ok_or_else(|| io::Error::other(format!("not an answer: {text:?}")))?;
    Ok(Answer { server: server.into(), peer, local })
}
