//! Subnets of networks: what is a usable one, which are free.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Prefix lengths of IPv4 subnets. A smaller one has no room for a gateway and an endpoint beside its own and its
/// broadcast address; a larger one is a typing error.
const V4_PREFIXES: RangeInclusive<u8> = 8..=30;
/// Prefix lengths of IPv6 subnets, for the same reasons: the first address is the subnet routers' (RFC 4291, 2.6.1), and
/// nobody gets more than a /48 for a site (RFC 6177).
const V6_PREFIXES: RangeInclusive<u8> = 48..=126;

/// Why a subnet or gateway is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not ADDRESS/LENGTH.
    #[error("`{0}` is no subnet: write it as ADDRESS/LENGTH, for instance 10.9.0.0/24 or fd09::/64")]
    Syntax(String),
    /// Bits set behind the prefix.
    #[error("`{given}` is an address within a subnet: write {network}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// What was probably meant.
        network: IpNet,
    },
    /// Too short or too long a prefix.
    #[error("`{0}`: the prefix length must be from {first} to {last}", first = prefixes(.0).start(), last = prefixes(.0).end())]
    Length(IpNet),
    /// Loopback, link-local, multicast, reserved.
    #[error("`{0}` is not for unicast hosts: take a private one, for instance 10.9.0.0/24 or fd09::/64")]
    NotUnicast(IpNet),
    /// Two subnets of one family.
    #[error("{first} and {second}: a network has at most one subnet of each family; leave one out")]
    TwoOfOneFamily {
        /// As given.
        first: IpNet,
        /// As given.
        second: IpNet,
    },
    /// Overlaps something.
    #[error("{subnet} overlaps {other} ({owner}): choose another --subnet")]
    Overlap {
        /// The subnet asked for.
        subnet: IpNet,
        /// What is there already.
        other: IpNet,
        /// Whose it is.
        owner: String,
    },
    /// Two gateways of one family.
    #[error("--gateway {0}: a network has one gateway for each subnet; leave one out")]
    TwoGateways(IpAddr),
    /// A gateway of a family that the network doesn't have.
    #[error("--gateway {0}: the network has no subnet of its family: leave it out, or add a --subnet for it")]
    NoSubnet(IpAddr),
    /// The gateway is not a usable address of the subnet.
    #[error("--gateway {gateway} is no usable address of {subnet}: take one from {first} to {last}")]
    Gateway {
        /// As given.
        gateway: IpAddr,
        /// The subnet.
        subnet: IpNet,
        /// First usable address.
        first: IpAddr,
        /// Last usable address.
        last: IpAddr,
    },
    /// No candidate for the default network is free.
    #[error(
        "every private subnet that netdp would choose overlaps a route of this host: create the network yourself, netdp network create default --subnet CIDR"
    )]
    NoneFree,
}

/// A subnet that is in use, and by whom.
#[derive(Clone, Debug)]
pub struct Used {
    /// The subnet or route.
    pub net: IpNet,
    /// For the message: `network blue`, `a route of this host`.
    pub owner: String,
}

/// Reads a subnet and checks that a network can have it.
pub fn parse(text: &str) -> Result<IpNet, Error> {
    let given: IpNet = text.parse().map_err(|_| Error::Syntax(text.into()))?;
    if given.addr() != given.network() {
        return Err(Error::HostBits { given, network: given.trunc() });
    }
    if !prefixes(&given).contains(&given.prefix_len()) {
        return Err(Error::Length(given));
    }
    if !is_unicast(given.network()) {
        return Err(Error::NotUnicast(given));
    }
    Ok(given)
}

/// Reads a network's subnets, at most one of each family. The IPv4 one comes first.
pub fn parse_all(texts: &[String]) -> Result<Vec<IpNet>, Error> {
    let mut subnets: Vec<IpNet> = Vec::new();
    for text in texts {
        let second = parse(text)?;
        if let Some(&first) = subnets.iter().find(|first| is_v6(first) == is_v6(&second)) {
            return Err(Error::TwoOfOneFamily { first, second });
        }
        subnets.push(second);
    }
    subnets.sort_by_key(is_v6);
    Ok(subnets)
}

/// Whether it is an IPv6 subnet.
pub const fn is_v6(subnet: &IpNet) -> bool {
    matches!(subnet, IpNet::V6(_))
}

/// Whether one of these subnets is of the address's family.
pub fn has_family(subnets: &[IpNet], addr: &IpAddr) -> bool {
    subnets.iter().any(|subnet| same_family(subnet, addr))
}

