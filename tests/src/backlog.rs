//! Packets that the kernel lost before any program or rule saw them.
//!
//! Each CPU has one queue for all veths of all namespaces (`net.core.netdev_max_backlog`, 1000 packets). A test that
//! sends much can fill it, and then another test's packet is dropped. Neither netdp nor netfilter lost that one.

use std::fs;

/// How often a packet is sent again that was lost there.
const TRIES: usize = 5;

/// Does something that one lost packet makes fail, until it is done or fails without any.
pub fn unless_dropped<T>(mut work: impl FnMut() -> T, is_done: impl Fn(&T) -> bool) -> T {
    let mut before = dropped();
    for _ in 1..TRIES {
        let result = work();
        let after = dropped();
        if is_done(&result) || before == after {
            return result;
        }
        before = after;
    }
    work()
}

/// How many packets have been dropped since boot, on all CPUs (the second column, hexadecimal, of
/// `softnet_seq_show()` in the kernel's `net/core/net-procfs.c`).
pub fn dropped() -> u64 {
    let table = fs::read_to_string("/proc/net/softnet_stat").expect("the table of the CPUs' queues");
    let column =
        |line: &str| line.split_whitespace().nth(1).and_then(|count| u64::from_str_radix(count, 16).ok());
    table.lines().map(|line| column(line).expect("a count of drops")).sum()
}
