//! Checksums: judged by etherparse, rewritten as the kernel does it.

use etherparse::checksum::Sum16BitWords;
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use netdp_common::packet::{L4Fix, apply_difference, difference};

use crate::frame::{load, store};

/// Whether etherparse finds every checksum of a frame right (a UDP checksum may be missing in IPv4); none if it finds
/// no packet in it.
pub fn checksums_are_right(frame: &[u8]) -> Option<bool> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    let right = match packet.net? {
        NetSlice::Ipv4(ip) => {
            let header = ip.header().to_header();
            header.header_checksum == header.calc_header_checksum()
                && match packet.transport {
                    None => true,
                    Some(TransportSlice::Tcp(tcp)) => {
                        tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).ok()? == tcp.checksum()
                    }
                    Some(TransportSlice::Udp(udp)) => {
                        let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).ok()?;
                        udp.checksum() == 0 || udp.checksum() == right
                    }
                    // By hand: `calc_checksum` takes what it does not know in a header for zeros.
                    Some(TransportSlice::Icmpv4(icmp)) => {
                        Sum16BitWords::new().add_slice(icmp.slice()).ones_complement() == 0
                    }
                    Some(_) => return None,
                }
        }
        NetSlice::Ipv6(ip) => {
            let header = ip.header().to_header();
            match packet.transport {
                None => true,
                Some(TransportSlice::Tcp(tcp)) => {
                    tcp.to_header().calc_checksum_ipv6(&header, tcp.payload()).ok()? == tcp.checksum()
                }
                Some(TransportSlice::Udp(udp)) => {
                    udp.to_header().calc_checksum_ipv6(&header, udp.payload()).ok()? == udp.checksum()
                }
                Some(TransportSlice::Icmpv6(icmp)) => {
                    icmp.is_checksum_valid(header.source, header.destination)
                }
                Some(_) => return None,
            }
        }
        NetSlice::Arp(_) => return None,
    };
    Some(right)
}

/// `bpf_l4_csum_replace` on a complete checksum (RFC 1624), once for the addresses and once for the ports.
pub fn fix_l4_checksum(frame: &mut [u8], at: usize, fix: &L4Fix) -> Option<()> {
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
