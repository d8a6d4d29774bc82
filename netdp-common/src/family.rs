//! The address families: what differs between IPv4 and IPv6, as types and constants.
//!
//! Everything else in this crate is written once, generic over [`Family`].

use core::fmt::Debug;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;

use bytemuck::{Pod, Zeroable};

/// A 16-bit field in network byte order (a port, an ICMP identifier).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct Be16(u16);

impl Be16 {
    /// From a number in host byte order.
    #[inline(always)]
    pub const fn new(host: u16) -> Self {
        Self(host.to_be())
    }

    /// The number in host byte order.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        u16::from_be(self.0)
    }

    /// The two bytes as they lie in memory and on the wire.
    #[inline(always)]
    pub const fn raw(self) -> u16 {
        self.0
    }
}

/// An address that can be a key or a value in a BPF map: plain bytes in network order, 4-byte aligned.
pub trait Address: Copy + Eq + Debug + Default + Pod {
    /// The unspecified address, `0.0.0.0` or `::`; as a published address it stands for every host address.
    const UNSPECIFIED: Self;
    /// Length in bits.
    const BITS: u32;

    /// The address as 32-bit words in network byte order, as they lie in memory.
    fn words(&self) -> &[u32];
    /// Multicast, or IPv4's limited broadcast: never translated.
    fn is_multicast(&self) -> bool;
    /// `127.0.0.0/8` or `::1`: never seen on a wire (RFC 1122 3.2.1.3, RFC 4291 2.5.3).
    fn is_loopback(&self) -> bool;
    /// IPv6 link-local unicast (RFC 4291 2.5.6); IPv4's `169.254.0.0/16` is routed by some clouds and is not.
    fn is_link_local(&self) -> bool;
}

/// An IPv4 address in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq, Pod, Zeroable)]
pub struct Ipv4Addr(pub u32);

impl Address for Ipv4Addr {
    const UNSPECIFIED: Self = Self(0);
    const BITS: u32 = 32;

    #[inline(always)]
    fn words(&self) -> &[u32] {
        core::slice::from_ref(&self.0)
    }

    #[inline(always)]
    fn is_multicast(&self) -> bool {
        let host = u32::from_be(self.0);
        host >> 28 == 0xe || host == u32::MAX
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        u32::from_be(self.0) >> 24 == 127
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        false
    }
}

impl From<core::net::Ipv4Addr> for Ipv4Addr {
    fn from(addr: core::net::Ipv4Addr) -> Self {
        Self(u32::from_ne_bytes(addr.octets()))
    }
}

impl From<Ipv4Addr> for core::net::Ipv4Addr {
    fn from(addr: Ipv4Addr) -> Self {
        Self::from(addr.0.to_ne_bytes())
    }
}

/// An IPv6 address in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, Eq, Pod, Zeroable)]
pub struct Ipv6Addr(pub [u32; 4]);

/// Word by word: comparing arrays keeps both in memory, and a BPF program's stack is short.
impl PartialEq for Ipv6Addr {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }
}

impl Hash for Ipv6Addr {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl Address for Ipv6Addr {
    const UNSPECIFIED: Self = Self([0; 4]);
    const BITS: u32 = 128;

    #[inline(always)]
    fn words(&self) -> &[u32] {
        &self.0
    }

    #[inline(always)]
    fn is_multicast(&self) -> bool {
        u32::from_be(self.0[0]) >> 24 == 0xff
    }

    #[inline(always)]
    fn is_loopback(&self) -> bool {
        self.0 == [0, 0, 0, 1u32.to_be()]
    }

    #[inline(always)]
    fn is_link_local(&self) -> bool {
        u32::from_be(self.0[0]) >> 22 == 0xfe80 >> 6
    }
}

impl Ipv6Addr {
    /// The IPv4 address that this one maps, `::ffff:a.b.c.d` (RFC 4291 2.5.5.2).
    #[inline(always)]
    pub const fn to_ipv4(self) -> Option<Ipv4Addr> {
        match self.0 {
            [0, 0, MAPPED, addr] => Some(Ipv4Addr(addr)),
            _ => None,
        }
    }
}

/// The third word of an IPv4-mapped address.
const MAPPED: u32 = 0xffffu32.to_be();

impl From<Ipv4Addr> for Ipv6Addr {
    /// As `::ffff:a.b.c.d`.
    #[inline(always)]
    fn from(addr: Ipv4Addr) -> Self {
        Self([0, 0, MAPPED, addr.0])
    }
}

impl From<core::net::Ipv6Addr> for Ipv6Addr {
    fn from(addr: core::net::Ipv6Addr) -> Self {
        Self(bytemuck::cast(addr.octets()))
    }
}

impl From<Ipv6Addr> for core::net::Ipv6Addr {
    fn from(addr: Ipv6Addr) -> Self {
        Self::from(bytemuck::cast::<_, [u8; 16]>(addr.0))
    }
}

impl From<Ipv4Addr> for IpAddr {
    fn from(addr: Ipv4Addr) -> Self {
        Self::V4(addr.into())
    }
}

impl From<Ipv6Addr> for IpAddr {
    fn from(addr: Ipv6Addr) -> Self {
        Self::V6(addr.into())
    }
}

/// What a protocol number is to an address family.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IcmpKind {
    /// A query whose identifier is translated.
    EchoRequest,
    /// Its answer.
    EchoReply,
    /// An error that quotes a packet.
    Error,
    /// Anything else: neighbour discovery, multicast listeners, obsolete queries.
    Other,
}