const fn same_family(subnet: &IpNet, addr: &IpAddr) -> bool {
    is_v6(subnet) == addr.is_ipv6()
}

/// Refuses a subnet that overlaps one that is used.
pub fn check_free(subnet: IpNet, used: &[Used]) -> Result<(), Error> {
    match used.iter().find(|used| overlap(subnet, used.net)) {
        Some(used) => Err(Error::Overlap { subnet, other: used.net, owner: used.owner.clone() }),
        None => Ok(()),
    }
}

/// Each subnet's gateway: of those asked for, the one of its family.
pub fn gateways(subnets: &[IpNet], asked: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
    let of_family = |subnet: IpNet| asked.iter().copied().filter(move |addr| same_family(&subnet, addr));
    if let Some(second) = subnets.iter().find_map(|subnet| of_family(*subnet).nth(1)) {
        return Err(Error::TwoGateways(second));
    }
    if let Some(strange) = asked.iter().find(|addr| !has_family(subnets, addr)) {
        return Err(Error::NoSubnet(*strange));
    }
    subnets.iter().map(|subnet| gateway(*subnet, of_family(*subnet).next())).collect()
}

/// The first address, or the one asked for.
pub fn gateway(subnet: IpNet, asked: Option<IpAddr>) -> Result<IpAddr, Error> {
    let (first, last) = usable(subnet);
    match asked {
        None => Ok(first),
        Some(gateway) if first <= gateway && gateway <= last => Ok(gateway),
        Some(gateway) => Err(Error::Gateway { gateway, subnet, first, last }),
    }
}

/// First and last address that an endpoint or gateway can have. IPv6 has no broadcast address.
pub fn usable(subnet: IpNet) -> (IpAddr, IpAddr) {
    match subnet {
        IpNet::V4(subnet) => {
            let (first, last) = (u32::from(subnet.network()), u32::from(subnet.broadcast()));
            (Ipv4Addr::from(first.saturating_add(1)).into(), Ipv4Addr::from(last.saturating_sub(1)).into())
        }
        IpNet::V6(subnet) => {
            let first = u128::from(subnet.network());
            (Ipv6Addr::from(first.saturating_add(1)).into(), subnet.broadcast().into())
        }
    }
}

/// A private /16 for the default network: 172.30 and below, then 10.x, away from what people choose by hand.
pub fn choose_default(used: &[Used]) -> Result<IpNet, Error> {
    let from_172 = (17..=30).rev().map(|second| Ipv4Addr::new(172, second, 0, 0));
    let from_10 = (1..=254).rev().map(|second| Ipv4Addr::new(10, second, 0, 0));
    from_172
        .chain(from_10)
        .map(|addr| IpNet::V4(Ipv4Net::new_assert(addr, 16)))
        .find(|net| check_free(*net, used).is_ok())
        .ok_or(Error::NoneFree)
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

const fn prefixes(subnet: &IpNet) -> RangeInclusive<u8> {
    match subnet {
        IpNet::V4(_) => V4_PREFIXES,
        IpNet::V6(_) => V6_PREFIXES,
    }
}

/// What no host sends from (RFC 6890): "this network" (RFC 1122), loopback, multicast and reserved (RFC 1112); in IPv6,
/// ::/8, where loopback and the embedded IPv4 addresses are, link-local, which means something on one link only, and
/// multicast (RFC 4291).
pub const RESERVED: [IpNet; 6] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(0, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 3)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 8)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10)),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8)),
];

