//! Frames at full speed through a packet socket: UDP in IPv4, every checksum right, any number of flows.

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::time::{ClockId, clock_gettime};

use crate::bench::arena;
use crate::bench::{Error, stop};
use crate::net::{Mac, NetNs};

/// Frames that one system call sends.
const BATCH: usize = 64;
/// How many flows one remote address has; then the next one follows.
pub(in crate::bench) const FLOWS_OF_A_REMOTE: u32 = 60_000;
/// The first varied port.
const FIRST_PORT: u16 = 2000;
/// Steps through the flows out of order, so that no cache line is next to the one before: a prime above any number of
/// flows' factors.
const STRIDE: u64 = 611_953;

const ETHERNET: usize = 14;
const IP: usize = ETHERNET + 20;
const UDP: usize = IP + 8;
/// Offsets in the frame.
const IP_CHECKSUM: usize = ETHERNET + 10;
const UDP_CHECKSUM: usize = IP + 6;
const TTL: u8 = 64;
const PROTOCOL_UDP: u8 = 17;

/// What varies from flow to flow: the remote's address, and the port of whoever sends.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) enum Way {
    /// From this address to remotes, at this port.
    Out(Ipv4Addr, u16),
    /// From remotes to this address and port.
    In(Ipv4Addr, u16),
}

/// Frames of many flows.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Stream {
    /// Who sends.
    pub(in crate::bench) from: Mac,
    /// The next hop.
    pub(in crate::bench) to: Mac,
    /// Which way.
    pub(in crate::bench) way: Way,
    /// How many flows take turns.
    pub(in crate::bench) flows: u32,
    /// How long a frame is, without its checksum.
    pub(in crate::bench) length: usize,
}

/// How long sending took.
#[derive(Clone, Copy, Debug)]
pub(in crate::bench) struct Spent {
    /// On the clock.
    pub(in crate::bench) wall: Duration,
    /// On the CPU: what others did meanwhile is not in it, nor what the kernel did in interrupts if it accounts for
    /// those apart (`CONFIG_IRQ_TIME_ACCOUNTING`).
    pub(in crate::bench) cpu: Duration,
}

/// A packet socket with its frames.
#[derive(Debug)]
pub(in crate::bench) struct Sender {
    socket: OwnedFd,
    stream: Stream,
    frames: Vec<[u8; 1514]>,
    /// Sums of what does not vary, of the IP header and of the datagram with its pseudo-header.
    sums: (u32, u32),
    /// How many were sent.
    next: u64,
}

impl Sender {
    /// Opens it on an interface.
    pub(in crate::bench) fn new(ns: &NetNs, interface: &str, stream: Stream) -> Result<Self, Error> {
        let found = arena::in_ns(ns, async |net| net.link(interface).await)?;
        let index = found.map_or(0, |link| link.index);
        let socket = ns.run(|| packet_socket(index))?.map_err(Error::system("opening a packet socket"))?;
        let frame = template(&stream);
        let udp_length = u32::try_from(stream.length - IP).unwrap_or(0);
        let pseudo = u32::from(PROTOCOL_UDP) + udp_length + sum(&frame[ETHERNET + 12..IP]);
        let sums = (sum(&frame[ETHERNET..IP]), pseudo + sum(&frame[IP..stream.length]));
        Ok(Self { socket, stream, frames: vec![frame; BATCH], sums, next: 0 })
    }

    /// Sends so many, each of the next flow; returns how long that took, and how much of it this thread had the CPU.
    pub(in crate::bench) fn send(&mut self, count: u64) -> Result<Spent, Error> {
        let (since, cpu) = (Instant::now(), thread_time()?);
        let mut left = count;
        while left > 0 {
            stop::check()?;
            let batch = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
            for number in 0..batch {
                self.address(number);
            }
            self.send_batch(batch).map_err(Error::system("sending frames"))?;
            left -= batch as u64;
        }
        Ok(Spent { wall: since.elapsed(), cpu: thread_time()?.saturating_sub(cpu) })
    }

    /// Makes a frame one of the next flow.
    fn address(&mut self, number: usize) {
        let flow = u32::try_from(self.next * STRIDE % u64::from(self.stream.flows)).unwrap_or(0);
        self.next += 1;
        let remote = arena::remote(u16::try_from(flow / FLOWS_OF_A_REMOTE).unwrap_or(0)).octets();
        let port = (FIRST_PORT + u16::try_from(flow % FLOWS_OF_A_REMOTE).unwrap_or(0)).to_be_bytes();
        let address_at = ETHERNET + if matches!(self.stream.way, Way::Out(..)) { 16 } else { 12 };
        let varied = sum(&remote);
        let frame = &mut self.frames[number];
        frame[address_at..address_at + 4].copy_from_slice(&remote);
        frame[IP..IP + 2].copy_from_slice(&port);
        let checksum = |sum: u32| (!fold(sum)).to_be_bytes();
        frame[IP_CHECKSUM..IP_CHECKSUM + 2].copy_from_slice(&checksum(self.sums.0 + varied));
        let udp = checksum(self.sums.1 + varied + u32::from(u16::from_be_bytes(port)));
        // RFC 768: a sum of zero is sent as ones; zero means that there is none.
        let udp = if udp == [0, 0] { [0xff, 0xff] } else { udp };
        frame[UDP_CHECKSUM..UDP_CHECKSUM + 2].copy_from_slice(&udp);
    }

