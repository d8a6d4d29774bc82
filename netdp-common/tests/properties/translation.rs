//! Translating there and back is the identity.

use netdp_common::flow::PortSpans;
use netdp_model::frame::{Carries, Frame, IcmpError, Sent};
use netdp_model::hook::{Fate, Hook};
use netdp_model::ifindex::{UPLINK, VETH_A};
use netdp_model::plan::{Place, Plan};
use netdp_model::{bridge_of, mac};
use proptest::prelude::*;

use crate::host::{Dress, ENDPOINTS, EPHEMERAL, dresses, for_all, host, questions, run};

/// Who asks whom, and what the other side is known as.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// An endpoint asks a remote.
    Outward(usize),
    /// A remote asks a published port.
    Inward,
    /// An endpoint asks a published port.
    Hairpin(usize),
}

#[derive(Clone, Debug)]
struct Exchange {
    way: Way,
    carries: (Carries, Carries),
    remote: u8,
    ports: (u16, u16),
    question: Dress,
    answer: Dress,
}

fn exchanges() -> impl Strategy<Value = Exchange> {
    let way = prop_oneof![
        (0..3usize).prop_map(Way::Outward),
        Just(Way::Inward),
        (0..3usize).prop_map(Way::Hairpin)
    ];
    let inputs = (way, questions(), any::<u8>(), (1..=u16::MAX, 1..=u16::MAX), dresses(), dresses());
    inputs.prop_map(|(way, carries, remote, ports, question, answer)| {
        // No echo is published.
        let way = if carries.0 == Carries::EchoRequest { Way::Outward(0) } else { way };
        Exchange { way, carries, remote, ports, question, answer }
    })
}

/// The first packet, its hook, and the veth of whoever is asked; none: a remote.
fn asked<F: Plan>(it: &Exchange) -> (Hook, Sent<F::Addr>, Option<u32>) {
    let remote = Place::Remote(it.remote);
    let published = if it.carries.0 == Carries::Udp { 8053 } else { 8080 };
    let (hook, src, dst, dport, to) = match it.way {
        Way::Outward(from) => {
            let (place, veth) = ENDPOINTS[from];
            let dport = if it.carries.0 == Carries::EchoRequest { 0 } else { it.ports.1 };
            (Hook::FromContainer(veth), place, remote, dport, None)
        }
        Way::Inward => (Hook::FromWorld, remote, Place::Host, published, Some(VETH_A)),
        Way::Hairpin(from) => {
            let (place, veth) = ENDPOINTS[from];
            (Hook::FromContainer(veth), place, Place::Host, published, Some(VETH_A))
        }
    };
    let (src, dst) = (F::at(src), F::at(dst));
    (hook, Sent { src, dst, sport: it.ports.0, dport, carries: it.carries.0, ttl: 64 }, to)
}

/// The frame that becomes of another when only its packet and way change.
fn expected<F: Plan>(of: &Frame<F::Addr>, packet: Sent<F::Addr>, to: Option<u32>) -> (Fate, Vec<u8>) {
    let frame = of.around(Sent { ttl: of.sent.ttl - 1, ..packet });
    match to {
        None => (Fate::ToNextHop(UPLINK), frame.bytes::<F>()),
        Some(veth) => {
            let macs = [mac(bridge_of(veth)), mac(veth)];
            (Fate::ToEndpoint(veth), Frame { macs, ..frame }.bytes::<F>())
        }
    }
}

/// The answer to what a packet has become becomes the answer to the packet, whatever they carry; and each differs
/// from what it was in addresses, ports, time to live and checksums only: etherparse builds it anew.
pub(crate) fn there_and_back<F: Plan>() {
    for_all(2000, &exchanges(), |it| {
        let mut host = host::<F>(PortSpans::new(1024, 65_535, EPHEMERAL), 8);
        let (hook, packet, to) = asked::<F>(&it);
        let question = it.question.on(packet, hook);
        let (fate, there) = run(&mut host, 0, hook, &question)?;
        let seen = Sent::read::<F>(&there).ok_or_else(|| TestCaseError::fail("unreadable"))?;
        prop_assert_eq!((fate, there), expected::<F>(&question, seen, to));
        match it.way {
            Way::Outward(_) => {
                prop_assert_eq!(
                    (seen.src, seen.dst, seen.dport),
                    (F::at(Place::Host), packet.dst, packet.dport)
                );
                let ports = PortSpans::new(1024, 65_535, EPHEMERAL).preferred;
                let is_preferred =
                    |port: u32| ports.iter().any(|span| (span.lo..span.lo + span.len).contains(&port));
                prop_assert!(is_preferred(u32::from(seen.sport)), "{seen:?}");
            }
            Way::Inward | Way::Hairpin(_) => {
                prop_assert_eq!((seen.dst, seen.dport), (F::at(Place::A), packet.dport - 8000));
                let own = matches!(it.way, Way::Hairpin(0));
                prop_assert_eq!(own, (seen.src, seen.sport) != (packet.src, packet.sport));
                prop_assert_eq!(own, seen.src == F::at(Place::GatewayAb));
            }
        }
        let back = to.map_or(Hook::FromWorld, Hook::FromContainer);
        let asker = if let Hook::FromContainer(veth) = hook { Some(veth) } else { None };
        let answer = it.answer.on(seen.answered(it.carries.1), back);
        let answered = run(&mut host, 0, back, &answer)?;
        prop_assert_eq!(answered, expected::<F>(&answer, packet.answered(it.carries.1), asker));
        Ok(())
    });
}

/// Whoever reports about what a packet has become: the sender is told about the packet as it was, byte for byte.
pub(crate) fn errors<F: Plan>() {
    let inputs = (exchanges(), 0..60usize, any::<u8>());
    for_all(2000, &inputs, |(it, more, router)| {
        let mut host = host::<F>(PortSpans::new(1024, 65_535, EPHEMERAL), 8);
        let (hook, packet, to) = asked::<F>(&it);
        let question = it.question.on(packet, hook);
        let (_, there) = run(&mut host, 0, hook, &question)?;
        let seen = Sent::read::<F>(&there).ok_or_else(|| TestCaseError::fail("unreadable"))?;
        // An endpoint reports for itself, a remote's part of the world for it.
        let back = to.map_or(Hook::FromWorld, Hook::FromContainer);
        let reporter = if to.is_some() { F::at(Place::A) } else { F::at(Place::Remote(router)) };
        let known_as = if to.is_some() { packet.dst } else { reporter };
        // Not half of a checksum: that can't be put right.
        let quoted = F::HEADER_LEN + question.options + 8 + 2 * more;
        let error = IcmpError::at(back, reporter, seen.src, &there, quoted);
        let (fate, told) = host.run(0, back, &error.bytes::<F>()).map_err(TestCaseError::fail)?;
        let later = question.around(Sent { ttl: question.sent.ttl - 1, ..packet }).bytes::<F>();
        let mut expected = IcmpError { ttl: 63, ..IcmpError::at(back, known_as, packet.src, &later, quoted) };
        match hook {
            Hook::FromContainer(veth) => {
                prop_assert_eq!(fate, Fate::ToEndpoint(veth));
                expected.macs = [mac(bridge_of(veth)), mac(veth)];
            }
            _ => prop_assert_eq!(fate, Fate::ToNextHop(UPLINK)),
        }
        prop_assert_eq!(told, expected.bytes::<F>());
        Ok(())
    });
}
