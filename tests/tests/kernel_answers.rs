//! The exact bytes of every ICMP error that the programs make, as etherparse builds it from the packet it is about;
//! and fragments.

use std::net::Ipv4Addr;

use etherparse::{IpDscp, IpHeaders, IpNumber, Ipv4Extensions, Ipv4Header, PacketBuilder};
use netdp_common::family::{Be16, Ipv4Addr as Addr};
use netdp_common::flow::Tuple;
use netdp_common::verdict::DropReason;
use netdp_tests::kernel::frames::{Frame, SYN, assert_checksums};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{Sides, established, frames, inward, outward};
use netdp_tests::kernel::programs::{Code, Linear, Outcome};
use netdp_tests::kernel::site::{ENDPOINTS, GATEWAY, REMOTE, in_new_site};
use netdp_tests::kernel::tables::{ICMP, TCP, UDP, tuple};

/// MTU of every interface of a site.
const MTU: u32 = 1500;
/// Most that an error quotes: so that it is 576 bytes long (RFC 1812 4.3.2.3).
const QUOTED: usize = 576 - 28;

const TIME_EXCEEDED: (u8, u8) = (11, 0);
const FRAGMENTATION_NEEDED: (u8, u8) = (3, 4);
const PROHIBITED: (u8, u8) = (3, 13);

/// The error about a frame.
fn error(frame: &Frame, from: Addr, (kind, code): (u8, u8), detail: u32) -> Vec<u8> {
    let about = frame.bytes();
    let [source, destination] = frame.macs;
    let to = Ipv4Addr::from(frame.tuple.src);
    let ip = Ipv4Header::new(0, 64, IpNumber::ICMP, Ipv4Addr::from(from).octets(), to.octets());
    let mut ip = ip.expect("no payload is never too long");
    ip.dscp = IpDscp::try_new(0xc0 >> 2).expect("6 bits");
    let mut bytes = Vec::new();
    PacketBuilder::ethernet2(destination, source)
        .ip(IpHeaders::Ipv4(ip, Ipv4Extensions::default()))
        .icmpv4_raw(kind, code, detail.to_be_bytes())
        .write(&mut bytes, &about[14..about.len().min(14 + QUOTED)])
        .expect("writing to a vector");
    bytes
}

/// What is refused, why, and how its sender is told.
fn refusals() -> Vec<(Hook, Frame, DropReason, Vec<u8>)> {
    let mut refusals = Vec::new();
    let mut tell = |hook, frame: Frame, reason, what, detail| {
        let from = if hook == Hook::FromContainer { GATEWAY.into() } else { frame.tuple.dst };
        let answer = error(&frame, from, what, detail);
        refusals.push((hook, frame, reason, answer));
    };
    for payload in [0, 1, 5, 20, 63, 64, 65, 475, 519, 520, 521, 1400] {
        for options in [0, 4, 40] {
            for (hook, frame, _) in frames() {
                let frame = Frame { ttl: 1, payload, options, ..frame };
                tell(hook, frame, DropReason::TtlExceeded, TIME_EXCEEDED, 0);
            }
            let own = |tuple| Frame { payload, options, ..Frame::of_endpoint(0, tuple) };
            let other = own(tuple(132, (ENDPOINTS[0], 0), (REMOTE, 0)));
            tell(Hook::FromContainer, other, DropReason::UnsupportedProtocol, PROHIBITED, 0);
        }
    }
    for (hook, frame, _) in frames() {
        for payload in [1485, 1501, 3000] {
            let frame = Frame { payload, ..frame.clone() };
            tell(hook, frame, DropReason::TooBig, FRAGMENTATION_NEEDED, MTU);
        }
    }
    refusals
}

#[test]
#[ignore = "needs root"]
fn every_error_byte_by_byte() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        for (hook, frame, reason, answer) in refusals() {
            assert_checksums(&answer);
            // No more than a burst may be asked for at once.
            std::thread::sleep(std::time::Duration::from_millis(2));
            let outcome = sides.run(hook, &frame.bytes());
            let expected = Outcome { action: Code::Redirect, reason: Some(reason), packet: answer };
            assert_eq!(outcome, expected, "{hook:?} {frame:?}");
        }
    });
}

