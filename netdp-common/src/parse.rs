//! Headers to facts: what a packet is, and where its fields lie.

use bytemuck::Zeroable;

use crate::family::{Address, Be16, Family, IcmpKind, IcmpNotice, Ipv4Addr, Ipv6Addr, V4, V6};
use crate::flow::{Endpoint, Tuple};
use crate::header::{ethernet, icmp, ipv4, ipv6, portless, sctp, tcp, udp};
use crate::packet::{Packet, apply_difference, difference};

/// What a network header says.
#[derive(Clone, Copy, Debug)]
pub struct Header<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// IP protocol of what follows.
    pub proto: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Header checksum as it lies in the packet; 0 where there is none.
    pub checksum: u16,
    /// Length of the header with options or extension headers, bytes; below [`MAX_HEADER`].
    pub len: u16,
    /// Length of the packet from this header on, bytes, as the header tells.
    pub total_len: u32,
    /// Fragment of a larger packet.
    pub fragment: Fragment,
}

/// More than any network header with options or the extension headers that netdp looks behind; a power of two.
pub const MAX_HEADER: usize = 1024;

impl<A: Address> Header<A> {
    /// Where the transport header starts if this one starts at `l3`.
    #[inline(always)]
    pub const fn transport(&self, l3: usize) -> usize {
        // The mask changes nothing: the verifier wants to see how far into the packet this reads.
        l3 + (self.len as usize & (MAX_HEADER - 1))
    }

    /// Where what lies so many bytes before that starts, within the header.
    #[inline(always)]
    pub const fn before_transport(&self, l3: usize, bytes: usize) -> usize {
        // As above, and of the difference: the compiler must not compare one offset and read at another.
        l3 + ((self.len as usize).wrapping_sub(bytes) & (MAX_HEADER - 1))
    }

    /// A place for a header that is to be read.
    #[inline(always)]
    pub fn unread() -> Self {
        Self {
            src: A::UNSPECIFIED,
            dst: A::UNSPECIFIED,
            proto: 0,
            ttl: 0,
            checksum: 0,
            len: 0,
            total_len: 0,
            fragment: Fragment::Whole,
        }
    }
}

/// A network header to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewHeader<A> {
    /// Source address.
    pub src: A,
    /// Destination address.
    pub dst: A,
    /// IP protocol of what follows.
    pub proto: u8,
    /// Type of service, or traffic class.
    pub class: u8,
    /// Length of what follows, bytes.
    pub payload: u16,
}

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fragment {
    /// All of it.
    Whole,
    /// The first fragment: it has the ports.
    First,
    /// A later one.
    Later,
}

/// What the transport header makes of a packet. Without payload: see [`crate::verdict::Verdict`] for why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP echo request.
    EchoRequest,
    /// ICMP echo reply.
    EchoReply,
    /// SCTP: its ports can't change.
    Sctp,
    /// A protocol without ports whose packets say nothing of their addresses, see
    /// [`crate::header::portless::is_address_free`].
    Portless,
    /// An ICMP error.
    IcmpError,
    /// An ICMP message that is neither.
    IcmpOther,
    /// Another protocol, or a fragment without transport header.
    Other,
}

/// A parsed packet.
#[derive(Clone, Copy, Debug)]
pub struct Parsed<A> {
    /// The flow table's key; ports are zero where there are none.
    pub tuple: Tuple<A>,
    /// The network header.
    pub header: Header<A>,
    /// The transport header.
    pub transport: Transport,
    /// The flags of a TCP segment, else 0.
    pub tcp_flags: u8,
    /// The acknowledgement number of a TCP segment, as it lies in the packet.
    pub acknowledgement: u32,
    /// The two ports, or the identifier in the low half, as they lie in the packet.
    pub ports: u32,
}

/// Parses a packet whose EtherType is the family's. False: it is cut off or contradicts itself, and `parsed` says
/// nothing.
///
/// (Written in place: what is returned by value is on the stack twice, and an IPv6 packet's headers fill a fifth of it.)
#[inline(always)]
pub fn parse<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F::Addr>) -> bool {
    read::<F, P>(packet, parsed).is_some()
}

