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
        let (kind, reason, stats) = read(global).await?;
        if global.json {
            output::json(&document(kind, reason.as_deref(), &stats))?;
        } else {
            print(kind, reason.as_deref(), &stats)?;
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

/// Which datapath, why it is not the one that `auto` prefers, and its counters.
async fn read(global: &Global) -> Result<(Option<Kind>, Option<String>, Stats), Error> {
    let Some(mut instance) = Instance::read(global).await? else {
        return Ok((None, None, Stats::default()));
    };
    let (kind, reason) = (Some(instance.state.datapath), instance.state.datapath_reason.clone());
    match instance.datapath_if_there()? {
        Some(datapath) => Ok((kind, reason, datapath.stats()?)),
        None => Ok((kind, reason, Stats::default())),
    }
}

fn document(kind: Option<Kind>, reason: Option<&str>, stats: &Stats) -> Value {
    let mut document = Map::new();
    document.insert("datapath".into(), json!(kind));
    if let Some(reason) = reason {
        document.insert("datapath_reason".into(), json!(reason));
    }
    document.insert("flows".into(), json!(stats.flows));
    document.insert("flows_max".into(), json!(stats.flows_max));
    document.extend(stats.events.iter().map(|(name, count)| ((*name).into(), json!(count))));
    let drops: Map<String, Value> =
        stats.drops.iter().map(|(name, _, count)| ((*name).into(), json!(count))).collect();
    document.insert("drops".into(), Value::Object(drops));
    Value::Object(document)
}

fn print(kind: Option<Kind>, reason: Option<&str>, stats: &Stats) -> Result<(), Error> {
    let name = kind.map_or("none: no command has made this instance yet", Kind::name);
    output::line(match reason {
        Some(reason) => format!("datapath {name}: {reason}"),
        None => format!("datapath {name}"),
    })?;
    output::line(format!("flows    {} of {}", stats.flows, stats.flows_max))?;
    for (name, count) in &stats.events {
        output::line(format!("{name:<24} {count:>12}"))?;
    }
    let dropped: Vec<_> = stats.drops.iter().filter(|(_, _, count)| *count > 0).collect();
    if dropped.is_empty() {
        return output::line("no packet was dropped");
    }
    output::line("dropped:")?;
    dropped.iter().try_for_each(|(name, sentence, count)| {
        output::line(format!("{name:<24} {count:>12}  {}", sentence.trim()))
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
        assert_eq!(document(Some(Kind::Ebpf), None, &stats), wanted);
    }
}
