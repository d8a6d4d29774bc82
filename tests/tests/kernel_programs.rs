//! Every program loads, and the verifier does not look at more instructions than it is worth.

use std::collections::BTreeMap;

use netdp_tests::kernel::programs::Programs;
use netdp_tests::kernel::site::in_new_site;

/// Instructions that the verifier may look at (its own limit is a million); about twice what 6.18 looks at, since
/// kernels prune differently.
const BUDGETS: [(&str, u32); 51] = [
    ("from_container", 65_000),
    ("from_container_v6", 50_000),
    ("open_from_container", 65_000),
    ("open_from_container_v6", 80_000),
    ("from_world", 65_000),
    ("from_world_v6", 50_000),
    ("open_from_world", 60_000),
    ("open_from_world_v6", 65_000),
    ("icmp_error", 40_000),
    ("icmp_error_v6", 110_000),
    ("refuse", 25_000),
    ("refuse_v6", 30_000),
    ("fragment", 55_000),
    ("fragment_v6", 55_000),
    ("wait", 25_000),
    ("wait_v6", 30_000),
    ("to_container", 20_000),
    ("to_container_v6", 25_000),
    ("to_world", 25_000),
    ("to_world_v6", 40_000),
    ("closing", 200_000),
    ("closing_v6", 200_000),
    ("claim", 300_000),
    ("claim_v6", 380_000),
    ("from_host", 40_000),
    ("from_host_v6", 40_000),
    ("open_from_host", 40_000),
    ("open_from_host_v6", 50_000),
    ("from_world_bare", 25_000),
    ("to_world_bare", 25_000),
    ("to_world_bare_v6", 40_000),
    ("closing_bare", 65_000),
    ("closing_bare_v6", 100_000),
    ("from_host_bare", 40_000),
    ("from_host_bare_v6", 40_000),
    ("open_from_host_bare", 40_000),
    ("open_from_host_bare_v6", 50_000),
    ("from_wire", 65_000),
    ("from_wire_generic", 65_000),
    ("remove_flows", 3_000),
    ("remove_flows_v6", 6_000),
    ("connect4", 4000),
    ("connect6", 4500),
    ("sendmsg4", 4000),
    ("sendmsg6", 3000),
    ("recvmsg4", 300),
    ("recvmsg6", 300),
    ("getpeername4", 300),
    ("getpeername6", 300),
    ("bind4", 400),
    ("bind6", 1200),
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
