//! Frames: built and read by etherparse, read and rewritten by the core.

use std::net::IpAddr;

use bytemuck::Pod;
use etherparse::{
    Icmpv4Type, Icmpv6Type, IpDscp, IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header,
    Ipv4Options, Ipv6Extensions, Ipv6FragmentHeader, Ipv6Header, NetSlice, PacketBuilder, SlicedPacket,
    TcpHeader, TransportSlice,
};
use netdp_common::header::{ethernet, sctp, tcp};

use crate::hook::Hook;
use crate::plan::Plan;

/// What a packet carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Carries {
    /// TCP with these flags.
    Tcp(u8),
    /// TCP with numbers, and without data.
    Segment(Segment),
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// An ICMP echo request; its identifier is `sport`.
    EchoRequest,
    /// An ICMP echo reply; its identifier is `dport`.
    EchoReply,
    /// Another protocol: this one.
    Other(u8),
}

/// A TCP segment whose numbers count.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Segment {
    /// Its flags.
    pub flags: u8,
    /// Its sequence number.
    pub sequence: u32,
    /// What it acknowledges.
    pub acknowledgement: u32,
    /// Its options; padded to a multiple of 4 with zeros.
    pub options: Options,
}

/// The options of a [`Segment`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Options {
    /// None.
    #[default]
    None,
    /// The timestamp option, and what it echoes, as in all segments but SYNs.
    Timestamp(u32, u32),
    /// As in a SYN of Linux: the timestamp in the third place.
    OfSyn(u32),
    /// The same with its timestamp overwritten.
    Stripped,
}

impl Options {
    fn bytes(self) -> Vec<u8> {
        const SYN_BEFORE: [u8; 6] = [2, 4, 5, 0xb4, 4, 2];
        const SYN_AFTER: [u8; 4] = [1, 3, 3, 7];
        let timestamp =
            |value: u32, echo: u32| [[8, 10].as_slice(), &value.to_be_bytes(), &echo.to_be_bytes()].concat();
        match self {
            Self::None => Vec::new(),
            Self::Timestamp(value, echo) => [vec![1, 1], timestamp(value, echo)].concat(),
            Self::OfSyn(value) => [SYN_BEFORE.as_slice(), &timestamp(value, 0), &SYN_AFTER].concat(),
            Self::Stripped => [SYN_BEFORE.as_slice(), &[1; 10], &SYN_AFTER].concat(),
        }
    }
}

/// A packet to be built, or as it was found in a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sent<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
    /// What it carries.
    pub carries: Carries,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

/// A frame to be built around a packet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame<A> {
    /// The packet.
    pub sent: Sent<A>,
    /// Source and destination MAC.
    pub macs: [[u8; 6]; 2],
    /// What follows the transport header.
    pub payload: Vec<u8>,
    /// Bytes of IPv4 options, a multiple of 4, at most 40.
    pub options: usize,
    /// A fragment: its offset in units of 8 bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
    /// UDP: without checksum.
    pub no_checksum: bool,
}

impl<A: Copy> Sent<A> {
    /// The packet that answers this one; `carries` says what.
    pub fn answered(&self, carries: Carries) -> Self {
        Self { src: self.dst, dst: self.src, sport: self.dport, dport: self.sport, carries, ttl: 64 }
    }

    /// The plain frame around it, as it is seen at a hook.
    pub fn at(self, hook: Hook) -> Frame<A> {
        let payload = if let Carries::Segment(_) = self.carries { b"".as_slice() } else { b"netdp" };
        let (payload, macs) = (payload.to_vec(), hook.macs());
        Frame { sent: self, macs, payload, options: 0, fragment: None, no_checksum: false }
    }

    /// The packet in a frame, as etherparse reads it; none if it has neither ports nor identifier.
    pub fn read<F: Plan<Addr = A>>(frame: &[u8]) -> Option<Self> {
        let packet = SlicedPacket::from_ethernet(frame).ok()?;
        let (src, dst, ttl) = match packet.net? {
            NetSlice::Ipv4(ip) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into(), header.ttl())
            }
            NetSlice::Ipv6(ip) => {
                let header = ip.header();
                (header.source_addr().into(), header.destination_addr().into(), header.hop_limit())
            }
            NetSlice::Arp(_) => return None,
        };
        let (sport, dport, carries) = match packet.transport? {
            TransportSlice::Tcp(tcp) => {
                (tcp.source_port(), tcp.destination_port(), Carries::Tcp(flags_of(&tcp.to_header())))
            }
            TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), Carries::Udp),
            TransportSlice::Icmpv4(icmp) => match icmp.icmp_type() {
                Icmpv4Type::EchoRequest(echo) => (echo.id, 0, Carries::EchoRequest),
                Icmpv4Type::EchoReply(echo) => (0, echo.id, Carries::EchoReply),
                _ => return None,
            },
            TransportSlice::Icmpv6(icmp) => match icmp.icmp_type() {
                Icmpv6Type::EchoRequest(echo) => (echo.id, 0, Carries::EchoRequest),
                Icmpv6Type::EchoReply(echo) => (0, echo.id, Carries::EchoReply),
                _ => return None,
            },
            TransportSlice::Igmp(_) => return None,
        };
        Some(Self { src: F::addr(src)?, dst: F::addr(dst)?, sport, dport, carries, ttl })
    }
}

