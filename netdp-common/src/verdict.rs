//! What becomes of a packet, and every name that a dropped one can have.
//!
//! One list is the programs' result, the index of the per-CPU counters and the text of `netdp stats`.

macro_rules! counters {
    ($(#[$outer:meta])* $name:ident: $($(#[doc = $doc:literal])* $variant:ident = $text:literal,)*) => {
        $(#[$outer])*
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum $name {
            $($(#[doc = $doc])* $variant,)*
        }

        impl $name {
            /// Every variant, in the order of their indices.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name that `netdp stats` prints.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            /// One sentence for an operator.
            pub const fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),*),)*
                }
            }
        }
    };
}

counters! {
    /// Events that are counted and are not drops.
    Event:
    /// A SNAT port was chosen and claimed.
    SnatAllocated = "snat_allocated",
    /// A chosen port was taken already, and another was tried.
    SnatCollisions = "snat_collisions",
    /// No port was left towards a remote.
    SnatExhausted = "snat_exhausted",
    /// Two packets of one new flow met, and the later one used the first one's mapping.
    FlowsAdopted = "flows_adopted",
    /// Flows created: SNAT, published ports and hairpins.
    FlowsCreated = "flows_created",
    /// Flows removed, for whatever reason.
    FlowsRemoved = "flows_removed",
    /// Flows removed because they were idle for too long.
    FlowsExpired = "flows_expired",
    /// Ports given to a new connection while the remote may still be in TIME_WAIT.
    FlowsRecycled = "flows_recycled",
    /// Ports given to a new connection whose SYN goes out without timestamp, as the remote takes it only so.
    RecycledWithoutTs = "recycled_without_ts",
    /// A client's port was changed because two of its connections would look the same to the endpoint.
    DnatPortChanged = "dnat_port_changed",
    /// A map's bucket was busy and the operation was tried again.
    BusyRetries = "busy_retries",
    /// A flow found no free place in the reclaim ring and waits for a netdp command to be reclaimed.
    RingFull = "ring_full",
    /// Packets translated.
    Packets = "packets",
    /// Bytes of the packets translated.
    Bytes = "bytes",
    /// Senders told that their packet's time to live ran out here.
    IcmpTimeExceeded = "icmp_time_exceeded",
    /// Senders told that their packet is bigger than the next link's MTU.
    IcmpTooBig = "icmp_too_big",
    /// Senders told that there is no way to the destination, or nobody at the next hop.
    IcmpUnreachable = "icmp_unreachable",
    /// Senders told that their packet is not let through.
    IcmpProhibited = "icmp_prohibited",
    /// Senders told by a TCP reset.
    TcpResets = "tcp_resets",
    /// Senders not told, since too many had been told already (RFC 1812 4.3.2.8).
    AnswersSuppressed = "answers_suppressed",
    /// Packets without DF that are bigger than the next link's MTU, left to the kernel to be fragmented.
    StackFragmented = "stack_fragmented",
    /// Fragments that came before their datagram's first one, and waited for it.
    FragmentsHeld = "fragments_held",
}

counters! {
    /// Why a packet was dropped.
    DropReason:
    /// A packet with an endpoint's private address was about to leave by an uplink.
    Untranslated = "untranslated",
    /// A packet from outside was addressed to an endpoint, and nothing is published there.
    NotPublished = "not_published",
    /// The port is published for other sources only (--from).
    NotAllowed = "not_allowed",
    /// The source address or interface is not the sender's own.
    Spoofed = "spoofed",
    /// Two endpoints that may not reach each other: different networks, or --no-icc.
    Isolated = "isolated",
    /// The network is internal, and the destination is outside of it.
    Internal = "internal",
    /// The packet's time to live ran out at this host.
    TtlExceeded = "ttl_exceeded",
    /// A fragment that can't be translated.
    Fragment = "fragment",
    /// The packet is cut off, or its headers contradict each other.
    Malformed = "malformed",
    /// A protocol that can't be translated: not TCP, UDP, SCTP, ICMP echo, GRE, ESP or another tunnel's.
    UnsupportedProtocol = "unsupported_protocol",
    /// An ICMP message that is neither echo nor error.
    IcmpUnsupported = "icmp_unsupported",
    /// An ICMP error from an endpoint about a packet of no flow.
    IcmpUnmatched = "icmp_unmatched",
    /// Every usable port is taken towards this remote.
    PortsExhausted = "ports_exhausted",
    /// The flow table is full.
    TableFull = "table_full",
    /// The claim of a mapping did not succeed within its bound of tries.
    ClaimContended = "claim_contended",
    /// TCP that does not open a connection and belongs to none.
    NoFlow = "no_flow",
    /// The routing table has no way to the destination.
    NoRoute = "no_route",
    /// The way to the destination leaves by an interface that does not carry netdp's programs yet.
    UplinkNotAttached = "uplink_not_attached",
    /// The endpoint behind a published port or flow is gone.
    EndpointGone = "endpoint_gone",
    /// The kernel refused to rewrite the packet.
    RewriteFailed = "rewrite_failed",
    /// The packet is bigger than the next link's MTU, and must not be fragmented.
    TooBig = "too_big",
    /// The next hop does not answer: it does not resolve to a MAC.
    HostUnreachable = "host_unreachable",
    /// An ICMP error with a wrong checksum.
    BadChecksum = "bad_checksum",
    /// The endpoint has as many flows as it may have.
    FlowLimit = "flow_limit",
    /// The address that the flow has outside, or would have, is not this host's any more.
    AddressGone = "address_gone",
}