/// Bytes of the shortest transport headers, UDP's and ICMP's.
const SHORTEST: u32 = 8;

/// [`parse`] out of line: where a flow is being opened, the stack is short and the time is not.
#[inline(never)]
pub fn parse_again<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F::Addr>) -> bool {
    parse::<F, P>(packet, parsed)
}

#[inline(always)]
fn read<F: Family, P: Packet>(packet: &P, parsed: &mut Parsed<F::Addr>) -> Option<()> {
    let l3 = packet.l3();
    let header = F::read_header(packet, l3)?;
    // Longer than the frame: the end is missing (RFC 1812 5.2.2).
    if l3 + header.total_len as usize > packet.len() {
        return None;
    }
    let l4 = header.transport(l3);
    parsed.header = header;
    let tuple = &mut parsed.tuple;
    (tuple.src, tuple.dst, tuple.proto) = (header.src, header.dst, header.proto);
    // (An array of them would be a call of `memset`, which stores byte by byte; and so it is with zeros in what is
    // written in the end.)
    (tuple.pad[0], tuple.pad[1], tuple.pad[2]) = (0, 0, 0);
    let (mut ports, mut tcp_flags, mut acknowledgement) = (0, 0, 0);
    let mut transport = Transport::Other;
    if header.fragment != Fragment::Later {
        // What lies behind the packet's end is padding, and no ports. (An aggregated packet may be too long to say its length.)
        let has_ports =
            matches!(header.proto, tcp::PROTO | udp::PROTO | sctp::PROTO) || header.proto == F::ICMP;
        if has_ports && header.total_len < u32::from(header.len) + SHORTEST && packet.segment_size() == 0 {
            return None;
        }
        if header.proto == tcp::PROTO {
            let [both, _sequence, acknowledged, flags]: [u32; 4] = packet.load(l4 + tcp::PORTS)?;
            (ports, acknowledgement) = (both, acknowledged);
            tcp_flags = flags.to_ne_bytes()[1];
            transport = Transport::Tcp;
        } else if header.proto == udp::PROTO {
            // The second word has the checksum: a header that is cut off must not pass.
            let [both, _length_and_checksum]: [u32; 2] = packet.load(l4 + udp::PORTS)?;
            (ports, transport) = (both, Transport::Udp);
        } else if header.proto == F::ICMP {
            let first: u32 = packet.load(l4 + icmp::FIRST_WORD)?;
            transport = icmp_transport::<F>(first.to_ne_bytes()[0]);
            if matches!(transport, Transport::EchoRequest | Transport::EchoReply) {
                ports = u32::from(packet.load::<Be16>(l4 + icmp::IDENTIFIER)?.raw());
            }
            if transport == Transport::EchoReply && ports == 0 {
                // A request of identifier 0 has the same tuple. No mapping has that identifier: nobody asked for this.
                transport = Transport::IcmpOther;
            }
        } else if header.proto == sctp::PROTO {
            let [both, _tag, _checksum]: [u32; sctp::LEN / 4] = packet.load(l4 + sctp::PORTS)?;
            (ports, transport) = (both, Transport::Sctp);
        } else if portless::is_address_free(header.proto) {
            transport = Transport::Portless;
        }
    }
    let [first, second]: [Be16; 2] = bytemuck::cast(ports);
    // An answer's identifier is where its request's is once the tuple is reversed.
    let is_answer = transport == Transport::EchoReply;
    (tuple.sport, tuple.dport) = if is_answer { (second, first) } else { (first, second) };
    (parsed.transport, parsed.ports) = (transport, ports);
    (parsed.tcp_flags, parsed.acknowledgement) = (tcp_flags, acknowledgement);
    Some(())
}

#[inline(always)]
fn icmp_transport<F: Family>(icmp_type: u8) -> Transport {
    match F::icmp_kind(icmp_type) {
        IcmpKind::EchoRequest => Transport::EchoRequest,
        IcmpKind::EchoReply => Transport::EchoReply,
        IcmpKind::Error => Transport::IcmpError,
        IcmpKind::Other => Transport::IcmpOther,
    }
}

