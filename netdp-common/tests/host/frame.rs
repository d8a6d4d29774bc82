//! Frames: built by etherparse, read and rewritten by the core with complete checksums.

use std::net::IpAddr;

use bytemuck::Pod;
use etherparse::{PacketBuilder, TcpHeader};
use netdp_common::header::ethernet;
use netdp_common::packet::{L4Fix, apply_difference, difference};

use crate::host::mac;
use crate::host::plan::Plan;

/// What a packet carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Carries {
    /// TCP with these flags.
    Tcp(u8),
    /// UDP.
    Udp,
    /// An ICMP echo request; its identifier is `sport`.
    EchoRequest,
    /// An ICMP echo reply; its identifier is `dport`.
    EchoReply,
}

/// A packet to be built, or as it was found in a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Sent<A> {
    pub(crate) src: A,
    pub(crate) dst: A,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) carries: Carries,
    pub(crate) ttl: u8,
}

impl<A: Copy> Sent<A> {
    /// The packet that answers this one; `carries` says what.
    pub(crate) fn answered(&self, carries: Carries) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, carries, ttl: 64 }
    }

    /// The frame, from MAC to MAC.
    pub(crate) fn frame<F: Plan<Addr = A>>(&self, from: [u8; 6], to: [u8; 6]) -> Vec<u8> {
        const PAYLOAD: &[u8] = b"netdp";
        let link = PacketBuilder::ethernet2(from, to);
        let (net, v6) = match (F::ip(self.src), F::ip(self.dst)) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => (link.ipv4(src.octets(), dst.octets(), self.ttl), false),
            (IpAddr::V6(src), IpAddr::V6(dst)) => (link.ipv6(src.octets(), dst.octets(), self.ttl), true),
            _ => unreachable!("one family"),
        };
        let mut frame = Vec::new();
        match (self.carries, v6) {
            (Carries::Tcp(flags), _) => {
                net.tcp_header(tcp_header(self.sport, self.dport, flags)).write(&mut frame, PAYLOAD)
            }
            (Carries::Udp, _) => net.udp(self.sport, self.dport).write(&mut frame, PAYLOAD),
            (Carries::EchoRequest, false) => {
                net.icmpv4_echo_request(self.sport, 1).write(&mut frame, PAYLOAD)
            }
            (Carries::EchoReply, false) => net.icmpv4_echo_reply(self.dport, 1).write(&mut frame, PAYLOAD),
            (Carries::EchoRequest, true) => net.icmpv6_echo_request(self.sport, 1).write(&mut frame, PAYLOAD),
            (Carries::EchoReply, true) => net.icmpv6_echo_reply(self.dport, 1).write(&mut frame, PAYLOAD),
        }
        .expect("a frame of a few dozen bytes");
        frame
    }

    /// The frame as the host's interface `number` receives it from the endpoint or remote behind it.
    pub(crate) fn frame_to<F: Plan<Addr = A>>(&self, number: u32) -> Vec<u8> {
        self.frame::<F>(mac(0xee), mac(number))
    }
}

fn tcp_header(sport: u16, dport: u16, flags: u8) -> TcpHeader {
    let mut header = TcpHeader::new(sport, dport, 0x0102_0304, 1024);
    header.fin = flags & netdp_common::header::tcp::FIN != 0;
    header.syn = flags & netdp_common::header::tcp::SYN != 0;
    header.rst = flags & netdp_common::header::tcp::RST != 0;
    header.ack = flags & netdp_common::header::tcp::ACK != 0;
    header
}

/// EtherType of a frame without VLAN tag.
pub(crate) fn ethertype(frame: &[u8]) -> u16 {
    load::<u16>(frame, ethernet::LEN - 2).map_or(0, u16::from_be)
}

/// Reads a value.
pub(crate) fn load<T: Pod>(frame: &[u8], at: usize) -> Option<T> {
    frame.get(at..at.checked_add(size_of::<T>())?).map(bytemuck::pod_read_unaligned)
}

/// Writes a value.
pub(crate) fn store<T: Pod>(frame: &mut [u8], at: usize, value: &T) -> Option<()> {
    frame.get_mut(at..at + size_of::<T>())?.copy_from_slice(bytemuck::bytes_of(value));
    Some(())
}

/// `bpf_l4_csum_replace` on a complete checksum (RFC 1624), once for the addresses and once for the ports.
pub(crate) fn fix_l4_checksum(frame: &mut [u8], at: usize, fix: &L4Fix) -> Option<()> {
    let mut field: u16 = load(frame, at)?;
    let ports = difference(&[fix.old_ports], &[fix.new_ports], 0);
    for (changed, applies) in [(fix.addresses, fix.addresses != 0), (ports, fix.old_ports != fix.new_ports)] {
        if !applies || (fix.zero_is_none && field == 0) {
            continue;
        }
        field = apply_difference(field, changed);
        if fix.zero_is_none && field == 0 {
            field = 0xffff;
        }
    }
    store(frame, at, &field)
}
