//! Published ports: a trie in which a range of ports is a few prefixes, and a bitmap of ports that mappings avoid.

use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use netdp_common::family::{Be16, V4, V6};
use netdp_common::flow::{
    Flow, MOVED_AT, PortBlock, Published, PublishedKey, RESERVED_BLOCKS, RESERVED_PROTOCOLS, Tuple,
    reserved_slot,
};
use netdp_common::lifetime::State;
use netdp_common::meta::Meta;
use netdp_common::moved;

use super::super::{Error, FlowHandle, FlowInfo, FlowsOfPort, PortMap, Proto, PublishEntry};
use super::sources::{Lists, list_of};
use super::{Ebpf, Served, absent_is_ok, doing, flows, step};

type Trie<A> = LpmTrie<MapData, PublishedKey<A>, Published<A>>;

/// Publishes a family's ports and ranges, or moves them to another endpoint or gives them other sources, which ends the
/// flows to the old one and those of clients that may not any more.
pub(super) fn publish<F: Served>(ebpf: &Ebpf, entries: &[PublishEntry]) -> Result<(), Error> {
    let entries = of_family::<F>(entries);
    if entries.is_empty() {
        return Ok(());
    }
    let mut trie: Trie<F::Addr> = ebpf.trie(&F::map("PUBLISHED"))?;
    let mut lists = Lists::<F>::of(ebpf)?;
    lists.add(&entries)?;
    reserve(ebpf, &entries)?;
    let mut any_moves = false;
    for &entry in &entries {
        let (endpoint, host_port, port) = (F::first(&[entry.endpoint]), entry.host_port, entry.port);
        let sources = list_of(&entry.sources);
        for key in keys::<F>(entry) {
            step("publish a prefix")?;
            let old = trie.get(&key, 0).ok().filter(|old| old.host_port == host_port);
            let moves =
                old.is_some_and(|old| (old.endpoint, old.port, old.sources) != (endpoint, port, sources));
            let moved = if moves { 1 } else { old.map_or(0, |old| old.moved) };
            let value = Published { endpoint, host_port, port, moved, sources };
            trie.insert(&key, value, 0).map_err(|e| doing(format!("publishing {}", describe(entry)), e))?;
            any_moves |= moves;
        }
    }
    if any_moves {
        note_move::<F>(ebpf)?;
    }
    lists.sweep(&trie)
}

/// Lets the programs know that flows may have ended, see [`netdp_common::moved`].
fn note_move<F: Served>(ebpf: &Ebpf) -> Result<(), Error> {
    let what = "moving the flows of published ports";
    step(what)?;
    let mut clock = ebpf.array::<u64>(&F::map("CLOCK"))?;
    clock.set(MOVED_AT, u64::from(flows::now()), 0).map_err(|e| doing(what, e))
}

/// What tells the flows that a moved port has ended from those that go on.
pub(super) struct Moves<F: Served> {
    trie: Trie<F::Addr>,
    lists: Lists<F>,
    last: u32,
}

impl<F: Served> Moves<F> {
    /// Of an instance.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        let last = ebpf
            .array::<u64>(&F::map("CLOCK"))?
            .get(&MOVED_AT, 0)
            .map_err(|e| doing("reading when a published port was moved", e))?;
        let (trie, lists) = (ebpf.trie(&F::map("PUBLISHED"))?, Lists::of(ebpf)?);
        Ok(Self { trie, lists, last: u32::try_from(last).unwrap_or(0) })
    }

    /// Whether an entry's flow has ended.
    pub(super) fn have_cut(&self, key: &Tuple<F::Addr>, flow: &Flow<F::Addr>) -> bool {
        // Who has had a packet since has been judged by it.
        let is_judged = Meta(flow.meta).seen() > self.last.saturating_add(1);
        if !flow.is_published() || is_judged {
            return false;
        }
        let end = moved::host_end(flow, key.proto);
        let any = PublishedKey { addr: F::Addr::default(), ..end };
        let found = [end, any].map(|key| self.trie.get(&Key::new(F::PUBLISHED_PREFIX + 16, key), 0));
        found
            .into_iter()
            .find_map(Result::ok)
            .is_some_and(|found| found.has_cut(flow, |list, addr| self.lists.has(list, addr)))
    }
}