impl<A: Address> Parsed<A> {
    /// A place for [`parse`] to write to.
    #[inline(always)]
    pub fn unread() -> Self {
        Self {
            tuple: Tuple::zeroed(),
            header: Header::unread(),
            transport: Transport::Other,
            tcp_flags: 0,
            acknowledgement: 0,
            ports: 0,
        }
    }

    /// Whether its ports, if it has any, can't be others after translation.
    #[inline(always)]
    pub fn has_fixed_ports(&self) -> bool {
        matches!(self.transport, Transport::Sctp | Transport::Portless)
    }

    /// Whether the flow table can hold this packet's flow.
    #[inline(always)]
    pub fn has_flow(&self) -> bool {
        matches!(
            self.transport,
            Transport::Tcp
                | Transport::Udp
                | Transport::Sctp
                | Transport::Portless
                | Transport::EchoRequest
                | Transport::EchoReply
        )
    }
}

/// Time to live of packets that netdp makes: Linux's default.
const NEW_TTL: u8 = 64;

impl Family for V4 {
    type Addr = Ipv4Addr;
    const ETHERTYPE: u16 = ethernet::IPV4;
    const ICMP: u8 = icmp::PROTO_V4;
    const ICMP_PSEUDO_HEADER: bool = false;
    const HEADER_LEN: usize = ipv4::LEN;
    const HAS_HEADER_CHECKSUM: bool = true;
    const ICMP_ERROR_MAX: usize = 576;

    #[inline(always)]
    fn icmp_kind(icmp_type: u8) -> IcmpKind {
        match icmp_type {
            8 => IcmpKind::EchoRequest,
            0 => IcmpKind::EchoReply,
            3 | 4 | 5 | 11 | 12 => IcmpKind::Error,
            _ => IcmpKind::Other,
        }
    }

    #[inline(always)]
    fn icmp_error(notice: IcmpNotice) -> [u8; 2] {
        // RFC 792, RFC 1812 5.2.7.1.
        match notice {
            IcmpNotice::TimeExceeded => [11, 0],
            IcmpNotice::TooBig => [3, 4],
            IcmpNotice::NetworkUnreachable => [3, 0],
            IcmpNotice::HostUnreachable => [3, 1],
            IcmpNotice::Prohibited => [3, 13],
        }
    }

    #[inline(always)]
    fn is_one_host(addr: &Ipv4Addr) -> bool {
        // Nor of the classes D and E.
        *addr != Ipv4Addr::UNSPECIFIED && !addr.is_loopback() && u32::from_be(addr.0) >> 29 != 7
    }

    #[inline(always)]
    fn may_be_fragmented<P: Packet>(packet: &P, at: usize) -> bool {
        match packet.load::<u32>(at + ipv4::FRAGMENT_WORD) {
            Some(word) => u32::from_be(word) & ipv4::DONT_FRAGMENT == 0,
            None => false,
        }
    }

    #[inline(always)]
    fn fragment_id<P: Packet>(packet: &P, at: usize, _header: &Header<Ipv4Addr>) -> Option<u32> {
        Some(u32::from(packet.load::<u16>(at + ipv4::FRAGMENT_WORD)?))
    }

