//! The race checks can see the race: a netdp that looks up and then inserts fails them.

use std::path::PathBuf;
use std::process::Command;

use netdp_tests::ask::Transport;
use netdp_tests::lab::Lab;
use netdp_tests::netdp::Netdp;
use netdp_tests::race::Arena;
use netdp_tests::variant::Variant;

const MUTANT: &str = "mutant-check-then-insert";

/// Builds netdp with the broken claim, beside the other builds.
fn mutant() -> PathBuf {
    let release = Netdp::default_binary();
    let target = release.ancestors().nth(2).expect("a target directory").join("mutant");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "netdp", "--features", MUTANT]);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let status = cargo.env("CARGO_TARGET_DIR", &target).status().expect("running cargo");
    assert!(status.success(), "building netdp with {MUTANT}");
    target.join("debug/netdp")
}

#[test]
#[ignore = "needs root"]
fn a_claim_that_looks_up_and_then_inserts_is_found_out() {
    let lab = Lab::with_binary(Variant::EBPF, mutant());
    // As in net_race's small range, but until it shows: a race is a matter of luck, not of certainty.
    let arena = Arena::new(&lab, "--snat-ports 40000-40999");
    let mut reports = Vec::new();
    for _ in 0..10 {
        let clash = arena.clash(Transport::Udp, 190, 20);
        lab.netdp.ok("flows flush");
        let one_flow = arena.one_flow(400, 8, 4);
        reports.push(format!("{clash}; {one_flow}"));
        if !clash.is_clean() || !one_flow.is_clean() {
            return;
        }
        lab.netdp.ok("flows flush");
    }
    panic!("the race checks let the mutant pass: {reports:#?}");
}
