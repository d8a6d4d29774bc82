//! UDP sockets that say which ICMP errors they were told, by whom; and what a traceroute makes of that.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt};

use crate::lab::Lab;
use crate::netns::Netns;
use crate::variant::Family;

/// How long an error may take that comes at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// `IP_MTU_DISCOVER`: may what a socket sends be fragmented?
#[derive(Clone, Copy, Debug)]
pub enum Fragments {
    /// By the sender, and in IPv4 by routers: DF is clear.
    Allowed,
    /// By nobody: DF is set, and what is too big for the known path is not sent at all.
    Forbidden,
}

/// ICMP type and code.
pub type Kind = (u8, u8);

/// An ICMP error in each family.
#[derive(Clone, Copy, Debug)]
pub struct What {
    /// RFC 792, RFC 1812.
    pub v4: Kind,
    /// RFC 4443.
    pub v6: Kind,
}

impl What {
    /// In a lab's family.
    pub const fn of(self, lab: &Lab) -> Kind {
        match lab.variant.family {
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// An ICMP error as a socket learns it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Told {
    /// Who reported it.
    pub by: IpAddr,
    /// What.
    pub what: Kind,
    /// Of "fragmentation needed" and "packet too big": the MTU.
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
    pub fn new(netns: &Netns, to: (impl Into<IpAddr>, u16), fragments: Fragments) -> Self {
        let to = SocketAddr::new(to.0.into(), to.1);
        let socket = netns.enter(|| {
            let any: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
            let socket = UdpSocket::bind((any, 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(PATIENCE))?;
            // The numbers are the same in both families.
            let discover = match fragments {
                Fragments::Allowed => libc::IP_PMTUDISC_DONT,
                Fragments::Forbidden => libc::IP_PMTUDISC_DO,
            };
            if to.is_ipv4() {
                setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
                set_option(&socket, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, discover)?;
            } else {
                setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
                set_option(&socket, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, discover)?;
            }
            Ok::<_, io::Error>(socket)
        });
        Self(socket.unwrap_or_else(|error| panic!("{} to {to}: {error}", netns.name())))
    }

    /// With this time to live.
    #[must_use]
    pub fn with_ttl(self, ttl: i32) -> Self {
        let (level, option) = match self.is_v4() {
            true => (libc::IPPROTO_IP, libc::IP_TTL),
            false => (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS),
        };
        set_option(&self.0, level, option, ttl).expect("a time to live");
        self
    }

    fn is_v4(&self) -> bool {
        self.0.peer_addr().expect("it is connected").is_ipv4()
    }

    /// Sends a datagram of so many bytes.
    pub fn send(&self, bytes: usize) -> io::Result<()> {
        let payload: Vec<u8> = (0..bytes).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
        self.0.send(&payload).map(drop)
    }

    /// Sends a datagram to a [`crate::server::Server`] and returns the length of its answer.
    pub fn ask(&self, bytes: usize) -> io::Result<usize> {
        self.send(bytes)?;
        loop {
            match self.0.recv(&mut vec![0; 1 << 16]) {
                // By a signal to another thread's child, say.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                answer => return answer,
            }
        }
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
        let (mut payload, mut control) =
            ([0; 64], nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in6));
        let mut buffers = [IoSliceMut::new(&mut payload)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let fd = self.0.as_raw_fd();
        let message = recvmsg::<SockaddrStorage>(fd, &mut buffers, Some(&mut control), flags).ok()?;
        let found = message.cmsgs().ok()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4RecvErr(error, Some(from)) => {
                Some((error, IpAddr::from(from.sin_addr.s_addr.to_ne_bytes())))
            }
            ControlMessageOwned::Ipv6RecvErr(error, Some(from)) => {
                Some((error, IpAddr::from(from.sin6_addr.s6_addr)))
            }
            _ => None,
        });
        let (error, by) = found?;
        let (what, errno) = ((error.ee_type, error.ee_code), error.ee_errno.cast_signed());
        Some(Told { by, what, mtu: error.ee_info, errno })
    }

    /// The MTU of the path, as the socket's kernel knows it.
    pub fn path_mtu(&self) -> u32 {
        let (level, option) = match self.is_v4() {
            true => (libc::IPPROTO_IP, libc::IP_MTU),
            false => (libc::IPPROTO_IPV6, libc::IPV6_MTU),
        };
        let (mut mtu, mut length) = (0u32, OPTION_LEN);
        // SAFETY: a system call on a descriptor that lives; it writes at most `length` bytes.
        let result = unsafe {
            let at = (&raw mut mtu).cast();
            libc::getsockopt(self.0.as_raw_fd(), level, option, at, &raw mut length)
        };
        assert_eq!(result, 0, "IP_MTU: {}", io::Error::last_os_error());
        mtu
    }
}

/// Who answers a datagram to a closed port at each hop, until the destination says "port unreachable".
#[track_caller]
pub fn trace(netns: &Netns, to: (IpAddr, u16)) -> Vec<IpAddr> {
    const MAX_HOPS: i32 = 8;
    let port_unreachable = if to.0.is_ipv4() { (3, 3) } else { (1, 4) };
    let mut hops = Vec::new();
    for ttl in 1..=MAX_HOPS {
        let prober = Prober::new(netns, to, Fragments::Allowed).with_ttl(ttl);
        prober.send(32).expect("sending");
        let told = prober.told().unwrap_or_else(|| panic!("nobody answers at hop {ttl} after {hops:?}"));
        hops.push(told.by);
        if told.what == port_unreachable {
            return hops;
        }
    }
    panic!("{to:?} was not reached: {hops:?}");
}

/// Length of a socket option that is a number.
const OPTION_LEN: libc::socklen_t = size_of::<i32>() as libc::socklen_t;

fn set_option(socket: &UdpSocket, level: i32, option: i32, value: i32) -> io::Result<()> {
    // SAFETY: a system call on a descriptor that lives; it reads `OPTION_LEN` bytes.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), OPTION_LEN) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
