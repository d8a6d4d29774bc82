//! How long the flows of each network live, as the programs are told.
//!
//! A network with timeouts of its own has a [`TimeoutSet`], whose number is in the network's entry and in its flows'. A
//! number is free again with its network, whose endpoints, and so whose flows, are gone by then.

use netdp_common::flow::{Network, TIMEOUT_SETS, TimeoutSet, Timeouts};

use super::super::Error;
use super::{Ebpf, Served, doing};

const MAP: &str = "TIMEOUTS";

/// Number of the set that a network has or gets: 0 for the usual timeouts, else its own or the first free one. There is
/// one for each network that the programs can have.
pub(super) fn number<F: Served>(ebpf: &Ebpf, bridge: u32, timeouts: &Timeouts) -> Result<u32, Error> {
    if *timeouts == Timeouts::DEFAULT {
        return Ok(0);
    }
    let networks = ebpf.hash::<u32, Network<F::Addr>>(&F::map("NETWORKS"))?;
    let mut used = vec![0];
    for entry in &networks {
        let (other, network) = entry.map_err(|e| doing("reading the networks", e))?;
        if other == bridge && network.timeouts != 0 {
            return Ok(network.timeouts);
        }
        used.push(network.timeouts);
    }
    Ok((1..TIMEOUT_SETS).find(|number| !used.contains(number)).unwrap_or(0))
}

/// Tells the programs a network's timeouts.
pub(super) fn set(ebpf: &Ebpf, number: u32, timeouts: &Timeouts) -> Result<(), Error> {
    if number == 0 { Ok(()) } else { store(ebpf, number, TimeoutSet::of(timeouts)) }
}

/// Forgets a network's. What may still live by them lives by the usual ones.
pub(super) fn forget<F: Served>(ebpf: &Ebpf, bridge: u32) -> Result<(), Error> {
    let networks = ebpf.hash::<u32, Network<F::Addr>>(&F::map("NETWORKS"))?;
    match networks.get(&bridge, 0) {
        Ok(network) if network.timeouts != 0 => {
            store(ebpf, network.timeouts, TimeoutSet::of(&Timeouts::DEFAULT))
        }
        // It has the usual ones, or is gone.
        _ => Ok(()),
    }
}

/// All of them, by number.
pub(super) fn read(ebpf: &Ebpf) -> Result<Vec<TimeoutSet>, Error> {
    let sets = ebpf.array::<TimeoutSet>(MAP)?;
    sets.iter().collect::<Result<_, _>>().map_err(|e| doing("reading the timeouts", e))
}

fn store(ebpf: &Ebpf, number: u32, set: TimeoutSet) -> Result<(), Error> {
    ebpf.array(MAP)?.set(number, set, 0).map_err(|e| doing("setting timeouts", e))
}
