//! `cargo xtask bench-programs`: what a packet costs in the programs, and what they cost the verifier.
#![expect(clippy::print_stdout, reason = "it shows something to people")]

use netdp_tests::kernel::bench;
use netdp_tests::kernel::programs::Programs;
use netdp_tests::kernel::site::in_new_site;

fn main() {
    let (instructions, rows) =
        in_new_site(|site| (Programs::load(1024).verified_instructions(), bench::rows(site)));
    println!("program                verified instructions");
    for (program, count) in instructions {
        println!("{program:<22} {count:>21}");
    }
    println!();
    println!(
        "program         path                                                ns median   quiet     packets"
    );
    for row in rows {
        let (program, path) = (row.program, &row.path);
        println!("{program:<15} {path:<52} {:>8} {:>7} {:>11}", row.median(), row.quiet(), row.packets);
    }
    println!();
    println!(
        "One CPU, packets of 64 bytes, BPF_PROG_TEST_RUN: its own loop (the first row, mostly) is in every figure, \n\
         the redirect is not. A packet is hot in the cache; flows are hot unless they come in turn. Quiet: the tenth \n\
         part of the runs that was least disturbed."
    );
}
