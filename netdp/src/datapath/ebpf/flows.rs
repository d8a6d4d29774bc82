//! Listing flows, and removing them through the programs' own gate.

use std::collections::HashMap;
use std::net::IpAddr;

use aya::maps::MapError;
use aya::programs::{TestRun as _, TestRunOptions};
use netdp_common::family::{Address, Be16};
use netdp_common::flow::{FLOW_INITIATOR, Flow, Kind, Pressure, TimeoutSet, Tuple};
use netdp_common::meta::{self, Meta};
use netdp_common::{lifetime, reclaim};

use super::super::{Error, FlowHandle, FlowInfo};
use super::published::Moves;
use super::{Ebpf, Served, doing, hooks, timeouts};

/// Bytes that `BPF_PROG_TEST_RUN` wants before the data: an Ethernet header.
const LINK_HEADER: usize = 14;

/// Bytes of records in one run: 128 of IPv4, the most that the program reads. The kernel takes less than a page.
const RUN: usize = 2560;

type Entry<A> = (Tuple<A>, Flow<A>);

/// A family's living flows.
pub(super) fn list<F: Served>(ebpf: &Ebpf) -> Result<Vec<FlowInfo>, Error> {
    let entries = read_all::<F>(ebpf)?;
    let timeouts = timeouts::read(ebpf)?;
    let now = now();
    let moves = Moves::<F>::of(ebpf)?;
    let answers: HashMap<&[u8], Meta> = entries
        .iter()
        .filter(|(_, flow)| flow.flags & FLOW_INITIATOR == 0)
        .map(|(key, flow)| (bytemuck::bytes_of(key), Meta(flow.meta)))
        .collect();
    Ok(entries
        .iter()
        .filter(|(key, flow)| flow.flags & FLOW_INITIATOR != 0 && !moves.have_cut(key, flow))
        .filter_map(|(key, flow)| {
            let answer = answers.get(bytemuck::bytes_of(&reclaim::other_key(flow, key.proto)))?;
            describe(key, flow, *answer, &timeouts, now)
        })
        .collect())
}

/// What a pair of entries says; none if it has expired.
fn describe<A: Address + Into<IpAddr>>(
    key: &Tuple<A>,
    flow: &Flow<A>,
    answer: Meta,
    timeouts: &[TimeoutSet],
    now: u32,
) -> Option<FlowInfo> {
    let own = Meta(flow.meta);
    let state = lifetime::state(key.proto, own.bits(), answer.bits());
    let idle = own.idle(now).min(answer.idle(now));
    let timeouts = timeouts.get(usize::from(flow.timeouts))?;
    let left = lifetime::timeout(key.proto, state, timeouts.under(Pressure::NONE)).checked_sub(idle)?;
    let first = (end(key.src, key.sport), end(key.dst, key.dport));
    let translated = (end(flow.src, flow.sport), end(flow.dst, flow.dport));
    let (kind, host_ifindex, inside, outside) = if !flow.is_published() {
        ("snat", flow.iif, first, translated)
    } else if flow.kind == Kind::Dnat as u8 {
        ("dnat", flow.oif, translated, first)
    } else {
        ("hairpin", flow.iif, first, translated)
    };
    Some(FlowInfo {
        kind,
        proto: key.proto,
        host_ifindex,
        src: inside.0,
        dst: inside.1,
        ext_src: outside.0,
        ext_dst: outside.1,
        state: state.name(),
        idle_s: meta::seconds_from_ticks(idle),
        expires_s: meta::seconds_from_ticks(left),
        handle: handle(key, own),
    })
}

fn end(addr: impl Into<IpAddr>, port: Be16) -> (IpAddr, u16) {
    (addr.into(), port.get())
}

fn handle<A: Address>(key: &Tuple<A>, meta: Meta) -> FlowHandle {
    let mut bytes = bytemuck::bytes_of(key).to_vec();
    bytes.extend_from_slice(&meta.generation().to_ne_bytes());
    FlowHandle(bytes)
}

/// Removes the flows whose initiator's entry fits.
pub(super) fn remove_where<F: Served>(
    ebpf: &Ebpf,
    fits: impl Fn(&Tuple<F::Addr>, &Flow<F::Addr>) -> bool,
) -> Result<usize, Error> {
    let handles: Vec<FlowHandle> = read_all::<F>(ebpf)?
        .iter()
        .filter(|(key, flow)| flow.flags & FLOW_INITIATOR != 0 && fits(key, flow))
        .map(|(key, flow)| handle(key, Meta(flow.meta)))
        .collect();
    remove::<F>(ebpf, &handles)
}

/// Removes these very flows, those of another family left out; returns how many were still there.
///
/// The kernel does it: user space can't compare-and-swap map memory, and a plain delete could hit another flow.
pub(super) fn remove<F: Served>(ebpf: &Ebpf, handles: &[FlowHandle]) -> Result<usize, Error> {
    let ours: Vec<&FlowHandle> = handles.iter().filter(|handle| handle.0.len() == F::HANDLE).collect();
    if ours.is_empty() {
        return Ok(0);
    }
    let program = hooks::open_program(ebpf, F::REMOVER)?;
    let mut removed = 0;
    for chunk in ours.chunks(RUN / F::HANDLE) {
        let mut data = vec![0; LINK_HEADER];
        for FlowHandle(bytes) in chunk {
            data.extend_from_slice(bytes);
        }
        let options = TestRunOptions { data_in: Some(&data), ..TestRunOptions::default() };
        let result = program.test_run(options).map_err(|e| doing("removing flows", e))?;
        removed += result.return_value as usize;
    }
    Ok(removed)
}

fn read_all<F: Served>(ebpf: &Ebpf) -> Result<Vec<Entry<F::Addr>>, Error> {
    let table = ebpf.flow_table::<F>()?;
    let mut entries = Vec::new();
    for entry in &table {
        match entry {
            Ok(entry) => entries.push(entry),
            // Removed between being found and being read.
            Err(MapError::KeyNotFound) => {}
            Err(e) => return Err(doing("reading the flow table", e)),
        }
    }
    Ok(entries)
}

/// The programs' clock: CLOCK_MONOTONIC_COARSE.
pub(super) fn now() -> u32 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE);
    let nanoseconds =
        time.map_or(0, |t| t.tv_sec().unsigned_abs() * 1_000_000_000 + t.tv_nsec().unsigned_abs());
    meta::ticks(nanoseconds)
}
