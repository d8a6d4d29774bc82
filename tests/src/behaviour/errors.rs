//! ICMP errors and the packets that they quote (RFC 4787 REQ-12, RFC 5382 REQ-9 and REQ-10, RFC 5508 section 4).

use std::net::SocketAddr;

use netdp_common::header::{icmp, ipv4, udp};

use super::Finding;
use super::mapping::SYN;
use super::side::{INNER, Node, PORT, PUBLISHED, Side};
use crate::packet::{Carries, Packet, Seen};

/// An error.
#[derive(Clone, Copy, Debug)]
pub(super) enum Error {
    /// Nobody listens.
    Unreachable,
    /// The last hop was not the destination.
    TimeExceeded,
    /// Something in the header.
    Parameter,
}

impl Error {
    const fn what(self, v4: bool) -> (u8, u8) {
        match (self, v4) {
            (Self::Unreachable, true) => (3, 3),
            (Self::Unreachable, false) => (1, 4),
            (Self::TimeExceeded, true) => (11, 0),
            (Self::TimeExceeded, false) => (3, 0),
            (Self::Parameter, true) => (12, 0),
            (Self::Parameter, false) => (4, 0),
        }
    }
}

/// An error that a remote reports about a packet that it has seen.
pub(super) struct Reported {
    packet: Packet,
    what: (u8, u8),
    quoted: Seen,
}

/// The error of a remote about these bytes.
pub(super) fn error(side: &Side<'_>, remote: usize, error: Error, about: &[u8]) -> Reported {
    let quoted = Seen::read(about).expect("a packet");
    let what = error.what(side.is_v4());
    let from = SocketAddr::new(side.remote(remote), 0);
    let carries = Carries::Icmp(what.0, what.1, [0; 4]);
    let packet = Packet::new(from, SocketAddr::new(quoted.src.ip(), 0), carries, about);
    Reported { packet, what, quoted }
}

impl Reported {
    /// Sends it to A; as A is told.
    pub(super) fn told(&self, side: &Side<'_>) -> Option<Seen> {
        self.told_as(side, &self.packet.bytes())
    }

    fn told_as(&self, side: &Side<'_>, bytes: &[u8]) -> Option<Seen> {
        side.send_bytes(&side.world, bytes);
        let remote = self.quoted.dst;
        side.receive(&side.a, |seen| {
            seen.icmp == Some(self.what) && seen.quoted().is_some_and(|quoted| quoted.dst == remote)
        })
    }
}

/// A flow of A; what the world sees of it.
fn flow(side: &Side<'_>, carries: Carries) -> (SocketAddr, Seen) {
    let port = side.fresh_port();
    (SocketAddr::new(side.a.address, port), side.must_open(&side.a, port, (0, PORT), carries))
}

/// Whether an error says to A what it should: about A's own packet as A sent it, from who reported it.
fn is_restored(side: &Side<'_>, told: &Seen, src: SocketAddr, remote: usize) -> bool {
    let Some(quoted) = told.quoted() else { return false };
    (told.src.ip(), told.dst.ip()) == (side.remote(remote), src.ip())
        && quoted.src == src
        && told.checksums_are_right() == Some(true)
        && quoted.checksums_are_right() == Some(true)
}

pub(super) fn translated(side: &Side<'_>) -> Finding {
    let restored = [Carries::Udp, SYN, Carries::EchoRequest].map(|carries| {
        let (src, seen) = match carries {
            Carries::EchoRequest => {
                let port = side.fresh_port();
                let seen = side.must_open(&side.a, port, (0, 0), carries);
                (SocketAddr::new(side.a.address, port), seen)
            }
            carries => flow(side, carries),
        };
        let told = error(side, 2, Error::TimeExceeded, &seen.bytes).told(side);
        told.is_some_and(|told| is_restored(side, &told, src, 2))
    });
    let text = match restored {
        [true, true, true] => {
            "addresses, ports or identifier, and every checksum restored; type and code as they were"
        }
        [false, false, false] => "none arrives as it should",
        _ => "not for every protocol",
    };
    Finding::of(restored == [true; 3], text)
}

