//! Every program loads, and the verifier does not look at more instructions than it is worth.

use std::collections::BTreeMap;

use netdp_tests::kernel::programs::Programs;
use netdp_tests::kernel::site::in_new_site;

/// Instructions that the verifier may look at (its own limit is a million); about twice what 6.18 looks at, since
/// kernels prune differently.
const BUDGETS: [(&str, u32); 18] = [
    ("from_container", 40_000),
    ("open_from_container", 65_000),
    ("from_world", 40_000),
    ("open_from_world", 60_000),
    ("icmp_error", 65_000),
    ("refuse", 25_000),
    ("to_world", 25_000),
    ("remove_flows", 2_000),
    ("connect4", 1500),
    ("connect6", 2000),
    ("sendmsg4", 1500),
    ("sendmsg6", 1200),
    ("recvmsg4", 300),
    ("recvmsg6", 300),
    ("getpeername4", 300),
    ("getpeername6", 300),
    ("bind4", 400),
    ("bind6", 600),
];

#[test]
#[ignore = "needs root"]
fn every_program_loads_within_its_budget() {
    let found: BTreeMap<String, u32> =
        in_new_site(|_| Programs::load(1024).verified_instructions().into_iter().collect());
    println!("{found:#?}");
    let names: Vec<&str> = BUDGETS.iter().map(|(name, _)| *name).collect();
    assert!(found.keys().all(|name| names.contains(&name.as_str())), "a program without a budget");
    for (name, budget) in BUDGETS {
        let count = found.get(name).copied().unwrap_or_else(|| panic!("there is no program {name}"));
        assert!(0 < count && count < budget, "{name}: {count} instructions, the budget is {budget}");
    }
}
