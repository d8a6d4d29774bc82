//! The exact bytes of every ICMP error that the programs make, as etherparse builds it from the packet it is about;
//! and fragments.

use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::Duration;

use etherparse::{
    IpDscp, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, Ipv6Extensions, Ipv6Header, PacketBuilder,
};
use netdp_common::family::{Be16, V4};
use netdp_common::flow::Tuple;
use netdp_common::header::ethernet;
use netdp_common::verdict::DropReason;
use netdp_tests::in_both_families;
use netdp_tests::kernel::frames::{Frame, SYN, assert_checksums};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{Sides, established, frames, inward, outward};
use netdp_tests::kernel::plan::Plan;
use netdp_tests::kernel::programs::{Code, Linear, Outcome};
use netdp_tests::kernel::site::in_new_site;
use netdp_tests::kernel::tables::{TCP, UDP, tuple};

in_both_families!(
    every_error_byte_by_byte,
    errors_about_page_fragments,
    frames_for_everybody_are_not_told_of,
    fragments_become_what_their_first_became,
    fragments_that_overtake_their_first_wait_for_it,
);

/// MTU of every interface of a site.
const MTU: u32 = 1500;
/// Authentication Header (RFC 4302): its signature covers the addresses.
const AH: u8 = 51;
/// `IPTOS_PREC_INTERNETCONTROL`.
const CLASS: u8 = 0xc0;
/// A pause after which one more answer may follow.
const A_TURN: Duration = Duration::from_millis(2);

/// What an error says: type and code in each family, and its second word.
#[derive(Clone, Copy)]
struct What {
    v4: (u8, u8),
    v6: (u8, u8),
    detail: u32,
}

const TIME_EXCEEDED: What = What { v4: (11, 0), v6: (3, 0), detail: 0 };
const TOO_BIG: What = What { v4: (3, 4), v6: (2, 0), detail: MTU };
const PROHIBITED: What = What { v4: (3, 13), v6: (1, 1), detail: 0 };

/// The error about a frame.
fn error<F: Plan>(frame: &Frame<F>, from: F::Addr, what: What) -> Vec<u8> {
    let about = frame.bytes();
    let [source, destination] = frame.macs;
    let link = PacketBuilder::ethernet2(destination, source);
    let (detail, mut bytes) = (what.detail.to_be_bytes(), Vec::new());
    match (F::ip(from), F::ip(frame.tuple.src)) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let ip = Ipv4Header::new(0, 64, IpNumber::ICMP, from.octets(), to.octets());
            let mut ip = ip.expect("no payload is never too long");
            ip.dscp = IpDscp::try_new(CLASS >> 2).expect("6 bits");
            let ip = link.ip(IpHeaders::Ipv4(ip, Ipv4Extensions::default()));
            ip.icmpv4_raw(what.v4.0, what.v4.1, detail).write(&mut bytes, quoted(&about, 576 - 20 - 8))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (source, destination) = (from.octets(), to.octets());
            let ip = Ipv6Header { source, destination, hop_limit: 64, ..Ipv6Header::default() };
            let ip = Ipv6Header { traffic_class: CLASS, ..ip };
            let ip = link.ip(IpHeaders::Ipv6(ip, Ipv6Extensions::default()));
            ip.icmpv6_raw(what.v6.0, what.v6.1, detail).write(&mut bytes, quoted(&about, 1280 - 40 - 8))
        }
        _ => unreachable!("one family"),
    }
    .expect("writing to a vector");
    bytes
}

fn quoted(about: &[u8], most: usize) -> &[u8] {
    let packet = &about[ethernet::LEN..];
    &packet[..packet.len().min(most)]
}

/// What is refused, why, and how its sender is told.
fn refusals<F: Plan>() -> Vec<(Hook, Frame<F>, DropReason, Vec<u8>)> {
    let mut refusals = Vec::new();
    let mut tell = |hook, frame: Frame<F>, reason, what| {
        let from = if hook == Hook::FromContainer { F::GATEWAY } else { frame.tuple.dst };
        let answer = error(&frame, from, what);
        refusals.push((hook, frame, reason, answer));
    };
    for payload in [0, 1, 5, 20, 63, 64, 65, 475, 519, 520, 521, 1183, 1184, 1185, 1300] {
        for options in [0, 4, 40] {
            for (hook, frame, _) in frames::<F>() {
                let frame = Frame { ttl: 1, payload, options, ..frame };
                tell(hook, frame, DropReason::TtlExceeded, TIME_EXCEEDED);
            }
            let other = Frame::<F>::of_endpoint(0, tuple(AH, (F::ENDPOINTS[0], 0), (F::REMOTE, 0)));
            let other = Frame { payload, options, ..other };
            tell(Hook::FromContainer, other, DropReason::UnsupportedProtocol, PROHIBITED);
        }
    }
    for (hook, frame, _) in frames::<F>() {
        for payload in [1485, 1501, 3000] {
            tell(hook, Frame { payload, ..frame.clone() }, DropReason::TooBig, TOO_BIG);
        }
    }
    refusals
}

fn every_error_byte_by_byte<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for (hook, frame, reason, answer) in refusals::<F>() {
            assert_checksums(&answer);
            thread::sleep(A_TURN);
            let outcome = sides.run(hook, &frame.bytes());
            let expected = Outcome { action: Code::Redirect, reason: Some(reason), packet: answer };
            assert_eq!(outcome, expected, "{hook:?} {frame:?}");
        }
    });
}