/// Also when what is quoted lies in page fragments.
#[test]
#[ignore = "needs root"]
fn errors_about_page_fragments() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        if !sides.programs.accepts(100, Linear::First(14)) {
            println!("skipped: this kernel's BPF_PROG_TEST_RUN knows no page fragments");
            return;
        }
        for linear in [14, 34, 60, 90, 200, 600] {
            for payload in [600, 1400] {
                let frame = Frame { ttl: 1, payload, ..Frame::of_endpoint(0, outward(UDP).0) };
                let outcome = sides.run_from(Hook::FromContainer, &frame.bytes(), Linear::First(linear));
                assert_eq!(
                    outcome.packet,
                    error(&frame, GATEWAY.into(), TIME_EXCEEDED, 0),
                    "{linear} {payload}"
                );
            }
        }
    });
}

/// RFC 1122 3.2.2; the packets stay as they are.
#[test]
#[ignore = "needs root"]
fn what_is_never_told() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        let (first, _) = outward(UDP);
        let dying = |frame: Frame| Frame { ttl: 1, ..frame };
        let own = dying(Frame::of_endpoint(0, first));
        let world = |src| dying(Frame::of_world(Tuple { src, ..inward(UDP).0 }));
        let silent = [
            (Hook::FromContainer, Frame { macs: [own.macs[0], [0xff; 6]], ..own.clone() }),
            (Hook::FromContainer, Frame { macs: [own.macs[0], [1, 0, 0x5e, 0, 0, 1]], ..own }),
            (Hook::FromWorld, world(Ipv4Addr::UNSPECIFIED.into())),
            (Hook::FromWorld, world(Ipv4Addr::new(224, 0, 0, 1).into())),
            (Hook::FromWorld, world(Ipv4Addr::new(240, 0, 0, 1).into())),
            (Hook::FromWorld, world(Ipv4Addr::BROADCAST.into())),
        ];
        for (hook, frame) in silent {
            let outcome = sides.run(hook, &frame.bytes());
            let expected =
                Outcome { action: Code::Shot, reason: Some(DropReason::TtlExceeded), packet: frame.bytes() };
            assert_eq!(outcome, expected, "{hook:?} {frame:?}");
        }
    });
}

/// Without DF, the stack gets it and fragments it, and what it makes of it is translated on its way out.
#[test]
#[ignore = "needs root"]
fn fragments_become_what_their_first_became() {
    in_new_site(|site| {
        let sides = Sides::new(site, established(site));
        for proto in [UDP, TCP, ICMP] {
            let (first, translated) = outward(proto);
            // A later fragment is payload all through.
            let later = |tuple: Tuple<Addr>| Tuple { sport: Be16::new(0), dport: Be16::new(0), ..tuple };
            for hook in [Hook::FromContainer, Hook::ToWorld] {
                let ttl = if hook == Hook::ToWorld { 64 } else { 63 };
                let own = |tuple, fragment| Frame { fragment, flags: SYN, ..Frame::of_endpoint(0, tuple) };
                let action = if hook == Hook::ToWorld { Code::Next } else { Code::Redirect };
                let head = sides.run(hook, &own(first, (true, 0)).bytes());
                assert_eq!((head.action, head.reason), (action, None));
                assert_eq!(head.packet, Frame { ttl, ..own(translated, (true, 0)) }.bytes());
                let mut tail = own(later(first), (false, 185)).bytes();
                // Not what a header there would be.
                tail[34..].fill(0x5a);
                let mut expected = Frame { ttl, ..own(later(translated), (false, 185)) }.bytes();
                expected[34..].fill(0x5a);
                let outcome = sides.run(hook, &tail);
                assert_eq!(outcome, Outcome { action, reason: None, packet: expected }, "{hook:?} {proto}");
            }
        }
    });
}