/// Of TCP.
pub(super) fn unreachable_for_tcp(side: &Side<'_>) -> Finding {
    let (src, seen) = flow(side, SYN);
    let told = error(side, 0, Error::Unreachable, &seen.bytes).told(side);
    let right = told.is_some_and(|told| is_restored(side, &told, src, 0));
    Finding::of(right, if right { "yes" } else { "no" })
}

/// From a router that is not the flow's remote.
pub(super) fn from_any_router(side: &Side<'_>) -> Finding {
    let (_, seen) = flow(side, Carries::Udp);
    let told = error(side, 2, Error::Unreachable, &seen.bytes).told(side).is_some();
    Finding::of(told, if told { "any router may report" } else { "filtered by who reports" })
}

pub(super) fn supported(side: &Side<'_>) -> Finding {
    let told = [Error::Unreachable, Error::TimeExceeded, Error::Parameter].map(|kind| {
        let (_, seen) = flow(side, Carries::Udp);
        error(side, 0, kind, &seen.bytes).told(side).is_some()
    });
    let text = match told {
        [true, true, true] => "destination unreachable, time exceeded, parameter problem",
        [true, true, false] => "destination unreachable, time exceeded",
        _ => "not all",
    };
    Finding::of(told[0] && told[1], text)
}

/// Whether a flow goes on both ways after an error about it.
fn survives(side: &Side<'_>, carries: Carries) -> Finding {
    let (src, seen) = flow(side, carries);
    let about = error(side, 0, Error::Unreachable, &seen.bytes);
    about.told(side).expect("the error");
    let answer = match carries {
        Carries::Tcp { .. } => Carries::Tcp { flags: 0x12, seq: 5000, ack: 1001 },
        other => other,
    };
    let back = side.carry(&side.world, &side.a, Packet::new(seen.dst, seen.src, answer, &[]));
    let again = side.carry(&side.a, &side.world, Packet::new(src, seen.dst, carries, &[]));
    let lives = back.is_some() && again.is_some_and(|again| again.src == seen.src);
    Finding::of(lives, if lives { "the mapping goes on" } else { "the mapping ends" })
}

pub(super) fn udp_survives(side: &Side<'_>) -> Finding {
    survives(side, Carries::Udp)
}

pub(super) fn tcp_survives(side: &Side<'_>) -> Finding {
    survives(side, SYN)
}

/// Where the transport header of a packet without options begins.
fn transport(side: &Side<'_>) -> usize {
    if side.is_v4() { ipv4::LEN } else { netdp_common::header::ipv6::LEN }
}

fn dropped(arrives: bool) -> Finding {
    Finding::of(!arrives, if arrives { "passed on" } else { "dropped" })
}

pub(super) fn wrong_checksum(side: &Side<'_>) -> Finding {
    let (_, seen) = flow(side, Carries::Udp);
    let about = error(side, 0, Error::Unreachable, &seen.bytes);
    let mut bytes = about.packet.bytes();
    bytes[transport(side) + icmp::CHECKSUM] ^= 0x55;
    dropped(about.told_as(side, &bytes).is_some())
}

pub(super) fn wrong_quoted_header(side: &Side<'_>) -> Finding {
    if !side.is_v4() {
        return Finding::open("no such checksum");
    }
    let (_, seen) = flow(side, Carries::Udp);
    let mut about = seen.bytes.clone();
    about[ipv4::TTL_WORD + 2] ^= 0x55;
    dropped(error(side, 0, Error::Unreachable, &about).told(side).is_some())
}

