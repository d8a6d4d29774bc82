//! Flows that the programs in the kernel make and remove, one packet at a time.

use netdp_common::flow::{FLOW_INITIATOR, Flow, Kind, Tuple};
use netdp_common::meta::Meta;
use netdp_common::verdict::Event;
use netdp_tests::in_both_families;
use netdp_tests::kernel::frames::{Frame, SYN, assert_checksums};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{MAPPED, PORTS};
use netdp_tests::kernel::plan::Plan;
use netdp_tests::kernel::programs::{Code, Linear, Outcome, Programs};
use netdp_tests::kernel::site::{Site, in_new_site};
use netdp_tests::kernel::tables::{GENERATION, PUBLISHED, TCP, Tables, UDP, snat, tuple};

in_both_families!(
    a_new_flow_has_two_entries_of_one_generation,
    a_published_port_keeps_the_clients_address_and_port,
    exactly_the_named_flow_is_removed,
    many_flows_are_removed_in_one_run,
);

fn loaded<F: Plan>(site: &Site) -> Programs {
    let mut programs = Programs::load(1024);
    programs.fill::<F>(&Tables::of::<F>(site).with_all_ports());
    programs
}

fn send<F: Plan>(programs: &Programs, site: &Site, hook: Hook, frame: &Frame<F>) -> Outcome {
    let ifindex = if hook == Hook::FromContainer { site.endpoints[0] } else { site.uplink };
    programs.run(hook.program(), &frame.bytes(), ifindex, Linear::All)
}

/// The entry with this key.
#[track_caller]
fn entry<F: Plan>(programs: &Programs, key: Tuple<F::Addr>) -> Flow<F::Addr> {
    let found = programs.flows::<F>().into_iter().find(|(own, _)| *own == key);
    found.unwrap_or_else(|| panic!("no entry {key:?} in {:?}", programs.flows::<F>())).1
}

fn a_new_flow_has_two_entries_of_one_generation<F: Plan>() {
    in_new_site(|site| {
        let programs = loaded::<F>(site);
        for proto in [TCP, UDP] {
            let first = tuple(proto, (F::ENDPOINTS[0], PORTS.0), (F::REMOTE, PORTS.1));
            let frame = Frame { flags: SYN, ..Frame::<F>::of_endpoint(0, first) };
            let outcome = send(&programs, site, Hook::FromContainer, &frame);
            assert_eq!(outcome.action, Code::Redirect, "{outcome:?}");
            assert_checksums(&outcome.packet);
            let forward = entry::<F>(&programs, first);
            let at = frame.transport();
            let port = u16::from_be_bytes([outcome.packet[at], outcome.packet[at + 1]]);
            assert_eq!(forward.sport.get(), port);
            assert!(port >= 1024 && !(32_768..=60_999).contains(&port), "not a preferred port: {port}");
            let answer = tuple(proto, (F::REMOTE, PORTS.1), (F::HOST, port));
            let reverse = entry::<F>(&programs, answer);
            assert_eq!(Meta(forward.meta).generation(), Meta(reverse.meta).generation());
            assert_eq!((forward.kind, reverse.kind), (Kind::Snat as u8, Kind::Snat as u8));
            assert_eq!((forward.flags & FLOW_INITIATOR, reverse.flags & FLOW_INITIATOR), (FLOW_INITIATOR, 0));

            let again = send(&programs, site, Hook::FromContainer, &frame);
            assert_eq!(again, outcome, "the second packet goes the same way");
            let back = send(&programs, site, Hook::FromWorld, &Frame::<F>::of_world(answer));
            assert_eq!(back.action, Code::Redirect, "{back:?}");
            assert_checksums(&back.packet);
        }
        assert_eq!(programs.flows::<F>().len(), 4);
        assert_eq!(programs.count(Event::FlowsCreated), 2);
        assert_eq!(programs.count(Event::SnatAllocated), 2);
        assert_eq!(programs.count(Event::Packets), 6);
    });
}

