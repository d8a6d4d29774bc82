//! TCP sockets that are bound and neither listen nor are connected. `/proc/net/tcp` does not show them; since Linux
//! 6.8 `sock_diag(7)` does.

use std::os::fd::AsRawFd as _;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};

use super::super::error::{Error, Result};
use super::table::Entry;

/// The kernel's `TCP_BOUND_INACTIVE` (`net/tcp_states.h`), a state of `sock_diag` only. Older kernels know no such
/// socket.
const BOUND_INACTIVE: u32 = 13;

/// Both families' sockets of the calling thread's network namespace; none where the kernel can't tell.
pub(super) fn entries() -> Result<Vec<Entry>> {
    let mut entries = dump(AF_INET, SocketId::new_v4())?;
    entries.extend(dump(AF_INET6, SocketId::new_v6())?);
    Ok(entries)
}

/// Whether the kernel can tell: a socket that is so bound is among them.
pub(super) fn are_shown() -> Result<bool> {
    let failed = || Error::system(|| "binding a TCP socket to a free port".to_owned());
    let bound =
        socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(failed())?;
    bind(bound.as_raw_fd(), &SockaddrIn::new(0, 0, 0, 0, 0)).map_err(failed())?;
    let port = getsockname::<SockaddrIn>(bound.as_raw_fd()).map_err(failed())?.port();
    Ok(dump(AF_INET, SocketId::new_v4())?.iter().any(|entry| entry.port == port))
}

fn dump(family: u8, socket_id: SocketId) -> Result<Vec<Entry>> {
    let failed = || Error::system(|| "asking for bound sockets (sock_diag)".to_owned());
    let asked = match ask(family, socket_id) {
        // Built without NETLINK_SOCK_DIAG.
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => return Ok(Vec::new()),
        other => other.map_err(failed())?,
    };
    let mut entries = Vec::new();
    loop {
        let (datagram, _) = asked.recv_from_full().map_err(failed())?;
        let mut rest = &datagram[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<SockDiagMessage>::deserialize(rest)
                .map_err(|error| failed()(std::io::Error::other(error)))?;
            let length = usize::try_from(message.header.length).unwrap_or(0).next_multiple_of(4);
            rest = rest.get(length.max(1)..).unwrap_or_default();
            match message.payload {
                NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(found)) => {
                    let id = &found.header.socket_id;
                    entries.push(Entry {
                        addr: id.source_address.to_canonical(),
                        port: id.source_port,
                        inode: found.header.inode.into(),
                    });
                }
                NetlinkPayload::Done(_) => return Ok(entries),
                // Without INET_DIAG there is nobody to ask.
                NetlinkPayload::Error(error) if error.raw_code() == -(Errno::ENOENT as i32) => {
                    return Ok(Vec::new());
                }
                NetlinkPayload::Error(error) => return Err(failed()(error.to_io())),
                _ => {}
            }
        }
    }
}

fn ask(family: u8, socket_id: SocketId) -> std::io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let states = StateFlags::from_bits_retain(1 << BOUND_INACTIVE);
    let request =
        InetRequest { family, protocol: IPPROTO_TCP, extensions: ExtensionFlags::empty(), states, socket_id };
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_socket_is_found_and_a_listener_is_not() {
        let bound = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        bind(bound.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
        let port = getsockname::<SockaddrIn>(bound.as_raw_fd()).unwrap().port();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listening = listener.local_addr().unwrap().port();
        assert!(are_shown().unwrap(), "this needs Linux 6.8");
        let found = entries().unwrap();
        assert!(!found.iter().any(|entry| entry.port == listening));
        let entry = found.iter().find(|entry| entry.port == port).expect("the bound one");
        assert!(entry.addr.is_loopback());
        assert_eq!(super::super::owner::of(entry.inode).map(|(pid, _)| pid), Some(std::process::id()));
    }
}
