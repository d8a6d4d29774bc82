//! The fuzz target. Built without cargo-fuzz it replays the files that it is given: what a crash left behind.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    netdp_fuzz::run(data);
});

#[cfg(not(fuzzing))]
fn main() -> std::io::Result<()> {
    for path in std::env::args_os().skip(1) {
        netdp_fuzz::run(&std::fs::read(path)?);
    }
    Ok(())
}