pub(super) fn quoted_options(side: &Side<'_>) -> Finding {
    let src = SocketAddr::new(side.a.address, side.fresh_port());
    let packet = Packet::new(src, SocketAddr::new(side.remote(0), PORT), Carries::Udp, &[]);
    let seen = side.carry(&side.a, &side.world, Packet { options: true, ..packet }).expect("with options");
    let told = error(side, 0, Error::Unreachable, &seen.bytes).told(side);
    let right = told.is_some_and(|told| is_restored(side, &told, src, 0));
    Finding::of(right, if right { "looked behind" } else { "not found" })
}

pub(super) fn wrong_quoted_transport(side: &Side<'_>) -> Finding {
    let (_, seen) = flow(side, Carries::Udp);
    let mut about = seen.bytes.clone();
    about[transport(side) + udp::CHECKSUM] ^= 0x55;
    let told = error(side, 0, Error::Unreachable, &about).told(side).is_some();
    Finding::of(told, if told { "passed on" } else { "dropped" })
}

/// RFC 4884: what is quoted is padded to 128 bytes, and its length stands in the header.
pub(super) fn extensions(side: &Side<'_>) -> Finding {
    /// Version 2, a checksum, and one object of class 1 that means nothing.
    const EXTENSION: [u8; 12] = [0x20, 0, 0, 0, 0, 8, 1, 1, 0xca, 0xfe, 0xca, 0xfe];
    const QUOTED: usize = 128;
    let (src, seen) = flow(side, Carries::Udp);
    let mut about = seen.bytes.clone();
    about.resize(QUOTED, 0);
    about.extend(EXTENSION);
    let mut about = error(side, 0, Error::TimeExceeded, &about);
    let rest = if side.is_v4() { [0, (QUOTED / 4) as u8, 0, 0] } else { [(QUOTED / 8) as u8, 0, 0, 0] };
    about.packet.carries = Carries::Icmp(about.what.0, about.what.1, rest);
    let told = about.told(side);
    let right = told.is_some_and(|told| {
        told.payload.ends_with(&EXTENSION)
            && told.payload.len() == QUOTED + EXTENSION.len()
            && told.quoted().is_some_and(|quoted| quoted.src == src)
            && told.checksums_are_right() == Some(true)
    });
    Finding::of(right, if right { "left as they are" } else { "lost" })
}

/// About a packet that nobody sent.
pub(super) fn unmatched_from_outside(side: &Side<'_>) -> Finding {
    let nobody = SocketAddr::new(side.host(), side.fresh_port());
    let about = Packet::new(nobody, SocketAddr::new(side.remote(0), PORT), Carries::Udp, &side.mark());
    let reported = error(side, 0, Error::Unreachable, &about.bytes());
    let passed = reported.told(side).is_some();
    let answered = side.receive(&side.world, |seen| seen.carries(&about.payload)).is_some();
    match (passed, answered) {
        (false, false) => Finding::of(true, "no endpoint gets it, nobody answers"),
        (true, _) => Finding::of(false, "passed on"),
        (false, true) => Finding::of(false, "answered"),
    }
}

pub(super) fn unmatched_from_inside(side: &Side<'_>) -> Finding {
    let about = Packet::new(
        SocketAddr::new(side.remote(0), PORT),
        SocketAddr::new(side.a.address, side.fresh_port()),
        Carries::Udp,
        &side.mark(),
    );
    match report_from_a(side, &about.bytes(), &side.world, &about.payload) {
        None => Finding::of(true, "dropped"),
        Some(seen) if seen.src.ip() == side.a.address => Finding::of(false, "leaves untranslated"),
        Some(_) => Finding::of(false, "passed on"),
    }
}

/// A reports that nobody listens at its port; what arrives.
fn report_from_a(side: &Side<'_>, about: &[u8], at: &Node, mark: &[u8]) -> Option<Seen> {
    let quoted = Seen::read(about).expect("a packet");
    let (kind, code) = Error::Unreachable.what(side.is_v4());
    let (from, to) = (SocketAddr::new(side.a.address, 0), SocketAddr::new(quoted.src.ip(), 0));
    side.send(&side.a, &Packet::new(from, to, Carries::Icmp(kind, code, [0; 4]), about));
    side.receive(at, |seen| seen.icmp == Some((kind, code)) && seen.carries(mark))
}

