//! How long a flow lives, and what refreshes it (RFC 4787 section 4.3, RFC 5382 section 5, RFC 5508 sections 3.2, 4.3).

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use netdp_common::header::{icmp, tcp, udp};

use super::errors::{Error, error};
use super::side::{PORT, Side};
use super::{Finding, tcp as connection};
use crate::packet::{Carries, Packet, Seen};

/// After half of it, a listing in whole seconds (or ticks) tells whether a flow was refreshed.
const WAIT: Duration = Duration::from_millis(4_300);
/// How often a machine may stall for so long that the listing doesn't tell.
const STALLS: usize = 10;

/// Timers are in ticks of about a second: rounded to ten.
fn rounded(seconds: u64) -> u64 {
    (seconds + 5) / 10 * 10
}

/// Flow of a datagram from A; its source, and how the world sees it.
fn flow(side: &Side<'_>, carries: Carries) -> (SocketAddr, Seen) {
    let port = side.fresh_port();
    let remote = (0, if carries == Carries::EchoRequest { 0 } else { PORT });
    (SocketAddr::new(side.a.address, port), side.must_open(&side.a, port, remote, carries))
}

fn answer(side: &Side<'_>, to: &Seen, carries: Carries) {
    side.carry(&side.world, &side.a, Packet::new(to.dst, to.src, carries, &[])).expect("an answer");
}

pub(super) fn of_udp(side: &Side<'_>) -> Finding {
    let (src, seen) = flow(side, Carries::Udp);
    let new = rounded(side.lifetime(udp::PROTO, src));
    answer(side, &seen, Carries::Udp);
    let answered = rounded(side.lifetime(udp::PROTO, src));
    let text = format!("{new} s after a datagram, {answered} s after an answer");
    Finding::of(new >= 120 && answered >= 120, text)
}

/// Traffic both ways for longer than netfilter and netdp need to take it for a stream.
pub(super) fn of_udp_stream(side: &Side<'_>) -> Finding {
    let (src, seen) = flow(side, Carries::Udp);
    for _ in 0..2 {
        answer(side, &seen, Carries::Udp);
        thread::sleep(WAIT);
        let again = Packet::new(src, seen.dst, Carries::Udp, &[]);
        side.carry(&side.a, &side.world, again).expect("the flow");
    }
    let expires = rounded(side.lifetime(udp::PROTO, src));
    Finding::of(expires >= 300, format!("{expires} s once it streams"))
}

pub(super) fn of_echo(side: &Side<'_>) -> Finding {
    let (src, _) = flow(side, Carries::EchoRequest);
    let proto = if side.is_v4() { icmp::PROTO_V4 } else { icmp::PROTO_V6 };
    let expires = rounded(side.lifetime(proto, src));
    Finding::of(expires >= 60, format!("{expires} s"))
}

pub(super) fn of_tcp(side: &Side<'_>) -> Finding {
    let src = SocketAddr::new(side.a.address, side.fresh_port());
    let lifetime = || side.lifetime(tcp::PROTO, src);
    let connection = connection::Connection::open(side, src);
    let syn = rounded(lifetime());
    connection.establish();
    let established = lifetime().div_ceil(60);
    connection.send(tcp::FIN | tcp::ACK).expect("the FIN");
    let closing = rounded(lifetime());
    let met = established >= 124 && syn >= 240 && closing >= 240;
    let days = established.div_ceil(60 * 24);
    Finding::of(met, format!("established {days} days, opening {syn} s, half-closed {closing} s"))
}

/// Whether a packet of a waiting flow gives it its whole time again.
fn refreshed(side: &Side<'_>, carries: Carries, by: impl Fn(SocketAddr, &Seen)) -> bool {
    let (src, seen) = flow(side, carries);
    let proto = match carries {
        Carries::Udp => udp::PROTO,
        _ if side.is_v4() => icmp::PROTO_V4,
        _ => icmp::PROTO_V6,
    };
    for _ in 0..STALLS {
        thread::sleep(WAIT);
        let before = side.expires(proto, src);
        let start = Instant::now();
        by(src, &seen);
        if side.expires(proto, src) > before {
            return true;
        }
        if start.elapsed() < WAIT / 2 {
            return false;
        }
    }
    panic!("the machine stalls")
}

pub(super) fn refreshed_from_inside(side: &Side<'_>) -> Finding {
    let refreshed = refreshed(side, Carries::Udp, |src, seen| {
        side.carry(&side.a, &side.world, Packet::new(src, seen.dst, Carries::Udp, &[])).expect("the flow");
    });
    Finding::of(refreshed, if refreshed { "yes" } else { "no" })
}

pub(super) fn refreshed_from_outside(side: &Side<'_>) -> Finding {
    let refreshed = refreshed(side, Carries::Udp, |_, seen| answer(side, seen, Carries::Udp));
    Finding::open(if refreshed { "yes" } else { "no" })
}

pub(super) fn refreshed_by_errors(side: &Side<'_>) -> Finding {
    let refreshed = refreshed(side, Carries::EchoRequest, |_, seen| {
        let told = error(side, 2, Error::Unreachable, &seen.bytes).told(side);
        assert!(told.is_some(), "the error arrives");
    });
    Finding::of(!refreshed, if refreshed { "an error refreshes" } else { "neither refreshed nor deleted" })
}