fn is_unicast(addr: IpAddr) -> bool {
    !RESERVED.iter().any(|reserved| reserved.contains(&addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(net: &str) -> Used {
        Used { net: net.parse().unwrap(), owner: "a route of this host".into() }
    }

    #[test]
    fn bad_subnets_are_refused() {
        let rows = [
            ("10.9.0.0", "is no subnet"),
            ("10.9.0.0/33", "is no subnet"),
            ("ten/8", "is no subnet"),
            ("10.9.0.5/24", "write 10.9.0.0/24"),
            ("10.9.0.0/31", "must be from 8 to 30"),
            ("8.0.0.0/7", "must be from 8 to 30"),
            ("127.0.0.0/8", "not for unicast"),
            ("239.1.0.0/16", "not for unicast"),
            ("fd00::", "is no subnet"),
            ("fd00::/129", "is no subnet"),
            ("fd00::5/64", "write fd00::/64"),
            ("fd00::/127", "must be from 48 to 126"),
            ("fd00::/47", "must be from 48 to 126"),
            ("::/64", "not for unicast"),
            ("::ffff:10.9.0.0/120", "not for unicast"),
            ("fe80::/64", "not for unicast"),
            ("febf:1::/64", "not for unicast"),
            ("ff02::/64", "not for unicast"),
        ];
        for (text, wanted) in rows {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        for good in ["10.9.0.0/24", "fd00::/64", "2001:db8:1::/48", "fec0::/64", "fd00::10/124"] {
            assert!(parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn a_network_has_one_subnet_of_each_family_ipv4_first() {
        let all = |texts: &[&str]| parse_all(&texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        let texts = |nets: Vec<IpNet>| nets.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(all(&["fd09::/64", "10.9.0.0/24"]).unwrap()), ["10.9.0.0/24", "fd09::/64"]);
        assert_eq!(texts(all(&["fd09::/64"]).unwrap()), ["fd09::/64"]);
        for two in [["10.8.0.0/24", "10.9.0.0/24"], ["fd08::/64", "fd09::/64"]] {
            let error = all(&two).unwrap_err().to_string();
            assert!(error.contains("at most one subnet of each family"), "{error}");
        }
    }

    #[test]
    fn an_overlap_is_found_whichever_is_larger() {
        for (asked, there) in
            [("10.9.0.0/24", "10.0.0.0/8"), ("10.0.0.0/8", "10.9.0.0/24"), ("10.9.0.0/24", "10.9.0.77/32")]
        {
            let error = check_free(asked.parse().unwrap(), &[used(there)]).unwrap_err().to_string();
            assert!(error.contains(there), "{error}");
        }
        assert!(
            check_free("10.9.0.0/24".parse().unwrap(), &[used("10.9.1.0/24"), used("fe80::/64")]).is_ok()
        );
    }

    #[test]
    fn the_default_network_avoids_what_is_used() {
        let choose = |nets: &[&str]| choose_default(&nets.iter().map(|net| used(net)).collect::<Vec<_>>());
        assert_eq!(choose(&[]).unwrap().to_string(), "172.30.0.0/16");
        assert_eq!(choose(&["172.30.5.0/24"]).unwrap().to_string(), "172.29.0.0/16");
        assert_eq!(choose(&["172.16.0.0/12"]).unwrap().to_string(), "10.254.0.0/16");
        assert_eq!(choose(&["172.16.0.0/12", "10.0.0.0/8"]), Err(Error::NoneFree));
    }

    #[test]
    fn gateways_go_to_the_subnet_of_their_family() {
        let subnets = ["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
        let asked = |addrs: &[&str]| {
            gateways(&subnets, &addrs.iter().map(|addr| addr.parse().unwrap()).collect::<Vec<_>>())
        };
        let texts = |addrs: Vec<IpAddr>| addrs.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(texts(asked(&[]).unwrap()), ["10.9.0.1", "fd09::1"]);
        assert_eq!(texts(asked(&["fd09::fe"]).unwrap()), ["10.9.0.1", "fd09::fe"]);
        assert_eq!(texts(asked(&["fd09::fe", "10.9.0.9"]).unwrap()), ["10.9.0.9", "fd09::fe"]);
        assert!(matches!(asked(&["fd09::2", "fd09::3"]), Err(Error::TwoGateways(_))));
        assert!(matches!(asked(&["fd09::"]), Err(Error::Gateway { .. })));
        assert!(asked(&["fd09::ffff:ffff:ffff:ffff"]).is_ok(), "IPv6 has no broadcast address");
        assert_eq!(
            gateways(&subnets[..1], &["fd09::1".parse().unwrap()]),
            Err(Error::NoSubnet("fd09::1".parse().unwrap()))
        );
    }

    #[test]
    fn the_gateway_is_the_first_address_or_a_usable_one() {
        let subnet: IpNet = "10.9.0.0/24".parse().unwrap();
        let asked = |addr: &str| gateway(subnet, Some(addr.parse().unwrap()));
        assert_eq!(gateway(subnet, None).unwrap().to_string(), "10.9.0.1");
        assert!(asked("10.9.0.254").is_ok());
        for bad in ["10.9.0.0", "10.9.0.255", "10.9.1.1", "fd00::1"] {
            assert!(asked(bad).is_err(), "{bad}");
        }
    }
}
