//! Rate limits on host veths: frames handed over to an endpoint go past the veth, and so past its queueing discipline,
//! unless the programs are told of it. No helper tells them: every command looks, and `doctor` says what came since.

use super::super::Error;
use super::{Ebpf, absent_is_ok, doing};
use crate::net::{self, Link};

/// Tells the programs which of the endpoints' veths have one.
pub(super) fn note(ebpf: &Ebpf, veths: &[&Link]) -> Result<(), Error> {
    let now = read(veths)?;
    let mut known = ebpf.hash::<u32, u32>("QUEUEING")?;
    let stale: Vec<u32> = known.keys().flatten().filter(|index| !now.contains(index)).collect();
    for index in &now {
        known.insert(index, 0, 0).map_err(|e| doing("adding a link that queues", e))?;
    }
    for index in stale {
        absent_is_ok(known.remove(&index), || "forgetting a link that queues".to_owned())?;
    }
    let count = u32::try_from(now.len()).unwrap_or(u32::MAX);
    ebpf.array("POPULATION")?.set(1, count, 0).map_err(|e| doing("counting the links that queue", e))
}

/// Those that the programs don't know of.
pub(super) fn faults(ebpf: &Ebpf, veths: &[&Link]) -> Result<Vec<String>, Error> {
    let known = ebpf.hash::<u32, u32>("QUEUEING")?;
    let unknown = read(veths)?.into_iter().filter(|index| known.get(index, 0).is_err());
    let name = |index| veths.iter().find(|link| link.index == index).map(|link| &link.name);
    Ok(unknown.filter_map(name).map(|name| format!("packets to {name} go past its qdisc")).collect())
}

fn read(veths: &[&Link]) -> Result<Vec<u32>, Error> {
    let queueing = net::blocking(async |net| net.queueing_links().await)
        .map_err(|e| doing("reading the host's queueing disciplines", e))?;
    Ok(queueing.into_iter().filter(|index| veths.iter().any(|link| link.index == *index)).collect())
}
