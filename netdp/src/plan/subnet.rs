//! Subnets of networks: what is a usable one, which are free.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, Ipv4Net};

/// A smaller subnet has no room for a gateway and an endpoint beside its own and its broadcast address.
const LONGEST_PREFIX: u8 = 30;
/// A larger one is a typing error.
const SHORTEST_PREFIX: u8 = 8;

/// Why a subnet or gateway is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not ADDRESS/LENGTH.
    #[error("`{0}` is no subnet: write it as ADDRESS/LENGTH, for instance 10.9.0.0/24")]
    Syntax(String),
    /// IPv6.
    #[error("`{0}`: IPv6 networks come with a later version; give an IPv4 subnet")]
    V6(String),
    /// Bits set behind the prefix.
    #[error("`{given}` is an address within a subnet: write {network}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// What was probably meant.
        network: IpNet,
    },
    /// Too short or too long a prefix.
    #[error("`{0}`: the prefix length must be from {SHORTEST_PREFIX} to {LONGEST_PREFIX}")]
    Length(IpNet),
    /// Loopback, multicast, reserved.
    #[error("`{0}` is not for unicast hosts: take a private one, for instance 10.9.0.0/24")]
    NotUnicast(IpNet),
    /// Two subnets of one family.
    #[error("{first} and {second}: a network has one IPv4 subnet")]
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
    /// More gateways than subnets.
    #[error("gateway {0}: a network has one gateway for each subnet")]
    TwoGateways(IpAddr),
    /// The gateway is not a usable address of the subnet.
    #[error("gateway {gateway} is no usable address of {subnet}: take one from {first} to {last}")]
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
    let IpNet::V4(v4) = given else {
        return Err(Error::V6(text.into()));
    };
    if v4.addr() != v4.network() {
        return Err(Error::HostBits { given, network: given.trunc() });
    }
    if !(SHORTEST_PREFIX..=LONGEST_PREFIX).contains(&v4.prefix_len()) {
        return Err(Error::Length(given));
    }
    if !is_unicast(v4.network()) {
        return Err(Error::NotUnicast(given));
    }
    Ok(given)
}

/// One subnet of each family at most.
pub fn check_families(subnets: &[IpNet]) -> Result<(), Error> {
    match subnets {
        [first, second, ..] => Err(Error::TwoOfOneFamily { first: *first, second: *second }),
        _ => Ok(()),
    }
}

/// Refuses a subnet that overlaps one that is used.
pub fn check_free(subnet: IpNet, used: &[Used]) -> Result<(), Error> {
    match used.iter().find(|used| overlap(subnet, used.net)) {
        Some(used) => Err(Error::Overlap { subnet, other: used.net, owner: used.owner.clone() }),
        None => Ok(()),
    }
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

/// First and last address that an endpoint or gateway can have.
pub fn usable(subnet: IpNet) -> (IpAddr, IpAddr) {
    let step = |addr: IpAddr, up: bool| match addr {
        IpAddr::V4(addr) => {
            let bits = u32::from(addr);
            IpAddr::V4((if up { bits.saturating_add(1) } else { bits.saturating_sub(1) }).into())
        }
        IpAddr::V6(addr) => {
            let bits = u128::from(addr);
            IpAddr::V6((if up { bits.saturating_add(1) } else { bits.saturating_sub(1) }).into())
        }
    };
    (step(subnet.network(), true), step(subnet.broadcast(), false))
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

/// Not "this network" (RFC 1122), loopback, multicast or reserved (RFC 1112).
fn is_unicast(addr: Ipv4Addr) -> bool {
    let first = addr.octets()[0];
    first != 0 && first != 127 && first < 224
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
            ("fd00::/64", "IPv6 networks come with a later version"),
        ];
        for (text, wanted) in rows {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
        assert!(parse("10.9.0.0/24").is_ok());
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