    #[inline(always)]
    fn read_header<P: Packet>(packet: &P, at: usize) -> Option<Header<Ipv4Addr>> {
        // In one piece: each load compares with the packet's end.
        let [first, fragment, ttl_word, src, dst]: [u32; ipv4::LEN / 4] = packet.load(at)?;
        let [version, _, length_high, length_low] = first.to_ne_bytes();
        let len = (version & 0xf) as usize * 4;
        let total_len = (length_high as usize) << 8 | length_low as usize;
        // An aggregated packet of 64 KiB and more (BIG TCP) says 0.
        if version >> 4 != 4 || len < ipv4::LEN || (total_len < len && total_len != 0) {
            return None;
        }
        let fragment = u32::from_be(fragment);
        let [ttl, proto, checksum_high, checksum_low] = ttl_word.to_ne_bytes();
        Some(Header {
            src: Ipv4Addr(src),
            dst: Ipv4Addr(dst),
            proto,
            ttl,
            checksum: u16::from_ne_bytes([checksum_high, checksum_low]),
            len: len as u16,
            total_len: total_len as u32,
            fragment: if fragment & ipv4::FRAGMENT_OFFSET != 0 {
                Fragment::Later
            } else if fragment & ipv4::MORE_FRAGMENTS != 0 {
                Fragment::First
            } else {
                Fragment::Whole
            },
        })
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        at: usize,
        old: &Header<Ipv4Addr>,
        src: Ipv4Addr,
        dst: Ipv4Addr,
        ttl: u8,
        ports: Option<u32>,
    ) -> Option<()> {
        let word = |ttl: u8, checksum: u16| {
            let [high, low] = checksum.to_ne_bytes();
            u32::from_ne_bytes([ttl, old.proto, high, low])
        };
        let changed = difference(&[old.src.0, old.dst.0, word(old.ttl, 0)], &[src.0, dst.0, word(ttl, 0)], 0);
        let checksum = apply_difference(old.checksum, changed);
        let ttl_word = word(ttl, checksum);
        match ports {
            Some(ports) => packet.store(at + ipv4::TTL_WORD, &[ttl_word, src.0, dst.0, ports]),
            None => packet.store(at + ipv4::TTL_WORD, &[ttl_word, src.0, dst.0]),
        }
    }

    #[inline(always)]
    fn write_quoted_header<P: Packet>(
        packet: &mut P,
        at: usize,
        old: &Header<Ipv4Addr>,
        src: Ipv4Addr,
        dst: Ipv4Addr,
    ) -> Option<()> {
        Self::write_header(packet, at, old, src, dst, old.ttl, None)
    }

    #[inline(always)]
    fn write_new_header<P: Packet>(packet: &mut P, at: usize, new: &NewHeader<Ipv4Addr>) -> Option<()> {
        let NewHeader { src, dst, proto, class, payload } = *new;
        let [length_high, length_low] = (payload + ipv4::LEN as u16).to_be_bytes();
        let first = u32::from_ne_bytes([0x45, class, length_high, length_low]);
        let fragment = ipv4::DONT_FRAGMENT.to_be();
        let ttl = u32::from_ne_bytes([NEW_TTL, proto, 0, 0]);
        let sum = difference(&[], &[first, fragment, ttl, src.0, dst.0], 0);
        let [high, low] = apply_difference(u16::MAX, sum).to_ne_bytes();
        let ttl = u32::from_ne_bytes([NEW_TTL, proto, high, low]);
        packet.store(at, &[first, fragment, ttl, src.0, dst.0])
    }

    #[inline(always)]
    fn discovered<P: Packet>(_packet: &P, _l4: usize) -> Option<Ipv4Addr> {
        None
    }

    #[inline(always)]
    fn forges<P: Packet>(
        _packet: &P,
        _l4: usize,
        _endpoint: &Endpoint<Ipv4Addr>,
        _allowed: impl FnOnce(&Ipv4Addr) -> bool,
    ) -> bool {
        false
    }

    #[inline(always)]
    fn link_local(_mac: [u8; 6]) -> Option<Ipv4Addr> {
        None
    }

    #[inline(always)]
    fn prefix_digest(addr: &Ipv4Addr) -> u16 {
        (u32::from_be(addr.0) >> 16) as u16
    }
}

impl Family for V6 {
    type Addr = Ipv6Addr;
    const ETHERTYPE: u16 = ethernet::IPV6;
    const ICMP: u8 = icmp::PROTO_V6;
    const ICMP_PSEUDO_HEADER: bool = true;
    const HEADER_LEN: usize = ipv6::LEN;
    const HAS_HEADER_CHECKSUM: bool = false;
    const ICMP_ERROR_MAX: usize = 1280;

    #[inline(always)]
    fn icmp_kind(icmp_type: u8) -> IcmpKind {
        match icmp_type {
            128 => IcmpKind::EchoRequest,
            129 => IcmpKind::EchoReply,
            1..=127 => IcmpKind::Error,
            _ => IcmpKind::Other,
        }
    }

