//! `tests/BEHAVIOUR.md` says what netdp does, and netfilter beside it (design section 9, the differential tier).

use std::path::Path;
use std::{env, fs, thread};

use netdp_tests::behaviour::{of_netdp, of_netfilter, table};
use netdp_tests::variant::Family::{V4, V6};

/// Writes the table instead of comparing it.
const WRITE: &str = "NETDP_WRITE_BEHAVIOUR";

#[test]
#[ignore = "needs root"]
fn the_table_says_what_is_so() {
    let (netdp, netfilter) = thread::scope(|scope| {
        let netdp = [V4, V6].map(|family| scope.spawn(move || of_netdp(family)));
        let netfilter = [V4, V6].map(|family| scope.spawn(move || of_netfilter(family)));
        let join = |thread: thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        (netdp.map(join), netfilter.map(join))
    });
    let (measured, unexplained) = table(&netdp, &netfilter);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("BEHAVIOUR.md");
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &measured).expect("writing the table");
    }
    assert_eq!(unexplained, [] as [String; 0], "deviations, and reasons for none");
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differences: Vec<_> =
        measured.lines().filter(|line| !committed.lines().any(|own| own == *line)).collect();
    assert_eq!(
        measured, committed,
        "the table is not true (set {WRITE} to write it anew); measured now:\n{differences:#?}"
    );
}
