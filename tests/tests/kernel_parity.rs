//! The same packets through the programs in the kernel and through the same core on the host: the same verdict for
//! the same reason, and the same bytes.

use std::net::IpAddr;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use netdp_common::family::Address as _;
use netdp_common::flow::Tuple;
use netdp_common::header::{ethernet, udp};
use netdp_common::verdict::DropReason;
use netdp_tests::in_both_families;
use netdp_tests::kernel::frames::{Frame, assert_checksums};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{Sides, established, frames, outward};
use netdp_tests::kernel::plan::Plan;
use netdp_tests::kernel::programs::{Code, Linear, Outcome};
use netdp_tests::kernel::site::{BRIDGE_MAC, ENDPOINT_MACS, NEXT_HOP_MAC, UPLINK_MAC, in_new_site};
use netdp_tests::kernel::tables::{ONLY_PORT, PUBLISHED, TCP, Tables, UDP, tuple};

in_both_families!(
    established_flows_are_translated_alike_and_right,
    udp_without_checksum_stays_so,
    a_udp_checksum_never_becomes_zero,
    headers_in_page_fragments,
    truncated_anywhere,
    refusals_have_the_same_reasons,
    an_address_besides_its_own_is_translated,
    a_list_of_sources_is_heeded,
    a_stray_segment_is_reset,
    icmp_errors_are_translated_with_what_they_quote,
    icmp_errors_with_a_wrong_checksum_are_dropped,
);

/// The frame as it must leave: etherparse builds it anew, so that no code of ours says what is right.
fn expected<F: Plan>(hook: Hook, frame: &Frame<F>, tuple: Tuple<F::Addr>) -> Vec<u8> {
    let macs = match hook {
        Hook::FromWorld => [BRIDGE_MAC, ENDPOINT_MACS[0]],
        // The kernel puts the next hop's there.
        Hook::FromContainer | Hook::ToWorld => frame.macs,
    };
    Frame { macs, tuple, ttl: frame.ttl - 1, ..frame.clone() }.bytes()
}

fn established_flows_are_translated_alike_and_right<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for (hook, frame, translated) in frames::<F>() {
            for options in [0, 4, 40] {
                for payload in [0, 1, 6, 10, 1300] {
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

fn udp_without_checksum_stays_so<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for (hook, frame, translated) in
            frames::<F>().into_iter().filter(|(_, frame, _)| frame.tuple.proto == UDP)
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
fn a_udp_checksum_never_becomes_zero<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let (first, _) = outward::<F>(UDP);
        let mut bytes = Frame { payload: 2, ..Frame::<F>::of_endpoint(0, first) }.bytes();
        let l4 = ethernet::LEN + F::HEADER_LEN;
        let (checksum, payload) = (l4 + udp::CHECKSUM, l4 + 8);
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
fn headers_in_page_fragments<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let accepted = sides.programs.accepts::<F>(100, Linear::First(14));
        assert!(accepted, "this kernel's BPF_PROG_TEST_RUN knows no page fragments");
        for (hook, frame, translated) in frames::<F>() {
            let frame = Frame { payload: 600, ..frame };
            let bytes = frame.bytes();
            for linear in [14, 20, 33, 34, 40, 54, 100] {
                let outcome = sides.run_from(hook, &bytes, Linear::First(linear));
                assert_eq!(outcome.packet, expected(hook, &frame, translated), "{frame:?} {linear}");
            }
        }
    });
}

