//! `netdp stats`: counters, and packets dropped by reason.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::Global;
use crate::datapath::{Kind, Stats};
use crate::error::Error;
use crate::instance::Instance;
use crate::output;

/// How often `--watch` looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// Prints them once, or every second.
pub async fn run(global: &Global, watch: bool) -> Result<(), Error> {
    loop {
        let (kind, stats) = read(global).await?;
        if global.json {
            output::json(&document(kind, &stats))?;
        } else {
            print(kind, &stats)?;
        }
        if !watch {
            return Ok(());
        }
        tokio::time::sleep(INTERVAL).await;
        if !global.json {
            output::line("")?;
        }
    }
}

async fn read(global: &Global) -> Result<(Option<Kind>, Stats), Error> {
    let Some(mut instance) = Instance::read(global).await? else {
        return Ok((None, Stats::default()));
    };
    let kind = instance.state.datapath;
    match instance.datapath_if_there()? {
        Some(datapath) => Ok((Some(datapath.kind()), datapath.stats()?)),
        None => Ok((Some(kind), Stats::default())),
    }
}

fn document(kind: Option<Kind>, stats: &Stats) -> Value {
    let mut document = Map::new();
    document.insert("datapath".into(), json!(kind));
    document.insert("flows".into(), json!(stats.flows));
    document.insert("flows_max".into(), json!(stats.flows_max));
    document.extend(stats.events.iter().map(|(name, count)| ((*name).into(), json!(count))));
    let drops: Map<String, Value> =
        stats.drops.iter().map(|(name, _, count)| ((*name).into(), json!(count))).collect();
    document.insert("drops".into(), Value::Object(drops));
    Value::Object(document)
}

fn print(kind: Option<Kind>, stats: &Stats) -> Result<(), Error> {
    let name = match kind {
        None => "none: no command has made this instance yet",
        Some(Kind::Ebpf) => "ebpf",
        Some(Kind::Iptables) => "iptables",
    };
    output::line(format!("datapath {name}"))?;
    output::line(format!("flows    {} of {}", stats.flows, stats.flows_max))?;
    for (name, count) in &stats.events {
        output::line(format!("{name:<20} {count:>12}"))?;
    }
    let dropped: Vec<_> = stats.drops.iter().filter(|(_, _, count)| *count > 0).collect();
    if dropped.is_empty() {
        return output::line("no packet was dropped");
    }
    output::line("dropped:")?;
    dropped.iter().try_for_each(|(name, sentence, count)| {
        output::line(format!("{name:<20} {count:>12}  {}", sentence.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_has_the_contracts_fields() {
        let stats = Stats {
            flows: 3,
            flows_max: 100,
            events: vec![("snat_allocated", 7)],
            drops: vec![("untranslated", "A sentence.", 2)],
        };
        let wanted = json!({
            "datapath": "ebpf", "flows": 3, "flows_max": 100, "snat_allocated": 7, "drops": { "untranslated": 2 },
        });
        assert_eq!(document(Some(Kind::Ebpf), &stats), wanted);
    }
}