/// An error that netdp reports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IcmpNotice {
    /// The time to live ran out here.
    TimeExceeded,
    /// Bigger than the next link's MTU.
    TooBig,
    /// There is no way to the destination.
    NetworkUnreachable,
    /// Nobody answers at the next hop.
    HostUnreachable,
    /// Not let through.
    Prohibited,
}

/// What parsing and rewriting need to know of a family. All constants fold away.
pub trait Family: Copy + 'static {
    /// Its addresses.
    type Addr: Address;
    /// EtherType, host byte order.
    const ETHERTYPE: u16;
    /// The protocol number of its ICMP.
    const ICMP: u8;
    /// Its ICMP checksum covers a pseudo-header (RFC 4443 2.3).
    const ICMP_PSEUDO_HEADER: bool;
    /// Length of its network header without options, bytes.
    const HEADER_LEN: usize;
    /// Its network header has a checksum of its own.
    const HAS_HEADER_CHECKSUM: bool;
    /// Up to so many bytes long are ICMP errors, network header included (RFC 1812 4.3.2.3, RFC 4443 2.4).
    const ICMP_ERROR_MAX: usize;

    /// Classifies an ICMP type.
    fn icmp_kind(icmp_type: u8) -> IcmpKind;
    /// Type and code of an ICMP error.
    fn icmp_error(notice: IcmpNotice) -> [u8; 2];
    /// Whether ICMP errors may be sent to this address: it is one host's (RFC 1122 3.2.2).
    fn is_one_host(addr: &Self::Addr) -> bool;
    /// Whether routers may fragment the packet whose network header is at `at`.
    fn may_be_fragmented<P: crate::packet::Packet>(packet: &P, at: usize) -> bool;
    /// The identification by which the fragments of a datagram are told from others', as it lies in the packet.
    fn fragment_id<P: crate::packet::Packet>(
        packet: &P,
        at: usize,
        header: &crate::parse::Header<Self::Addr>,
    ) -> Option<u32>;
    /// Reads the network header at `at`.
    fn read_header<P: crate::packet::Packet>(
        packet: &P,
        at: usize,
    ) -> Option<crate::parse::Header<Self::Addr>>;
    /// Writes addresses and time to live into the header at `at`, its checksum too if it has one; and, if they follow
    /// directly (no options), the ports: a store costs as much as a call, whatever its length.
    fn write_header<P: crate::packet::Packet>(
        packet: &mut P,
        at: usize,
        old: &crate::parse::Header<Self::Addr>,
        src: Self::Addr,
        dst: Self::Addr,
        ttl: u8,
        ports: Option<u32>,
    ) -> Option<()>;
    /// Writes addresses into the header of a packet that an ICMP error quotes, at `at`, its checksum too if it has one.
    fn write_quoted_header<P: crate::packet::Packet>(
        packet: &mut P,
        at: usize,
        old: &crate::parse::Header<Self::Addr>,
        src: Self::Addr,
        dst: Self::Addr,
    ) -> Option<()>;
    /// Writes a new header without options at `at`.
    fn write_new_header<P: crate::packet::Packet>(
        packet: &mut P,
        at: usize,
        new: &crate::parse::NewHeader<Self::Addr>,
    ) -> Option<()>;
    /// Whose MAC an ICMP message at `l4` asks for or tells (RFC 4861 4.3, 4.4); none in IPv4: ARP is no IP.
    fn discovered<P: crate::packet::Packet>(packet: &P, l4: usize) -> Option<Self::Addr>;
    /// Whether an endpoint speaks for others on its link: as a router, or for an address that is not its own. `l4`: of a
    /// message that is neither echo nor error; `allowed`: which addresses it may have besides. In IPv4, see
    /// [`crate::link`].
    fn forges<P: crate::packet::Packet>(
        packet: &P,
        l4: usize,
        endpoint: &crate::flow::Endpoint<Self::Addr>,
        allowed: impl FnOnce(&Self::Addr) -> bool,
    ) -> bool;
    /// The link-local address that a MAC makes (RFC 4291 A); none in IPv4.
    fn link_local(mac: [u8; 6]) -> Option<Self::Addr>;
    /// A 16-bit digest of the address's prefix (IPv4: /16, IPv6: /64): "could it be one of ours?".
    fn prefix_digest(addr: &Self::Addr) -> u16;
}

/// IPv4.
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6.
#[derive(Clone, Copy, Debug)]
pub struct V6;

#[cfg(feature = "user")]
// SAFETY: plain data, see bytemuck::Pod.
unsafe impl aya::Pod for Ipv4Addr {}
#[cfg(feature = "user")]
// SAFETY: plain data, see bytemuck::Pod.
unsafe impl aya::Pod for Ipv6Addr {}