fn truncated_anywhere<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for (hook, frame, _) in frames::<F>() {
            let frame = Frame { options: 8, ..frame };
            let bytes = frame.bytes();
            for len in 14..bytes.len() {
                if sides.programs.accepts::<F>(len, Linear::All) {
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
fn refusals_have_the_same_reasons<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let (first, _) = outward::<F>(TCP);
        let own = |tuple| Frame::<F>::of_endpoint(0, tuple);
        let refused: Vec<(Hook, Frame<F>, Option<DropReason>)> = vec![
            (
                Hook::FromContainer,
                Frame { fragment: (true, 185), payload: 2000, ..own(first) },
                Some(DropReason::Fragment),
            ),
            (Hook::FromContainer, own(Tuple { src: F::ENDPOINTS[1], ..first }), Some(DropReason::Spoofed)),
            (Hook::FromContainer, own(tuple(UDP, (F::ENDPOINTS[0], 5), (F::GATEWAY, 53))), None),
            (
                Hook::FromWorld,
                Frame::<F>::of_world(tuple(TCP, (F::REMOTE, 1), (F::ENDPOINTS[0], 80))),
                Some(DropReason::NotPublished),
            ),
            (Hook::FromWorld, Frame::<F>::of_world(tuple(TCP, (F::REMOTE, 1), (F::HOST, 22))), None),
            (
                Hook::ToWorld,
                own(tuple(UDP, (F::ENDPOINTS[0], 5), (F::REMOTE, 53))),
                Some(DropReason::Untranslated),
            ),
            (Hook::ToWorld, Frame::<F>::of_endpoint(0, tuple(TCP, (F::HOST, 22), (F::REMOTE, 5))), None),
            // What it may use besides its address.
            (Hook::FromContainer, own(tuple(UDP, (F::ALLOWED, 5), (F::GATEWAY, 53))), None),
            (
                Hook::FromWorld,
                Frame::<F>::of_world(tuple(TCP, (F::REMOTE, 1), (F::ALLOWED, 80))),
                Some(DropReason::NotPublished),
            ),
            (
                Hook::ToWorld,
                own(tuple(UDP, (F::ALLOWED, 5), (F::REMOTE, 53))),
                Some(DropReason::Untranslated),
            ),
        ];
        for (hook, frame, reason) in refused {
            let bytes = frame.bytes();
            let outcome = sides.run(hook, &bytes);
            let action = if reason.is_some() { Code::Shot } else { Code::Next };
            assert_eq!(outcome, Outcome { action, reason, packet: bytes }, "{hook:?} {frame:?}");
        }
    });
}

fn an_address_besides_its_own_is_translated<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, Tables::of::<F>(site));
        let frame = Frame::<F>::of_endpoint(0, tuple(UDP, (F::ALLOWED, 5), (F::REMOTE, 53)));
        let outcome = sides.run(Hook::FromContainer, &frame.bytes());
        let translated = tuple(UDP, (F::HOST, ONLY_PORT), (F::REMOTE, 53));
        assert_eq!((outcome.action, outcome.reason), (Code::Redirect, None));
        assert_eq!(outcome.packet, expected(Hook::FromContainer, &frame, translated));
        sides.assert_same_flows();
    });
}

/// A published port with a list of sources: who is in one of its prefixes, who is not, and who is in another list.
fn a_list_of_sources_is_heeded<F: Plan>() {
    in_new_site(|site| {
        let mut tables = Tables::of::<F>(site);
        let (list, other) = ([7, 1], [7, 2]);
        let bits = F::Addr::BITS;
        tables.sources = vec![(list, F::REMOTE, bits - 4), (other, F::STRANGER, bits)];
        for publication in &mut tables.published {
            publication.value.sources = list;
        }
        let sides = Sides::<F>::new(site, tables);
        let to = |from| Frame::<F>::of_world(tuple(UDP, (from, 5), (F::HOST, PUBLISHED.0)));
        let outcome = sides.run(Hook::FromWorld, &to(F::REMOTE).bytes());
        assert_eq!((outcome.action, outcome.reason), (Code::Redirect, None));
        let frame = to(F::STRANGER).bytes();
        let outcome = sides.run(Hook::FromWorld, &frame);
        let refused = Outcome { action: Code::Shot, reason: Some(DropReason::NotAllowed), packet: frame };
        assert_eq!(outcome, refused);
        sides.assert_same_flows();
    });
}