impl<A: Copy> Frame<A> {
    /// The same frame around another packet.
    pub fn around(&self, sent: Sent<A>) -> Self {
        Self { sent, ..self.clone() }
    }

    /// Its bytes.
    pub fn bytes<F: Plan<Addr = A>>(&self) -> Vec<u8> {
        let Sent { sport, dport, carries, .. } = self.sent;
        let [from, to] = self.macs;
        let net = PacketBuilder::ethernet2(from, to).ip(self.ip_headers::<F>());
        let v6 = F::ip(self.sent.src).is_ipv6();
        let (mut bytes, payload) = (Vec::new(), self.payload.as_slice());
        match (carries, v6) {
            (Carries::Tcp(flags), _) => {
                net.tcp_header(tcp_header(sport, dport, flags)).write(&mut bytes, payload)
            }
            (Carries::Segment(segment), _) => {
                let mut header = tcp_header(sport, dport, segment.flags);
                header.sequence_number = segment.sequence;
                header.acknowledgment_number = segment.acknowledgement;
                header.set_options_raw(&segment.options.bytes()).expect("options that fit");
                net.tcp_header(header).write(&mut bytes, payload)
            }
            (Carries::Udp, _) => net.udp(sport, dport).write(&mut bytes, payload),
            (Carries::Sctp, _) => {
                let ports = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
                // A verification tag, and a checksum that nobody on the way looks at.
                let packet = [&ports[..], b"tag.crc.", payload].concat();
                net.write(&mut bytes, IpNumber(sctp::PROTO), &packet)
            }
            (Carries::EchoRequest, false) => net.icmpv4_echo_request(sport, 1).write(&mut bytes, payload),
            (Carries::EchoReply, false) => net.icmpv4_echo_reply(dport, 1).write(&mut bytes, payload),
            (Carries::EchoRequest, true) => net.icmpv6_echo_request(sport, 1).write(&mut bytes, payload),
            (Carries::EchoReply, true) => net.icmpv6_echo_reply(dport, 1).write(&mut bytes, payload),
            (Carries::Other(proto), _) => net.write(&mut bytes, IpNumber(proto), payload),
        }
        .expect("a frame that is not too long");
        if self.no_checksum {
            let checksum = bytes.len() - payload.len() - 2;
            bytes[checksum..checksum + 2].fill(0);
        }
        bytes
    }

    fn ip_headers<F: Plan<Addr = A>>(&self) -> IpHeaders {
        const IDENTIFICATION: u16 = 0x1234;
        let offset = |offset| IpFragOffset::try_new(offset).expect("13 bits");
        // Length and protocol are the builder's.
        match (F::ip(self.sent.src), F::ip(self.sent.dst)) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let header = Ipv4Header::new(0, self.sent.ttl, IpNumber(0), src.octets(), dst.octets());
                let mut header = header.expect("no payload is never too long");
                // No-operation options.
                let options = vec![1; self.options];
                header.options = Ipv4Options::try_from(options.as_slice()).expect("a multiple of 4 up to 40");
                header.identification = IDENTIFICATION;
                if let Some((at, more)) = self.fragment {
                    (header.dont_fragment, header.more_fragments) = (false, more);
                    header.fragment_offset = offset(at);
                }
                IpHeaders::Ipv4(header, Ipv4Extensions::default())
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let (source, destination, hop_limit) = (src.octets(), dst.octets(), self.sent.ttl);
                let header = Ipv6Header { source, destination, hop_limit, ..Ipv6Header::default() };
                let fragment = self.fragment.map(|(at, more)| {
                    Ipv6FragmentHeader::new(IpNumber(0), offset(at), more, u32::from(IDENTIFICATION))
                });
                IpHeaders::Ipv6(header, Ipv6Extensions { fragment, ..Ipv6Extensions::default() })
            }
            _ => unreachable!("one family"),
        }
    }
}

