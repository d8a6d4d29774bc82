//! How long a flow lives: a pure function of what its two directions have shown.

use crate::flow::Timeouts;
use crate::header::{icmp, tcp};
use crate::meta::Meta;

/// What a flow is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum State {
    /// TCP before both sides have acknowledged.
    Syn,
    /// TCP, both sides have acknowledged.
    Established,
    /// TCP, one side has sent its FIN, or both have and don't know it.
    Closing,
    /// TCP, a reset that may be a stranger's: what comes later revives it.
    ResetClaimed,
    /// TCP, both sides have acknowledged the other's FIN, or one was reset.
    Closed,
    /// ICMP, and others without an answer yet.
    New,
    /// UDP: one question, one answer.
    Answered,
    /// UDP with traffic both ways over more than an instant.
    Stream,
}

impl State {
    /// The name in listings.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Syn => "syn",
            Self::Established => "established",
            Self::Closing => "closing",
            Self::ResetClaimed => "reset?",
            Self::Closed => "closed",
            Self::New => "new",
            Self::Answered => "answered",
            Self::Stream => "stream",
        }
    }
}

/// The state of a flow whose initiator and responder have shown these bits.
#[inline(always)]
pub const fn state(proto: u8, initiator: u8, responder: u8) -> State {
    if proto == tcp::PROTO {
        let either = initiator | responder;
        let both = initiator & responder;
        if either & Meta::CLOSED != 0 {
            State::Closed
        } else if either & Meta::RST != 0 {
            State::ResetClaimed
        } else if either & Meta::FIN != 0 {
            State::Closing
        } else if both & Meta::ACK != 0 {
            State::Established
        } else {
            State::Syn
        }
    } else if !is_icmp(proto) && responder & Meta::ACTIVE != 0 {
        if (initiator | responder) & Meta::STREAM != 0 { State::Stream } else { State::Answered }
    } else {
        State::New
    }
}

/// Idle ticks after which a flow in this state has expired; `timeouts` in ticks.
#[inline(always)]
pub const fn timeout(proto: u8, state: State, timeouts: &Timeouts) -> u32 {
    match state {
        State::Syn => timeouts.tcp_half_open,
        State::Closing | State::ResetClaimed => timeouts.tcp_transitory,
        State::Established => timeouts.tcp_established,
        State::Closed => timeouts.tcp_closed,
        State::Stream => timeouts.udp_stream,
        State::Answered => timeouts.udp_answered,
        State::New if is_icmp(proto) => timeouts.icmp,
        State::New => timeouts.udp,
    }
}

/// What is neither TCP nor this lives as UDP does.
#[inline(always)]
const fn is_icmp(proto: u8) -> bool {
    matches!(proto, icmp::PROTO_V4 | icmp::PROTO_V6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{sctp, udp};

    const ICMP: u8 = icmp::PROTO_V4;
    const SEEN: u8 = Meta::ACTIVE;
    const OPEN: u8 = Meta::ACTIVE | Meta::ACK;
    const ENDED: u8 = Meta::FIN | Meta::CLOSING | Meta::CLOSED;

    #[test]
    fn what_two_directions_show() {
        for (proto, initiator, responder, expected) in [
            (tcp::PROTO, SEEN, 0, State::Syn),
            (tcp::PROTO, SEEN, OPEN, State::Syn),
            (tcp::PROTO, OPEN, OPEN, State::Established),
            (tcp::PROTO, OPEN | Meta::FIN, OPEN, State::Closing),
            (tcp::PROTO, OPEN | Meta::FIN, OPEN | Meta::FIN, State::Closing),
            (tcp::PROTO, OPEN | ENDED, OPEN | ENDED, State::Closed),
            (tcp::PROTO, OPEN, OPEN | Meta::RST, State::ResetClaimed),
            (tcp::PROTO, OPEN | Meta::FIN, OPEN | Meta::RST, State::ResetClaimed),
            (tcp::PROTO, ENDED, ENDED, State::Closed),
            (udp::PROTO, SEEN, 0, State::New),
            (udp::PROTO, SEEN | Meta::STREAM, 0, State::New),
            (udp::PROTO, SEEN, SEEN, State::Answered),
            (udp::PROTO, SEEN | Meta::STREAM, SEEN, State::Stream),
            (sctp::PROTO, SEEN | Meta::STREAM, SEEN, State::Stream),
            (ICMP, SEEN, SEEN, State::New),
        ] {
            assert_eq!(state(proto, initiator, responder), expected, "{proto} {initiator:#x} {responder:#x}");
        }
    }

    /// Under pressure nothing lives longer, and what is established or streams keeps the RFCs' minima.
    #[test]
    fn pressure_shortens() {
        use State::{Answered, Closed, Closing, Established, New, ResetClaimed, Stream, Syn};
        for state in [Syn, Established, Closing, ResetClaimed, Closed, New, Answered, Stream] {
            let proto = if matches!(state, New | Answered | Stream) { udp::PROTO } else { tcp::PROTO };
            let pressed = timeout(proto, state, &Timeouts::PRESSED);
            assert!(pressed <= timeout(proto, state, &Timeouts::DEFAULT), "{state:?}");
            assert!(pressed >= Timeouts::PRESSED.shortest(), "{state:?}");
        }
        assert!(timeout(tcp::PROTO, Established, &Timeouts::PRESSED) >= 7440);
        assert!(timeout(udp::PROTO, Stream, &Timeouts::PRESSED) >= 120);
    }
}
