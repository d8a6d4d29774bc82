//! The addresses of a [`super::site::Site`], per family, and what else differs between the families here.

use std::fmt::Debug;
use std::net::IpAddr;

use netdp_common::family::{Family, Ipv4Addr, Ipv6Addr, V4, V6};

/// A family with an address plan.
pub trait Plan: Family<Addr: aya::Pod + Into<IpAddr>> + Debug {
    /// The end of the names of its maps.
    const MAPS: &str;
    /// The end of the names of its programs.
    const PROGRAMS: &str;
    /// The bridge's address: the endpoints' gateway.
    const GATEWAY: Self::Addr;
    /// The endpoints' addresses, by number.
    const ENDPOINTS: [Self::Addr; 2];
    /// An address of a link of that prefix length whose addresses endpoint 0 may use besides its own.
    const ALLOWED: Self::Addr;
    /// The host's address on the uplink.
    const HOST: Self::Addr;
    /// The host's default gateway.
    const NEXT_HOP: Self::Addr;
    /// Somebody behind the default gateway.
    const REMOTE: Self::Addr;
    /// Somebody between the host and the remote.
    const ROUTER: Self::Addr;
    /// Somebody else.
    const STRANGER: Self::Addr;
    /// Length of a link's prefix.
    const PREFIX: u8;
    /// Type of the ICMP error "time exceeded" (RFC 792, RFC 4443).
    const TIME_EXCEEDED: u8;

    /// Bytes of options, or of the extension header that carries them, in a frame that asks for so many.
    fn options(bytes: u8) -> usize;
    /// One of many remotes.
    fn numbered(number: u32) -> Self::Addr;
    /// Whether two addresses are on one link.
    fn same_link(a: Self::Addr, b: Self::Addr) -> bool;
    /// For `ip` and etherparse.
    fn ip(addr: Self::Addr) -> IpAddr {
        addr.into()
    }
    /// The name of one of its maps.
    fn map(name: &str) -> String {
        format!("{name}_{}", Self::MAPS)
    }
}

const fn v4(octets: [u8; 4]) -> Ipv4Addr {
    Ipv4Addr(u32::from_ne_bytes(octets))
}

/// `fd00:PREFIX::HOST` and the like.
const fn v6(first: u16, second: u16, last: u16) -> Ipv6Addr {
    Ipv6Addr([((first as u32) << 16 | second as u32).to_be(), 0, 0, (last as u32).to_be()])
}

impl Plan for V4 {
    const MAPS: &str = "V4";
    const PROGRAMS: &str = "";
    const GATEWAY: Ipv4Addr = v4([10, 88, 0, 1]);
    const ENDPOINTS: [Ipv4Addr; 2] = [v4([10, 88, 0, 2]), v4([10, 88, 0, 3])];
    const ALLOWED: Ipv4Addr = v4([10, 99, 0, 7]);
    const HOST: Ipv4Addr = v4([198, 51, 100, 1]);
    const NEXT_HOP: Ipv4Addr = v4([198, 51, 100, 2]);
    const REMOTE: Ipv4Addr = v4([203, 0, 113, 9]);
    const ROUTER: Ipv4Addr = v4([192, 0, 2, 99]);
    const STRANGER: Ipv4Addr = v4([192, 0, 2, 1]);
    const PREFIX: u8 = 24;
    const TIME_EXCEEDED: u8 = 11;

    fn options(bytes: u8) -> usize {
        bytes.into()
    }

    fn numbered(number: u32) -> Ipv4Addr {
        let [_, b, c, d] = number.to_be_bytes();
        v4([20, b, c, d])
    }

    fn same_link(a: Ipv4Addr, b: Ipv4Addr) -> bool {
        u32::from_be(a.0 ^ b.0) >> (32 - Self::PREFIX) == 0
    }
}

impl Plan for V6 {
    const MAPS: &str = "V6";
    const PROGRAMS: &str = "_v6";
    const GATEWAY: Ipv6Addr = v6(0xfd00, 0x88, 1);
    const ENDPOINTS: [Ipv6Addr; 2] = [v6(0xfd00, 0x88, 2), v6(0xfd00, 0x88, 3)];
    const ALLOWED: Ipv6Addr = v6(0xfd00, 0x99, 7);
    const HOST: Ipv6Addr = v6(0x2001, 0x0db8, 1);
    const NEXT_HOP: Ipv6Addr = v6(0x2001, 0x0db8, 2);
    const REMOTE: Ipv6Addr = v6(0x2002, 0x0db8, 9);
    const ROUTER: Ipv6Addr = v6(0x2003, 0x0db8, 0x99);
    const STRANGER: Ipv6Addr = v6(0x2003, 0x0db8, 1);
    const PREFIX: u8 = 64;
    const TIME_EXCEEDED: u8 = 3;

    fn options(bytes: u8) -> usize {
        match bytes {
            0 => 0,
            // Two bytes of header, two of each option's.
            bytes => (usize::from(bytes) + 4).next_multiple_of(8),
        }
    }

    fn numbered(number: u32) -> Ipv6Addr {
        Ipv6Addr([0x2004_0db8_u32.to_be(), 0, 0, number.to_be()])
    }

    fn same_link(a: Ipv6Addr, b: Ipv6Addr) -> bool {
        a.0[..2] == b.0[..2]
    }
}
