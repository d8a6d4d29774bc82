//! Packets without a link-layer header: built by etherparse, and read back by it.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, LaxNetSlice, LaxSlicedPacket, PacketBuilder, TcpHeader,
    TransportSlice,
};
use netdp_common::header::ethernet;
use netdp_model::checksum::checksums_are_right;
use netdp_model::extensions;

/// What a packet carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carries {
    /// UDP.
    Udp,
    /// TCP.
    Tcp {
        /// As in `netdp_common::header::tcp`.
        flags: u8,
        /// Sequence number.
        seq: u32,
        /// Acknowledgement number.
        ack: u32,
    },
    /// ICMP echo request; its identifier is the source's port.
    EchoRequest,
    /// ICMP echo reply; its identifier is the destination's port.
    EchoReply,
    /// Another ICMP message: type, code, and the rest of its header.
    Icmp(u8, u8, [u8; 4]),
}

/// A packet to be sent.
#[derive(Clone, Debug)]
pub struct Packet {
    /// Source.
    pub src: SocketAddr,
    /// Destination.
    pub dst: SocketAddr,
    /// What it carries.
    pub carries: Carries,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// IPv4: must not be fragmented.
    pub df: bool,
    /// With options in the network header, or with a header of options behind it.
    pub options: bool,
    /// Identification of its fragments.
    pub identification: u16,
    /// What follows the transport header.
    pub payload: Vec<u8>,
}

impl Packet {
    /// An ordinary one.
    pub fn new(src: SocketAddr, dst: SocketAddr, carries: Carries, payload: &[u8]) -> Self {
        let (ttl, df, options, identification) = (64, false, false, 1);
        Self { src, dst, carries, ttl, df, options, identification, payload: payload.to_vec() }
    }

    /// Its bytes from the network header on.
    pub fn bytes(&self) -> Vec<u8> {
        let net = PacketBuilder::ip(self.headers(None));
        let (mut bytes, payload) = (Vec::new(), self.payload.as_slice());
        let (sport, dport) = (self.src.port(), self.dst.port());
        let v4 = self.src.is_ipv4();
        match self.carries {
            Carries::Udp => net.udp(sport, dport).write(&mut bytes, payload),
            Carries::Tcp { flags, seq, ack } => {
                net.tcp_header(tcp_header(sport, dport, flags, seq, ack)).write(&mut bytes, payload)
            }
            Carries::EchoRequest if v4 => net.icmpv4_echo_request(sport, 1).write(&mut bytes, payload),
            Carries::EchoReply if v4 => net.icmpv4_echo_reply(dport, 1).write(&mut bytes, payload),
            Carries::EchoRequest => net.icmpv6_echo_request(sport, 1).write(&mut bytes, payload),
            Carries::EchoReply => net.icmpv6_echo_reply(dport, 1).write(&mut bytes, payload),
            Carries::Icmp(kind, code, rest) if v4 => {
                net.icmpv4_raw(kind, code, rest).write(&mut bytes, payload)
            }
            Carries::Icmp(kind, code, rest) => net.icmpv6_raw(kind, code, rest).write(&mut bytes, payload),
        }
        .expect("a packet that is not too long");
        bytes
    }

    /// Its fragments, each with at most so many bytes behind the network header, a multiple of 8.
    pub fn fragments(&self, size: usize) -> Vec<Vec<u8>> {
        let whole = self.bytes();
        let header = self.headers(None).header_len();
        let parts: Vec<&[u8]> = whole[header..].chunks(size).collect();
        let numbered = parts.iter().enumerate();
        let fragment = |(number, part): (usize, &&[u8])| {
            let place = (number * size / 8, number + 1 < parts.len());
            let mut bytes = Vec::new();
            let net = PacketBuilder::ip(self.headers(Some(place)));
            net.write(&mut bytes, self.proto(), part).expect("a fragment that is not too long");
            bytes
        };
        numbered.map(fragment).collect()
    }

