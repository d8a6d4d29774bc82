//! How many flows a range of ports serves, and a table.

use std::collections::BTreeSet;

use netdp_common::family::{Be16, Family};
use netdp_common::flow::{PortSpans, Tuple};
use netdp_common::header::{tcp, udp};
use netdp_common::verdict::DropReason;
use netdp_model::TIMEOUTS;
use netdp_model::frame::{Carries, Sent};
use netdp_model::hook::{Fate, Hook};
use netdp_model::ifindex::VETH_A;
use netdp_model::plan::{Place, Plan};
use netdp_model::watch::Watched;
use proptest::prelude::*;

use crate::host::{ACK, ENDPOINTS, EPHEMERAL, SYN, for_all, host, questions, run, translated};

/// Flow number `i` towards a remote, from one of the endpoints.
fn flow<F: Plan>(i: u16, carries: Carries, remote: u8) -> (Hook, Sent<F::Addr>) {
    let (place, veth) = ENDPOINTS[usize::from(i % 3)];
    let (src, dst) = (F::at(place), F::at(Place::Remote(remote)));
    let dport = if carries == Carries::EchoRequest { 0 } else { 443 };
    (Hook::FromContainer(veth), Sent { src, dst, sport: 1 + i, dport, carries, ttl: 64 })
}

fn tuple<F: Plan>(sent: &Sent<F::Addr>) -> Tuple<F::Addr> {
    let (src, dst) = (sent.src, sent.dst);
    let (sport, dport) = (Be16::new(sent.sport), Be16::new(sent.dport));
    Tuple { src, dst, sport, dport, proto: proto::<F>(sent.carries), pad: [0; 3] }
}

fn proto<F: Family>(carries: Carries) -> u8 {
    match carries {
        Carries::Tcp(_) | Carries::Segment(_) => tcp::PROTO,
        Carries::Udp => udp::PROTO,
        _ => F::ICMP,
    }
}

/// Opens flows until one is refused; the ports that the remote has seen.
fn fill<F: Plan>(host: &mut Watched<F>, carries: Carries) -> Result<(Vec<u16>, Fate), TestCaseError> {
    let mut ports = Vec::new();
    loop {
        let (hook, sent) = flow::<F>(ports.len() as u16, carries, 9);
        let (fate, after) = run(host, 0, hook, &sent.at(hook))?;
        let Fate::ToNextHop(_) = fate else { return Ok((ports, fate)) };
        let seen = Sent::read::<F>(&after).ok_or_else(|| TestCaseError::fail("unreadable"))?;
        ports.push(seen.sport);
    }
}

/// A range of N ports, less those that are reserved or a host socket's, serves exactly as many flows to one remote.
/// The next is refused with its reason, a freed port works for the next attempt.
pub(crate) fn exactly_as_many_as_there_are<F: Plan>() {
    let unusable = prop::collection::vec((0..64u16, any::<bool>()), 0..20);
    let inputs = (1024..65_000u16, 1..64u16, unusable, questions(), any::<u16>());
    for_all(200, &inputs, |(lo, count, unusable, (carries, _), freed)| {
        let mut host = host::<F>(PortSpans::new(lo, lo + count - 1, EPHEMERAL), 256);
        let mut usable: BTreeSet<u16> = (lo..lo + count).collect();
        usable.retain(|port| !host.world.reserved.contains(&(proto::<F>(carries), *port)));
        for (offset, reserved) in unusable {
            let taken = (proto::<F>(carries), lo + offset);
            let ports = if reserved { &mut host.world.reserved } else { &mut host.world.sockets };
            ports.insert(taken);
            usable.remove(&(lo + offset));
        }
        let (ports, last) = fill(&mut host, carries)?;
        prop_assert_eq!(last, Fate::Answered(DropReason::PortsExhausted));
        prop_assert_eq!(&ports.iter().copied().collect::<BTreeSet<u16>>(), &usable);
        prop_assert_eq!(ports.len(), usable.len(), "a port twice");
        // Another remote has them all, too.
        if let Some(first) = usable.first() {
            let (hook, sent) = flow::<F>(0, carries, 10);
            let seen = translated(&mut host, 0, hook, sent)?;
            prop_assert!(usable.contains(&seen.sport), "{} of {first}…", seen.sport);
        }
        if !ports.is_empty() {
            let freed = freed % ports.len() as u16;
            let (_, sent) = flow::<F>(freed, carries, 9);
            prop_assert!(host.remove(&tuple::<F>(&sent), 0));
            let (hook, sent) = flow::<F>(ports.len() as u16, carries, 9);
            prop_assert_eq!(translated(&mut host, 0, hook, sent)?.sport, ports[usize::from(freed)]);
        }
        Ok(())
    });
    every_port_of_the_default_range::<F>();
}