fn a_published_port_keeps_the_clients_address_and_port<F: Plan>() {
    in_new_site(|site| {
        let programs = loaded::<F>(site);
        let client = (F::REMOTE, PORTS.0);
        let first = tuple(TCP, client, (F::HOST, PUBLISHED.0));
        let outcome =
            send(&programs, site, Hook::FromWorld, &Frame { flags: SYN, ..Frame::<F>::of_world(first) });
        assert_eq!(outcome.action, Code::Redirect, "{outcome:?}");
        let forward = entry::<F>(&programs, first);
        let reverse = entry::<F>(&programs, tuple(TCP, (F::ENDPOINTS[0], PUBLISHED.1), client));
        assert_eq!(Meta(forward.meta).generation(), Meta(reverse.meta).generation());
        assert_eq!((forward.src, forward.sport.get()), (F::REMOTE, PORTS.0));
        assert_eq!((forward.dst, forward.dport.get()), (F::ENDPOINTS[0], PUBLISHED.1));
        assert_eq!(programs.count(Event::DnatPortChanged), 0);
    });
}

fn exactly_the_named_flow_is_removed<F: Plan>() {
    in_new_site(|site| {
        let mut programs = loaded::<F>(site);
        let flow = |number: u16| {
            let first = tuple(TCP, (F::ENDPOINTS[0], PORTS.0 + number), (F::REMOTE, PORTS.1));
            let translated = tuple(TCP, (F::HOST, MAPPED + number), (F::REMOTE, PORTS.1));
            (first, snat::<F>(site, 0, first, translated))
        };
        let (named, others) = (flow(0), [flow(1), flow(2)]);
        programs.add_flows::<F>(&named.1);
        others.iter().for_each(|(_, entries)| programs.add_flows::<F>(entries));

        assert_eq!(remove::<F>(&programs, &[(named.0, GENERATION + 1)]), 0, "another generation");
        assert_eq!(remove::<F>(&programs, &[(named.1[1].0.reversed(), GENERATION)]), 0, "no such key");
        assert_eq!(programs.flows::<F>().len(), 6);
        assert_eq!(remove::<F>(&programs, &[(named.0, GENERATION)]), 1);
        assert_eq!(remove::<F>(&programs, &[(named.0, GENERATION)]), 0, "it is gone");
        let left: Vec<Tuple<F::Addr>> = programs.flows::<F>().into_iter().map(|(key, _)| key).collect();
        assert_eq!(left.len(), 4);
        assert!(others.iter().flat_map(|(_, entries)| entries).all(|(key, _)| left.contains(key)));
        assert_eq!(programs.count(Event::FlowsRemoved), 1);
    });
}

/// A full run, and one record of a flow that is not there in the middle of it.
fn many_flows_are_removed_in_one_run<F: Plan>() {
    // The kernel takes less than a page.
    let count = u16::try_from(2560 / (size_of::<Tuple<F::Addr>>() + size_of::<u32>())).expect("few");
    in_new_site(|site| {
        let mut programs = loaded::<F>(site);
        let mut records = Vec::new();
        for number in 0..count {
            let first = tuple(UDP, (F::ENDPOINTS[0], 1000 + number), (F::REMOTE, 53));
            let translated = tuple(UDP, (F::HOST, 2000 + number), (F::REMOTE, 53));
            if number != count / 2 {
                programs.add_flows::<F>(&snat::<F>(site, 0, first, translated));
            }
            records.push((first, GENERATION));
        }
        assert_eq!(remove::<F>(&programs, &records), u32::from(count) - 1);
        assert!(programs.flows::<F>().is_empty());
    });
}

fn remove<F: Plan>(programs: &Programs, flows: &[(Tuple<F::Addr>, u32)]) -> u32 {
    let mut packet = vec![0; 14];
    for (key, generation) in flows {
        packet.extend_from_slice(bytemuck::bytes_of(key));
        packet.extend_from_slice(&generation.to_ne_bytes());
    }
    programs.returned(&format!("remove_flows{}", F::PROGRAMS), &packet)
}
