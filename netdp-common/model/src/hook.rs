//! Where a packet meets the NAT, and what becomes of it.

use netdp_common::verdict::{Action, DropReason, Verdict};

use crate::{bridge_of, ifindex, mac};

/// Where a packet is seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Ingress of this host veth.
    FromContainer(u32),
    /// Ingress of the uplink.
    FromWorld,
    /// Egress of the uplink.
    ToWorld,
    /// Egress of this host veth.
    ToContainer(u32),
}

impl Hook {
    /// Source and destination MAC of the frames that are meant to be seen here.
    pub fn macs(self) -> [[u8; 6]; 2] {
        match self {
            Self::FromContainer(veth) => [mac(veth), mac(bridge_of(veth))],
            Self::FromWorld => [mac(ifindex::NEIGHBOUR), mac(ifindex::UPLINK)],
            Self::ToWorld => [mac(ifindex::UPLINK), mac(ifindex::NEIGHBOUR)],
            Self::ToContainer(veth) => [mac(bridge_of(veth)), mac(veth)],
        }
    }

    /// Ingress of this interface.
    pub const fn at_ingress(interface: u32) -> Self {
        if interface == ifindex::UPLINK { Self::FromWorld } else { Self::FromContainer(interface) }
    }

    /// The interface.
    pub fn interface(self) -> u32 {
        match self {
            Self::FromContainer(veth) | Self::ToContainer(veth) => veth,
            Self::FromWorld | Self::ToWorld => ifindex::UPLINK,
        }
    }
}

/// What became of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Left to the host's stack, as it is, or with what it answers translated back.
    Stack,
    /// To the endpoint behind this host veth.
    ToEndpoint(u32),
    /// Out of this interface, to [`crate::cpu::Cpu::next_hop`].
    ToNextHop(u32),
    /// Translated on its way out of the host's stack, and goes on.
    Leaves,
    /// Dropped.
    Dropped(DropReason),
    /// A copy waits, or has come in once more.
    Waits,
    /// Dropped, and whoever sent it gets the answer that the frame is now.
    Answered(DropReason),
}

impl Fate {
    /// Of a verdict; one without answer ([`Action::Refused`]) is [`Self::Stack`] here.
    pub(crate) fn of(verdict: Verdict) -> Self {
        match verdict.action() {
            Action::Stack | Action::Refused => Self::Stack,
            Action::Drop(reason) => Self::Dropped(reason),
            Action::Wait => Self::Waits,
            Action::ToEndpoint(veth) => Self::ToEndpoint(veth),
            Action::ToNextHop(oif) => Self::ToNextHop(oif),
            Action::ToLink(oif) => panic!("an answer is no fate: out of {oif}"),
        }
    }
}