/// Also when what is quoted lies in page fragments.
fn errors_about_page_fragments<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let accepted = sides.programs.accepts::<F>(100, Linear::First(14));
        assert!(accepted, "this kernel's BPF_PROG_TEST_RUN knows no page fragments");
        for linear in [14, 34, 60, 90, 200, 600] {
            for payload in [600, 1400] {
                let frame = Frame { ttl: 1, payload, ..Frame::<F>::of_endpoint(0, outward::<F>(UDP).0) };
                let outcome = sides.run_from(Hook::FromContainer, &frame.bytes(), Linear::First(linear));
                assert_eq!(outcome.packet, error(&frame, F::GATEWAY, TIME_EXCEEDED), "{linear} {payload}");
            }
        }
    });
}

/// RFC 1122 3.2.2, RFC 4443 2.4(e).
fn frames_for_everybody_are_not_told_of<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let own = Frame { ttl: 1, ..Frame::<F>::of_endpoint(0, outward::<F>(UDP).0) };
        for mac in [[0xff; 6], [1, 0, 0x5e, 0, 0, 1], [0x33, 0x33, 0, 0, 0, 1]] {
            let frame = Frame { macs: [own.macs[0], mac], ..own.clone() }.bytes();
            let outcome = sides.run(Hook::FromContainer, &frame);
            let (action, reason) = (Code::Shot, Some(DropReason::TtlExceeded));
            assert_eq!(outcome, Outcome { action, reason, packet: frame }, "{mac:?}");
        }
    });
}

/// RFC 1122 3.2.2: zero, multicast, class E, broadcast. The stack drops them as martians.
#[test]
#[ignore = "needs root"]
fn addresses_that_are_no_host_are_the_stacks() {
    in_new_site(|site| {
        let sides = Sides::<V4>::new(site, established::<V4>(site));
        let nobody = [
            Ipv4Addr::UNSPECIFIED,
            Ipv4Addr::new(224, 0, 0, 1),
            Ipv4Addr::new(240, 0, 0, 1),
            Ipv4Addr::BROADCAST,
        ];
        for src in nobody {
            let tuple = Tuple { src: src.into(), ..inward::<V4>(UDP).0 };
            let frame = Frame { ttl: 1, ..Frame::<V4>::of_world(tuple) }.bytes();
            let outcome = sides.run(Hook::FromWorld, &frame);
            assert_eq!(outcome, Outcome { action: Code::Next, reason: None, packet: frame }, "{src}");
        }
    });
}

/// Sent by an endpoint, or made by the stack of what was too big, and translated on its way out.
fn fragments_become_what_their_first_became<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for proto in [UDP, TCP, F::ICMP] {
            let (first, translated) = outward::<F>(proto);
            for (hook, action, ttl) in
                [(Hook::FromContainer, Code::Redirect, 63), (Hook::ToWorld, Code::Next, 64)]
            {
                let own =
                    |tuple, fragment| Frame::<F> { fragment, flags: SYN, ..Frame::of_endpoint(0, tuple) };
                let head = sides.run(hook, &own(first, (true, 0)).bytes());
                let packet = Frame { ttl, ..own(translated, (true, 0)) }.bytes();
                assert_eq!(head, Outcome { action, reason: None, packet }, "{hook:?} {proto}");
                let tail = sides.run(hook, &without_header(&own(first, (false, 185))));
                let packet = without_header(&Frame { ttl, ..own(translated, (false, 185)) });
                assert_eq!(tail, Outcome { action, reason: None, packet }, "{hook:?} {proto}");
            }
        }
    });
}

/// Longer ones and shorter ones; the endpoint's are held back, the stack gets those that may be the host's.
fn fragments_that_overtake_their_first_wait_for_it<F: Plan>() {
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        for proto in [UDP, TCP, F::ICMP] {
            let (first, translated) = outward::<F>(proto);
            for (hook, frame, held) in [
                (Hook::FromContainer, Frame::<F>::of_endpoint(0, first), Code::Shot),
                (Hook::FromWorld, Frame::of_world(translated.reversed()), Code::Next),
            ] {
                let part = |fragment, payload| Frame { fragment, payload, ..frame.clone() };
                let tails = [(false, 370, 1), (true, 185, 1400), (true, 277, 80)]
                    .map(|(more, offset, payload)| without_header(&part((more, offset), payload)));
                for tail in &tails {
                    let waiting = sides.run(hook, tail);
                    assert_eq!(waiting, Outcome { action: held, reason: None, packet: tail.clone() });
                }
                let head = part((true, 0), 200).bytes();
                // What is left is the last one that has come in once more.
                let released = Outcome { action: Code::Shot, reason: None, packet: tails[2].clone() };
                assert_eq!(sides.run(hook, &head), released, "{frame:?}");
                let again: Vec<_> = sides.model.again().into_iter().map(|(_, frame)| frame).collect();
                assert_eq!(again, [&[head][..], &tails].concat(), "{frame:?}");
                // Nothing waits any more.
                for part in again {
                    assert_eq!(sides.run(hook, &part).action, Code::Redirect, "{frame:?}");
                }
            }
        }
    });
}

/// A later fragment: what would be its transport header is payload.
fn without_header<F: Plan>(frame: &Frame<F>) -> Vec<u8> {
    let zero = Be16::new(0);
    let frame = Frame { tuple: Tuple { sport: zero, dport: zero, ..frame.tuple }, ..frame.clone() };
    let mut bytes = frame.bytes();
    bytes[frame.transport()..].fill(0x5a);
    bytes
}
