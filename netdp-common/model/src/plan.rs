//! The address plan, per family.

use std::hash::Hash;
use std::net::IpAddr;

use netdp_common::family::{Family, Ipv4Addr, Ipv6Addr, V4, V6};

/// Who has an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Place {
    /// Nobody.
    Unspecified,
    /// The bridge of A and B.
    GatewayAb,
    /// An endpoint.
    A,
    /// Its neighbour.
    B,
    /// The bridge of C.
    GatewayC,
    /// An endpoint of another network.
    C,
    /// An address that an endpoint may be allowed to use besides its own.
    Extra,
    /// The host, on its uplink.
    Host,
    /// A remote behind the uplink.
    Remote(u8),
    /// A remote behind an interface without our hooks.
    Unhooked,
    /// A remote without a route.
    Nowhere,
    /// Everybody on the link.
    Multicast,
    /// Everybody on the link, in IPv4 by broadcast.
    Broadcast,
    /// Never on a wire.
    Loopback,
}

/// A family with an address plan.
pub trait Plan: Family<Addr: Hash> {
    /// The other family.
    type Other: Plan;
    /// The address of a place.
    fn at(place: Place) -> Self::Addr;
    /// For the standard library's and etherparse's types.
    fn ip(addr: Self::Addr) -> IpAddr;
    /// Back; none if it is of the other family.
    fn addr(ip: IpAddr) -> Option<Self::Addr>;
}

impl Plan for V4 {
    type Other = V6;

    fn at(place: Place) -> Ipv4Addr {
        let [a, b, c, d] = match place {
            Place::Unspecified => [0, 0, 0, 0],
            Place::GatewayAb => [10, 0, 0, 1],
            Place::A => [10, 0, 0, 2],
            Place::B => [10, 0, 0, 3],
            Place::GatewayC => [10, 1, 0, 1],
            Place::C => [10, 1, 0, 2],
            Place::Extra => [10, 2, 0, 7],
            Place::Host => [192, 0, 2, 1],
            Place::Remote(n) => [198, 51, 100, n],
            Place::Unhooked => [203, 0, 113, 1],
            Place::Nowhere => [100, 64, 0, 1],
            Place::Multicast => [224, 0, 0, 251],
            Place::Broadcast => [255; 4],
            Place::Loopback => [127, 0, 0, 53],
        };
        std::net::Ipv4Addr::new(a, b, c, d).into()
    }

    fn ip(addr: Ipv4Addr) -> IpAddr {
        IpAddr::V4(addr.into())
    }

    fn addr(ip: IpAddr) -> Option<Ipv4Addr> {
        if let IpAddr::V4(ip) = ip { Some(ip.into()) } else { None }
    }
}

impl Plan for V6 {
    type Other = V4;

    fn at(place: Place) -> Ipv6Addr {
        let (prefix, last) = match place {
            Place::Unspecified => return Ipv6Addr::default(),
            Place::Multicast => return std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb).into(),
            Place::Broadcast => return std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
            Place::Loopback => return std::net::Ipv6Addr::LOCALHOST.into(),
            Place::GatewayAb => (0xfd00, 1),
            Place::A => (0xfd00, 2),
            Place::B => (0xfd00, 3),
            Place::GatewayC => (0xfd01, 1),
            Place::C => (0xfd01, 2),
            Place::Extra => (0xfd02, 7),
            Place::Host => (0x2001, 1),
            Place::Remote(n) => (0x2002, u16::from(n)),
            Place::Unhooked => (0x2003, 1),
            Place::Nowhere => (0x2004, 1),
        };
        std::net::Ipv6Addr::new(prefix, 0xdb8, 0, 0, 0x1234, 0, 0xffff, last).into()
    }

    fn ip(addr: Ipv6Addr) -> IpAddr {
        IpAddr::V6(addr.into())
    }

    fn addr(ip: IpAddr) -> Option<Ipv6Addr> {
        if let IpAddr::V6(ip) = ip { Some(ip.into()) } else { None }
    }
}
