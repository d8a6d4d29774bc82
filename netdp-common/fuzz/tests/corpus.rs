//! Every input of the committed corpus, without libFuzzer: part of the ordinary tests.

use std::fs;
use std::path::Path;

#[test]
fn the_corpus_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/packets");
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).expect("the corpus") {
        let path = entry.expect("an entry").path();
        let input = fs::read(&path).expect("an input");
        if let Err(panic) = std::panic::catch_unwind(|| netdp_fuzz::run(&input)) {
            eprintln!("the input is {}", path.display());
            std::panic::resume_unwind(panic);
        }
        inputs += 1;
    }
    assert!(inputs > 0, "no corpus");
}

/// Whatever has been found once is reached by the corpus still: each way a packet can go, in each family.
#[test]
fn the_corpus_reaches_every_fate() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus/packets");
    for family in [0, 1] {
        let mut reached = netdp_fuzz::Reached::default();
        for entry in fs::read_dir(&corpus).expect("the corpus") {
            let mut input = fs::read(entry.expect("an entry").path()).expect("an input");
            if let Some(first) = input.first_mut() {
                *first = *first & !1 | family;
            }
            reached.add(&netdp_fuzz::run(&input));
        }
        let missing = reached.missing();
        assert!(missing.is_empty(), "never reached in family {family}: {missing:?}");
    }
}
