//! The kernel's own counters of a namespace.

use netdp::bench::counters;

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
            sum.syn += counters::syn_retransmitted([&**netns]).unwrap_or_else(|error| panic!("{error}"));
            sum.segments += counter(netns, "snmp", "Tcp", "RetransSegs");
        }
        sum
    }

    /// What happened since.
    pub fn since(self, before: Self) -> Self {
        Self { syn: self.syn - before.syn, segments: self.segments - before.segments }
    }
}

/// One number of /proc/net/snmp or netstat.
pub fn counter(netns: &Netns, file: &str, group: &str, name: &str) -> u64 {
    counters::of_protocol(netns, file, group, name).unwrap_or_else(|error| panic!("{error}"))
}

/// `conntrack -S`'s `insert_failed`, summed over CPUs: what netfilter's race loses.
pub fn conntrack_insert_failed(netns: &Netns) -> u64 {
    counters::insert_failed(netns).unwrap_or_else(|error| panic!("{error}"))
}