/// Number of per-CPU counters: the events, then the drop reasons.
pub const COUNTERS: u32 = (Event::ALL.len() + DropReason::ALL.len()) as u32;

impl Event {
    /// Index of this event's counter.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self as u32
    }
}

impl DropReason {
    /// Index of this reason's counter.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        drop_index(self as u32)
    }
}

/// What a hook does with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Not ours: the next program, then the kernel's stack, unchanged.
    Stack,
    /// Drop it and count why.
    Drop(DropReason),
    /// Drop it; why has been counted.
    Refused,
    /// Into the namespace behind this host veth, to whose MAC it is addressed now.
    ToEndpoint(u32),
    /// Out of this interface to the next hop that [`crate::packet::Packet::set_next_hop`] was told.
    ToNextHop(u32),
    /// Out of this interface, addressed as it is.
    ToLink(u32),
    /// Nowhere: a copy waits, or has come in once more.
    Wait,
}

/// An [`Action`] in one word: an enum with payloads of different sizes makes the compiler copy bytes that were
/// never written, which the kernel's verifier refuses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Verdict(u64);

impl Verdict {
    /// See [`Action::Stack`].
    pub const STACK: Self = Self::new(0, 0);
    /// No verdict yet: the packet belongs to no known flow. Ask the module that opens flows.
    pub const NO_FLOW_YET: Self = Self::new(4, 0);
    /// No verdict yet: the packet asks for a flow. Ask [`crate::opening`].
    pub const CLAIM: Self = Self::new(16, 0);
    /// No verdict yet: the flow is in the table now. Start over.
    pub const FLOW_OPENED: Self = Self::new(5, 0);

    /// No verdict yet: an ICMP error. Ask [`crate::icmp_error`].
    pub const ICMP_ERROR: Self = Self::new(6, 0);

    /// Drop it; why has been counted.
    pub const REFUSED: Self = Self::new(7, 0);

    /// No verdict yet: a packet of a TCP connection that ends, or begins once more. Ask [`crate::closing`].
    pub const CLOSING: Self = Self::new(15, 0);

    /// No verdict yet: an endpoint's address is about to leave by an uplink. Ask [`crate::fragment::leave`].
    pub const PRIVATE: Self = Self::new(10, 0);

    /// No verdict yet: a packet of the host's own whose tuple a mapping may have. Ask [`crate::own`].
    pub const OWN: Self = Self::new(14, 0);

    /// No verdict yet: a fragment. Ask [`crate::fragment`].
    pub const FRAGMENT: Self = Self::new(9, 0);

    /// No verdict yet: a fragment that has overtaken its datagram's first one. Ask [`crate::fragment::wait`].
    pub const OVERTAKEN: Self = Self::new(11, 0);

    /// No verdict yet: the same, and it may be the host's own.
    pub const OVERTAKEN_TO_HOST: Self = Self::new(12, 0);

    /// See [`Action::Wait`].
    pub const WAIT: Self = Self::new(13, 0);

    const fn new(kind: u32, detail: u32) -> Self {
        Self((kind as u64) << 32 | detail as u64)
    }

    /// See [`Action::Drop`].
    #[inline(always)]
    pub const fn drop(reason: DropReason) -> Self {
        Self::new(1, reason as u32)
    }