    fn proto(&self) -> IpNumber {
        match (self.carries, self.src.is_ipv4()) {
            (Carries::Udp, _) => IpNumber::UDP,
            (Carries::Tcp { .. }, _) => IpNumber::TCP,
            (_, true) => IpNumber::ICMP,
            (_, false) => IpNumber::IPV6_ICMP,
        }
    }

    /// `fragment`: offset in units of 8 bytes, and whether more follow.
    fn headers(&self, fragment: Option<(usize, bool)>) -> IpHeaders {
        let fragment = fragment.map(|(offset, more)| {
            let offset = u16::try_from(offset).ok().and_then(|offset| IpFragOffset::try_new(offset).ok());
            (offset.expect("13 bits"), more)
        });
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = Ipv4Header::new(0, self.ttl, self.proto(), src.octets(), dst.octets());
                let mut header = header.expect("no payload is never too long");
                (header.dont_fragment, header.identification) = (self.df, self.identification);
                if self.options {
                    // No-operation options.
                    header.options = Ipv4Options::from([1u8; 8]);
                }
                if let Some((offset, more)) = fragment {
                    (header.fragment_offset, header.more_fragments) = (offset, more);
                }
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let header = Ipv6Header {
                    hop_limit: self.ttl,
                    source: src.octets(),
                    destination: dst.octets(),
                    next_header: self.proto(),
                    ..Ipv6Header::default()
                };
                // One PadN that fills the header (RFC 8200 4.2).
                let padding = || Ipv6RawExtHeader::new_raw(self.proto(), &[1, 4, 0, 0, 0, 0]);
                let destination_options = self.options.then(|| padding().expect("8 bytes"));
                let fragment = fragment.map(|(offset, more)| {
                    Ipv6FragmentHeader::new(self.proto(), offset, more, self.identification.into())
                });
                let extensions = Ipv6Extensions {
                    hop_by_hop_options: destination_options,
                    fragment,
                    ..Ipv6Extensions::default()
                };
                IpHeaders::Ipv6(header, extensions)
            }
            _ => unreachable!("one family"),
        }
    }
}

fn tcp_header(sport: u16, dport: u16, flags: u8, seq: u32, ack: u32) -> TcpHeader {
    use netdp_common::header::tcp;
    let mut header = TcpHeader::new(sport, dport, seq, 64_000);
    header.acknowledgment_number = ack;
    header.fin = flags & tcp::FIN != 0;
    header.syn = flags & tcp::SYN != 0;
    header.rst = flags & tcp::RST != 0;
    header.ack = flags & tcp::ACK != 0;
    header
}

/// A packet that was seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Source; the port is an echo's identifier, 0 where there is none.
    pub src: SocketAddr,
    /// Destination; an echo's identifier too.
    pub dst: SocketAddr,
    /// IP protocol.
    pub proto: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// A TCP segment's header.
    pub tcp: Option<TcpHeader>,
    /// An ICMP message's type and code.
    pub icmp: Option<(u8, u8)>,
    /// What follows the transport header; of a fragment, the network header.
    pub payload: Vec<u8>,
    /// From the network header on.
    pub bytes: Vec<u8>,
    /// A fragment: whether it is the first.
    pub first_fragment: Option<bool>,
}

impl Seen {
    /// Reads a frame; none if it is not an IP packet.
    pub fn of_frame(frame: &[u8]) -> Option<Self> {
        Self::read(frame.get(ethernet::LEN..)?)
    }

