//! Namespaces for tests that must never act on the machine's own, not even when the code under test is broken: what
//! it made is compared, by the kernel's inode numbers, with what the process was started in.

use std::fs;
use std::os::unix::fs::MetadataExt;

use netdp::net::NetNs;

/// A new network namespace, which is certainly not the machine's.
pub(crate) fn new_netns() -> NetNs {
    let ns = NetNs::create_anonymous().expect("a namespace");
    assert_ne!(ns.id().inode, inode("/proc/self/ns/net"), "this is the machine's own namespace");
    ns
}

/// Runs `test` in a new network namespace, which it gets as its argument.
pub(crate) fn in_new_netns(test: impl FnOnce(&NetNs) + Send) {
    let ns = new_netns();
    ns.run(|| {
        assert_eq!(inode("/proc/thread-self/ns/net"), ns.id().inode, "the thread is not in that namespace");
        test(&ns);
    })
    .expect("entering");
}

fn inode(path: &str) -> u64 {
    fs::metadata(path).expect("a namespace's file").ino()
}
