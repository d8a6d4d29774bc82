//! Source addresses that endpoints may use besides their own.
//!
//! Each is in the trie by its endpoint's veth and, unless its network is routed, once more for everybody: what may be
//! sent from is not to be seen outside, nor reached from there.

use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use ipnet::IpNet;
use netdp_common::family::Address as _;
use netdp_common::flow::{AllowedKey, NETWORK_ROUTED, Network};

use super::super::{EndpointEntry, Error};
use super::{Ebpf, Served, absent_is_ok, doing};

type Trie<A> = LpmTrie<MapData, AllowedKey<A>, u32>;

/// The key of those that are not to be seen outside.
const ANYBODY: u32 = 0;

/// Lets an endpoint use what its entry says.
pub(super) fn add<F: Served>(ebpf: &Ebpf, endpoint: &EndpointEntry) -> Result<(), Error> {
    if endpoint.allowed.is_empty() {
        return Ok(());
    }
    let network: Network<F::Addr> = ebpf
        .hash::<u32, _>(&F::map("NETWORKS"))?
        .get(&endpoint.bridge, 0)
        .map_err(|e| doing(format!("reading the network of bridge {}", endpoint.bridge), e))?;
    let hidden = (network.flags & NETWORK_ROUTED == 0).then_some(ANYBODY);
    let mut trie: Trie<F::Addr> = ebpf.trie(&F::map("ALLOWED"))?;
    for (addr, prefix) in own::<F>(endpoint) {
        ebpf.mark_digests(F::digests(&addr, prefix))?;
        // First what keeps it inside.
        for sender in hidden.into_iter().chain([endpoint.host_ifindex]) {
            trie.insert(&key::<F>(sender, addr, prefix), 0, 0)
                .map_err(|e| doing(format!("allowing {addr:?}/{prefix} to {}", endpoint.host_ifname), e))?;
        }
    }
    Ok(())
}

/// Takes it back. What another endpoint may use stays inside.
pub(super) fn remove<F: Served>(ebpf: &Ebpf, endpoint: &EndpointEntry) -> Result<(), Error> {
    if endpoint.allowed.is_empty() {
        return Ok(());
    }
    let mut trie: Trie<F::Addr> = ebpf.trie(&F::map("ALLOWED"))?;
    for (addr, prefix) in own::<F>(endpoint) {
        let what = || format!("taking {addr:?}/{prefix} from {}", endpoint.host_ifname);
        absent_is_ok(trie.remove(&key::<F>(endpoint.host_ifindex, addr, prefix)), what)?;
        let others = trie.keys().collect::<Result<Vec<_>, _>>().map_err(|e| doing(what(), e))?;
        let same = key::<F>(ANYBODY, addr, prefix);
        let is_shared = others.iter().any(|other| {
            let data = other.data();
            data.sender != ANYBODY && data.addr == addr && other.prefix_len() == same.prefix_len()
        });
        if !is_shared {
            absent_is_ok(trie.remove(&same), what)?;
        }
    }
    Ok(())
}

/// Those of a family: address and prefix length.
fn own<F: Served>(endpoint: &EndpointEntry) -> impl Iterator<Item = (F::Addr, u8)> {
    let of_family = |net: &IpNet| F::addr(&net.addr()).map(|addr| (addr, net.prefix_len()));
    endpoint.allowed.iter().filter_map(of_family)
}

fn key<F: Served>(sender: u32, addr: F::Addr, prefix: u8) -> Key<AllowedKey<F::Addr>> {
    debug_assert!(u32::from(prefix) <= F::Addr::BITS, "a prefix of the family");
    Key::new(AllowedKey::<F::Addr>::PREFIX + u32::from(prefix), AllowedKey { sender, addr })
}
