//! The fuzzer's corpus through the programs in the kernel: what the core makes of every frame on the host, it makes of it
//! there, to the byte.

use netdp_model::plan::Plan as Model;
use netdp_tests::in_both_families;
use netdp_tests::kernel::corpus::with_host;
use netdp_tests::kernel::plan::Plan;
use netdp_tests::odd::found;

/// The corpus has thousands of frames: fewer are a mistake of this test.
const SOME: usize = 2_000;

in_both_families!(the_corpus_gives_the_same_bytes);

fn the_corpus_gives_the_same_bytes<F: Plan + Model>() {
    let records: Vec<_> = found::inputs().iter().map(|input| netdp_fuzz::record::<F>(input)).collect();
    let frames: usize = with_host::<F, _>(|host| records.iter().map(|record| host.replay(record)).sum());
    assert!(frames > SOME, "only {frames} frames");
}
