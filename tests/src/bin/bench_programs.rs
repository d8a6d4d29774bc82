//! `cargo xtask bench-programs`: what a packet costs in the programs, and what they cost the verifier.
#![expect(clippy::print_stdout, reason = "it shows something to people")]

use std::process::ExitCode;

use netdp_tests::kernel::bench::{self, Group};
use netdp_tests::kernel::programs::Programs;
use netdp_tests::kernel::site::in_new_site;

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = names.iter().find(|name| Group::ALL.iter().all(|group| group.name() != **name)) {
        let groups = Group::ALL.map(Group::name).join(", ");
        println!("error: there is no group `{unknown}`: choose of {groups}, or give none for all");
        return ExitCode::from(2);
    }
    print_instructions();
    println!(
        "program         path                                                      ns median   quiet  packets"
    );
    for group in Group::ALL {
        if names.is_empty() || names.iter().any(|name| name == group.name()) {
            print_rows(group);
        }
    }
    println!(
        "\nOne CPU, packets of 64 bytes, BPF_PROG_TEST_RUN: its own loop is in every figure, the redirect is not. \n\
         The packet is hot in the cache; flows are hot unless they come in turn. Quiet: a tenth of the runs is faster."
    );
    ExitCode::SUCCESS
}

fn print_instructions() {
    println!("program                verified instructions");
    for (program, count) in in_new_site(|_| Programs::load(1024).verified_instructions()) {
        println!("{program:<22} {count:>21}");
    }
    println!();
}

fn print_rows(group: Group) {
    for row in in_new_site(|site| bench::rows(site, group)) {
        let (program, path) = (row.program, &row.path);
        println!("{program:<15} {path:<58} {:>8} {:>7} {:>8}", row.median(), row.quiet(), row.packets);
    }
}
