//! Lists of sources that published ports take packets from, a trie by list and address.
//!
//! A list goes by a digest of what is in it: ports with the same sources share one, and a change is another list, which
//! is there before a port leads to it. What no port leads to is swept up.

use std::collections::{HashMap, HashSet};

use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use ipnet::IpNet;
use netdp_common::family::Address as _;
use netdp_common::flow::{EVERYBODY, Published, PublishedKey, SourceKey, SourceList};
use netdp_common::random::siphash;

use super::super::{Error, PublishEntry};
use super::{Ebpf, Served, absent_is_ok, doing, step};
use crate::plan::sources::Sources;

type Trie<A> = LpmTrie<MapData, SourceKey<A>, u32>;

/// The value of what is in a list; the programs only look whether there is one.
const LISTED: u32 = 1;

/// Whose addresses are in which list.
pub(super) struct Lists<F: Served>(Trie<F::Addr>);

impl<F: Served> Lists<F> {
    /// Of an instance.
    pub(super) fn of(ebpf: &Ebpf) -> Result<Self, Error> {
        ebpf.trie(&F::map("SOURCES")).map(Self)
    }

    /// As the programs look.
    pub(super) fn has(&self, list: SourceList, addr: &F::Addr) -> bool {
        self.0
            .get(&Key::new(SourceKey::<F::Addr>::PREFIX + F::Addr::BITS, SourceKey { list, addr: *addr }), 0)
            .is_ok()
    }

    /// Makes the lists of these ports, as far as they have addresses of this family.
    pub(super) fn add(&mut self, entries: &[&PublishEntry]) -> Result<(), Error> {
        let lists: HashMap<SourceList, &Sources> =
            entries.iter().map(|entry| (list_of(&entry.sources), &entry.sources)).collect();
        for (list, sources) in lists {
            for (net, key) in sources.nets().iter().filter_map(|net| Some((net, key::<F>(list, net)?))) {
                step("list a source")?;
                self.0.insert(&key, LISTED, 0).map_err(|e| doing(format!("listing {net} as a source"), e))?;
            }
        }
        Ok(())
    }

    /// Removes the lists that no port leads to.
    pub(super) fn sweep(
        &mut self,
        published: &LpmTrie<MapData, PublishedKey<F::Addr>, Published<F::Addr>>,
    ) -> Result<(), Error> {
        let what = "listing the sources of published ports";
        let listed = self.0.keys().collect::<Result<Vec<_>, _>>().map_err(|e| doing(what, e))?;
        if listed.is_empty() {
            return Ok(());
        }
        let mut used = HashSet::new();
        for port in published {
            used.insert(port.map_err(|e| doing(what, e))?.1.sources);
        }
        for key in listed.into_iter().filter(|key| !used.contains(&{ key.data().list })) {
            step("forget a source")?;
            absent_is_ok(self.0.remove(&key), || "forgetting a source".to_owned())?;
        }
        Ok(())
    }
}

/// What the programs call a list.
pub(super) fn list_of(sources: &Sources) -> SourceList {
    if sources.is_everybody() {
        return EVERYBODY;
    }
    let digest = sources.nets().iter().fold(0, |digest, net| {
        let (addr, family) = match net {
            IpNet::V4(net) => (u128::from(net.addr().to_bits()), 4),
            IpNet::V6(net) => (net.addr().to_bits(), 6),
        };
        let words = [addr >> 64, addr].map(|word| (word & u128::from(u64::MAX)) as u64);
        siphash([digest, family << 8 | u64::from(net.prefix_len())], words)
    });
    // Nobody's is zero.
    let digest = digest.max(1);
    [(digest >> 32) as u32, digest as u32]
}

/// None if the prefix is of the other family.
fn key<F: Served>(list: SourceList, net: &IpNet) -> Option<Key<SourceKey<F::Addr>>> {
    let addr = F::addr(&net.addr())?;
    Some(Key::new(SourceKey::<F::Addr>::PREFIX + u32::from(net.prefix_len()), SourceKey { list, addr }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(texts: &[&str]) -> SourceList {
        let nets: Vec<IpNet> = texts.iter().map(|text| text.parse().unwrap()).collect();
        list_of(&nets.into())
    }

    #[test]
    fn a_list_goes_by_what_is_in_it() {
        assert_eq!(list(&[]), EVERYBODY);
        assert_eq!(list(&["10.0.0.0/8", "fd00::/8"]), list(&["fd00::/8", "10.0.0.0/8"]));
        let texts: [&[&str]; 8] = [
            &["0.0.0.0/0"],
            &["::/0"],
            &["10.0.0.0/8"],
            &["10.0.0.0/9"],
            &["10.0.0.0/8", "10.0.0.0/9"],
            &["0.0.0.1/32"],
            &["::1/128"],
            &["1::/128"],
        ];
        let lists: HashSet<SourceList> = texts.iter().map(|texts| list(texts)).collect();
        assert_eq!(lists.len(), texts.len());
        assert!(!lists.contains(&EVERYBODY));
    }
}
