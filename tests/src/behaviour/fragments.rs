//! Packets that are too big, and the parts of those that were (RFC 4787 section 11).

use std::net::SocketAddr;

use super::Finding;
use super::side::{Node, PORT, Side};
use crate::lab::UPLINK;
use crate::packet::{Carries, Packet, Seen};

/// Of the uplink, while it is narrow.
const NARROW: usize = 1400;
/// Fits an endpoint's link, and not a narrow uplink.
const LARGE: usize = 1420;
/// Bytes of each fragment that is sent here.
const PART: usize = 512;
/// Of three fragments.
const DATAGRAM: usize = 3 * PART - 64;
/// A flood of fragments whose first one never comes.
const FLOOD: u16 = 8_000;

/// A datagram from A while the uplink is narrow; what the world gets, and what A is told.
fn on_a_narrow_uplink(side: &Side<'_>, df: bool) -> (Vec<Seen>, Option<Seen>) {
    side.lab.host.sh(&format!("ip link set {UPLINK} mtu {NARROW}"));
    let (src, dst) =
        (SocketAddr::new(side.a.address, side.fresh_port()), SocketAddr::new(side.remote(0), PORT));
    let packet = Packet::new(src, dst, Carries::Udp, &[0x5a; LARGE]);
    side.forget(&side.world);
    side.send(&side.a, &Packet { df, ..packet });
    let came = side.collect(&side.world).into_iter().filter(|seen| seen.dst.ip() == dst.ip()).collect();
    let told = side.receive(&side.a, |seen| seen.quoted().is_some_and(|quoted| quoted.src == src));
    side.lab.host.sh(&format!("ip link set {UPLINK} mtu 1500"));
    (came, told)
}

pub(super) fn too_big(side: &Side<'_>) -> Finding {
    let (came, told) = on_a_narrow_uplink(side, true);
    let too_big = if side.is_v4() { (3, 4) } else { (2, 0) };
    let told = told.filter(|told| told.icmp == Some(too_big));
    // In both families the MTU ends the message's header.
    let at = if side.is_v4() { 24 } else { 44 };
    let mtu = told.map(|told| u32::from_be_bytes(told.bytes[at..at + 4].try_into().expect("4 bytes")));
    match mtu {
        Some(mtu) if mtu == NARROW as u32 && came.is_empty() => {
            Finding::of(true, "told, with the uplink's MTU")
        }
        Some(_) => Finding::of(false, "told, with another MTU"),
        None => Finding::of(false, "not told"),
    }
}

pub(super) fn fragmented(side: &Side<'_>) -> Finding {
    if !side.is_v4() {
        return Finding::open("no router fragments");
    }
    let (came, _) = on_a_narrow_uplink(side, false);
    let order: Vec<_> = came.iter().map(|seen| seen.first_fragment).collect();
    let translated = came.iter().all(|seen| seen.src.ip() == side.host());
    let right = translated && order == [Some(true), Some(false)];
    Finding::of(right, if right { "fragmented, translated, in order" } else { "no" })
}

/// Whether a fragmented datagram arrives whole, its fragments sent in this order.
fn arrives(side: &Side<'_>, from: &Node, to: &Node, packet: &Packet, order: &[usize]) -> bool {
    let fragments = packet.fragments(PART);
    assert_eq!(fragments.len(), order.len(), "the order of every fragment");
    for number in order {
        side.send_bytes(from, &fragments[*number]);
    }
    let mut left = fragments.len();
    while left > 0
        && let Some(seen) =
            side.receive(to, |seen| seen.first_fragment.is_some() || seen.payload == packet.payload)
    {
        // Netfilter puts them together, and may send them on as one.
        left = if seen.first_fragment.is_none() { 0 } else { left - 1 };
    }
    left == 0
}

/// Both ways: from A to a remote, and back.
fn both_ways(side: &Side<'_>, order: &[usize]) -> [bool; 2] {
    let port = side.fresh_port();
    let opened = side.must_open(&side.a, port, (0, PORT), Carries::Udp);
    let src = SocketAddr::new(side.a.address, port);
    let payload: Vec<u8> = (0..DATAGRAM).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
    let out = Packet::new(src, opened.dst, Carries::Udp, &payload);
    let back = Packet::new(opened.dst, opened.src, Carries::Udp, &payload);
    let identification = port;
    [
        arrives(side, &side.a, &side.world, &Packet { identification, ..out }, order),
        arrives(side, &side.world, &side.a, &Packet { identification, ..back }, order),
    ]
}

fn described([out, back]: [bool; 2]) -> Finding {
    let text = match (out, back) {
        (true, true) => "yes",
        (true, false) => "outwards; inwards dropped",
        (false, true) => "inwards; outwards dropped",
        (false, false) => "dropped",
    };
    Finding::of(out && back, text)
}

pub(super) fn in_order(side: &Side<'_>) -> Finding {
    described(both_ways(side, &[0, 1, 2]))
}

pub(super) fn in_any_order(side: &Side<'_>) -> Finding {
    let ways = [[2, 1, 0], [1, 0, 2], [1, 2, 0], [2, 0, 1], [0, 2, 1]].map(|order| both_ways(side, &order));
    described([0, 1].map(|way| ways.iter().all(|arrived| arrived[way])))
}

/// Fragments that never become a datagram, then one that does.
pub(super) fn under_a_flood(side: &Side<'_>) -> Finding {
    let stranger = SocketAddr::new(side.remote(1), PORT);
    let packet = Packet::new(stranger, SocketAddr::new(side.host(), 9), Carries::Udp, &[0x5a; DATAGRAM]);
    for identification in 0..FLOOD {
        let packet = Packet { identification, ..packet.clone() };
        side.send_bytes(&side.world, &packet.fragments(PART)[1]);
    }
    let whole = side.open(&side.a, side.fresh_port(), (0, PORT), Carries::Udp).is_some();
    let arrived = both_ways(side, &[0, 1, 2]) == [true; 2];
    let right = whole && arrived;
    Finding::of(right, if right { "whole packets and fragments in order pass" } else { "others suffer" })
}
