//! Connections, segment by segment (RFC 5382 section 4, RFC 5961).

use std::net::SocketAddr;

use netdp_common::header::tcp::{ACK, FIN, RST, SYN};

use super::Finding;
use super::side::{INNER, PORT, PUBLISHED, Side};
use crate::packet::{Carries, Packet, Seen};

/// A connection that A opens to the first remote. A's sequence numbers begin at 1000, the remote's at 5000.
pub(super) struct Connection<'a> {
    side: &'a Side<'a>,
    inside: SocketAddr,
    remote: SocketAddr,
    /// A, as the remote sees it.
    external: SocketAddr,
}

impl<'a> Connection<'a> {
    /// With a SYN.
    #[track_caller]
    pub(super) fn open(side: &'a Side<'a>, inside: SocketAddr) -> Self {
        let remote = SocketAddr::new(side.remote(0), PORT);
        side.send(&side.a, &Packet::new(inside, remote, segment(SYN, 1000, 0), &[]));
        let seen = side.receive(&side.world, |seen| seen.dst == remote && is(seen, SYN)).expect("the SYN");
        Self { side, inside, remote, external: seen.src }
    }

    /// With SYN-ACK and ACK.
    #[track_caller]
    pub(super) fn establish(&self) {
        self.answer(segment(SYN | ACK, 5000, 1001)).expect("the SYN-ACK");
        self.send(ACK).expect("the ACK");
    }

    /// A segment from A, after its SYN; as the remote gets it.
    pub(super) fn send(&self, flags: u8) -> Option<Seen> {
        let packet = Packet::new(self.inside, self.remote, segment(flags, 1001, 5001), &[]);
        self.side.send(&self.side.a, &packet);
        self.side.receive(&self.side.world, |seen| seen.src == self.external && is(seen, flags))
    }

    /// A segment of the remote; as A gets it.
    pub(super) fn answer(&self, carries: Carries) -> Option<Seen> {
        let Carries::Tcp { flags, .. } = carries else { unreachable!("a segment") };
        self.side.send(&self.side.world, &Packet::new(self.remote, self.external, carries, &[]));
        self.side.receive(&self.side.a, |seen| seen.dst == self.inside && is(seen, flags))
    }
}

fn segment(flags: u8, seq: u32, ack: u32) -> Carries {
    Carries::Tcp { flags, seq, ack }
}

fn is(seen: &Seen, flags: u8) -> bool {
    let has = |tcp: &etherparse::TcpHeader| {
        [(tcp.syn, SYN), (tcp.ack, ACK), (tcp.fin, FIN), (tcp.rst, RST)]
            .into_iter()
            .fold(0, |sum, (set, flag)| if set { sum | flag } else { sum })
    };
    seen.tcp.as_ref().is_some_and(|tcp| has(tcp) == flags)
}

fn opened<'a>(side: &'a Side<'a>) -> Connection<'a> {
    Connection::open(side, SocketAddr::new(side.a.address, side.fresh_port()))
}

/// Opened and closed from inside, and from outside by the published port.
pub(super) fn sequences(side: &Side<'_>) -> Finding {
    let connection = opened(side);
    connection.establish();
    let from_inside = connection.send(FIN | ACK).is_some()
        && connection.answer(segment(FIN | ACK, 5001, 1002)).is_some()
        && connection.answer(segment(ACK, 5002, 1002)).is_some();
    let from_outside = from_outside(side).is_some();
    let text = match (from_inside, from_outside) {
        (true, true) => "opened and closed from inside, and from outside by a published port",
        (true, false) => "from inside only",
        _ => "broken",
    };
    Finding::of(from_inside && from_outside, text)
}

fn from_outside(side: &Side<'_>) -> Option<()> {
    let (client, host) =
        (SocketAddr::new(side.remote(0), side.fresh_port()), SocketAddr::new(side.host(), PUBLISHED));
    let server = SocketAddr::new(side.a.address, INNER);
    let comes = |flags, seq, ack| {
        side.send(&side.world, &Packet::new(client, host, segment(flags, seq, ack), &[]));
        side.receive(&side.a, |seen| (seen.src, seen.dst) == (client, server) && is(seen, flags))
    };
    let goes = |flags, seq, ack| {
        side.send(&side.a, &Packet::new(server, client, segment(flags, seq, ack), &[]));
        side.receive(&side.world, |seen| (seen.src, seen.dst) == (host, client) && is(seen, flags))
    };
    comes(SYN, 5000, 0)?;
    goes(SYN | ACK, 1000, 5001)?;
    comes(ACK, 5001, 1001)?;
    comes(FIN | ACK, 5001, 1001)?;
    goes(FIN | ACK, 1001, 5002)?;
    comes(ACK, 5002, 1002).map(drop)
}

/// Both send a SYN before they get the other's.
pub(super) fn simultaneous_open(side: &Side<'_>) -> Finding {
    let connection = opened(side);
    let crossed = connection.answer(segment(SYN, 5000, 0)).is_some();
    let answered = crossed && {
        let packet = Packet::new(connection.inside, connection.remote, segment(SYN | ACK, 1000, 5001), &[]);
        side.send(&side.a, &packet);
        side.receive(&side.world, |seen| is(seen, SYN | ACK)).is_some()
    };
    let open = answered
        && connection.answer(segment(SYN | ACK, 5000, 1001)).is_some()
        && connection.send(ACK).is_some()
        && connection.answer(segment(ACK, 5001, 1001)).is_some();
    Finding::of(open, if open { "yes" } else { "no" })
}

/// A reset whose sequence number is a guess, and what becomes of the connection.
pub(super) fn blind_reset(side: &Side<'_>) -> Finding {
    let connection = opened(side);
    connection.establish();
    connection.answer(segment(RST, 5001 + 0x3000_0000, 0));
    let lives = connection.answer(segment(ACK, 5001, 1001)).is_some() && connection.send(ACK).is_some();
    Finding::of(lives, if lives { "the connection goes on" } else { "the connection is cut" })
}

/// A segment in the middle of a connection that the NAT does not know.
pub(super) fn midstream(side: &Side<'_>) -> Finding {
    let (src, dst) =
        (SocketAddr::new(side.a.address, side.fresh_port()), SocketAddr::new(side.remote(0), PORT));
    side.send(&side.a, &Packet::new(src, dst, segment(ACK, 1001, 5001), &[]));
    if side.receive(&side.world, |seen| seen.dst == dst && is(seen, ACK)).is_some() {
        return Finding::open("taken for a connection");
    }
    let reset = side.receive(&side.a, |seen| seen.src == dst && seen.tcp.as_ref().is_some_and(|tcp| tcp.rst));
    Finding::open(if reset.is_some() { "reset at once" } else { "dropped" })
}