fn tcp_header(sport: u16, dport: u16, flags: u8) -> TcpHeader {
    let mut header = TcpHeader::new(sport, dport, 0x0102_0304, 1024);
    header.fin = flags & tcp::FIN != 0;
    header.syn = flags & tcp::SYN != 0;
    header.rst = flags & tcp::RST != 0;
    header.ack = flags & tcp::ACK != 0;
    header
}

fn flags_of(header: &TcpHeader) -> u8 {
    let flag = |set: bool, flag: u8| if set { flag } else { 0 };
    flag(header.fin, tcp::FIN)
        | flag(header.syn, tcp::SYN)
        | flag(header.rst, tcp::RST)
        | flag(header.ack, tcp::ACK)
}

/// An ICMP error.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct IcmpError<A> {
    /// Who reports.
    pub from: A,
    /// To whom.
    pub to: A,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Source and destination MAC.
    pub macs: [[u8; 6]; 2],
    /// Type of service, or traffic class.
    pub class: u8,
    /// The ICMP header, without checksum; none: time exceeded.
    pub header: Option<[u8; 8]>,
    /// What it quotes, from the network header on.
    pub quoted: Vec<u8>,
}

impl<A: Copy> IcmpError<A> {
    /// An error as it is seen at a hook, about the packet in a frame of which it quotes up to `quoted` bytes.
    pub fn at(hook: Hook, from: A, to: A, about: &[u8], quoted: usize) -> Self {
        let about = &about[ethernet::LEN..];
        let quoted = about[..quoted.min(about.len())].to_vec();
        Self { from, to, ttl: 64, macs: hook.macs(), class: 0, header: None, quoted }
    }

    /// Its bytes.
    pub fn bytes<F: Plan<Addr = A>>(&self) -> Vec<u8> {
        let [source, destination] = self.macs;
        let link = PacketBuilder::ethernet2(source, destination);
        let mut bytes = Vec::new();
        let header = |kind| self.header.unwrap_or([kind, 0, 0, 0, 0, 0, 0, 0]);
        match (F::ip(self.from), F::ip(self.to)) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let ip = Ipv4Header::new(0, self.ttl, IpNumber::ICMP, from.octets(), to.octets());
                let mut ip = ip.expect("no payload is never too long");
                ip.dscp = IpDscp::try_new(self.class >> 2).expect("6 bits");
                let [kind, code, _, _, detail @ ..] = header(11);
                let ip = link.ip(IpHeaders::Ipv4(ip, Ipv4Extensions::default()));
                ip.icmpv4_raw(kind, code, detail).write(&mut bytes, &self.quoted)
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let (source, destination, hop_limit) = (from.octets(), to.octets(), self.ttl);
                let mut ip = Ipv6Header { source, destination, hop_limit, ..Ipv6Header::default() };
                ip.traffic_class = self.class;
                let [kind, code, _, _, detail @ ..] = header(3);
                let ip = link.ip(IpHeaders::Ipv6(ip, Ipv6Extensions::default()));
                ip.icmpv6_raw(kind, code, detail).write(&mut bytes, &self.quoted)
            }
            _ => unreachable!("one family"),
        }
        .expect("a frame that is not too long");
        bytes
    }
}

/// EtherType of a frame, that of its tag if it has one.
pub fn ethertype(frame: &[u8]) -> u16 {
    load::<u16>(frame, ethernet::LEN - 2).map_or(0, u16::from_be)
}

/// Reads a value.
pub fn load<T: Pod>(frame: &[u8], at: usize) -> Option<T> {
    frame.get(at..at.checked_add(size_of::<T>())?).map(bytemuck::pod_read_unaligned)
}

/// Writes a value.
pub fn store<T: Pod>(frame: &mut [u8], at: usize, value: &T) -> Option<()> {
    frame.get_mut(at..at + size_of::<T>())?.copy_from_slice(bytemuck::bytes_of(value));
    Some(())
}

/// Puts zeros in the place of the first bytes behind the link-layer header.
pub fn replace_head(frame: &mut Vec<u8>, old: usize, new: usize) -> Option<()> {
    // The kernel's helper leaves an IPv4 header at least.
    const LEFT: usize = 20;
    if frame.len() < ethernet::LEN + old + LEFT {
        return None;
    }
    frame.splice(ethernet::LEN..ethernet::LEN + old, std::iter::repeat_n(0, new));
    Some(())
}