/// A datagram to the published port, and A's error about it, as the sender gets it.
fn about_published(side: &Side<'_>, from: &Node) -> bool {
    let (src, host) =
        (SocketAddr::new(from.address, side.fresh_port()), SocketAddr::new(side.host(), PUBLISHED));
    let came =
        side.carry(from, &side.a, Packet::new(src, host, Carries::Udp, &[])).expect("the published port");
    assert_eq!(came.dst, SocketAddr::new(side.a.address, INNER));
    let told = report_from_a(side, &came.bytes, from, &came.payload);
    told.is_some_and(|told| {
        let Some(quoted) = told.quoted() else { return false };
        (told.src.ip(), told.dst.ip()) == (side.host(), src.ip())
            && (quoted.src, quoted.dst) == (src, host)
            && told.checksums_are_right() == Some(true)
            && quoted.checksums_are_right() == Some(true)
    })
}

pub(super) fn from_inside(side: &Side<'_>) -> Finding {
    let right = about_published(side, &side.world);
    Finding::of(
        right,
        if right { "with the external address, as are the quoted packet's" } else { "not translated" },
    )
}

pub(super) fn hairpinned(side: &Side<'_>) -> Finding {
    let right = about_published(side, &side.b);
    Finding::of(right, if right { "yes" } else { "no" })
}

/// ICMP that is neither query nor error: nobody knows type 200.
pub(super) fn neither_query_nor_error(side: &Side<'_>) -> Finding {
    let mark = side.mark();
    let (src, dst) = (SocketAddr::new(side.a.address, 0), SocketAddr::new(side.remote(0), 0));
    side.send(&side.a, &Packet::new(src, dst, Carries::Icmp(200, 0, [0; 4]), &mark));
    match side.receive(&side.world, |seen| seen.carries(&mark)) {
        Some(seen) if seen.src.ip() == side.a.address => Finding::of(false, "leaves untranslated"),
        Some(_) => Finding::open("translated"),
        None => Finding::open("dropped"),
    }
}

/// Queries besides echo: IPv4's timestamp.
pub(super) fn timestamps(side: &Side<'_>) -> Finding {
    const TIMESTAMP: u8 = 13;
    if !side.is_v4() {
        return Finding::open("no such query");
    }
    let mark = side.mark();
    let (src, dst) = (SocketAddr::new(side.a.address, 0), SocketAddr::new(side.remote(0), 0));
    side.send(&side.a, &Packet::new(src, dst, Carries::Icmp(TIMESTAMP, 0, [0, 7, 0, 1]), &mark));
    let seen = side.receive(&side.world, |seen| seen.carries(&mark));
    Finding::open(if seen.is_some() { "translated" } else { "dropped" })
}

pub(super) fn queries(side: &Side<'_>) -> Finding {
    let port = side.fresh_port();
    let seen = side.must_open(&side.a, port, (0, 0), Carries::EchoRequest);
    let back = side.carry(&side.world, &side.a, Packet::new(seen.dst, seen.src, Carries::EchoReply, &[]));
    let right = back.is_some_and(|back| back.dst == SocketAddr::new(side.a.address, port));
    Finding::of(right, if right { "echo, both ways" } else { "no" })
}

/// A packet whose last hop is the NAT.
pub(super) fn last_hop(side: &Side<'_>) -> Finding {
    let src = SocketAddr::new(side.a.address, side.fresh_port());
    let packet = Packet::new(src, SocketAddr::new(side.remote(0), PORT), Carries::Udp, &side.mark());
    side.send(&side.a, &Packet { ttl: 1, ..packet });
    let what = Error::TimeExceeded.what(side.is_v4());
    let told = side.receive(&side.a, |seen| seen.icmp == Some(what)).is_some();
    Finding::of(told, if told { "told, by the gateway's address" } else { "not told" })
}
