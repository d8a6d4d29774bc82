//! Frames that nobody should send: cut off at every byte, with fields that contradict each other, fragments that
//! overlap, tags, noise; what the fuzzer has found; and what others have captured.

use std::net::SocketAddr;

use etherparse::Ipv4Header;
use netdp_common::header::{ethernet, ipv4, ipv6, tcp};

use crate::kernel::frames::Dice;
use crate::packet::{Carries, Packet};

pub mod captured;
pub mod found;

/// How many frames are noise over something that was right.
const SPOILED: usize = 3_000;

/// Who sends odd frames, and to whom.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Source and destination MAC.
    pub macs: [[u8; 6]; 2],
    /// Where they come from.
    pub from: SocketAddr,
    /// Where they go.
    pub to: Vec<SocketAddr>,
    /// Addresses that may stand where they don't belong.
    pub strangers: Vec<SocketAddr>,
}

impl Ends {
    /// A frame around a packet.
    fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let ethertype = if self.from.is_ipv4() { ethernet::IPV4 } else { ethernet::IPV6 };
        [&self.macs[1][..], &self.macs[0], &ethertype.to_be_bytes(), packet].concat()
    }

    const fn header_len(&self) -> usize {
        if self.from.is_ipv4() { ipv4::LEN } else { ipv6::LEN }
    }
}

/// All of them, the same in every run.
pub fn frames(ends: &Ends) -> Vec<Vec<u8>> {
    let right = right(ends);
    let mut frames: Vec<Vec<u8>> = right.iter().map(|packet| ends.frame(packet)).collect();
    for packet in &right {
        frames.extend(cut_off(ends, packet));
    }
    for packet in right.iter().step_by(3) {
        frames.extend(contradictions(ends, packet));
        frames.extend(tagged(ends, packet));
    }
    frames.extend(misaddressed(ends));
    frames.extend(fragments(ends));
    frames.extend(spoiled(ends, &right));
    frames
}

/// Packets of every kind, as they should be.
fn right(ends: &Ends) -> Vec<Vec<u8>> {
    let v4 = ends.from.is_ipv4();
    let mut packets = Vec::new();
    for to in &ends.to {
        let quoted = Packet::new(*to, ends.from, Carries::Udp, b"quoted").bytes();
        let segment = |flags| Carries::Tcp { flags, seq: 7, ack: 9 };
        let unreachable = if v4 { Carries::Icmp(3, 3, [0; 4]) } else { Carries::Icmp(1, 4, [0; 4]) };
        let too_big = if v4 { Carries::Icmp(3, 4, [0, 0, 0, 68]) } else { Carries::Icmp(2, 0, [0, 0, 0, 8]) };
        let kinds = [
            (Carries::Udp, &b"odd"[..]),
            (segment(tcp::SYN), b""),
            (segment(tcp::SYN | tcp::FIN), b"odd"),
            (segment(tcp::ACK), b"odd"),
            (Carries::EchoRequest, b"odd"),
            (Carries::EchoReply, b"odd"),
            (unreachable, &quoted),
            (too_big, &quoted),
            (Carries::Icmp(200, 7, [1; 4]), b"odd"),
        ];
        for (carries, payload) in kinds {
            for options in [false, true] {
                packets.push(Packet { options, ..Packet::new(ends.from, *to, carries, payload) }.bytes());
            }
        }
    }
    packets
}

/// At every byte: the length as it was, and as it is now.
fn cut_off(ends: &Ends, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for len in 0..packet.len() {
        let cut = &packet[..len];
        frames.push(ends.frame(cut));
        if len >= ends.header_len() {
            frames.push(ends.frame(&with_length(ends, cut, len)));
        }
    }
    frames
}

/// With a total length, or what stands for it in IPv6.
fn with_length(ends: &Ends, packet: &[u8], len: usize) -> Vec<u8> {
    let mut packet = packet.to_vec();
    if ends.from.is_ipv4() {
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        right_header(&mut packet);
    } else {
        let len = len.saturating_sub(ipv6::LEN) as u16;
        packet[ipv6::LENGTH_WORD..][..2].copy_from_slice(&len.to_be_bytes());
    }
    packet
}

/// Gives an IPv4 header its checksum, if it is one.
fn right_header(packet: &mut [u8]) {
    if let Ok((header, _)) = Ipv4Header::from_slice(packet) {
        let checksum = header.calc_header_checksum();
        packet[ipv4::TTL_WORD + 2..][..2].copy_from_slice(&checksum.to_be_bytes());
    }
}

