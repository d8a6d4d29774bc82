//! Whose a tuple is.

use std::collections::HashMap;

use netdp_common::flow::{NETWORK_NO_ICC, PortSpans};
use netdp_common::header::{icmp, tcp};
use netdp_common::meta::Meta;
use netdp_common::reclaim::other_key;
use netdp_common::verdict::DropReason;
use netdp_model::frame::{Carries, Frame, Sent};
use netdp_model::hook::{Fate, Hook};
use netdp_model::ifindex::{BRIDGE_AB, VETH_A, VETH_B};
use netdp_model::plan::{Place, Plan};
use netdp_model::watch::Watched;
use netdp_model::{TIMEOUTS, World};
use proptest::prelude::*;

use crate::host::{ENDPOINTS, EPHEMERAL, SYN, for_all, host, questions, run, translated};

/// One of a few tuples that get in each other's way, or time.
#[derive(Clone, Debug)]
enum Happens {
    Packet { endpoint: usize, carries: (Carries, Carries), sport: u16, remote: u8, dport: u16 },
    Ticks(u32),
}

fn events() -> impl Strategy<Value = Vec<Happens>> {
    let packet = (0..3usize, questions(), 1..4u16, 1..3u8, 53..55u16).prop_map(
        |(endpoint, carries, sport, remote, dport)| {
            let dport = if carries.0 == Carries::EchoRequest { 0 } else { dport };
            Happens::Packet { endpoint, carries, sport, remote, dport }
        },
    );
    let event = prop_oneof![8 => packet, 1 => (0..40u32).prop_map(Happens::Ticks)];
    prop::collection::vec(event, 1..80)
}

/// A mapping as the remote sees it.
struct Mapping<A> {
    veth: u32,
    sent: Sent<A>,
    seen: Sent<A>,
    answer: Carries,
    last: u32,
}

/// Every flow that can't have expired gets its own answers, after whatever else has come to pass.
pub(crate) fn no_two_share_a_tuple<F: Plan>() {
    // In this time no flow expires that has had a packet.
    let alive = TIMEOUTS.shortest();
    for_all(300, &(events(), 1..6u16), |(events, ports)| {
        let mut host = host::<F>(PortSpans::new(5000, 4999 + ports, (1, 1)), 64);
        let mut now = 0;
        let mut mappings: Vec<Mapping<F::Addr>> = Vec::new();
        for event in events {
            let Happens::Packet { endpoint, carries, sport, remote, dport } = event else {
                let Happens::Ticks(ticks) = event else { unreachable!("the other") };
                now += ticks;
                continue;
            };
            let (place, veth) = ENDPOINTS[endpoint];
            let (src, dst) = (F::at(place), F::at(Place::Remote(remote)));
            let sent = Sent { src, dst, sport, dport, carries: carries.0, ttl: 64 };
            let hook = Hook::FromContainer(veth);
            let (fate, after) = run(&mut host, now, hook, &sent.at(hook))?;
            mappings.retain(|known| now - known.last < alive);
            if let Fate::ToNextHop(_) = fate {
                let seen = Sent::read::<F>(&after).expect("a packet");
                prop_assert!((5000..5000 + ports).contains(&seen.sport), "{seen:?}");
                mappings.retain(|known| known.sent != sent);
                mappings.push(Mapping { veth, sent, seen, answer: carries.1, last: now });
            } else {
                let taken = mappings.iter().any(|known| known.sent == sent);
                prop_assert!(!taken, "{fate:?} although it has a mapping: {sent:?}");
            }
            for known in &mut mappings {
                let answer = known.seen.answered(known.answer);
                let (fate, after) = run(&mut host, now, Hook::FromWorld, &answer.at(Hook::FromWorld))?;
                prop_assert_eq!(fate, Fate::ToEndpoint(known.veth));
                let expected = Sent { ttl: 63, ..known.sent.answered(known.answer) };
                prop_assert_eq!(Sent::read::<F>(&after), Some(expected));
                known.last = now;
            }
            assert_paired(&host)?;
        }
        Ok(())
    });
}

