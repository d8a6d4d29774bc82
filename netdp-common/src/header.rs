//! Where the fields lie that are read or written, in bytes from the start of their header.

use core::mem::offset_of;

use network_types::{
    eth::EthHdr,
    ip::{Ipv4Hdr, Ipv6Hdr},
    tcp::TcpHdr,
    udp::UdpHdr,
};

/// Ethernet.
pub mod ethernet {
    use super::{EthHdr, offset_of};
    /// Destination MAC, followed by the source MAC.
    pub const MACS: usize = offset_of!(EthHdr, dst_addr);
    /// EtherType, or the first VLAN tag's.
    pub const ETHERTYPE: usize = offset_of!(EthHdr, ether_type);
    /// Length of the header without VLAN tags.
    pub const LEN: usize = EthHdr::LEN;
    /// EtherType of ARP, host byte order.
    pub const ARP: u16 = 0x0806;
    /// EtherType of IPv4, host byte order.
    pub const IPV4: u16 = 0x0800;
    /// EtherType of IPv6, host byte order.
    pub const IPV6: u16 = 0x86dd;
}

/// ARP about IPv4 on Ethernet (RFC 826).
pub mod arp {
    /// The sender's MAC.
    pub const SENDER: usize = 8;
    /// The sender's address.
    pub const SENDER_ADDRESS: usize = 14;
}

/// IPv4 (RFC 791).
pub mod ipv4 {
    use super::{Ipv4Hdr, offset_of};
    /// Version, header length, type of service and total length.
    pub const FIRST_WORD: usize = 0;
    /// Identification, flags and fragment offset.
    pub const FRAGMENT_WORD: usize = offset_of!(Ipv4Hdr, id);
    /// Time to live, protocol and checksum.
    pub const TTL_WORD: usize = offset_of!(Ipv4Hdr, ttl);
    /// Source, then destination address.
    pub const ADDRESSES: usize = offset_of!(Ipv4Hdr, src_addr);
    /// Length without options.
    pub const LEN: usize = Ipv4Hdr::LEN;
    /// In the fragment word, host byte order: don't fragment.
    pub const DONT_FRAGMENT: u32 = 0x4000;
    /// In the fragment word, host byte order: more fragments.
    pub const MORE_FRAGMENTS: u32 = 0x2000;
    /// In the fragment word, host byte order: the offset.
    pub const FRAGMENT_OFFSET: u32 = 0x1fff;
}

/// IPv6 (RFC 8200).
pub mod ipv6 {
    use super::{Ipv6Hdr, offset_of};
    /// Payload length, next header and hop limit.
    pub const LENGTH_WORD: usize = 4;
    /// Source, then destination address.
    pub const ADDRESSES: usize = offset_of!(Ipv6Hdr, src_addr);
    /// Length without extension headers.
    pub const LEN: usize = Ipv6Hdr::LEN;
    /// Next header: hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// Next header: routing.
    pub const ROUTING: u8 = 43;
    /// Next header: fragment.
    pub const FRAGMENT: u8 = 44;
    /// Next header: destination options.
    pub const DESTINATION: u8 = 60;
    /// In a fragment header's offset field, host byte order: more fragments.
    pub const MORE_FRAGMENTS: u16 = 1;
    /// The identification is the end of the fragment header, and so long.
    pub const FRAGMENT_ID: usize = 4;
}

/// TCP (RFC 9293).
pub mod tcp {
    use super::{TcpHdr, offset_of};
    /// Protocol number.
    pub const PROTO: u8 = 6;
    /// Source, then destination port.
    pub const PORTS: usize = offset_of!(TcpHdr, source);
    /// Sequence number.
    pub const SEQUENCE: usize = offset_of!(TcpHdr, seq);
    /// Acknowledgement number.
    pub const ACKNOWLEDGEMENT: usize = offset_of!(TcpHdr, ack_seq);
    /// The word with data offset and flags; the flags are its second byte.
    pub const FLAGS_WORD: usize = 12;
    /// Checksum.
    pub const CHECKSUM: usize = offset_of!(TcpHdr, check);
    /// Length without options.
    pub const LEN: usize = TcpHdr::LEN;
    /// Flag: no more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Flag: open.
    pub const SYN: u8 = 0x02;
    /// Flag: reset.
    pub const RST: u8 = 0x04;
    /// Flag: the acknowledgement number counts.
    pub const ACK: u8 = 0x10;
    /// Of these flags, a segment that opens a connection has [`SYN`] alone.
    pub const OPENING: u8 = SYN | ACK | RST | FIN;
}

/// UDP (RFC 768).
pub mod udp {
    use super::{UdpHdr, offset_of};
    /// Protocol number.
    pub const PROTO: u8 = 17;
    /// Source, then destination port.
    pub const PORTS: usize = offset_of!(UdpHdr, src);
    /// Checksum; 0: none.
    pub const CHECKSUM: usize = offset_of!(UdpHdr, check);
    /// Length.
    pub const LEN: usize = UdpHdr::LEN;
}

/// SCTP (RFC 9260): its checksum covers the ports, and no address.
pub mod sctp {
    /// Protocol number.
    pub const PROTO: u8 = 132;
    /// Source, then destination port.
    pub const PORTS: usize = 0;
    /// Ports, verification tag and checksum.
    pub const LEN: usize = 12;
}

/// Protocols without ports.
pub mod portless {
    /// IPv4 in IP (RFC 2003), IPv6 in IP (RFC 4213), GRE (RFC 2784), ESP (RFC 4303), Ethernet in IP (RFC 3378), L2TPv3
    /// (RFC 3931), MPLS in IP (RFC 4023).
    const ADDRESS_FREE: [u8; 7] = [4, 41, 47, 50, 97, 115, 137];

    /// Whether a protocol's packets say nothing of the addresses that they are sent between: no checksum covers them, as
    /// UDP-Lite's, DCCP's and PIM's do, and no signature, as AH's.
    #[inline(always)]
    pub const fn is_address_free(proto: u8) -> bool {
        let mut i = 0;
        while i < ADDRESS_FREE.len() {
            if ADDRESS_FREE[i] == proto {
                return true;
            }
            i += 1;
        }
        false
    }
}

/// ICMP (RFC 792) and ICMPv6 (RFC 4443): the same layout, other numbers.
pub mod icmp {
    /// Protocol number of ICMP.
    pub const PROTO_V4: u8 = 1;
    /// Protocol number of ICMPv6.
    pub const PROTO_V6: u8 = 58;
    /// Type, code and checksum.
    pub const FIRST_WORD: usize = 0;
    /// Checksum.
    pub const CHECKSUM: usize = 2;
    /// Length of an error's header: what is quoted follows.
    pub const LEN: usize = 8;
    /// Identifier of an echo message.
    pub const IDENTIFIER: usize = 4;
    /// Type: router advertisement (RFC 4861 4.2).
    pub const ROUTER_ADVERTISEMENT: u8 = 134;
    /// Type: redirect (RFC 4861 4.5).
    pub const REDIRECT: u8 = 137;
    /// Type: neighbour solicitation (RFC 4861 4.3).
    pub const NEIGHBOUR_SOLICITATION: u8 = 135;
    /// Type: neighbour advertisement (RFC 4861 4.4).
    pub const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
    /// Whom these two are about.
    pub const TARGET: usize = 8;
}
