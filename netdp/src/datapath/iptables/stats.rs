//! Counters: those of rules, and connection tracking's own.

use std::fs;

use netdp_common::verdict::DropReason;

use super::super::{Error, Stats};
use super::rules::counter;
use super::{Iptables, flows, sysctl};

/// One line for each CPU, in hexadecimal.
const STATISTICS: &str = "/proc/thread-self/net/stat/nf_conntrack";

/// What connection tracking counts since the namespace began, for everybody in it.
const TRACKED: [(&str, &str); 3] = [
    ("insert_failed", "conntrack_insert_failed"),
    ("drop", "conntrack_drop"),
    ("early_drop", "conntrack_early_drop"),
];

/// Sums the counters of both families. What netfilter doesn't count is left out.
pub(super) fn read(datapath: &Iptables) -> Result<Stats, Error> {
    let mut saved = Vec::new();
    for family in datapath.families()? {
        saved.push(datapath.saved(family)?);
    }
    let names = datapath.names();
    let counted = |what: &str| {
        let chain = names.chain(what);
        let counts = saved.iter().map(|saved| saved.counted(&chain));
        counts.fold((0, 0), |(packets, bytes), (p, b)| (packets + p, bytes + b))
    };
    let (packets, bytes) = counted(counter::PACKETS);
    let mut events = vec![
        (counter::SNAT_ALLOCATED, counted(counter::SNAT_ALLOCATED).0),
        (counter::PACKETS, packets),
        ("bytes", bytes),
    ];
    events.extend(tracked());
    let reasons = DropReason::ALL.iter().filter(|reason| counter::DROPS.contains(&reason.name()));
    let drops =
        reasons.map(|reason| (reason.name(), reason.sentence().trim(), counted(reason.name()).0)).collect();
    let flows = u64::try_from(flows::list(&datapath.model)?.len()).unwrap_or(u64::MAX);
    let max = sysctl::get(&["net", "netfilter", "nf_conntrack_max"]).ok().and_then(|text| text.parse().ok());
    Ok(Stats { flows, flows_max: max.unwrap_or(0), events, drops })
}

fn tracked() -> Vec<(&'static str, u64)> {
    // Some kernels are built without it.
    let text = fs::read_to_string(STATISTICS).unwrap_or_default();
    let count = |(column, name): (&str, &'static str)| Some((name, sum(&text, column)?));
    TRACKED.into_iter().filter_map(count).collect()
}

/// Sums a column.
fn sum(text: &str, column: &str) -> Option<u64> {
    let mut lines = text.lines();
    let position = lines.next()?.split_whitespace().position(|name| name == column)?;
    let values = lines.filter_map(|line| line.split_whitespace().nth(position));
    Some(values.filter_map(|value| u64::from_str_radix(value, 16).ok()).sum())
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn columns_are_summed() {
        let text = "entries  insert_failed drop\n00000003  0000000a 00000000\n00000003  00000002 00000001\n";
        assert_eq!(
            (sum(text, "insert_failed"), sum(text, "drop"), sum(text, "none")),
            (Some(12), Some(1), None)
        );
    }
}