/// Unpublishes a family's ports and ranges and cuts their flows, or those that are not established.
pub(super) fn unpublish<F: Served>(
    ebpf: &Ebpf,
    entries: &[PublishEntry],
    fate: FlowsOfPort,
) -> Result<(), Error> {
    let entries = of_family::<F>(entries);
    if entries.is_empty() {
        return Ok(());
    }
    if fate == FlowsOfPort::Drain {
        // What has ended does not come back when the port that says so is gone.
        let moves = Moves::<F>::of(ebpf)?;
        flows::remove_where::<F>(ebpf, |key, flow| moves.have_cut(key, flow))?;
    }
    let mut trie: Trie<F::Addr> = ebpf.trie(&F::map("PUBLISHED"))?;
    for entry in &entries {
        for key in keys::<F>(entry) {
            step("unpublish a prefix")?;
            absent_is_ok(trie.remove(&key), || format!("unpublishing {}", describe(entry)))?;
        }
    }
    Lists::<F>::of(ebpf)?.sweep(&trie)?;
    rebuild_reserved(ebpf)?;
    match fate {
        FlowsOfPort::End => remove_flows::<F>(ebpf, &entries),
        FlowsOfPort::Drain => remove_unestablished::<F>(ebpf, &entries),
    }
}

fn of_family<F: Served>(entries: &[PublishEntry]) -> Vec<&PublishEntry> {
    entries.iter().filter(|entry| F::addr(&entry.endpoint).is_some()).collect()
}

/// Removes the flows through published ports that are no conversation.
fn remove_unestablished<F: Served>(ebpf: &Ebpf, entries: &[&PublishEntry]) -> Result<(), Error> {
    let published = PortMap::of_host_ports(entries.iter().copied());
    let through_them = |flow: &FlowInfo| {
        // The host's address: seen by the outside, and by an endpoint that reaches a port of its own host.
        let (addr, port) = if flow.kind == "hairpin" { flow.dst } else { flow.ext_dst };
        let is_at = |entry: &&PublishEntry| entry.host_addr.is_none_or(|wanted| wanted == addr);
        flow.kind != "snat" && published.at(flow.proto, port).iter().any(is_at)
    };
    let talks = |flow: &FlowInfo| {
        [State::Established, State::Closing, State::Stream].iter().any(|state| state.name() == flow.state)
    };
    let removed = flows::list::<F>(ebpf)?.into_iter().filter(|flow| through_them(flow) && !talks(flow));
    let handles: Vec<FlowHandle> = removed.map(|flow| flow.handle).collect();
    flows::remove::<F>(ebpf, &handles).map(drop)
}

/// Removes the flows through published ports.
fn remove_flows<F: Served>(ebpf: &Ebpf, entries: &[&PublishEntry]) -> Result<(), Error> {
    let published = PortMap::of_host_ports(entries.iter().copied());
    flows::remove_where::<F>(ebpf, |key, flow| {
        let through = |entry: &&PublishEntry| {
            let host_addr = entry.host_addr.as_ref().and_then(F::addr);
            host_addr.is_none_or(|addr| addr == key.dst)
        };
        flow.is_published() && published.at(key.proto, key.dport.get()).iter().any(through)
    })
    .map(drop)
}

/// The map of ports that mappings never take.
const RESERVED: &str = "RESERVED";
/// The map of ports that the host's own sockets can't bind.
const HELD: &str = "HELD";

/// Marks the ports of entries, so that the programs look for them in the trie, and neither mappings nor the host's
/// own sockets take them.
fn reserve(ebpf: &Ebpf, entries: &[&PublishEntry]) -> Result<(), Error> {
    let mut bitmap = Bitmap::empty();
    for entry in entries {
        bitmap.add(entry.proto.number(), entry.host_port, entry.host_port_end);
    }
    for map in [RESERVED, HELD] {
        bitmap.write(ebpf, map, |old, marked| old | marked)?;
    }
    Ok(())
}

/// Brings both maps up to date with the tries and `ip_local_reserved_ports`.
pub(super) fn rebuild_reserved(ebpf: &Ebpf) -> Result<(), Error> {
    let mut bitmap = Bitmap::empty();
    add_published::<V4>(ebpf, &mut bitmap)?;
    add_published::<V6>(ebpf, &mut bitmap)?;
    bitmap.write(ebpf, HELD, |_, marked| marked)?;
    let kernel = crate::net::ports::reserved().map_err(|e| doing("reading ip_local_reserved_ports", e))?;
    for range in kernel {
        for proto in [Proto::Tcp, Proto::Udp, Proto::Sctp] {
            bitmap.add(proto.number(), *range.start(), *range.end());
        }
    }
    bitmap.write(ebpf, RESERVED, |_, marked| marked)
}