/// Every entry has its other half, of the same generation and its exact mirror.
fn assert_paired<F: Plan>(host: &Watched<F>) -> Result<(), TestCaseError> {
    let entries = host.table.entries();
    for (key, flow) in &entries {
        let other = other_key(flow, key.proto);
        let mirror = entries.iter().find(|(key, _)| *key == other);
        let Some((_, mirror)) = mirror else {
            return Err(TestCaseError::fail(format!("half a flow: {key:?}")));
        };
        prop_assert_eq!(other_key(mirror, key.proto), *key);
        prop_assert_eq!(Meta(mirror.meta).generation(), Meta(flow.meta).generation());
    }
    Ok(())
}

/// One client tuple towards several published ports of the same endpoint port: all work, each by its own.
pub(crate) fn look_alikes<F: Plan>() {
    for_all(100, &(any::<u8>(), 1..=u16::MAX, 2..20u16), |(remote, sport, doors)| {
        let mut world = World::new::<F>(PortSpans::new(5000, 5000, (1, 1)));
        for door in 0..doors {
            world.publish::<F>(tcp::PROTO, 8000 + door..=8000 + door, Place::A, 80);
        }
        let mut host = Watched::<F>::new(world, 64);
        let mut clients = HashMap::new();
        for door in 0..doors {
            let (src, dst) = (F::at(Place::Remote(remote)), F::at(Place::Host));
            let sent = Sent { src, dst, sport, dport: 8000 + door, carries: SYN, ttl: 64 };
            let seen = translated(&mut host, 0, Hook::FromWorld, sent)?;
            prop_assert_eq!((seen.src, seen.dst, seen.dport), (src, F::at(Place::A), 80));
            prop_assert_eq!(door == 0, seen.sport == sport);
            prop_assert!(clients.insert(seen.sport, sent).is_none(), "two clients look the same");
        }
        for (port, sent) in clients {
            let carries = Carries::Tcp(tcp::SYN | tcp::ACK);
            let seen = Sent { dst: F::at(Place::A), sport: port, dport: 80, ..sent };
            let answered = translated(&mut host, 0, Hook::FromContainer(VETH_A), seen.answered(carries))?;
            prop_assert_eq!(answered, Sent { ttl: 63, ..sent.answered(carries) });
        }
        Ok(())
    });
}

/// The watcher takes it for no leak that endpoints that are apart find each other: answers go to a neighbour's MAC.
pub(crate) fn who_is_apart_is_found<F: Plan>() {
    const SOLICITATION: u8 = 135;
    let mut host = host::<F>(PortSpans::new(5000, 5000, EPHEMERAL), 16);
    host.world.networks.get_mut(&BRIDGE_AB).expect("a network").flags = NETWORK_NO_ICC;
    let hook = Hook::FromContainer(VETH_A);
    let (src, dst) = (F::at(Place::A), F::at(Place::B));
    let mut asks = |carries, kind: u8| {
        let sent = Sent { src, dst, sport: 1, dport: 53, carries, ttl: 255 };
        let head = [kind, 0, 0, 0, 0, 0, 0, 0];
        let payload = [&head[..], bytemuck::bytes_of(&dst)].concat();
        host.run(0, hook, &Frame { payload, ..sent.at(hook) }.bytes::<F>()).expect("nothing wrong").0
    };
    let discovery = asks(Carries::Other(icmp::PROTO_V6), SOLICITATION);
    let is_v6 = F::ICMP == icmp::PROTO_V6;
    assert_eq!(discovery == Fate::ToEndpoint(VETH_B), is_v6, "{discovery:?}");
    let other = asks(Carries::Other(icmp::PROTO_V6), 200);
    assert!(
        matches!(other, Fate::Dropped(DropReason::Isolated) | Fate::Answered(DropReason::Isolated)),
        "{other:?}"
    );
    assert_eq!(asks(Carries::Udp, SOLICITATION), Fate::Answered(DropReason::Isolated));
}
