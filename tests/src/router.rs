//! A router that advertises itself to the host, as home and office networks have one.

use std::io::IoSlice;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::AsRawFd as _;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn6, sendmsg, setsockopt, socket,
    sockopt,
};

use crate::lab::{Lab, UPLINK, WORLD_LINK};
use crate::process::eventually;

/// Every node on the link (RFC 4291, 2.7.1).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// A router advertisement without options (RFC 4861, 4.2): type 134, hop limit 64, a default router for half an hour.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];
/// Receivers drop what a router may have forwarded.
const HOPS: i32 = 255;

/// The world advertises itself until the host has taken it for its default router.
pub fn advertise(lab: &Lab) {
    eventually("the host has a default router", || {
        // The world's link-local address is tentative at first.
        let _ = lab.world.enter(send);
        default_route(lab).contains("proto ra")
    });
}

/// The host's IPv6 default route.
pub fn default_route(lab: &Lab) -> String {
    lab.host.sh(&format!("ip -6 route show default dev {UPLINK}"))
}

fn send() -> nix::Result<usize> {
    let socket = socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)?;
    setsockopt(&socket, sockopt::Ipv6MulticastHops, &HOPS)?;
    let to = SockaddrIn6::from(SocketAddrV6::new(ALL_NODES, 0, 0, if_nametoindex(WORLD_LINK)?));
    // The kernel fills in the checksum.
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(&ADVERTISEMENT)], &[], MsgFlags::empty(), Some(&to))
}
