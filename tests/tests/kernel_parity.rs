//! The same packets through the programs in the kernel and through the same core on the host: the same verdict for
//! the same reason, and the same bytes.

use std::net::Ipv4Addr;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use netdp_common::family::Ipv4Addr as Addr;
use netdp_common::flow::Tuple;
use netdp_common::verdict::DropReason;
use netdp_tests::kernel::frames::{Frame, assert_checksums};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{Sides, established, frames, outward};
use netdp_tests::kernel::programs::{Code, Linear, Outcome};
use netdp_tests::kernel::site::{
    BRIDGE_MAC, ENDPOINT_MACS, ENDPOINTS, GATEWAY, HOST, NEXT_HOP_MAC, REMOTE, UPLINK_MAC, in_new_site,
};
use netdp_tests::kernel::tables::{TCP, UDP, tuple};

/// The frame as it must leave: etherparse builds it anew, so that no code of ours says what is right.
fn expected(hook: Hook, frame: &Frame, tuple: Tuple<Addr>) -> Vec<u8> {
    let macs = match hook {
        Hook::FromWorld => [BRIDGE_MAC, ENDPOINT_MACS[0]],
        // The kernel puts the next hop's there.
        Hook::FromContainer | Hook::ToWorld => frame.macs,
    };
    Frame { macs, tuple, ttl: frame.ttl - 1, ..frame.clone() }.bytes()
}

#[test]
#[ignore = "needs root"]
fn established_flows_are_translated_alike_and_right() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        for (hook, frame, translated) in frames() {
            for options in [0, 4, 40] {
                for payload in [0, 1, 6, 10, 1400] {
                    let frame = Frame { options, payload, ..frame.clone() };
                    let outcome = sides.run(hook, &frame.bytes());
                    assert_eq!((outcome.action, outcome.reason), (Code::Redirect, None), "{frame:?}");
                    assert_eq!(outcome.packet, expected(hook, &frame, translated), "{frame:?}");
                    assert_checksums(&outcome.packet);
                }
            }
        }
        sides.assert_same_flows();
    });
}

#[test]
#[ignore = "needs root"]
fn udp_without_checksum_stays_so() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        for (hook, frame, translated) in frames().into_iter().filter(|(_, frame, _)| frame.tuple.proto == UDP)
        {
            for options in [0, 8] {
                let frame = Frame { no_checksum: true, options, ..frame.clone() };
                let outcome = sides.run(hook, &frame.bytes());
                assert_eq!(outcome.packet, expected(hook, &frame, translated), "{frame:?}");
            }
        }
    });
}

/// One payload in 65 536 makes a checksum that comes out as zero: it has to be written as ones.
#[test]
#[ignore = "needs root"]
fn a_udp_checksum_never_becomes_zero() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        let (first, _) = outward(UDP);
        let mut bytes = Frame { payload: 2, ..Frame::of_endpoint(0, first) }.bytes();
        let (checksum, payload) = (14 + 20 + 6, 14 + 20 + 8);
        // What the checksum is after translation is to be subtracted from the payload.
        let after = sides.run(Hook::FromContainer, &bytes).packet;
        let word = |bytes: &[u8], at: usize| u32::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let more = word(&after, checksum);
        let add = |a: u32, b: u32| ((a + b) & 0xffff) + ((a + b) >> 16);
        let new_payload = add(word(&bytes, payload), more);
        let new_checksum = add(word(&bytes, checksum), 0xffff - more);
        bytes[payload..payload + 2].copy_from_slice(&(new_payload as u16).to_be_bytes());
        bytes[checksum..checksum + 2].copy_from_slice(&(new_checksum as u16).to_be_bytes());
        assert_checksums(&bytes);
        let after = sides.run(Hook::FromContainer, &bytes).packet;
        assert_eq!(word(&after, checksum), 0xffff);
    });
}

/// Also when the rest of the packet lies in page fragments.
#[test]
#[ignore = "needs root"]
fn headers_in_page_fragments() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        if !sides.programs.accepts(100, Linear::First(14)) {
            println!("skipped: this kernel's BPF_PROG_TEST_RUN knows no page fragments");
            return;
        }
        for (hook, frame, translated) in frames() {
            let frame = Frame { payload: 600, ..frame };
            let bytes = frame.bytes();
            for linear in [14, 20, 33, 34, 40, 54, 100] {
                let outcome = sides.run_from(hook, &bytes, Linear::First(linear));
                assert_eq!(outcome.packet, expected(hook, &frame, translated), "{frame:?} {linear}");
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn truncated_anywhere() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        for (hook, frame, _) in frames() {
            let frame = Frame { options: 8, ..frame };
            let bytes = frame.bytes();
            for len in 14..bytes.len() {
                if sides.programs.accepts(len, Linear::All) {
                    let outcome = sides.run(hook, &bytes[..len]);
                    let untouched = outcome.packet == bytes[..len];
                    assert!(outcome.action == Code::Redirect || untouched, "half written: {outcome:?}");
                }
            }
        }
        sides.assert_same_flows();
    });
}

