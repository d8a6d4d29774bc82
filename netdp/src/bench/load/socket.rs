//! Sockets bound to given source addresses, and connected without waiting.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, IntoRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};

use crate::bench::Error;

/// Enough that a burst of connections waits for `accept` (net.core.somaxconn allowing).
const BACKLOG: i32 = 65535;
/// Enough that a burst of 50 000 datagrams waits and is not dropped by the tool itself.
const RECEIVE_BUFFER: usize = 64 << 20;

/// Raises the limit of open files so that so many sockets fit below it.
pub fn allow_files(wanted: usize) -> Result<(), Error> {
    /// What the process needs besides.
    const OTHERS: u64 = 1000;
    let wanted = wanted as u64 + OTHERS;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(Error::system("getrlimit"))?;
    if soft < wanted {
        let doing = format!("allowing {wanted} open files ({hard} are allowed)");
        setrlimit(Resource::RLIMIT_NOFILE, wanted, hard.max(wanted)).map_err(Error::system(doing))?;
    }
    Ok(())
}

/// A TCP socket that starts connecting from this source and does not wait.
pub fn tcp_connecting(from: SocketAddr, to: SocketAddr) -> io::Result<TcpStream> {
    let fd = tcp_bound(from, SockFlag::SOCK_NONBLOCK)?;
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(to)) {
        Ok(()) | Err(Errno::EINPROGRESS) => Ok(stream(fd)),
        Err(error) => Err(error.into()),
    }
}

/// A TCP socket, bound to this source, not connected.
pub fn tcp_bound(from: SocketAddr, flags: SockFlag) -> io::Result<OwnedFd> {
    let family = if from.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(from))?;
    Ok(fd)
}

/// Connects a bound socket, and waits.
pub fn tcp_connect(fd: OwnedFd, to: SocketAddr) -> io::Result<TcpStream> {
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(stream(fd))
}

/// A listener with the longest backlog, which does not block.
pub fn tcp_listening(on: SocketAddr) -> io::Result<TcpListener> {
    let fd = tcp_bound(on, SockFlag::SOCK_NONBLOCK)?;
    // SAFETY: a system call on a descriptor that lives; nix allows no backlog beyond 4096.
    if unsafe { libc::listen(fd.as_raw_fd(), BACKLOG) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is a listening TCP socket that nothing else owns.
    Ok(unsafe { TcpListener::from_raw_fd(fd.into_raw_fd()) })
}

/// A UDP socket with a receive buffer that holds a whole burst.
pub fn udp_bound(on: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(on)?;
    // Without the right to exceed the limit, the limit itself.
    let _ = setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER);
    Ok(socket)
}

fn stream(fd: OwnedFd) -> TcpStream {
    // SAFETY: the descriptor is a TCP socket that nothing else owns.
    unsafe { TcpStream::from_raw_fd(fd.into_raw_fd()) }
}
