//! TCP ports that a host socket has bound without listening, on kernels that show them nowhere (before 6.8): binding
//! fails there, unless both sockets share (SO_REUSEADDR).
//!
//! It also fails where netdp itself holds a port (the programs `bind4` and `bind6`): what is published by this
//! instance is not tried.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::errno::Errno;
use nix::sys::socket::sockopt::ReuseAddr;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket};

use crate::datapath::Proto;
use crate::error::Error;
use crate::net::sockets;
use crate::plan::published::Published;
use crate::spec::Spec;

/// Those among the host ports of the specs that are so bound, at any address.
pub(super) fn ports(specs: &[Spec], ours: &[Published]) -> Result<Vec<u16>, Error> {
    let wanted = specs.iter().filter(|spec| spec.proto == Proto::Tcp).filter_map(|spec| spec.host);
    let wanted: BTreeSet<u16> = wanted.flat_map(|host| host.first..=host.last).collect();
    if wanted.is_empty() || sockets::bound_are_shown()? { Ok(Vec::new()) } else { hidden(None, wanted, ours) }
}

/// Whether a port is so bound at an address; none: at any.
pub(super) fn is_bound(
    proto: Proto,
    addr: Option<IpAddr>,
    port: u16,
    ours: &[Published],
) -> Result<bool, Error> {
    if proto != Proto::Tcp || sockets::bound_are_shown()? {
        return Ok(false);
    }
    Ok(!hidden(addr, BTreeSet::from([port]), ours)?.is_empty())
}

/// Those of the ports that are so bound at an address; none: at any.
fn hidden(addr: Option<IpAddr>, ports: BTreeSet<u16>, ours: &[Published]) -> Result<Vec<u16>, Error> {
    let (shown, ours) = (shown()?, tcp_ports(ours));
    let unknown = |port: &u16| !shown.contains(port) && !ours.contains(port);
    Ok(ports.into_iter().filter(|port| unknown(port) && !can_bind(addr, *port)).collect())
}

/// The TCP ports that this instance has published, at whatever address.
fn tcp_ports(ours: &[Published]) -> BTreeSet<u16> {
    let tcp = ours.iter().filter(|published| published.proto == Proto::Tcp);
    tcp.flat_map(|published| published.host_port..=published.host_port_end).collect()
}

/// Ports of sockets in any other state, which are in the way of binding and not in ours: connections, TIME_WAIT.
fn shown() -> Result<BTreeSet<u16>, Error> {
    let mut ports = BTreeSet::new();
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/thread-self/net/{table}");
        match fs::read_to_string(&path) {
            Ok(text) => ports.extend(text.lines().filter_map(local_port)),
            // IPv6 may be switched off.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::system(format!("reading {path}"))(error)),
        }
    }
    Ok(ports)
}

/// The local port in a line of `/proc/net/tcp`; none in its head.
fn local_port(line: &str) -> Option<u16> {
    let (_, port) = line.split_whitespace().nth(1)?.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok()
}

/// Tries. What fails for another reason than a socket in the way tells nothing.
fn can_bind(addr: Option<IpAddr>, port: u16) -> bool {
    let addr = SocketAddr::new(addr.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), port);
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let tried = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).and_then(|socket| {
        setsockopt(&socket, ReuseAddr, &true)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(addr))
    });
    tried != Err(Errno::EADDRINUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_socket_is_found_and_a_listener_is_left_to_proc() {
        let socket = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(any)).unwrap();
        let bound: SockaddrStorage =
            nix::sys::socket::getsockname(std::os::fd::AsRawFd::as_raw_fd(&socket)).unwrap();
        let port = bound.as_sockaddr_in().unwrap().port();
        let hidden = |port| hidden(None, BTreeSet::from([port]), &[]).unwrap();
        assert_eq!(hidden(port), [port]);
        drop(socket);
        assert_eq!(hidden(port), Vec::<u16>::new());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert_eq!(hidden(listener.local_addr().unwrap().port()), Vec::<u16>::new());
    }

    #[test]
    fn local_ports_are_read() {
        let line =
            "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1";
        assert_eq!(local_port(line), Some(0x1f90));
        assert_eq!(local_port("  sl  local_address rem_address   st"), None);
    }
}
