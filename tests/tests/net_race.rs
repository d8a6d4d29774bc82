//! No flow is lost to a port collision, whoever opens it and however many at once (G1, S8).

use std::sync::{Mutex, MutexGuard, PoisonError};

use netdp_tests::ask::Transport;
use netdp_tests::lab::Lab;
use netdp_tests::on_ebpf_only_in_both_families;
use netdp_tests::race::{Arena, FEW_FLOWS, FEW_PORTS};

on_ebpf_only_in_both_families!(
    containers_at_the_same_instant_lose_nothing: "netfilter loses some (G1), see net_iptables",
    a_small_range_collides_and_loses_nothing: "netfilter loses some (G1)",
    one_new_flow_from_many_threads_is_one_mapping: "netfilter drops the later packet (G1)",
);

/// A race needs the CPUs for itself, and what takes long because of another race is not slow.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// S8: four containers, 2 000 source ports each, one destination.
fn containers_at_the_same_instant_lose_nothing(lab: &Lab) {
    let _alone = alone();
    let arena = Arena::new(lab, "");
    for transport in Transport::ALL {
        let report = arena.clash(transport, 2_000, 3);
        assert!(report.is_clean(), "{transport:?}: {report}");
    }
    assert_eq!(lab.netdp.counter("snat_allocated"), 2 * 3 * 4 * 2_000);
}

/// 192 flows find a port in a range of 256, round after round: the later ones only after collisions.
fn a_small_range_collides_and_loses_nothing(lab: &Lab) {
    let _alone = alone();
    let arena = Arena::new(lab, FEW_PORTS);
    for transport in Transport::ALL {
        let before = lab.netdp.counter("snat_collisions");
        let report = arena.clash(transport, FEW_FLOWS, 80);
        assert!(report.is_clean(), "{transport:?}: {report}");
        assert!(lab.netdp.counter("snat_collisions") > before, "{transport:?}: no collision was counted");
    }
    assert_eq!(lab.netdp.counter("snat_exhausted"), 0);
    // Each round goes to a port of its own and closes nothing before its end: there is no closed connection to follow.
    assert_eq!(lab.netdp.counter("flows_recycled"), 0);
}

/// The first packets of one flow come from several CPUs: one mapping, all answered.
fn one_new_flow_from_many_threads_is_one_mapping(lab: &Lab) {
    let _alone = alone();
    let arena = Arena::new(lab, "");
    let report = arena.one_flow(400, 8, 4);
    assert!(report.is_clean(), "{report}");
    let flows = lab.netdp.json("flows ls --proto udp");
    assert_eq!(flows.as_array().map(Vec::len), Some(8 * 400), "one mapping for each flow");
}
