//! Other lives for flows than netdp gives them: shorter than a test can wait for, or as long as it may take.

use aya::maps::{Array, Map, MapData};
use netdp_common::flow::{TimeoutSet, Timeouts};

use crate::netdp::Netdp;

/// Gives an instance's programs other timeouts, in ticks (about a second each); the same under pressure.
///
/// # Panics
/// When the instance has no eBPF datapath.
pub fn set(netdp: &Netdp, timeouts: Timeouts) {
    let pin = netdp.pins().join("v1/maps/TIMEOUTS");
    let data = MapData::from_pin(&pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    let map = Map::from_map_data(data).expect("a map that aya knows");
    let mut array: Array<MapData, TimeoutSet> = map.try_into().expect("an array");
    let TimeoutSet { by_pressure: [_, _, spent, ended], .. } = array.get(&0, 0).expect("its element");
    let set = TimeoutSet { by_pressure: [timeouts, timeouts, spent, ended], shortest: timeouts.shortest() };
    array.set(0, set, 0).expect("its element");
}