/// Every field of the headers that says how to read what follows, with values that it should not have.
fn contradictions(ends: &Ends, packet: &[u8]) -> Vec<Vec<u8>> {
    let v4 = ends.from.is_ipv4();
    let mut frames = Vec::new();
    let mut with = |at: usize, value: u8| {
        let Some(old) = packet.get(at) else { return };
        let mut packet = packet.to_vec();
        packet[at] = value;
        if *old != value {
            frames.push(ends.frame(&packet));
            right_header(&mut packet);
            frames.push(ends.frame(&packet));
        }
    };
    // Version and header length, or traffic class.
    (0..=u8::MAX).for_each(|value| with(0, value));
    let (next_header, hops, length) = if v4 { (9, 8, 2) } else { (6, 7, 4) };
    for proto in [0, 1, 2, 4, 6, 17, 41, 43, 44, 47, 50, 51, 58, 59, 60, 132, 135, 139, 253, 255] {
        with(next_header, proto);
    }
    [0, 1, 2, 255].into_iter().for_each(|value| with(hops, value));
    for len in [0u8, 1, 7, 8, 19, 20, 21, 27, 28, 39, 40, 255] {
        with(length + 1, len);
        with(length, len);
    }
    if v4 {
        // Flags and offset of a fragment.
        for value in [0x1f, 0x20, 0x3f, 0x40, 0x80, 0xa0, 0xff] {
            with(6, value);
            with(7, value);
        }
    }
    // Length or offset in what follows: UDP's, TCP's, an extension header's.
    let l4 = ends.header_len();
    for value in [0, 1, 4, 5, 7, 8, 0x0f, 0x50, 0xf0, 0xff] {
        [1, 4, 5, 12, 13].into_iter().for_each(|at| with(l4 + at, value));
    }
    frames
}

/// VLAN tags, one and two, of a VLAN and of priority only; wrong and strange EtherTypes.
fn tagged(ends: &Ends, packet: &[u8]) -> Vec<Vec<u8>> {
    let frame = ends.frame(packet);
    let (macs, rest) = frame.split_at(ethernet::LEN - 2);
    let tag = |ethertype: u16, id: u16| [ethertype.to_be_bytes(), id.to_be_bytes()].concat();
    let tags = [
        tag(0x8100, 0),
        tag(0x8100, 1),
        tag(0x8100, 0xefff),
        tag(0x88a8, 7),
        [tag(0x88a8, 7), tag(0x8100, 1)].concat(),
        [tag(0x8100, 1), tag(0x8100, 1)].concat(),
    ];
    let mut frames: Vec<_> = tags.iter().map(|tag| [macs, tag, rest].concat()).collect();
    for ethertype in [0u16, 60, 1500, 0x0800, 0x86dd, 0x0806, 0x8847, 0x8864, 0x88e5, 0x8100, 0xffff] {
        frames.push([macs, &ethertype.to_be_bytes(), packet].concat());
    }
    frames
}

/// From and to addresses that mean nothing there, or somebody else; and with other MACs.
fn misaddressed(ends: &Ends) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let all = || ends.strangers.iter().chain(&ends.to).chain([&ends.from]);
    for from in all() {
        for to in all() {
            for carries in
                [Carries::Udp, Carries::Tcp { flags: tcp::SYN, seq: 1, ack: 0 }, Carries::EchoRequest]
            {
                let packet = Packet::new(*from, *to, carries, b"odd").bytes();
                frames.push(ends.frame(&packet));
                let [source, destination] = ends.macs;
                for macs in
                    [[source, [0xff; 6]], [source, source], [destination, destination], [[2; 6], destination]]
                {
                    frames.push(Ends { macs, ..ends.clone() }.frame(&packet));
                }
            }
        }
    }
    frames
}

/// In every order, twice, with parts that overlap, and without an end.
fn fragments(ends: &Ends) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut identification = 100;
    for to in &ends.to {
        for carries in [Carries::Udp, Carries::Tcp { flags: tcp::SYN, seq: 1, ack: 0 }, Carries::EchoRequest]
        {
            for (size, other) in [(8, 16), (16, 24), (24, 8), (48, 16)] {
                identification += 1;
                let packet = Packet::new(ends.from, *to, carries, &[0x77; 90]);
                let packet = Packet { identification, ..packet };
                let (one, two) = (packet.fragments(size), packet.fragments(other));
                let both = one.iter().rev().chain(&two).chain(two.iter().skip(1).rev()).chain(&one);
                frames.extend(both.map(|packet| ends.frame(packet)));
            }
        }
    }
    frames
}

/// Noise: some bytes, and the length.
fn spoiled(ends: &Ends, right: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut dice = Dice::new(11);
    let spoil = |_| {
        let mut frame = ends.frame(&right[dice.below(right.len())]);
        for _ in 0..=dice.below(6) {
            let at = dice.below(frame.len() - ethernet::LEN) + ethernet::LEN;
            frame[at] = dice.below(256) as u8;
        }
        match dice.below(4) {
            0 => frame.truncate(ethernet::LEN + dice.below(frame.len() - ethernet::LEN)),
            1 => frame.resize(frame.len() + dice.below(200), 0xa5),
            _ => {}
        }
        if dice.below(2) == 0 {
            right_header(&mut frame[ethernet::LEN..]);
        }
        frame
    };
    (0..SPOILED).map(spoil).collect()
}
