//! What reaches an endpoint from outside (RFC 4787 sections 5 to 7, RFC 5382 sections 4.3 and 5).

use std::net::SocketAddr;
use std::time::Duration;

use netdp_common::header::tcp;

use super::Finding;
use super::mapping::SYN;
use super::side::{Nat, PORT, Side};
use crate::packet::{Carries, Packet};

/// A NAT must be silent for so long (RFC 5382 REQ-4).
const SILENCE: Duration = Duration::from_secs(6);

/// Whether an endpoint's open flow lets a packet in from another port of its remote, and from another remote.
fn filtering(side: &Side<'_>, opens: Carries, comes: Carries) -> Finding {
    let port = side.fresh_port();
    let opened = side.must_open(&side.a, port, (0, PORT), opens);
    let comes_in = |remote, from| {
        let src = SocketAddr::new(side.remote(remote), from);
        side.carry(&side.world, &side.a, Packet::new(src, opened.src, comes, &[])).is_some()
    };
    match (comes_in(0, PORT + 9), comes_in(1, PORT)) {
        (true, true) => Finding::of(true, "endpoint-independent"),
        (true, false) => Finding::of(true, "address-dependent"),
        _ => Finding::of(false, "address- and port-dependent"),
    }
}

pub(super) fn of_udp(side: &Side<'_>) -> Finding {
    filtering(side, Carries::Udp, Carries::Udp)
}

pub(super) fn of_tcp(side: &Side<'_>) -> Finding {
    filtering(side, SYN, SYN)
}

/// A SYN from a stranger to the external port of a connection.
pub(super) fn unsolicited_syn(side: &Side<'_>) -> Finding {
    let opened = side.must_open(&side.a, side.fresh_port(), (0, PORT), SYN);
    let stranger = SocketAddr::new(side.remote(1), PORT + 9);
    side.send(&side.world, &Packet::new(stranger, opened.src, SYN, &[]));
    let answer = side.receive_within(&side.world, SILENCE, |seen| {
        seen.dst == stranger || seen.quoted().is_some_and(|quoted| quoted.src == stranger)
    });
    match answer.map(|answer| answer.tcp.is_some_and(|tcp| tcp.rst)) {
        None => Finding::of(true, "silence for 6 s"),
        Some(true) => Finding::of(false, "reset at once, by the host's stack"),
        Some(false) => Finding::of(false, "an ICMP error at once"),
    }
}

/// What application-level gateways look for: an endpoint's address in the payload.
fn leaves_payload_alone(side: &Side<'_>, carries: Carries, to: u16, payload: &str) -> Finding {
    let (src, dst) =
        (SocketAddr::new(side.a.address, side.fresh_port()), SocketAddr::new(side.remote(0), to));
    if let Carries::Tcp { .. } = carries {
        establish(side, src, dst);
    }
    let packet = Packet::new(src, dst, carries, payload.as_bytes());
    side.send(&side.a, &packet);
    let seen = side.receive(&side.world, |seen| seen.dst == dst && !seen.payload.is_empty());
    let untouched = seen.expect("the packet").payload == payload.as_bytes();
    Finding::of(
        untouched,
        if untouched { "no gateway: payload is never touched" } else { "the payload is rewritten" },
    )
}

pub(super) fn no_udp_gateway(side: &Side<'_>) -> Finding {
    let text = format!("REGISTER sip:x SIP/2.0\r\nContact: <sip:a@{}:5060>\r\n\r\n", side.a.address);
    leaves_payload_alone(side, Carries::Udp, 5060, &text)
}

pub(super) fn no_tcp_gateway(side: &Side<'_>) -> Finding {
    let text = format!("EPRT |1|{}|5282|\r\n", side.a.address);
    leaves_payload_alone(side, Carries::Tcp { flags: tcp::ACK, seq: 1001, ack: 5001 }, 21, &text)
}

/// Handshake of a connection from A.
fn establish(side: &Side<'_>, src: SocketAddr, dst: SocketAddr) {
    side.send(&side.a, &Packet::new(src, dst, SYN, &[]));
    let seen = side.receive(&side.world, |seen| seen.dst == dst).expect("the SYN");
    let answer = Carries::Tcp { flags: tcp::SYN | tcp::ACK, seq: 5000, ack: 1001 };
    side.send(&side.world, &Packet::new(dst, seen.src, answer, &[]));
    side.receive(&side.a, |seen| seen.src == dst).expect("the SYN-ACK");
    let ack = Carries::Tcp { flags: tcp::ACK, seq: 1001, ack: 5001 };
    side.send(&side.a, &Packet::new(src, dst, ack, &[]));
    side.receive(&side.world, |seen| seen.dst == dst).expect("the ACK");
}

/// Whether the subnet of the uplink may become a network's.
pub(super) fn conflicting_addresses(side: &Side<'_>) -> Finding {
    match &side.nat {
        Nat::Netfilter(_) => Finding::open("chooses no addresses"),
        Nat::Netdp(lab) => {
            let taken = if side.is_v4() {
                "10.99.0.0/24".to_owned()
            } else {
                "10.76.0.0/24 --subnet fd00:a63::/64".into()
            };
            let refused = lab.netdp.run(&format!("network create taken --subnet {taken}")).code == 2;
            let text = if refused {
                "a subnet that the host has a route to is refused, and none is chosen"
            } else {
                "taken as it is"
            };
            Finding::of(refused, text)
        }
    }
}

/// With all of an endpoint's ports in use.
pub(super) fn exhaustion(side: &Side<'_>) -> Finding {
    // One towards which no flow of the others may have one of these ports: all have one external address.
    let remote = (0, PORT + 100);
    for _ in 0..4 {
        side.must_open(&side.few, side.fresh_port(), remote, Carries::Udp);
    }
    let src = SocketAddr::new(side.few.address, side.fresh_port());
    side.send(
        &side.few,
        &Packet::new(src, SocketAddr::new(side.remote(0), remote.1), Carries::Udp, &side.mark()),
    );
    let told = side.receive(&side.few, |seen| seen.quoted().is_some_and(|quoted| quoted.src == src));
    let prohibited = if side.is_v4() { (3, 13) } else { (1, 1) };
    match told.and_then(|told| told.icmp) {
        Some(what) if what == prohibited => Finding::of(true, "administratively prohibited, at once"),
        Some(what) => Finding::of(false, format!("ICMP {what:?}")),
        None => Finding::of(false, "dropped in silence"),
    }
}
