//! Ethernet frames with right checksums, by etherparse.

use std::net::Ipv4Addr;

use etherparse::{IpFragOffset, Ipv4Header, Ipv4Options, PacketBuilder, SlicedPacket, TransportSlice};
use netdp_common::flow::Tuple;
use netdp_common::random::siphash;

use super::site::{BRIDGE_MAC, ENDPOINT_MACS, NEXT_HOP_MAC, UPLINK_MAC};
use super::tables::{ICMP, TCP, UDP};

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
pub struct Frame {
    /// Source and destination MAC.
    pub macs: [[u8; 6]; 2],
    /// Addresses, protocol, ports; an ICMP identifier as in the flow table's keys.
    pub tuple: Tuple<netdp_common::family::Ipv4Addr>,
    /// Flags of TCP.
    pub flags: TcpFlags,
    /// Time to live.
    pub ttl: u8,
    /// Bytes of IP options, a multiple of 4.
    pub options: u8,
    /// More fragments follow, and the offset in units of 8 bytes.
    pub fragment: (bool, u16),
    /// UDP: without checksum.
    pub no_checksum: bool,
    /// Bytes of payload.
    pub payload: usize,
}

impl Frame {
    /// Of an endpoint, to its gateway's MAC.
    pub fn of_endpoint(number: usize, tuple: Tuple<netdp_common::family::Ipv4Addr>) -> Self {
        Self::between([ENDPOINT_MACS[number], BRIDGE_MAC], tuple)
    }

    /// From outside, to the uplink's MAC.
    pub fn of_world(tuple: Tuple<netdp_common::family::Ipv4Addr>) -> Self {
        Self::between([NEXT_HOP_MAC, UPLINK_MAC], tuple)
    }

    fn between(macs: [[u8; 6]; 2], tuple: Tuple<netdp_common::family::Ipv4Addr>) -> Self {
        let (fragment, flags) = ((false, 0), ACK);
        Self { macs, tuple, flags, ttl: 64, options: 0, fragment, no_checksum: false, payload: 10 }
    }

    /// The bytes.
    pub fn bytes(&self) -> Vec<u8> {
        let payload: Vec<u8> = (0..self.payload).map(|i| i as u8).collect();
        let [source, destination] = self.macs;
        let ip = PacketBuilder::ethernet2(source, destination)
            .ip(etherparse::IpHeaders::Ipv4(self.header(), etherparse::Ipv4Extensions::default()));
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
            ICMP if sport != 0 => ip.icmpv4_echo_request(sport, 7).write(&mut bytes, &payload),
            ICMP => ip.icmpv4_echo_reply(dport, 7).write(&mut bytes, &payload),
            other => ip.write(&mut bytes, other.into(), &payload),
        }
        .expect("writing to a vector");
        if self.no_checksum {
            let checksum = 14 + 20 + usize::from(self.options) + 6;
            bytes[checksum..checksum + 2].fill(0);
        }
        bytes
    }

    fn header(&self) -> Ipv4Header {
        let (source, destination) = (Ipv4Addr::from(self.tuple.src), Ipv4Addr::from(self.tuple.dst));
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
        header
    }
}

/// Panics unless etherparse finds the checksums of an IPv4 frame right; a UDP checksum may be missing.
#[track_caller]
pub fn assert_checksums(frame: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).expect("a frame");
    let Some(etherparse::NetSlice::Ipv4(ip)) = &packet.net else { panic!("no IPv4") };
    let header = ip.header().to_header();
    assert_eq!(header.header_checksum, header.calc_header_checksum(), "the header's checksum");
    match packet.transport.expect("a transport header") {
        TransportSlice::Tcp(tcp) => {
            let right = tcp.to_header().calc_checksum_ipv4(&header, tcp.payload()).expect("short enough");
            assert_eq!(tcp.checksum(), right, "TCP's checksum");
        }
        TransportSlice::Udp(udp) if udp.checksum() == 0 => {}
        TransportSlice::Udp(udp) => {
            let right = udp.to_header().calc_checksum_ipv4(&header, udp.payload()).expect("short enough");
            assert_eq!(udp.checksum(), right, "UDP's checksum");
        }
        TransportSlice::Icmpv4(icmp) => {
            let right = icmp.header().icmp_type.calc_checksum(icmp.payload());
            assert_eq!(icmp.header().checksum, right, "ICMP's checksum");
        }
        TransportSlice::Icmpv6(_) | TransportSlice::Igmp(_) => panic!("nothing that is translated"),
    }
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
