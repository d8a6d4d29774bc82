//! Ethernet frames with right checksums, by etherparse.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    IpFragOffset, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv4Options, Ipv6Extensions,
    Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, Ipv6RawExtHeader, PacketBuilder,
};
use netdp_common::flow::Tuple;
use netdp_common::header::{ethernet, udp};
use netdp_common::random::siphash;
use netdp_model::checksum::checksums_are_right;

use super::plan::Plan;
use super::site::{BRIDGE_MAC, ENDPOINT_MACS, NEXT_HOP_MAC, UPLINK_MAC};
use super::tables::{TCP, UDP};

/// The flags of a TCP segment that are set here.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TcpFlags {
    /// Opens.
    pub syn: bool,
    /// Acknowledges.
    pub ack: bool,
    /// Closes.
    pub fin: bool,
    /// Resets.
    pub rst: bool,
}

/// In the middle of a connection.
pub const ACK: TcpFlags = TcpFlags { ack: true, syn: false, fin: false, rst: false };
/// Opens one.
pub const SYN: TcpFlags = TcpFlags { ack: false, syn: true, fin: false, rst: false };

/// What a frame is to look like.
#[derive(Clone, Debug)]
pub struct Frame<F: Plan> {
    /// Source and destination MAC.
    pub macs: [[u8; 6]; 2],
    /// Addresses, protocol, ports; an ICMP identifier as in the flow table's keys.
    pub tuple: Tuple<F::Addr>,
    /// Flags of TCP.
    pub flags: TcpFlags,
    /// Time to live.
    pub ttl: u8,
    /// Bytes of IP options, a multiple of 4; in IPv6, see [`Plan::options`].
    pub options: u8,
    /// More fragments follow, and the offset in units of 8 bytes.
    pub fragment: (bool, u16),
    /// UDP: without checksum.
    pub no_checksum: bool,
    /// Bytes of payload.
    pub payload: usize,
}

impl<F: Plan> Frame<F> {
    /// Of an endpoint, to its gateway's MAC.
    pub fn of_endpoint(number: usize, tuple: Tuple<F::Addr>) -> Self {
        Self::between([ENDPOINT_MACS[number], BRIDGE_MAC], tuple)
    }

    /// From outside, to the uplink's MAC.
    pub fn of_world(tuple: Tuple<F::Addr>) -> Self {
        Self::between([NEXT_HOP_MAC, UPLINK_MAC], tuple)
    }

    fn between(macs: [[u8; 6]; 2], tuple: Tuple<F::Addr>) -> Self {
        let (fragment, flags) = ((false, 0), ACK);
        Self { macs, tuple, flags, ttl: 64, options: 0, fragment, no_checksum: false, payload: 10 }
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.payload).map(|i| i as u8).collect();
        let [source, destination] = self.macs;
        let (headers, is_v4) = match (F::ip(self.tuple.src), F::ip(self.tuple.dst)) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => (self.v4(src, dst), true),
            (IpAddr::V6(src), IpAddr::V6(dst)) => (self.v6(src, dst), false),
            _ => unreachable!("one family"),
        };
        let ip = PacketBuilder::ethernet2(source, destination).ip(headers);
        let mut bytes = Vec::new();
        let (sport, dport) = (self.tuple.sport.get(), self.tuple.dport.get());
        match self.tuple.proto {
            TCP => {
                let mut tcp = ip.tcp(sport, dport, 0x0102_0304, 0x4000);
                tcp = if self.flags.ack { tcp.ack(0x0506_0708) } else { tcp };
                tcp = if self.flags.syn { tcp.syn() } else { tcp };
                tcp = if self.flags.fin { tcp.fin() } else { tcp };
                tcp = if self.flags.rst { tcp.rst() } else { tcp };
                tcp.write(&mut bytes, &payload)
            }
            UDP => ip.udp(sport, dport).write(&mut bytes, &payload),
            icmp if icmp == F::ICMP => match (is_v4, sport != 0) {
                (true, true) => ip.icmpv4_echo_request(sport, 7).write(&mut bytes, &payload),
                (true, false) => ip.icmpv4_echo_reply(dport, 7).write(&mut bytes, &payload),
                (false, true) => ip.icmpv6_echo_request(sport, 7).write(&mut bytes, &payload),
                (false, false) => ip.icmpv6_echo_reply(dport, 7).write(&mut bytes, &payload),
            },
            other => ip.write(&mut bytes, other.into(), &payload),
        }
        .expect("writing to a vector");
        if self.no_checksum {
            let checksum = self.transport() + udp::CHECKSUM;
            bytes[checksum..checksum + 2].fill(0);
        }
        bytes
    }

    /// Where the transport header starts.
    pub fn transport(&self) -> usize {
        let fragmented = self.fragment != (false, 0) && !F::HAS_HEADER_CHECKSUM;
        let fragment_header = if fragmented { 8 } else { 0 };
        ethernet::LEN + F::HEADER_LEN + F::options(self.options) + fragment_header
    }

    fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr) -> IpHeaders {
        // Length and protocol are the builder's.
        let header = Ipv4Header::new(0, self.ttl, self.tuple.proto.into(), [0; 4], [0; 4]);
        let mut header = header.expect("no payload is never too long");
        (header.source, header.destination) = (source.octets(), destination.octets());
        header.identification = 0x1234;
        header.more_fragments = self.fragment.0;
        header.fragment_offset = IpFragOffset::try_new(self.fragment.1).expect("13 bits");
        // No-operation options.
        let options = vec![1; usize::from(self.options)];
        header.options = Ipv4Options::try_from(options.as_slice()).expect("a multiple of 4, at most 40");
        IpHeaders::Ipv4(header, Ipv4Extensions::default())
    }

    fn v6(&self, source: Ipv6Addr, destination: Ipv6Addr) -> IpHeaders {
        let header = Ipv6Header {
            traffic_class: 0,
            flow_label: Ipv6FlowLabel::ZERO,
            payload_length: 0,
            next_header: IpNumber(self.tuple.proto),
            hop_limit: self.ttl,
            source: source.octets(),
            destination: destination.octets(),
        };
        let mut extensions = Ipv6Extensions::default();
        if let Some(padding) = F::options(self.options).checked_sub(4) {
            // One PadN that fills the header (RFC 8200 4.2).
            let mut option = vec![0; padding + 2];
            (option[0], option[1]) = (1, padding as u8);
            let options = Ipv6RawExtHeader::new_raw(IpNumber(0), &option).expect("8 bytes and so on");
            extensions.hop_by_hop_options = Some(options);
        }
        if self.fragment != (false, 0) {
            let offset = IpFragOffset::try_new(self.fragment.1).expect("13 bits");
            let header = Ipv6FragmentHeader::new(IpNumber(0), offset, self.fragment.0, 0x1234);
            extensions.fragment = Some(header);
        }
        IpHeaders::Ipv6(header, extensions)
    }
}

/// Panics unless etherparse finds the checksums of a frame right; in IPv4, a UDP checksum may be missing.
#[track_caller]
pub fn assert_checksums(frame: &[u8]) {
    assert_eq!(checksums_are_right(frame), Some(true), "{frame:02x?}");
}

/// Numbers that look random and are the same in every run.
#[derive(Clone, Debug)]
pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    /// A sequence of its own for each seed.
    pub const fn new(seed: u64) -> Self {
        Self { seed, thrown: 0 }
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.thrown += 1;
        (siphash([self.seed, 0], [self.thrown, 0]) % bound as u64) as usize
    }

    /// One of several.
    pub fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}