    fn send_batch(&mut self, count: usize) -> io::Result<()> {
        let length = self.stream.length;
        let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|n| libc::iovec {
            iov_base: self.frames[n].as_mut_ptr().cast(),
            iov_len: length,
        });
        // SAFETY: all of its fields are integers and pointers, for which zero is a value.
        let mut messages: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (message, part) in messages.iter_mut().zip(&mut parts) {
            message.msg_hdr.msg_iov = part;
            message.msg_hdr.msg_iovlen = 1;
        }
        let mut done = 0;
        while done < count {
            let left = u32::try_from(count - done).unwrap_or(0);
            // SAFETY: messages and frames live, and there are at least so many of them.
            let sent =
                unsafe { libc::sendmmsg(self.socket.as_raw_fd(), messages[done..].as_mut_ptr(), left, 0) };
            match usize::try_from(sent) {
                Ok(sent) => done += sent,
                Err(_) => match io::Error::last_os_error() {
                    // The interface's queue is full: that is waited for.
                    error if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                    error => return Err(error),
                },
            }
        }
        Ok(())
    }
}

fn thread_time() -> Result<Duration, Error> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
        .map_err(Error::system("reading the thread's clock"))?;
    Ok(time.into())
}

/// A raw packet socket that only sends, past the queueing discipline.
fn packet_socket(index: u32) -> io::Result<OwnedFd> {
    let check = |result: i32| if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) };
    // SAFETY: a system call without pointers. Protocol 0 receives nothing.
    let fd = check(unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: the descriptor is new and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    let on = 1i32;
    // SAFETY: the option's value lives, and its length is right.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_PACKET,
            libc::PACKET_QDISC_BYPASS,
            (&raw const on).cast(),
            size_of_val(&on).try_into().unwrap_or(0),
        )
    })?;
    // SAFETY: all of its fields are integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
    address.sll_ifindex = i32::try_from(index).unwrap_or(0);
    let length = size_of_val(&address).try_into().unwrap_or(0);
    // SAFETY: the address lives, and its length is right.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) })?;
    Ok(socket)
}

/// A frame with zeros where flows differ and where checksums go.
fn template(stream: &Stream) -> [u8; 1514] {
    let mut frame = [0; 1514];
    let length = |bytes: usize| u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes();
    frame[..6].copy_from_slice(&stream.to.0);
    frame[6..12].copy_from_slice(&stream.from.0);
    frame[12..14].copy_from_slice(&[0x08, 0x00]);
    frame[ETHERNET] = 0x45;
    frame[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length(stream.length - ETHERNET));
    // Don't fragment.
    frame[ETHERNET + 6] = 0x40;
    frame[ETHERNET + 8] = TTL;
    frame[ETHERNET + 9] = PROTOCOL_UDP;
    let (address, at, port) = match stream.way {
        Way::Out(source, port) => (source, 12, port),
        Way::In(destination, port) => (destination, 16, port),
    };
    frame[ETHERNET + at..ETHERNET + at + 4].copy_from_slice(&address.octets());
    frame[IP + 2..IP + 4].copy_from_slice(&port.to_be_bytes());
    frame[IP + 4..IP + 6].copy_from_slice(&length(stream.length - IP));
    for (number, byte) in frame[UDP..stream.length].iter_mut().enumerate() {
        *byte = number.to_le_bytes()[0];
    }
    frame
}

/// Ones' complement sum of 16-bit words (RFC 1071), not folded.
fn sum(bytes: &[u8]) -> u32 {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    bytes.chunks(2).map(word).sum()
}

fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff) + (sum >> 16);
    u16::try_from((once & 0xffff) + (once >> 16)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sums over header and datagram with all fields in place come out as ones (RFC 1071).
    #[test]
    fn checksums_are_right_whatever_the_flow() {
        for (way, length) in [
            (Way::Out(Ipv4Addr::new(10, 88, 0, 2), 9000), 60),
            (Way::In(Ipv4Addr::new(10, 99, 0, 1), 8080), 1400),
            (Way::In(Ipv4Addr::new(10, 99, 0, 1), 8080), 61),
        ] {
            let stream = Stream { from: Mac([2; 6]), to: Mac([4; 6]), way, flows: 200_000, length };
            let frame = template(&stream);
            let udp_length = u32::try_from(length - IP).expect("short");
            let pseudo = u32::from(PROTOCOL_UDP) + udp_length + sum(&frame[ETHERNET + 12..IP]);
            let sums = (sum(&frame[ETHERNET..IP]), pseudo + sum(&frame[IP..length]));
            let null = std::fs::File::open("/dev/null").expect("/dev/null").into();
            let mut sender = Sender { socket: null, stream, frames: vec![frame], sums, next: 0 };
            for _ in 0..1000 {
                sender.address(0);
                let frame = &sender.frames[0];
                assert_eq!(fold(sum(&frame[ETHERNET..IP])), 0xffff);
                let datagram = sum(&frame[IP..length]) + sum(&frame[ETHERNET + 12..IP]);
                assert_eq!(fold(datagram + u32::from(PROTOCOL_UDP) + udp_length), 0xffff);
            }
        }
    }

    #[test]
    fn every_flow_has_its_turn() {
        for flows in [1u64, 10_000, 1_000_000] {
            let mut seen: Vec<u64> = (0..flows).map(|n| n * STRIDE % flows).collect();
            seen.sort_unstable();
            seen.dedup();
            assert_eq!(seen.len() as u64, flows);
        }
    }
}
