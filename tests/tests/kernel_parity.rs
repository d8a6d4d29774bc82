//! The same packets through the programs in the kernel and through the same core on the host: the same verdict for
//! the same reason, and the same bytes.

use std::net::Ipv4Addr;

use netdp_common::family::Ipv4Addr as Addr;
use netdp_common::flow::Tuple;
use netdp_common::verdict::DropReason;
use netdp_tests::kernel::frames::{Frame, assert_checksums};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{Sides, established, frames, outward};
use netdp_tests::kernel::programs::{Code, Linear, Outcome};
use netdp_tests::kernel::site::{BRIDGE_MAC, ENDPOINT_MACS, ENDPOINTS, GATEWAY, HOST, REMOTE, in_new_site};
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
        let stranger = Tuple { dst: Ipv4Addr::new(192, 0, 2, 7).into(), ..first };
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
        answered_with_a_reset(&sides, &own(stranger));
    });
}

/// A segment of no connection: counted, and answered at once.
fn answered_with_a_reset(sides: &Sides<'_>, frame: &Frame) {
    let bytes = frame.bytes();
    let outcome = sides.run(Hook::FromContainer, &bytes);
    assert_eq!((outcome.action, outcome.reason), (Code::Redirect, Some(DropReason::NoFlow)));
    let answer = etherparse::SlicedPacket::from_ethernet(&outcome.packet).expect("a packet");
    let (Some(etherparse::NetSlice::Ipv4(ip)), Some(etherparse::TransportSlice::Tcp(tcp))) =
        (&answer.net, &answer.transport)
    else {
        panic!("not TCP over IPv4: {outcome:?}");
    };
    assert!(tcp.rst() && !tcp.syn() && !tcp.ack());
    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    assert_eq!(
        tcp.checksum(),
        tcp.to_header().calc_checksum_ipv4(&ip.header().to_header(), &[]).expect("short")
    );
    assert_eq!(outcome.packet[..6], bytes[6..12], "addressed to who sent the segment");
    assert_eq!((ip.header().source(), ip.header().destination()), ([192, 0, 2, 7], ENDPOINTS[0].octets()));
}

const UNSUPPORTED: DropReason = DropReason::UnsupportedProtocol;
