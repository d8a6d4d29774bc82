//! The address families in user space: which maps and programs are whose. Everything else is written once.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use netdp_common::family::{Address as _, Family, Ipv4Addr, Ipv6Addr, V4, V6};
use netdp_common::flow::{PublishedKey, Tuple};

/// A family whose tables the programs have.
pub(super) trait Served: Family<Addr: aya::Pod + Into<IpAddr> + std::hash::Hash> {
    /// The end of its maps' names.
    const MAPS: &str;
    /// The program that removes its flows.
    const REMOVER: &str;

    /// The address, if it is of this family.
    fn addr(addr: &IpAddr) -> Option<Self::Addr>;

    /// The digests that the addresses of a prefix have, see [`Family::prefix_digest`].
    fn digests(addr: &Self::Addr, prefix: u8) -> RangeInclusive<u16>;

    /// The name of one of its maps.
    fn map(name: &str) -> String {
        format!("{name}_{}", Self::MAPS)
    }

    /// The first address of this family; unspecified if there is none.
    fn first(addrs: &[IpAddr]) -> Self::Addr {
        addrs.iter().find_map(Self::addr).unwrap_or_default()
    }

    /// Bytes of a flow's handle: its key and its generation.
    const HANDLE: usize = size_of::<Tuple<Self::Addr>>() + size_of::<u32>();

    /// Bits of the published ports' keys before the port.
    const PUBLISHED_PREFIX: u32 = PublishedKey::<Self::Addr>::PREFIX;
}

impl Served for V4 {
    const MAPS: &str = "V4";
    const REMOVER: &str = "remove_flows";

    fn addr(addr: &IpAddr) -> Option<Ipv4Addr> {
        match addr {
            IpAddr::V4(addr) => Some((*addr).into()),
            IpAddr::V6(_) => None,
        }
    }

    fn digests(addr: &Ipv4Addr, prefix: u8) -> RangeInclusive<u16> {
        let first = Self::prefix_digest(addr);
        first..=first | u16::MAX.checked_shr(prefix.into()).unwrap_or(0)
    }
}

/// Link-local addresses are nobody's here: they mean something on one link only.
impl Served for V6 {
    const MAPS: &str = "V6";
    const REMOVER: &str = "remove_flows_v6";

    fn addr(addr: &IpAddr) -> Option<Ipv6Addr> {
        match addr {
            IpAddr::V6(addr) => Some(Ipv6Addr::from(*addr)).filter(|addr| !addr.is_link_local()),
            IpAddr::V4(_) => None,
        }
    }

    /// It mixes the first 64 bits.
    fn digests(addr: &Ipv6Addr, prefix: u8) -> RangeInclusive<u16> {
        let digest = Self::prefix_digest(addr);
        if prefix < 64 { 0..=u16::MAX } else { digest..=digest }
    }
}