    /// Reads a packet that may be cut off, as one that is quoted.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ip(bytes).ok()?;
        let net = packet.net?;
        let behind = net.ip_payload_ref()?.payload.to_vec();
        let (src, dst, ttl, offset, fragmented, length): (IpAddr, IpAddr, u8, u16, bool, usize) = match &net {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let offset = header.fragments_offset().value();
                let length = usize::from(header.total_len());
                let fragmented = header.is_fragmenting_payload();
                let (src, dst) = (header.source_addr().into(), header.destination_addr().into());
                (src, dst, header.ttl(), offset, fragmented, length)
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let rest = bytes.get(Ipv6Header::LEN..)?;
                let fragment = extensions::behind(header.next_header().0, rest).fragment;
                let offset = fragment.map_or(0, |(offset, _)| offset);
                let fragmented = fragment.is_some_and(|fragment| fragment != (0, false));
                let length = usize::from(header.payload_length()) + Ipv6Header::LEN;
                let (src, dst) = (header.source_addr().into(), header.destination_addr().into());
                (src, dst, header.hop_limit(), offset, fragmented, length)
            }
            LaxNetSlice::Arp(_) => return None,
        };
        let mut seen = Self {
            src: SocketAddr::new(src, 0),
            dst: SocketAddr::new(dst, 0),
            proto: net.ip_payload_ref()?.ip_number.0,
            ttl,
            tcp: None,
            icmp: None,
            payload: behind,
            // Without padding.
            bytes: bytes[..length.min(bytes.len())].to_vec(),
            first_fragment: fragmented.then_some(offset == 0),
        };
        match packet.transport {
            Some(transport) => seen.read_transport(&transport),
            None => seen.read_ports(),
        }
        Some(seen)
    }

    /// Of a transport header that is cut off, or not read any further.
    fn read_ports(&mut self) {
        let has_ports = matches!(IpNumber(self.proto), IpNumber::TCP | IpNumber::UDP | IpNumber::SCTP);
        if let (true, [a, b, c, d, ..]) = (has_ports && self.first_fragment != Some(false), &self.payload[..])
        {
            self.src.set_port(u16::from_be_bytes([*a, *b]));
            self.dst.set_port(u16::from_be_bytes([*c, *d]));
        }
    }

    fn read_transport(&mut self, transport: &TransportSlice<'_>) {
        let (ports, payload) = match transport {
            TransportSlice::Tcp(tcp) => {
                self.tcp = Some(tcp.to_header());
                ((tcp.source_port(), tcp.destination_port()), tcp.payload())
            }
            TransportSlice::Udp(udp) => ((udp.source_port(), udp.destination_port()), udp.payload()),
            TransportSlice::Icmpv4(icmp) => {
                self.icmp = Some((icmp.type_u8(), icmp.code_u8()));
                (identifier(icmp.type_u8(), [8, 0], icmp.bytes5to8()), icmp.payload())
            }
            TransportSlice::Icmpv6(icmp) => {
                self.icmp = Some((icmp.type_u8(), icmp.code_u8()));
                (identifier(icmp.type_u8(), [128, 129], icmp.bytes5to8()), icmp.payload())
            }
            TransportSlice::Igmp(_) => return,
        };
        self.src.set_port(ports.0);
        self.dst.set_port(ports.1);
        self.payload = payload.to_vec();
    }

    /// The packet that an ICMP error quotes.
    pub fn quoted(&self) -> Option<Self> {
        Self::read(&self.payload)
    }

    /// Whether its checksums are right; none if they can't be told.
    pub fn checksums_are_right(&self) -> Option<bool> {
        let ethertype = if self.src.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        checksums_are_right(&[&[0; 12], &ethertype.to_be_bytes()[..], &self.bytes].concat())
    }

    /// Whether it carries these bytes, if only in what it quotes.
    pub fn carries(&self, mark: &[u8]) -> bool {
        self.bytes.windows(mark.len()).any(|window| window == mark)
    }
}

/// Source and destination port of an ICMP message.
fn identifier(kind: u8, [request, reply]: [u8; 2], rest: [u8; 4]) -> (u16, u16) {
    let identifier = u16::from_be_bytes([rest[0], rest[1]]);
    match kind {
        kind if kind == request => (identifier, 0),
        kind if kind == reply => (0, identifier),
        _ => (0, 0),
    }
}
