//! The kernel's own counters of a namespace.

use std::fs;

use crate::netns::Netns;

/// How often TCP in these namespaces had to send something again.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Retransmissions {
    /// SYN and SYN-ACK.
    pub syn: u64,
    /// All segments.
    pub segments: u64,
}

impl Retransmissions {
    /// Adds the counters of some namespaces up.
    pub fn of<'a>(namespaces: impl IntoIterator<Item = &'a Netns>) -> Self {
        let mut sum = Self::default();
        for netns in namespaces {
            sum.syn += counter(netns, "netstat", "TcpExt", "TCPSynRetrans");
            sum.segments += counter(netns, "snmp", "Tcp", "RetransSegs");
        }
        sum
    }

    /// What happened since.
    pub fn since(self, before: Self) -> Self {
        Self { syn: self.syn - before.syn, segments: self.segments - before.segments }
    }
}

/// One number of /proc/net/snmp or netstat: pairs of lines, names above values.
pub fn counter(netns: &Netns, file: &str, group: &str, name: &str) -> u64 {
    // /proc/net is the main thread's.
    let path = format!("/proc/thread-self/net/{file}");
    let text = netns.enter(|| fs::read_to_string(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    lookup(&text, group, name).unwrap_or_else(|| panic!("{path} has no {group} {name}"))
}

fn lookup(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.split(':').next() == Some(group));
    let (names, values) = (lines.next()?, lines.next()?);
    let column = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(column)?.parse().ok()
}

/// `conntrack -S`'s `insert_failed`, summed over CPUs: what netfilter's race loses.
pub fn conntrack_insert_failed(netns: &Netns) -> u64 {
    let read = || fs::read_to_string("/proc/thread-self/net/stat/nf_conntrack").unwrap_or_default();
    let text = netns.enter(read);
    let mut lines = text.lines();
    let names = lines.next().unwrap_or_default();
    let Some(column) = names.split_whitespace().position(|word| word == "insert_failed") else { return 0 };
    let values = lines.filter_map(|line| line.split_whitespace().nth(column));
    values.filter_map(|value| u64::from_str_radix(value, 16).ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::lookup;

    #[test]
    fn names_stand_above_values() {
        let text = "Ip: A B\nIp: 1 2\nTcp: RtoAlgorithm RetransSegs\nTcp: 1 42\n";
        assert_eq!(lookup(text, "Tcp", "RetransSegs"), Some(42));
        assert_eq!(lookup(text, "Ip", "B"), Some(2));
        assert_eq!(lookup(text, "Udp", "B"), None);
    }
}
