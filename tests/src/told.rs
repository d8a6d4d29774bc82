//! UDP sockets that say which ICMP errors they were told, by whom; and what a traceroute makes of that.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, setsockopt, sockopt};

use crate::netns::Netns;

/// How long an error may take that comes at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// `IP_MTU_DISCOVER`: may what a socket sends be fragmented?
#[derive(Clone, Copy, Debug)]
pub enum Fragments {
    /// By anybody: DF is clear.
    Allowed,
    /// By nobody: DF is set, and what is too big for the known path is not sent at all.
    Forbidden,
}

/// An ICMP error as a socket learns it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Told {
    /// Who reported it.
    pub by: Ipv4Addr,
    /// ICMP type and code.
    pub what: (u8, u8),
    /// Of "fragmentation needed": the MTU.
    pub mtu: u32,
    /// What system calls say.
    pub errno: i32,
}

/// A connected UDP socket with an error queue.
#[derive(Debug)]
pub struct Prober(pub UdpSocket);

impl Prober {
    /// In a namespace.
    #[track_caller]
    pub fn new(netns: &Netns, to: (Ipv4Addr, u16), fragments: Fragments) -> Self {
        let socket = netns.enter(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.connect(SocketAddrV4::new(to.0, to.1))?;
            socket.set_read_timeout(Some(PATIENCE))?;
            setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
            let discover = match fragments {
                Fragments::Allowed => libc::IP_PMTUDISC_DONT,
                Fragments::Forbidden => libc::IP_PMTUDISC_DO,
            };
            set_option(&socket, libc::IP_MTU_DISCOVER, discover)?;
            Ok::<_, io::Error>(socket)
        });
        Self(socket.unwrap_or_else(|error| panic!("{} to {to:?}: {error}", netns.name())))
    }

    /// With this time to live.
    #[must_use]
    pub fn with_ttl(self, ttl: u32) -> Self {
        self.0.set_ttl(ttl).expect("IP_TTL");
        self
    }

    /// Sends a datagram of so many bytes.
    pub fn send(&self, bytes: usize) -> io::Result<()> {
        let payload: Vec<u8> = (0..bytes).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
        self.0.send(&payload).map(drop)
    }

    /// Sends a datagram to a [`crate::server::Server`] and returns the length of its answer.
    pub fn ask(&self, bytes: usize) -> io::Result<usize> {
        self.send(bytes)?;
        self.0.recv(&mut vec![0; 1 << 16])
    }

    /// The first error in the queue.
    pub fn told(&self) -> Option<Told> {
        self.told_within(PATIENCE)
    }

    /// The same, and how long it may take.
    pub fn told_within(&self, patience: Duration) -> Option<Told> {
        let deadline = Instant::now() + patience;
        loop {
            match self.read_error() {
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(1)),
                told => return told,
            }
        }
    }

    fn read_error(&self) -> Option<Told> {
        let (mut payload, mut control) = ([0; 64], nix::cmsg_space!(libc::sock_extended_err, SockaddrIn));
        let mut buffers = [IoSliceMut::new(&mut payload)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            recvmsg::<SockaddrIn>(self.0.as_raw_fd(), &mut buffers, Some(&mut control), flags).ok()?;
        let found = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
                let by = Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr));
                let what = (error.ee_type, error.ee_code);
                Some(Told { by, what, mtu: error.ee_info, errno: error.ee_errno.cast_signed() })
            }
            _ => None,
        });
        found
    }

    /// The MTU of the path, as the socket's kernel knows it.
    pub fn path_mtu(&self) -> u32 {
        let (mut mtu, mut length) = (0u32, libc::socklen_t::try_from(size_of::<u32>()).unwrap_or(4));
        // SAFETY: a system call on a descriptor that lives; it writes at most `length` bytes.
        let result = unsafe {
            let at = (&raw mut mtu).cast();
            libc::getsockopt(self.0.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU, at, &raw mut length)
        };
        assert_eq!(result, 0, "IP_MTU: {}", io::Error::last_os_error());
        mtu
    }
}

/// Who answers a datagram to a closed port at each hop, until the destination says "port unreachable".
#[track_caller]
pub fn trace(netns: &Netns, to: (Ipv4Addr, u16)) -> Vec<Ipv4Addr> {
    const PORT_UNREACHABLE: (u8, u8) = (3, 3);
    const MAX_HOPS: u32 = 8;
    let mut hops = Vec::new();
    for ttl in 1..=MAX_HOPS {
        let prober = Prober::new(netns, to, Fragments::Allowed).with_ttl(ttl);
        prober.send(32).expect("sending");
        let told = prober.told().unwrap_or_else(|| panic!("nobody answers at hop {ttl} after {hops:?}"));
        hops.push(told.by);
        if told.what == PORT_UNREACHABLE {
            return hops;
        }
    }
    panic!("{to:?} was not reached: {hops:?}");
}

fn set_option(socket: &UdpSocket, option: i32, value: i32) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of::<i32>()).unwrap_or(4);
    // SAFETY: a system call on a descriptor that lives; it reads `length` bytes.
    let result = unsafe {
        let at = (&raw const value).cast();
        libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IP, option, at, length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
