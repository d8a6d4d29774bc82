//! Builds of netdp that only tests use.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::netdp::Netdp;

/// netdp with a cargo feature; built once for each test process, beside the other builds.
pub fn with_feature(feature: &'static str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<&str, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    built.entry(feature).or_insert_with(|| build(feature)).clone()
}

fn build(feature: &str) -> PathBuf {
    let release = Netdp::default_binary();
    let target = release.ancestors().nth(2).expect("a target directory");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "netdp", "--features", feature]);
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    // The tests' own, where most of it is built already.
    let status = cargo.env("CARGO_TARGET_DIR", target).status().expect("running cargo");
    assert!(status.success(), "building netdp with {feature}");
    // The next feature's build takes its place. Another test process may be running the one that is there.
    let features = target.join("features");
    fs::create_dir_all(&features).expect("a directory of one's own");
    let binary = features.join(format!("netdp-{feature}"));
    let next = features.join(format!("netdp-{feature}-{}", std::process::id()));
    fs::copy(target.join("debug/netdp"), &next)
        .and_then(|_| fs::rename(&next, &binary))
        .unwrap_or_else(|error| panic!("{}: {error}", binary.display()));
    binary
}
