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
}

counters! {
    /// Why a packet was dropped.
    DropReason:
    /// A packet with an endpoint's private address was about to leave by an uplink.
    Untranslated = "untranslated",
    /// A packet from outside was addressed to an endpoint, and nothing is published there.
    NotPublished = "not_published",
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
    /// A protocol other than TCP, UDP and ICMP echo.
    UnsupportedProtocol = "unsupported_protocol",
    /// An ICMP error or another ICMP message that can't be translated.
    IcmpUnsupported = "icmp_unsupported",
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
    /// The host's own connection to a published port found no endpoint.
    HostConnectRefused = "host_connect_refused",
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
        Event::ALL.len() as u32 + self as u32
    }
}

/// What a hook does with a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Not ours: the next program, then the kernel's stack, unchanged.
    Stack,
    /// Drop it and count why.
    Drop(DropReason),
    /// Into the namespace behind the host veth `oif`, addressed to its MAC.
    ToEndpoint {
        /// The host veth.
        oif: u32,
    },
    /// Out of `oif` to the next hop; the kernel resolves its MAC.
    ToNextHop {
        /// The uplink.
        oif: u32,
        /// The next hop's address in network byte order, IPv4 in the first word; zero: the destination itself.
        via: [u32; 4],
        /// `via` is an IPv6 address.
        via_v6: bool,
    },
}