/// TCP that opens no connection and belongs to none is answered at once.
fn a_stray_segment_is_reset<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let (first, _) = outward::<F>(TCP);
        let stray = Tuple { dst: F::STRANGER, ..first };
        for (options, payload) in [(0, 0), (0, 1), (40, 7), (12, 1400)] {
            let frame = Frame { options, payload, ..Frame::<F>::of_endpoint(0, stray) };
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
fn icmp_errors_are_translated_with_what_they_quote<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for (hook, frame, translated) in frames::<F>() {
            // Of every remainder by a word, and by what is summed up at a time.
            for (options, after_header) in
                [(0, 8), (0, 40), (8, 8), (8, 72), (0, 9), (0, 10), (0, 11), (0, 63), (0, 65), (8, 191)]
            {
                let quoted = F::HEADER_LEN + F::options(options) + after_header;
                let frame = Frame { options, payload: 200, ..frame.clone() };
                let (back, error) = error_about(hook, &frame, translated, quoted);
                assert_checksums(&error);
                let outcome = sides.run(back, &error);
                assert_eq!((outcome.action, outcome.reason), (Code::Redirect, None), "{frame:?} {quoted}");
                assert_checksums(&outcome.packet);
                // It quotes what the sender sent, as far as addresses go.
                let header = ethernet::LEN + addresses::<F>();
                let quoted = header + F::HEADER_LEN + ICMP_ERROR;
                let len = 2 * size_of::<F::Addr>();
                assert_eq!(outcome.packet[quoted..][..len], frame.bytes()[header..][..len], "{frame:?}");
            }
        }
    });
}

fn icmp_errors_with_a_wrong_checksum_are_dropped<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for (hook, frame, translated) in frames::<F>() {
            let (back, error) = error_about(hook, &frame, translated, F::HEADER_LEN + 27);
            let icmp = ethernet::LEN + F::HEADER_LEN;
            // In the header, in what it quotes and no key has, in the last word and its last byte.
            for at in
                [icmp + 1, icmp + 2, icmp + 6, icmp + 8 + F::HEADER_LEN + 9, error.len() - 3, error.len() - 1]
            {
                let mut wrong = error.clone();
                wrong[at] ^= 0x10;
                let outcome = sides.run(back, &wrong);
                let dropped =
                    Outcome { action: Code::Shot, reason: Some(DropReason::BadChecksum), packet: wrong };
                assert_eq!(outcome, dropped, "{at} of {hook:?} {frame:?}");
            }
        }
    });
}

/// About a frame as it was when it had left, back to where it came from; and where that is seen.
fn error_about<F: Plan>(
    hook: Hook,
    frame: &Frame<F>,
    translated: Tuple<F::Addr>,
    quoted: usize,
) -> (Hook, Vec<u8>) {
    let sent = Frame { tuple: translated, ..frame.clone() }.bytes();
    let (back, macs, reporter) = match hook {
        Hook::FromContainer => (Hook::FromWorld, [NEXT_HOP_MAC, UPLINK_MAC], F::ROUTER),
        Hook::FromWorld | Hook::ToWorld => {
            (Hook::FromContainer, [ENDPOINT_MACS[0], BRIDGE_MAC], translated.dst)
        }
    };
    let quoted = &sent[ethernet::LEN..][..quoted.min(sent.len() - ethernet::LEN)];
    (back, icmp_error::<F>(macs, reporter, translated.src, quoted))
}

/// Time exceeded.
fn icmp_error<F: Plan>(macs: [[u8; 6]; 2], from: F::Addr, to: F::Addr, quoted: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let link = PacketBuilder::ethernet2(macs[0], macs[1]);
    match (F::ip(from), F::ip(to)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = link.ipv4(from.octets(), to.octets(), 64);
            ip.icmpv4_raw(F::TIME_EXCEEDED, 0, [0; 4]).write(&mut bytes, quoted)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let ip = link.ipv6(from.octets(), to.octets(), 64);
            ip.icmpv6_raw(F::TIME_EXCEEDED, 0, [0; 4]).write(&mut bytes, quoted)
        }
        _ => unreachable!("one family"),
    }
    .expect("writing to a vector");
    bytes
}

/// Length of an ICMP error's own header.
const ICMP_ERROR: usize = 8;

/// Where the addresses lie in a network header: at its end.
fn addresses<F: Plan>() -> usize {
    F::HEADER_LEN - 2 * size_of::<F::Addr>()
}
