//! Counters: per-CPU sums.

use aya::maps::{MapData, PerCpuArray};
use netdp_common::family::{V4, V6};
use netdp_common::verdict::{DropReason, Event};

use super::super::{Error, Stats};
use super::{Ebpf, Served, doing};

/// Sums the counters of all CPUs.
pub(super) fn read(ebpf: &Ebpf) -> Result<Stats, Error> {
    let counts: PerCpuArray<MapData, u64> =
        ebpf.map("COUNTS")?.try_into().map_err(|e| doing("opening the counters", e))?;
    let sum = |index: u32| -> Result<u64, Error> {
        let values = counts.get(&index, 0).map_err(|e| doing("reading the counters", e))?;
        Ok(values.iter().sum())
    };
    let mut events = Vec::new();
    for event in Event::ALL {
        events.push((event.name(), sum(event.index())?));
    }
    let mut drops = Vec::new();
    for reason in DropReason::ALL {
        drops.push((reason.name(), reason.sentence().trim(), sum(reason.index())?));
    }
    let created = sum(Event::FlowsCreated.index())?;
    let removed = sum(Event::FlowsRemoved.index())?;
    let max_entries = max_entries::<V4>(ebpf)? + max_entries::<V6>(ebpf)?;
    Ok(Stats { flows: created.saturating_sub(removed), flows_max: max_entries / 2, events, drops })
}

/// The size of a family's flow table.
fn max_entries<F: Served>(ebpf: &Ebpf) -> Result<u64, Error> {
    let info = aya::maps::MapInfo::from_pin(ebpf.pin(&F::map("FLOWS")));
    Ok(u64::from(info.map_err(|e| doing("reading the flow table's size", e))?.max_entries()))
}
