//! The XDP program before the TC program: it may drop only what that one drops without a word, for the same reason.

use netdp_common::early;
use netdp_common::parse::{Fragment, Parsed, Transport, parse};
use netdp_common::tables::Scratch;
use netdp_common::verdict::{Action, DropReason};

use crate::cpu::{Cpu, Shared};
use crate::frame::ethertype;
use crate::hook::{Fate, Hook};
use crate::ifindex;
use crate::plan::Plan;

/// What the XDP program makes of a frame.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Early {
    refused: Option<DropReason>,
    /// It leaves such frames to others, whatever they are for: fragments, ICMP errors, and packets of flows.
    left: bool,
}

/// Nobody outside is told about these, if no flow has the packet.
const SILENT: [DropReason; 6] = [
    DropReason::NotPublished,
    DropReason::NotAllowed,
    DropReason::Internal,
    DropReason::Spoofed,
    DropReason::NoRoute,
    DropReason::UplinkNotAttached,
];

impl<F: Plan, S: Shared<F::Addr>> Cpu<'_, F, S> {
    /// Shows a frame that comes in by the uplink to the XDP program; none if it does not come in there, or is not as on
    /// a wire. To be called before the frame is run.
    pub fn early(&mut self, hook: Hook, frame: &[u8]) -> Option<Early> {
        if hook != Hook::FromWorld || self.vlan || self.segment_size != 0 || ethertype(frame) != F::ETHERTYPE
        {
            return None;
        }
        (self.frame, self.ifindex) = (frame.to_vec(), ifindex::UPLINK);
        let refused = match early::refuse::<F, Self>(self, &mut Scratch::empty()).action() {
            Action::Drop(reason) => Some(reason),
            _ => None,
        };
        let mut parsed = Parsed::unread();
        let left = parse::<F, Self>(self, &mut parsed)
            && (parsed.header.fragment != Fragment::Whole
                || parsed.transport == Transport::IcmpError
                || self.shared.get(&parsed.tuple).is_some());
        Some(Early { refused, left })
    }
}

impl Early {
    /// Whether that goes with what the TC program made of the frame.
    ///
    /// # Errors
    /// What does not.
    pub fn judge(self, fate: Fate) -> Result<(), &'static str> {
        match (self.refused, fate) {
            (Some(early), Fate::Dropped(late)) if early == late => Ok(()),
            (Some(_), _) => Err("dropped before the TC program, and not by it"),
            (None, Fate::Dropped(late)) if SILENT.contains(&late) && !self.left => {
                Err("not dropped before the TC program")
            }
            (None, _) => Ok(()),
        }
    }
}
