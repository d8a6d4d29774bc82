//! Frames that no decent host sends.

use netdp_common::family::Family;
use netdp_common::flow::PortSpans;
use netdp_common::header::ethernet;
use netdp_model::frame::{Carries, Frame, IcmpError, Sent};
use netdp_model::hook::{Fate, Hook};
use netdp_model::ifindex::{VETH_A, VETH_B};
use netdp_model::plan::{Place, Plan};
use netdp_model::watch::Watched;
use proptest::prelude::*;

use crate::host::{ACK, SYN, for_all, host, translated};

/// A host with flows, and frames of every sort at their hooks, first those of its flows.
fn busy<F: Plan>() -> (Watched<F>, Vec<(Hook, Vec<u8>)>) {
    let mut host = host::<F>(PortSpans::new(5000, 5003, (1, 1)), 32);
    let (out, remote) = (Hook::FromContainer(VETH_A), (Place::Remote(9), 443));
    let sent = |carries, from: (Place, u16), to: (Place, u16)| Sent {
        src: F::at(from.0),
        dst: F::at(to.0),
        sport: from.1,
        dport: to.1,
        carries,
        ttl: 64,
    };
    let mut packets = Vec::new();
    for (carries, answer) in
        [(SYN, ACK), (Carries::Udp, Carries::Udp), (Carries::EchoRequest, Carries::EchoReply)]
    {
        let port = if carries == Carries::EchoRequest { 0 } else { remote.1 };
        let question = sent(carries, (Place::A, 1000), (remote.0, port));
        let mapped = translated(&mut host, 0, out, question).expect("a flow");
        packets.extend([(out, question), (Hook::FromWorld, mapped.answered(answer))]);
    }
    for (carries, port, own) in [(SYN, 8080, 80), (Carries::Udp, 8053, 53)] {
        for (hook, client) in [(Hook::FromWorld, remote), (Hook::FromContainer(VETH_B), (Place::B, 1000))] {
            let question = sent(carries, client, (Place::Host, port));
            translated(&mut host, 0, hook, question).expect("a flow");
            packets.extend([(hook, question), (out, sent(carries, (Place::A, own), client))]);
        }
    }
    let known = packets.clone();
    let new = [
        (out, sent(SYN, (Place::A, 1001), remote)),
        (out, sent(ACK, (Place::A, 1002), remote)),
        (out, sent(Carries::Udp, (Place::A, 1001), (Place::B, 53))),
        (out, sent(Carries::Udp, (Place::A, 1001), (Place::C, 53))),
        (out, sent(Carries::Udp, (Place::A, 1001), (Place::GatewayAb, 53))),
        (out, sent(Carries::Other(132), (Place::A, 0), remote)),
        (Hook::FromWorld, sent(SYN, remote, (Place::A, 80))),
        (Hook::FromWorld, sent(SYN, remote, (Place::Host, 22))),
        (Hook::FromWorld, sent(Carries::Udp, remote, (Place::Host, 9003))),
        (Hook::ToWorld, sent(SYN, (Place::A, 80), remote)),
        (Hook::ToWorld, sent(SYN, (Place::Host, 80), remote)),
    ];
    packets.extend(new);
    let mut frames = Vec::new();
    for (hook, packet) in packets {
        let plain = packet.at(hook);
        for options in [0, 8] {
            frames.push((hook, Frame { options, ..plain.clone() }.bytes::<F>()));
        }
        frames.push((hook, Frame { fragment: Some((0, true)), ..plain.clone() }.bytes::<F>()));
        frames.push((hook, Frame { fragment: Some((1, false)), ..plain }.bytes::<F>()));
    }
    // About each packet of a flow as its receiver got it: from the receiver to the sender.
    for (hook, packet) in known {
        let (fate, after) = host.run(0, hook, &packet.at(hook).bytes::<F>()).expect("nothing odd");
        let back = match fate {
            Fate::ToEndpoint(veth) => Hook::FromContainer(veth),
            Fate::ToNextHop(_) => Hook::FromWorld,
            other => panic!("{other:?} of {packet:?}"),
        };
        let seen = Sent::read::<F>(&after).expect("a packet");
        frames.push((back, IcmpError::at(back, seen.dst, seen.src, &after, usize::MAX).bytes::<F>()));
    }
    (host, frames)
}

/// Cut off at every byte: dropped, or left to the stack, and that not if an endpoint would get it.
pub(crate) fn truncated<F: Plan>() {
    let (mut host, frames) = busy::<F>();
    let flows = host.table.len();
    for (hook, frame) in &frames {
        for len in 0..frame.len() {
            let (fate, _) = host.run(0, *hook, &frame[..len]).expect("nothing odd");
            assert!(
                matches!(fate, Fate::Dropped(_) | Fate::Stack),
                "{fate:?} of {len} bytes of {frame:02x?}"
            );
        }
    }
    assert_eq!(host.table.len(), flows, "flows were opened");
}

/// A few bytes changed, anywhere, in a frame that was good, at any hook.
pub(crate) fn changed<F: Plan>() {
    let (_, frames) = busy::<F>();
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let changes = prop::collection::vec(change, 1..8);
    let hooks = prop_oneof![8 => Just(None), 1 => hooks().prop_map(Some)];
    let frame = (any::<prop::sample::Index>(), changes, hooks, any::<prop::sample::Index>());
    let inputs = prop::collection::vec(frame, 1..20);
    for_all(800, &inputs, |inputs| {
        let (mut host, frames) = (busy::<F>().0, &frames);
        for (which, changes, hook, len) in inputs {
            let (usual, mut frame) = frames[which.index(frames.len())].clone();
            for (at, value) in changes {
                let at = at.index(frame.len());
                frame[at] = value;
            }
            // Padded sometimes: Ethernet frames are 60 bytes long at least.
            frame.resize(frame.len() + len.index(8), 0);
            host.run(0, hook.unwrap_or(usual), &frame).map_err(TestCaseError::fail)?;
        }
        Ok(())
    });
}

/// Nothing but noise, some of it behind a good Ethernet header and version.
pub(crate) fn random<F: Plan>() {
    let noise = prop::collection::vec(any::<u8>(), 0..160);
    for_all(2000, &(noise, hooks(), 0..3u8), |(mut frame, hook, disguise)| {
        let mut host = busy::<F>().0;
        if disguise > 0 && frame.len() > ethernet::LEN {
            let [from, to] = hook.macs();
            frame[..6].copy_from_slice(&to);
            frame[6..12].copy_from_slice(&from);
            frame[12..14].copy_from_slice(&F::ETHERTYPE.to_be_bytes());
            if disguise > 1 {
                frame[14] = if F::ICMP == V4_ICMP { 0x45 } else { 0x60 };
            }
        }
        host.run(0, hook, &frame).map_err(TestCaseError::fail)?;
        Ok(())
    });
}

const V4_ICMP: u8 = <netdp_common::family::V4 as Family>::ICMP;

fn hooks() -> impl Strategy<Value = Hook> {
    prop_oneof![
        Just(Hook::FromContainer(VETH_A)),
        Just(Hook::FromContainer(VETH_B)),
        Just(Hook::FromWorld),
        Just(Hook::ToWorld),
    ]
}
