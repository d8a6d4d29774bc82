//! Frames as an endpoint could make them: honest ones and others.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::PacketBuilder;
use nix::net::if_::if_nametoindex;

use crate::netns::Netns;

/// Everybody.
const BROADCAST: [u8; 6] = [0xff; 6];
/// Every IPv6 node on a link (RFC 4291 2.7.1), and its MAC.
const ALL_NODES: (Ipv6Addr, [u8; 6]) = (Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), [0x33, 0x33, 0, 0, 0, 1]);

/// Tells everybody on a link that `addr` has the MAC `said`: by gratuitous ARP, or an unsolicited neighbour
/// advertisement from `addr` itself. `from` is the frame's source.
pub fn announcement(from: [u8; 6], said: [u8; 6], addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(addr) => gratuitous_arp(from, said, addr),
        IpAddr::V6(addr) => {
            // Override; the target, and its link-layer address (RFC 4861 4.4).
            let mut body = addr.octets().to_vec();
            body.extend([2, 1]);
            body.extend(said);
            discovery(from, addr, 136, [0x20, 0, 0, 0], &body)
        }
    }
}

/// A router advertisement: a default route for half an hour (RFC 4861 4.2).
pub fn router_advertisement(from: [u8; 6], src: Ipv6Addr) -> Vec<u8> {
    discovery(from, src, 134, [64, 0, 0x07, 0x08], &[0; 8])
}

fn discovery(from: [u8; 6], src: Ipv6Addr, kind: u8, head: [u8; 4], body: &[u8]) -> Vec<u8> {
    let (dst, mac) = ALL_NODES;
    let builder = PacketBuilder::ethernet2(from, mac).ipv6(src.octets(), dst.octets(), 255);
    let mut frame = Vec::new();
    builder.icmpv6_raw(kind, 0, head).write(&mut frame, body).expect("writing to memory");
    frame
}

fn gratuitous_arp(from: [u8; 6], said: [u8; 6], addr: Ipv4Addr) -> Vec<u8> {
    let (sender, nobody) = (addr.octets(), [0; 6]);
    // RFC 826: a request about the sender's own address.
    [&BROADCAST[..], &from, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &said, &sender, &nobody, &sender].concat()
}

/// Sends a frame as it is.
pub fn send(netns: &Netns, interface: &str, frame: &[u8]) {
    let sent = netns.enter(|| {
        // SAFETY: plain data.
        let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        to.sll_family = u16::try_from(libc::AF_PACKET).expect("a small number");
        to.sll_ifindex = if_nametoindex(interface).expect("the interface").cast_signed();
        // SAFETY: a new descriptor, closed below; the pointers are to living values of the lengths told.
        unsafe {
            let fd = libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
            let len = libc::socklen_t::try_from(size_of_val(&to)).expect("a small number");
            let sent = libc::sendto(fd, frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), len);
            libc::close(fd);
            sent
        }
    });
    assert_eq!(
        usize::try_from(sent),
        Ok(frame.len()),
        "sending a frame: {}",
        std::io::Error::last_os_error()
    );
}
