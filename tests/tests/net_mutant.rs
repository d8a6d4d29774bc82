//! The race checks can see the race: a netdp that looks up and then inserts fails them.

use std::sync::{Mutex, PoisonError};

use netdp_tests::ask::Transport;
use netdp_tests::build::with_feature;
use netdp_tests::lab::Lab;
use netdp_tests::race::{Arena, FEW_FLOWS, FEW_PORTS};
use netdp_tests::variant::Variant;

const MUTANT: &str = "mutant-check-then-insert";
/// A race is a matter of luck: one try shows it more often than not, all together practically always.
const TRIES: usize = 40;

/// Repeats a check of net_race until it fails, as it must.
#[expect(clippy::print_stderr, reason = "how the mutant was found out is worth a line in the test's output")]
fn found_out(check: impl Fn(&Arena<'_>) -> (bool, String)) {
    static ALONE: Mutex<()> = Mutex::new(());
    let binary = with_feature(MUTANT);
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let lab = Lab::with_binary(Variant::EBPF, binary);
    let arena = Arena::new(&lab, FEW_PORTS);
    for _ in 0..TRIES {
        let (is_clean, report) = check(&arena);
        if !is_clean {
            eprintln!("found out: {report}");
            return;
        }
        lab.netdp.ok("flows flush");
    }
    panic!("the race checks let the mutant pass {TRIES} times");
}

fn clash(transport: Transport) {
    found_out(|arena| {
        let report = arena.clash(transport, FEW_FLOWS, 20);
        (report.is_clean(), report.to_string())
    });
}

#[test]
#[ignore = "needs root"]
fn two_tcp_flows_that_take_one_port_are_found_out() {
    clash(Transport::Tcp);
}

#[test]
#[ignore = "needs root"]
fn two_udp_flows_that_take_one_port_are_found_out() {
    clash(Transport::Udp);
}

#[test]
#[ignore = "needs root"]
fn one_flow_that_takes_two_ports_is_found_out() {
    found_out(|arena| {
        let report = arena.one_flow(FEW_FLOWS, 20, 4);
        (report.is_clean(), report.to_string())
    });
}