    #[inline(always)]
    fn icmp_error(notice: IcmpNotice) -> [u8; 2] {
        // RFC 4443 3.
        match notice {
            IcmpNotice::TimeExceeded => [3, 0],
            IcmpNotice::TooBig => [2, 0],
            IcmpNotice::NetworkUnreachable => [1, 0],
            IcmpNotice::HostUnreachable => [1, 3],
            IcmpNotice::Prohibited => [1, 1],
        }
    }

    #[inline(always)]
    fn is_one_host(addr: &Ipv6Addr) -> bool {
        *addr != Ipv6Addr::UNSPECIFIED && !addr.is_loopback() && !addr.is_multicast()
    }

    /// Only by who sends it (RFC 8200 5).
    #[inline(always)]
    fn may_be_fragmented<P: Packet>(_packet: &P, _at: usize) -> bool {
        false
    }

    #[inline(always)]
    fn fragment_id<P: Packet>(packet: &P, at: usize, header: &Header<Ipv6Addr>) -> Option<u32> {
        // The last extension header: hosts put nothing between it and what they fragment.
        packet.load(header.before_transport(at, ipv6::FRAGMENT_ID))
    }

    #[inline(always)]
    fn read_header<P: Packet>(packet: &P, at: usize) -> Option<Header<Ipv6Addr>> {
        // In one piece, and each word by itself: an array would be copied from place to place.
        let [first, second, a, b, c, d, e, f, g, h]: [u32; ipv6::LEN / 4] = packet.load(at)?;
        let [length_high, length_low, next, ttl] = second.to_ne_bytes();
        if first.to_ne_bytes()[0] >> 4 != 6 {
            return None;
        }
        let behind = if is_extension(next) {
            skip_extensions(packet, at, next)
        } else {
            Behind::new(next, ipv6::LEN, Fragment::Whole)
        };
        Some(Header {
            src: Ipv6Addr([a, b, c, d]),
            dst: Ipv6Addr([e, f, g, h]),
            proto: behind.proto(),
            ttl,
            checksum: 0,
            len: behind.len(),
            total_len: u32::from(u16::from_be_bytes([length_high, length_low])) + ipv6::LEN as u32,
            fragment: behind.fragment(),
        })
    }

    #[inline(always)]
    fn write_header<P: Packet>(
        packet: &mut P,
        at: usize,
        _old: &Header<Ipv6Addr>,
        src: Ipv6Addr,
        dst: Ipv6Addr,
        ttl: u8,
        ports: Option<u32>,
    ) -> Option<()> {
        let [length_high, length_low, next, _]: [u8; 4] = packet.load(at + ipv6::LENGTH_WORD)?;
        let ([a, b, c, d], [e, f, g, h]) = (src.0, dst.0);
        let word = u32::from_ne_bytes([length_high, length_low, next, ttl]);
        packet.store_unsummed(at + ipv6::LENGTH_WORD, &[word, a, b, c, d, e, f, g, h])?;
        match ports {
            Some(ports) => packet.store(at + ipv6::LEN, &ports),
            None => Some(()),
        }
    }

    #[inline(always)]
    fn write_quoted_header<P: Packet>(
        packet: &mut P,
        at: usize,
        _old: &Header<Ipv6Addr>,
        src: Ipv6Addr,
        dst: Ipv6Addr,
    ) -> Option<()> {
        packet.store(at + ipv6::ADDRESSES, &[src.0, dst.0])
    }

    #[inline(always)]
    fn write_new_header<P: Packet>(packet: &mut P, at: usize, new: &NewHeader<Ipv6Addr>) -> Option<()> {
        let NewHeader { src, dst, proto, class, payload } = *new;
        let [length_high, length_low] = payload.to_be_bytes();
        let words = [
            u32::from_ne_bytes([0x60 | class >> 4, class << 4, 0, 0]),
            u32::from_ne_bytes([length_high, length_low, proto, NEW_TTL]),
        ];
        packet.store(at, &words)?;
        packet.store(at + ipv6::ADDRESSES, &[src.0, dst.0])
    }

    #[inline(always)]
    fn discovered<P: Packet>(packet: &P, l4: usize) -> Option<Ipv6Addr> {
        let [icmp_type, ..]: [u8; 4] = packet.load(l4 + icmp::FIRST_WORD)?;
        if icmp_type != icmp::NEIGHBOUR_SOLICITATION && icmp_type != icmp::NEIGHBOUR_ADVERTISEMENT {
            return None;
        }
        packet.load(l4 + icmp::TARGET)
    }

