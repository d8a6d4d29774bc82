//! The kernel's own counters.

use std::fs;

use super::Error;
use crate::net::NetNs;

/// Kernel time is counted in these (`USER_HZ`, the same on every architecture that netdp runs on).
const TICKS_PER_SECOND: f64 = 100.0;

/// One number of /proc/net/snmp or netstat: pairs of lines, names above values.
pub fn of_protocol(ns: &NetNs, file: &str, group: &str, name: &str) -> Result<u64, Error> {
    let path = format!("/proc/thread-self/net/{file}");
    let text = ns.run(|| fs::read_to_string(&path))?.map_err(Error::system(format!("reading {path}")))?;
    let missing =
        || Error::system(format!("reading {path}"))(std::io::Error::other(format!("no {group} {name}")));
    lookup(&text, group, name).ok_or_else(missing)
}

fn lookup(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split(':').next() == Some(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(column)?.parse().ok()
}

/// SYN and SYN-ACK that were sent again in these namespaces.
pub fn syn_retransmitted<'a>(namespaces: impl IntoIterator<Item = &'a NetNs>) -> Result<u64, Error> {
    let count = |ns| of_protocol(ns, "netstat", "TcpExt", "TCPSynRetrans");
    namespaces.into_iter().map(count).sum()
}

/// What the sockets of a namespace dropped because they were full: the load's own fault, not the NAT's.
pub(super) fn overflows(ns: &NetNs) -> Result<u64, Error> {
    let queues = [("netstat", "TcpExt", "ListenDrops"), ("snmp", "Udp", "RcvbufErrors")];
    queues.into_iter().map(|(file, group, name)| of_protocol(ns, file, group, name)).sum()
}

/// `conntrack -S`'s `insert_failed`, summed over CPUs; 0 where nothing is tracked.
pub fn insert_failed(ns: &NetNs) -> Result<u64, Error> {
    let text = ns.run(|| fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack"))?.unwrap_or_default();
    let mut lines = text.lines();
    let names = lines.next().unwrap_or_default();
    let Some(column) = names.split_whitespace().position(|word| word == "insert_failed") else {
        return Ok(0);
    };
    let values = lines.filter_map(|line| line.split_whitespace().nth(column));
    Ok(values.filter_map(|value| u64::from_str_radix(value, 16).ok()).sum())
}

/// Seconds that the machine's CPUs have not been idle, interrupts included.
pub(super) fn busy_seconds() -> Result<f64, Error> {
    let text = fs::read_to_string("/proc/stat").map_err(Error::system("reading /proc/stat"))?;
    let first = text.lines().next().unwrap_or_default();
    let ticks: Vec<f64> = first.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    // proc(5): user nice system idle iowait irq softirq steal, then guests, which user has in it already.
    let busy = [0, 1, 2, 5, 6].into_iter().filter_map(|column: usize| ticks.get(column)).sum::<f64>();
    Ok(busy / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_above_values() {
        let text = "Ip: A B\nIp: 1 2\nTcp: RtoAlgorithm RetransSegs\nTcp: 1 42\n";
        assert_eq!(lookup(text, "Tcp", "RetransSegs"), Some(42));
        assert_eq!(lookup(text, "Ip", "B"), Some(2));
        assert_eq!(lookup(text, "Udp", "B"), None);
    }
}