/// A few mistakes that a frame can make, each with what must become of it.
#[test]
#[ignore = "needs root"]
fn refusals_have_the_same_reasons() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        let (first, _) = outward(TCP);
        let own = |tuple| Frame::of_endpoint(0, tuple);
        let refused: Vec<(Hook, Frame, Option<DropReason>)> = vec![
            (Hook::FromContainer, Frame { ttl: 1, ..own(first) }, Some(DropReason::TtlExceeded)),
            (Hook::FromContainer, Frame { fragment: (true, 0), ..own(first) }, Some(DropReason::Fragment)),
            (
                Hook::FromContainer,
                own(Tuple { src: ENDPOINTS[1].into(), ..first }),
                Some(DropReason::Spoofed),
            ),
            (Hook::FromContainer, own(tuple(132, (ENDPOINTS[0], 0), (REMOTE, 0))), Some(UNSUPPORTED)),
            (Hook::FromContainer, own(tuple(UDP, (ENDPOINTS[0], 5), (GATEWAY, 53))), None),
            (
                Hook::FromWorld,
                Frame::of_world(tuple(TCP, (REMOTE, 1), (ENDPOINTS[0], 80))),
                Some(DropReason::NotPublished),
            ),
            (Hook::FromWorld, Frame::of_world(tuple(TCP, (REMOTE, 1), (HOST, 22))), None),
            (Hook::ToWorld, Frame::of_endpoint(0, first), Some(DropReason::Untranslated)),
            (Hook::ToWorld, Frame::of_endpoint(0, tuple(TCP, (HOST, 22), (REMOTE, 5))), None),
        ];
        for (hook, frame, reason) in refused {
            let bytes = frame.bytes();
            let outcome = sides.run(hook, &bytes);
            let action = if reason.is_some() { Code::Shot } else { Code::Next };
            assert_eq!(outcome, Outcome { action, reason, packet: bytes }, "{hook:?} {frame:?}");
        }
    });
}

/// TCP that opens no connection and belongs to none is answered at once.
#[test]
#[ignore = "needs root"]
fn a_stray_segment_is_reset() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        let (first, _) = outward(TCP);
        let stray = Tuple { dst: Ipv4Addr::new(192, 0, 2, 7).into(), ..first };
        for (options, payload) in [(0, 0), (0, 1), (40, 7), (12, 1400)] {
            let frame = Frame { options, payload, ..Frame::of_endpoint(0, stray) };
            let outcome = sides.run(Hook::FromContainer, &frame.bytes());
            assert_eq!((outcome.action, outcome.reason), (Code::Redirect, Some(DropReason::NoFlow)));
            assert_checksums(&outcome.packet);
            let packet = SlicedPacket::from_ethernet(&outcome.packet).expect("a frame");
            let Some(TransportSlice::Tcp(tcp)) = packet.transport else { panic!("not TCP: {outcome:?}") };
            assert!(tcp.rst() && !tcp.syn(), "{outcome:?}");
        }
    });
}

/// An error of a router on the way, and of an endpoint, about every established flow.
#[test]
#[ignore = "needs root"]
fn icmp_errors_are_translated_with_what_they_quote() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        for (hook, frame, translated) in frames() {
            for (options, quoted) in [(0, 28), (0, 60), (8, 36), (8, 100)] {
                // About the packet as it was when it had left, back to where it came from.
                let sent = Frame { tuple: translated, options, payload: 200, ..frame.clone() };
                let sent = &sent.bytes()[14..];
                let (back, macs, reporter) = match hook {
                    Hook::FromContainer => (Hook::FromWorld, [NEXT_HOP_MAC, UPLINK_MAC], ROUTER),
                    Hook::FromWorld | Hook::ToWorld => {
                        (Hook::FromContainer, [ENDPOINT_MACS[0], BRIDGE_MAC], translated.dst.into())
                    }
                };
                let error = icmp_error(macs, reporter, translated.src.into(), &sent[..quoted]);
                assert_checksums(&error);
                let outcome = sides.run(back, &error);
                assert_eq!((outcome.action, outcome.reason), (Code::Redirect, None), "{frame:?} {quoted}");
                assert_checksums(&outcome.packet);
                // It quotes what the sender sent, as far as addresses go.
                assert_eq!(outcome.packet[14 + 28 + 12..][..8], frame.bytes()[14 + 12..][..8], "{frame:?}");
            }
        }
    });
}

/// Somebody between the host and the remote.
const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);

/// Time exceeded.
fn icmp_error(macs: [[u8; 6]; 2], from: Ipv4Addr, to: Ipv4Addr, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(macs[0], macs[1])
        .ipv4(from.octets(), to.octets(), 64)
        .icmpv4_raw(11, 0, [0; 4])
        .write(&mut bytes, quoted)
        .expect("writing to a vector");
    bytes
}

const UNSUPPORTED: DropReason = DropReason::UnsupportedProtocol;
