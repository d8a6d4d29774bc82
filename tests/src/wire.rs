//! A tap on an interface: whole frames, sent and received past the stack of its namespace.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, recvfrom, send, setsockopt, socket,
    sockopt,
};

use crate::netns::Netns;

/// `sll_pkttype` of a frame that the interface sent.
const PACKET_OUTGOING: u8 = 4;
/// Holds a burst while the machine is busy.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Longer than any frame here.
const LONGEST: usize = 1 << 16;

/// A raw packet socket on one interface.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    /// The interface's MAC.
    pub mac: [u8; 6],
}

impl Tap {
    /// On an interface of a namespace.
    #[track_caller]
    pub fn open(netns: &Netns, interface: &str) -> Self {
        let fd = netns.enter(|| open(interface));
        let fd = fd.unwrap_or_else(|error| panic!("a tap on {interface} of {}: {error}", netns.name()));
        Self { fd, mac: mac(netns, interface) }
    }

    /// Sends a frame as it is.
    ///
    /// # Errors
    /// The kernel takes no frame without a whole link-layer header, and none longer than the MTU.
    pub fn send(&self, frame: &[u8]) -> nix::Result<()> {
        send(self.fd.as_raw_fd(), frame, MsgFlags::empty()).map(drop)
    }

    /// The next frame that the interface receives.
    pub fn receive(&self, deadline: Instant) -> Option<Vec<u8>> {
        let mut buffer = vec![0; LONGEST];
        loop {
            match recvfrom::<LinkAddr>(self.fd.as_raw_fd(), &mut buffer) {
                Ok((_, Some(from))) if from.pkttype() == PACKET_OUTGOING => {}
                Ok((length, _)) => {
                    buffer.truncate(length);
                    return Some(buffer);
                }
                Err(_) => {
                    let left = deadline.checked_duration_since(Instant::now())?;
                    self.wait(left);
                }
            }
        }
    }

    /// Everything that the interface receives for so long.
    pub fn collect(&self, patience: Duration) -> Vec<Vec<u8>> {
        let deadline = Instant::now() + patience;
        std::iter::from_fn(|| self.receive(deadline)).collect()
    }

    fn wait(&self, at_most: Duration) {
        use std::os::fd::AsFd as _;
        let timeout = u16::try_from(at_most.as_millis() + 1).unwrap_or(u16::MAX);
        // Whatever comes of it, the next receive tells.
        let _ = poll(&mut [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(timeout));
    }
}

fn open(interface: &str) -> io::Result<OwnedFd> {
    let index = if_nametoindex(interface)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
    setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET as libc::sa_family_t,
        sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
        sll_ifindex: index.cast_signed(),
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: a system call on a descriptor that lives; it reads a whole `sockaddr_ll`.
    let result = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), length) };
    if result == 0 { Ok(fd) } else { Err(io::Error::last_os_error()) }
}

/// An interface's MAC.
#[track_caller]
pub fn mac(netns: &Netns, interface: &str) -> [u8; 6] {
    let found = netns.enter(|| {
        let all = getifaddrs().expect("the interfaces' addresses");
        all.filter(|entry| entry.interface_name == interface)
            .find_map(|entry| entry.address.as_ref()?.as_link_addr()?.addr())
    });
    found.unwrap_or_else(|| panic!("no MAC at {interface} of {}", netns.name()))
}

/// The MAC of the interface that has an address.
#[track_caller]
pub fn mac_of(netns: &Netns, address: IpAddr) -> [u8; 6] {
    let name = netns.enter(|| {
        let mut all = getifaddrs().expect("the interfaces' addresses");
        all.find(|entry| entry.address.and_then(|found| ip(&found)) == Some(address))
            .map(|entry| entry.interface_name)
    });
    let name = name.unwrap_or_else(|| panic!("nobody in {} has {address}", netns.name()));
    mac(netns, &name)
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|found| IpAddr::V4(found.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|found| IpAddr::V6(found.ip())))
}
