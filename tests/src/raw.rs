//! Packets of any IP protocol, by raw sockets.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, SockaddrStorage, bind, connect, recvfrom, sendto, setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::netns::Netns;

/// SCTP's protocol number.
pub const SCTP: u8 = 132;

/// How long a packet may take; nothing in a lab takes a tenth of it.
const PATIENCE: Duration = Duration::from_secs(3);

/// A raw socket of one protocol.
#[derive(Debug)]
pub struct Raw {
    fd: OwnedFd,
    is_v4: bool,
}

impl Raw {
    /// Of an address that the namespace has.
    ///
    /// # Panics
    /// When the socket can't be made.
    #[track_caller]
    pub fn open(netns: &Netns, proto: u8, address: IpAddr) -> Self {
        let made = netns.enter(move || {
            let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
            // SAFETY: a system call without pointers; nix knows only a few protocols.
            let fd = unsafe { libc::socket(family, libc::SOCK_RAW | libc::SOCK_CLOEXEC, i32::from(proto)) };
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            // SAFETY: a new descriptor that nothing else owns.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            setsockopt(&fd, sockopt::ReceiveTimeout, &TimeVal::new(PATIENCE.as_secs().cast_signed(), 0))?;
            bind(fd.as_raw_fd(), &storage(address))?;
            Ok(Self { fd, is_v4: address.is_ipv4() })
        });
        made.unwrap_or_else(|error| panic!("a raw socket of protocol {proto} on {address}: {error}"))
    }

    /// Only to and from this address from now on; errors about what was sent are told.
    ///
    /// # Errors
    /// The system call's.
    pub fn connect(&self, to: IpAddr) -> io::Result<()> {
        Ok(connect(self.fd.as_raw_fd(), &storage(to))?)
    }

    /// Sends what follows the IP header.
    ///
    /// # Errors
    /// The system call's.
    pub fn send(&self, payload: &[u8], to: IpAddr) -> io::Result<()> {
        sendto(self.fd.as_raw_fd(), payload, &storage(to), MsgFlags::empty())?;
        Ok(())
    }

    /// The next packet: what follows its IP header, and whose it is.
    ///
    /// # Errors
    /// An ICMP error about what was sent, or that nothing has come for a while.
    pub fn receive(&self) -> io::Result<(Vec<u8>, IpAddr)> {
        let mut buffer = [0; 2048];
        let (len, from) = recvfrom::<SockaddrStorage>(self.fd.as_raw_fd(), &mut buffer)?;
        let header = if self.is_v4 { usize::from(buffer[0] & 0xf) * 4 } else { 0 };
        let from = from.and_then(|from| {
            let v4 = from.as_sockaddr_in().map(|from| IpAddr::from(from.ip()));
            v4.or_else(|| from.as_sockaddr_in6().map(|from| from.ip().into()))
        });
        let from = from.ok_or_else(|| io::Error::other("a packet from nowhere"))?;
        Ok((buffer[header..len].to_vec(), from))
    }
}

fn storage(address: IpAddr) -> SockaddrStorage {
    SockaddrStorage::from(SocketAddr::new(address, 0))
}

/// An unspecified address of the same family.
pub fn any(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Opens an SCTP association (RFC 9260 3.3.2).
pub fn sctp_init(ports: (u16, u16)) -> Vec<u8> {
    sctp(ports, 0, 1)
}

/// Answers that; as much of RFC 9260 3.3.3 as connection tracking looks at.
pub fn sctp_init_ack(ports: (u16, u16)) -> Vec<u8> {
    sctp(ports, INITIATE_TAG, 2)
}

const INITIATE_TAG: u32 = 0x1122_3344;

fn sctp((source, destination): (u16, u16), tag: u32, kind: u8) -> Vec<u8> {
    /// Behind the chunk's length: initiate tag, window, streams out and in, first number.
    const INIT: [u8; 16] = [0x11, 0x22, 0x33, 0x44, 0, 1, 0, 0, 0, 10, 0, 10, 0, 0, 0, 1];
    let mut packet = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([kind, 0, 0, 20]);
    packet.extend(INIT);
    let sum = crc32c(&packet);
    packet[8..12].copy_from_slice(&sum.to_le_bytes());
    packet
}

/// RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0x82f6_3b78;
    let step = |sum: u32, byte: &u8| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ if sum & 1 == 0 { 0 } else { POLYNOMIAL })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_check_value_of_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}
