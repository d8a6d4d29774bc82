//! What an interface of a namespace sees, header by header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockProtocol, SockType, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike as _};

use crate::netns::Netns;

/// `sll_pkttype` of a frame that the interface sent.
const PACKET_OUTGOING: u8 = 4;
/// How soon the capture notices that it shall end, and how long the last packet may take to arrive.
const TICK_MS: i64 = 50;
/// Holds a burst while the machine is busy.
const RECEIVE_BUFFER: usize = 64 << 20;

/// An IP packet, as far as tests look at it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Packet {
    /// Whether the interface received it (or sent it).
    pub incoming: bool,
    /// IP protocol number.
    pub proto: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Source; the port is 0 where there is none.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
}

/// A running capture.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Packet>>,
}

impl Capture {
    /// Captures from now on.
    pub fn start(netns: &Netns, interface: &str) -> Self {
        let (fd, index) = netns.enter(|| {
            let index = if_nametoindex(interface).unwrap_or_else(|error| panic!("{interface}: {error}"));
            (open(), usize::try_from(index).unwrap_or(0))
        });
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || collect(&fd, index, &stopped));
        Self { stop, thread }
    }

    /// Ends it and returns all packets in their order.
    pub fn finish(self) -> Vec<Packet> {
        std::thread::sleep(Duration::from_millis(TICK_MS.unsigned_abs()));
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the capture thread")
    }
}

fn open() -> OwnedFd {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Packet, SockType::Datagram, flags, SockProtocol::EthAll);
    let fd = fd.expect("a packet socket");
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).expect("SO_RCVBUFFORCE");
    setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::milliseconds(TICK_MS)).expect("SO_RCVTIMEO");
    fd
}

fn collect(fd: &OwnedFd, index: usize, stop: &AtomicBool) -> Vec<Packet> {
    let mut packets = Vec::new();
    let mut buffer = [0; 256];
    loop {
        match recvfrom::<LinkAddr>(fd.as_raw_fd(), &mut buffer) {
            Ok((length, Some(from))) if from.ifindex() == index => {
                packets.extend(parse(&buffer[..length.min(buffer.len())], from.pkttype() != PACKET_OUTGOING));
            }
            Ok(_) => {}
            // Only when nothing more is waiting.
            Err(_) if stop.load(Ordering::Relaxed) => return packets,
            Err(_) => {}
        }
    }
}

fn parse(bytes: &[u8], incoming: bool) -> Option<Packet> {
    let header = match bytes.first()? >> 4 {
        4 => v4(bytes)?,
        6 => v6(bytes)?,
        _ => return None,
    };
    let half = |at: usize| bytes.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]));
    let port = |at: usize| header.ports_at.map_or(0, |ports| half(ports + at));
    Some(Packet {
        incoming,
        proto: header.proto,
        ttl: header.ttl,
        src: SocketAddr::new(header.src, port(0)),
        dst: SocketAddr::new(header.dst, port(2)),
    })
}

/// What a network header says.
struct Header {
    proto: u8,
    ttl: u8,
    src: IpAddr,
    dst: IpAddr,
    /// Where the ports are, if the packet has some.
    ports_at: Option<usize>,
}

fn v4(bytes: &[u8]) -> Option<Header> {
    let header: [u8; 20] = *bytes.first_chunk()?;
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]).into();
    let is_first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    let has_ports = matches!(header[9], 6 | 17) && is_first;
    let ports_at = has_ports.then_some(usize::from(header[0] & 0xf) * 4);
    Some(Header { proto: header[9], ttl: header[8], src: address(12), dst: address(16), ports_at })
}

/// Without extension headers: who has one has no ports here.
fn v6(bytes: &[u8]) -> Option<Header> {
    const LEN: usize = 40;
    bytes.get(..LEN)?;
    let address = |at: usize| {
        let octets: [u8; 16] = bytes[at..at + 16].try_into().expect("16 bytes");
        Ipv6Addr::from(octets).into()
    };
    let proto = bytes[6];
    let ports_at = matches!(proto, 6 | 17).then_some(LEN);
    Some(Header { proto, ttl: bytes[7], src: address(8), dst: address(24), ports_at })
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn reads_ports_where_there_are_some() {
        let mut bytes = [0u8; 28];
        bytes[0] = 0x45;
        bytes[8] = 63;
        bytes[9] = 17;
        bytes[12..20].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
        bytes[20..24].copy_from_slice(&[0, 53, 1, 0]);
        let packet = parse(&bytes, true).expect("IPv4");
        assert_eq!(
            (packet.src.to_string(), packet.dst.to_string()),
            ("10.0.0.1:53".into(), "10.0.0.2:256".into())
        );
        bytes[7] = 1; // a later fragment
        assert_eq!(parse(&bytes, true).expect("IPv4").src.port(), 0);
        assert!(parse(&bytes[..19], true).is_none());
    }
}
