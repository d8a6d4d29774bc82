//! Flows end in the kernel when they do on the host: by the timeouts of their network.

use netdp_common::flow::Flow;
use netdp_common::meta::Meta;
use netdp_tests::in_both_families;
use netdp_tests::kernel::model::Model;
use netdp_tests::kernel::parity::{Sides, established, frames};
use netdp_tests::kernel::plan::Plan;
use netdp_tests::kernel::site::in_new_site;
use netdp_tests::kernel::tables::{FlowEntry, GENERATION, TCP, UDP, now};

in_both_families!(each_flow_ends_by_its_own_networks_timeouts);

/// Longer than [`OWN_TIMEOUTS`](netdp_tests::kernel::tables::OWN_TIMEOUTS) let it live, by far shorter than the usual.
const fn idle(proto: u8) -> u32 {
    match proto {
        TCP => 900,
        UDP => 50,
        _ => 30,
    }
}

/// Of sets 0 (the usual), 1 (of the network) and 2 (of no network: the usual count).
fn each_flow_ends_by_its_own_networks_timeouts<F: Plan>() {
    in_new_site(|site| {
        let mut sides = Sides::<F>::new(site, established::<F>(site));
        for (number, expires) in [(0, false), (1, true), (2, false)] {
            for (hook, frame, _) in frames::<F>() {
                let age = |(key, flow): &FlowEntry<F::Addr>| {
                    let meta = Meta(flow.meta).with_seen(now() - idle(key.proto));
                    (*key, Flow { meta: meta.0, timeouts: number, ..*flow })
                };
                let mut tables = established::<F>(site);
                tables.flows = tables.flows.iter().map(age).collect();
                sides.programs.forget::<F>();
                sides.programs.add_flows::<F>(&tables.flows);
                sides.model = Model::new(site, tables);
                sides.run(hook, &frame.bytes());
                sides.assert_same_flows();
                let is_it = |(key, flow): &FlowEntry<F::Addr>| {
                    *key == frame.tuple && Meta(flow.meta).generation() == GENERATION
                };
                let lives = sides.programs.flows::<F>().iter().any(is_it);
                assert_eq!(lives, !expires, "{hook:?}, {:?} by timeouts {number}", frame.tuple);
            }
        }
    });
}