    /// A drop because the packet is bigger than `mtu`.
    #[inline(always)]
    pub const fn too_big(mtu: u16) -> Self {
        Self::new(1, DropReason::TooBig as u32 | (mtu as u32) << REASON_BITS)
    }

    /// A drop that whoever sent the packet may be told about: ask [`crate::refusal`].
    #[inline(always)]
    pub const fn is_told(self) -> bool {
        let (kind, refused) = self.parts();
        matches!(kind, VerdictKind::Drop) && crate::refusal::TOLD >> reason_in(refused) & 1 != 0
    }

    /// See [`Action::ToEndpoint`].
    #[inline(always)]
    pub const fn to_endpoint(oif: u32) -> Self {
        Self::new(2, oif)
    }

    /// See [`Action::ToNextHop`].
    #[inline(always)]
    pub const fn to_next_hop(oif: u32) -> Self {
        Self::new(3, oif)
    }

    /// See [`Action::ToLink`].
    #[inline(always)]
    pub const fn to_link(oif: u32) -> Self {
        Self::new(8, oif)
    }

    /// Which kind of action, and its number: an interface, or what [`reason_in`] and [`mtu_in`] read.
    #[inline(always)]
    pub const fn parts(self) -> (VerdictKind, u32) {
        let kind = match (self.0 >> 32) as u32 {
            1 => VerdictKind::Drop,
            2 => VerdictKind::ToEndpoint,
            7 => VerdictKind::Refused,
            3 => VerdictKind::ToNextHop,
            8 => VerdictKind::ToLink,
            13 => VerdictKind::Wait,
            _ => VerdictKind::Stack,
        };
        (kind, self.0 as u32)
    }

    /// The action, with its reason by name; for tests and traces.
    pub fn action(self) -> Action {
        match self.parts() {
            (VerdictKind::Drop, refused) => {
                let reason = DropReason::ALL.get(reason_in(refused) as usize);
                Action::Drop(*reason.unwrap_or(&DropReason::Malformed))
            }
            (VerdictKind::ToEndpoint, oif) => Action::ToEndpoint(oif),
            (VerdictKind::ToNextHop, oif) => Action::ToNextHop(oif),
            (VerdictKind::ToLink, oif) => Action::ToLink(oif),
            (VerdictKind::Refused, _) => Action::Refused,
            (VerdictKind::Wait, _) => Action::Wait,
            (VerdictKind::Stack, _) => Action::Stack,
        }
    }
}

/// See [`Action`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum VerdictKind {
    /// See [`Action::Stack`].
    Stack,
    /// See [`Action::Drop`].
    Drop,
    /// See [`Action::Refused`].
    Refused,
    /// See [`Action::ToEndpoint`].
    ToEndpoint,
    /// See [`Action::ToNextHop`].
    ToNextHop,
    /// See [`Action::ToLink`].
    ToLink,
    /// See [`Action::Wait`].
    Wait,
}

/// In the number of a drop: the reason, then the MTU that the packet exceeds.
const REASON_BITS: u32 = 16;

/// The drop reason in the number of a drop.
#[inline(always)]
pub const fn reason_in(refused: u32) -> u32 {
    refused & ((1 << REASON_BITS) - 1)
}

/// The MTU that the packet exceeds, in the number of a drop.
#[inline(always)]
pub const fn mtu_in(refused: u32) -> u32 {
    refused >> REASON_BITS
}

/// Index of a drop reason's counter.
#[inline(always)]
pub const fn drop_index(reason: u32) -> u32 {
    Event::ALL.len() as u32 + reason
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_verdicts_are_the_same() {
        let verdicts = [
            Verdict::STACK,
            Verdict::NO_FLOW_YET,
            Verdict::CLAIM,
            Verdict::FLOW_OPENED,
            Verdict::ICMP_ERROR,
            Verdict::REFUSED,
            Verdict::CLOSING,
            Verdict::PRIVATE,
            Verdict::OWN,
            Verdict::FRAGMENT,
            Verdict::OVERTAKEN,
            Verdict::OVERTAKEN_TO_HOST,
            Verdict::WAIT,
            Verdict::drop(DropReason::ALL[0]),
            Verdict::to_endpoint(0),
            Verdict::to_next_hop(0),
            Verdict::to_link(0),
        ];
        for (number, verdict) in verdicts.iter().enumerate() {
            assert!(!verdicts[..number].contains(verdict), "{verdict:?}");
        }
    }
}