    #[inline(always)]
    fn forges<P: Packet>(
        packet: &P,
        l4: usize,
        endpoint: &Endpoint<Ipv6Addr>,
        allowed: impl FnOnce(&Ipv6Addr) -> bool,
    ) -> bool {
        let Some([icmp_type, ..]) = packet.load::<[u8; 4]>(l4 + icmp::FIRST_WORD) else { return false };
        if icmp_type != icmp::NEIGHBOUR_ADVERTISEMENT {
            return icmp_type == icmp::ROUTER_ADVERTISEMENT || icmp_type == icmp::REDIRECT;
        }
        // Whatever link-local address it has given itself, but not the gateway's.
        packet.load(l4 + icmp::TARGET).is_none_or(|target: Ipv6Addr| {
            let own = if target.is_link_local() {
                Some(target) != Self::link_local(endpoint.bridge_mac)
            } else {
                target == endpoint.addr || allowed(&target)
            };
            !own
        })
    }

    #[inline(always)]
    fn link_local([a, b, c, d, e, f]: [u8; 6]) -> Option<Ipv6Addr> {
        let word = u32::from_ne_bytes;
        Some(Ipv6Addr([word([0xfe, 0x80, 0, 0]), 0, word([a ^ 2, b, c, 0xff]), word([0xfe, d, e, f])]))
    }

    #[inline(always)]
    fn prefix_digest(addr: &Ipv6Addr) -> u16 {
        let mixed = (addr.0[0] ^ addr.0[1].rotate_left(7)).wrapping_mul(0x9e37_79b1);
        (mixed >> 16) as u16
    }
}

/// Extension headers that netdp looks behind: nobody sends more than three.
const MAX_EXTENSIONS: u32 = 4;

/// Whether there may be a transport header behind this one. Not behind ESP, and what AH protects can't be changed.
#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, ipv6::HOP_BY_HOP | ipv6::ROUTING | ipv6::FRAGMENT | ipv6::DESTINATION)
}

/// Looks behind the extension headers of the packet at `at`, whose first one is `next` (RFC 8200 section 4).
///
/// What is behind too many or too long ones, one that is cut off, or a routing header with a way still to go (the
/// destination is not the last one then), is not looked at: the protocol is the extension header's. A router would not
/// look at any of them.
#[inline(never)]
fn skip_extensions<P: Packet>(packet: &P, at: usize, mut next: u8) -> Behind {
    let mut len = ipv6::LEN;
    let mut fragment = Fragment::Whole;
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(next) || fragment == Fragment::Later {
            break;
        }
        let Some([following, length, high, low]) = packet.load::<[u8; 4]>(at + len) else { break };
        let length = if next == ipv6::FRAGMENT {
            let word = u16::from_be_bytes([high, low]);
            fragment = match (word >> 3, word & ipv6::MORE_FRAGMENTS) {
                // All of it in one fragment (RFC 6946).
                (0, 0) => fragment,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            8
        } else {
            (length as usize + 1) * 8
        };
        if len + length >= MAX_HEADER || (next == ipv6::ROUTING && low != 0) {
            break;
        }
        len += length;
        next = following;
    }
    Behind::new(next, len, fragment)
}

/// What is behind extension headers, in one word: see [`crate::verdict::Verdict`] for why.
#[derive(Clone, Copy)]
struct Behind(u32);

impl Behind {
    #[inline(always)]
    const fn new(proto: u8, len: usize, fragment: Fragment) -> Self {
        Self((fragment as u32) << 24 | (len as u32) << 8 | proto as u32)
    }

    #[inline(always)]
    const fn proto(self) -> u8 {
        self.0 as u8
    }

    #[inline(always)]
    const fn len(self) -> u16 {
        (self.0 >> 8) as u16
    }

    #[inline(always)]
    const fn fragment(self) -> Fragment {
        match self.0 >> 24 {
            0 => Fragment::Whole,
            1 => Fragment::First,
            _ => Fragment::Later,
        }
    }
}