/// Every port in a family's trie.
fn add_published<F: Served>(ebpf: &Ebpf, bitmap: &mut Bitmap) -> Result<(), Error> {
    let trie: Trie<F::Addr> = ebpf.trie(&F::map("PUBLISHED"))?;
    for key in trie.keys() {
        let key = key.map_err(|e| doing("listing the published ports", e))?;
        let data = key.data();
        let free_bits = 16 - (key.prefix_len() - F::PUBLISHED_PREFIX);
        let first = data.port.get();
        let last = first | u16::try_from((1u32 << free_bits) - 1).unwrap_or(u16::MAX);
        bitmap.add(data.proto, first, last);
    }
    Ok(())
}

/// A map of ports, in user space.
struct Bitmap {
    blocks: Vec<PortBlock>,
}

impl Bitmap {
    fn empty() -> Self {
        Self { blocks: vec![[0; 64]; (RESERVED_PROTOCOLS * RESERVED_BLOCKS) as usize] }
    }

    fn add(&mut self, proto: u8, first: u16, last: u16) {
        let Some(slot) = reserved_slot(proto) else { return };
        for port in first..=last {
            let block = &mut self.blocks[(slot * RESERVED_BLOCKS) as usize + usize::from(port >> 12)];
            block[usize::from(port >> 6) % 64] |= 1 << (port % 64);
        }
    }

    /// Writes the blocks that `change`, given what is there and what is marked here, makes different.
    fn write(&self, ebpf: &Ebpf, name: &str, change: impl Fn(u64, u64) -> u64) -> Result<(), Error> {
        let mut map = ebpf.array::<PortBlock>(name)?;
        for (index, marked) in (0u32..).zip(&self.blocks) {
            let old = map.get(&index, 0).map_err(|e| doing(format!("reading {name}"), e))?;
            let new: PortBlock = std::array::from_fn(|word| change(old[word], marked[word]));
            if new != old {
                map.set(index, new, 0).map_err(|e| doing(format!("writing {name}"), e))?;
            }
        }
        Ok(())
    }
}

/// The trie's keys of an entry.
fn keys<F: Served>(entry: &PublishEntry) -> Vec<Key<PublishedKey<F::Addr>>> {
    let addr = entry.host_addr.as_ref().and_then(F::addr).unwrap_or_default();
    prefixes(entry.host_port, entry.host_port_end)
        .into_iter()
        .map(|(port, len)| {
            let key = PublishedKey { addr, proto: entry.proto.number(), pad: 0, port: Be16::new(port) };
            Key::new(F::PUBLISHED_PREFIX + len, key)
        })
        .collect()
}

/// The fewest prefixes (first port, bits that are fixed) that cover exactly `first..=last`: at most 30.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let (mut at, end) = (u32::from(first), u32::from(last) + 1);
    let mut found = Vec::new();
    while at < end {
        let aligned = if at == 0 { 16 } else { at.trailing_zeros().min(16) };
        let fits = (end - at).ilog2();
        let bits = aligned.min(fits);
        found.push((u16::try_from(at).unwrap_or(u16::MAX), 16 - bits));
        at += 1 << bits;
    }
    found
}

fn describe(entry: &PublishEntry) -> String {
    let addr = entry.host_addr.map_or_else(|| "*".to_owned(), |addr| addr.to_string());
    format!("{addr}:{}-{}/{}", entry.host_port, entry.host_port_end, entry.proto.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_cover_exactly_the_range() {
        for (first, last) in
            [(80, 80), (0, 65_535), (1, 65_535), (20_000, 29_999), (8080, 8081), (65_535, 65_535)]
        {
            let prefixes = prefixes(first, last);
            assert!(prefixes.len() <= 30, "{first}-{last}: {}", prefixes.len());
            let mut next = u32::from(first);
            for (port, len) in prefixes {
                assert_eq!(u32::from(port), next);
                assert_eq!(u32::from(port) % (1 << (16 - len)), 0, "{port}/{len} is not aligned");
                next += 1 << (16 - len);
            }
            assert_eq!(next, u32::from(last) + 1);
        }
    }
}
