//! Applies a mapping to a packet.

use crate::family::{Address, Be16, Family};
use crate::flow::Flow;
use crate::header::{icmp, tcp, udp};
use crate::packet::{L4Fix, Packet, difference};
use crate::parse::{Parsed, Transport};

/// Gives the packet the addresses and ports of `to` and `ttl` hops to live. None: the packet is unusable now.
#[inline(always)]
pub fn rewrite<F: Family, P: Packet>(
    packet: &mut P,
    parsed: &Parsed<F::Addr>,
    to: &Flow<F::Addr>,
    ttl: u8,
) -> Option<()> {
    let header = &parsed.header;
    let changed = {
        let sum = difference(header.src.words(), to.src.words(), 0);
        difference(header.dst.words(), to.dst.words(), sum)
    };
    let (ports_at, checksum_at, new_ports, pseudo_header, zero_is_none) = match parsed.transport {
        Transport::Tcp => (tcp::PORTS, tcp::CHECKSUM, both(to), true, false),
        // In IPv6, too, a sum of zero is written as ones (RFC 8200 8.1), and some tunnels have none (RFC 6935).
        Transport::Udp => (udp::PORTS, udp::CHECKSUM, both(to), true, true),
        Transport::EchoRequest => identifier::<F>(to.sport),
        Transport::EchoReply => identifier::<F>(to.dport),
        Transport::Sctp | Transport::Portless => {
            return F::write_header(packet, packet.l3(), header, to.src, to.dst, ttl, None);
        }
        Transport::IcmpError | Transport::IcmpOther | Transport::Other => return None,
    };
    let l4 = header.transport(packet.l3());
    // The checksum first: a kernel helper that fails leaves the packet as it was.
    let fix = L4Fix {
        addresses: if pseudo_header { changed } else { 0 },
        pseudo_header,
        old_ports: parsed.ports,
        new_ports,
        zero_is_none,
    };
    packet.fix_l4_checksum(l4 + checksum_at, &fix)?;
    let adjacent = ports_at != icmp::IDENTIFIER && header.len as usize == F::HEADER_LEN;
    if !adjacent && new_ports != parsed.ports {
        if ports_at == icmp::IDENTIFIER {
            packet.store(l4 + ports_at, &(new_ports as u16))?;
        } else {
            packet.store(l4 + ports_at, &new_ports)?;
        }
    }
    let ports = if adjacent { Some(new_ports) } else { None };
    F::write_header(packet, packet.l3(), header, to.src, to.dst, ttl, ports)
}

/// Where an echo message's identifier is, and its new value.
#[inline(always)]
fn identifier<F: Family>(value: Be16) -> (usize, usize, u32, bool, bool) {
    (icmp::IDENTIFIER, icmp::CHECKSUM, u32::from(value.raw()), F::ICMP_PSEUDO_HEADER, false)
}

#[inline(always)]
fn both<A: Address>(to: &Flow<A>) -> u32 {
    bytemuck::cast::<[Be16; 2], u32>([to.sport, to.dport])
}
