//! The frames of the fuzzer's corpus, as they would be in a lab.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use netdp_model::hook::Hook;
use netdp_model::plan::{Place, Plan};

use super::Ends;

/// The committed corpus.
const CORPUS: &str = "../netdp-common/fuzz/corpus/packets";

/// Every input of the corpus.
///
/// # Panics
/// When there is none.
pub fn inputs() -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join(CORPUS);
    let entries = fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no corpus");
    paths.iter().map(|path| fs::read(path).expect("an input")).collect()
}

/// The frames that inputs send from inside, or from outside, with the addresses of `places` instead of the model's.
pub fn frames<F: Plan>(ends: &Ends, from_inside: bool, places: &[(Place, IpAddr)]) -> Vec<Vec<u8>> {
    let is_ours = |hook: Hook| matches!(hook, Hook::FromContainer(_)) == from_inside && hook != Hook::ToWorld;
    let mut frames = Vec::new();
    for input in inputs() {
        let record = netdp_fuzz::record::<F>(&input).frames;
        let sent = record.into_iter().filter(|frame| is_ours(frame.hook));
        frames.extend(sent.map(|frame| translated::<F>(ends, &frame.before, places)));
    }
    frames
}

/// Addresses are replaced wherever they stand, in quoted packets too.
fn translated<F: Plan>(ends: &Ends, frame: &[u8], places: &[(Place, IpAddr)]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let [source, destination] = ends.macs;
    for (mac, at) in [(destination, 0), (source, destination.len())] {
        if let Some(place) = frame.get_mut(at..at + mac.len()) {
            place.copy_from_slice(&mac);
        }
    }
    for (place, address) in places {
        let old = F::at(*place);
        let old = bytemuck::bytes_of(&old);
        let new = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut at = 0;
        while let Some(found) = frame.get(at..at + old.len()) {
            if found == old {
                frame[at..at + old.len()].copy_from_slice(&new);
            }
            at += 1;
        }
    }
    frame
}