/// G2: all 64 512 ports serve one remote, the last one too.
fn every_port_of_the_default_range<F: Plan>() {
    const ALL: usize = 64_512;
    let mut host = host::<F>(PortSpans::new(1024, 65_535, EPHEMERAL), ALL + 1);
    host.world.reserved.clear();
    let (ports, last) = fill(&mut host, Carries::Udp).expect("nothing odd");
    assert_eq!(last, Fate::Answered(DropReason::PortsExhausted));
    assert_eq!(ports.len(), ALL);
    assert_eq!(ports.into_iter().collect::<BTreeSet<u16>>().len(), ALL);
}

/// Ports that the kernel gives to the host's sockets are taken when no other is left.
pub(crate) fn ephemeral_last<F: Plan>() {
    let inputs = (1024..2000u16, 1..60u16, 1024..2060u16, 0..60u16);
    for_all(200, &inputs, |(lo, count, first, len)| {
        let ephemeral = first..first + len;
        let spans = PortSpans::new(lo, lo + count - 1, (first, (first + len).wrapping_sub(1)));
        let (ports, _) = fill(&mut host::<F>(spans, 64), Carries::Udp)?;
        prop_assert_eq!(ports.len(), usize::from(count));
        let preferred = ports.iter().filter(|port| !ephemeral.contains(port)).count();
        let late = ports[preferred..].iter().all(|port| ephemeral.contains(port));
        prop_assert!(late, "{preferred} preferred ones in {ports:?}");
        Ok(())
    });
}

/// In a full table questions give way, what is established stays; when there is nothing else, it refuses with its own
/// reason.
pub(crate) fn full_table<F: Plan>() {
    for_all(50, &(2..40u16, 1..40u16), |(flows, established)| {
        let established = established.min(flows - 1);
        let mut host = host::<F>(PortSpans::new(1024, 65_535, EPHEMERAL), usize::from(flows));
        let connected = |i| flow::<F>(i, SYN, 9);
        let mut seen = Vec::new();
        let establish = |host: &mut _, i| {
            let (hook, sent) = connected(i);
            let mapped = translated(host, 0, hook, sent)?;
            let syn_ack = mapped.answered(Carries::Tcp(tcp::SYN | tcp::ACK));
            translated(host, 0, Hook::FromWorld, syn_ack)?;
            translated(host, 0, hook, Sent { carries: ACK, ..sent })?;
            Ok::<_, TestCaseError>(mapped)
        };
        for i in 0..established {
            seen.push(establish(&mut host, i)?);
        }
        for i in established..flows {
            let (hook, sent) = flow::<F>(i, Carries::Udp, 9);
            translated(&mut host, 0, hook, sent)?;
        }
        for i in established..3 * flows {
            let (hook, sent) = flow::<F>(1000 + i, Carries::Udp, 9);
            translated(&mut host, 0, hook, sent)?;
        }
        for i in established..flows {
            seen.push(establish(&mut host, i)?);
        }
        for (i, mapped) in (0..).zip(seen) {
            let (_, sent) = connected(i);
            let answer = translated(&mut host, TIMEOUTS.udp, Hook::FromWorld, mapped.answered(ACK))?;
            prop_assert_eq!(answer, Sent { ttl: 63, ..sent.answered(ACK) });
        }
        let (hook, sent) = (Hook::FromContainer(VETH_A), flow::<F>(0, Carries::Udp, 10).1);
        let (fate, _) = run(&mut host, TIMEOUTS.udp, hook, &sent.at(hook))?;
        prop_assert_eq!(fate, Fate::Answered(DropReason::TableFull));
        Ok(())
    });
}
