//! TCP as a NAT sees it (RFC 9293, RFC 5382, RFC 7857): what ends a connection, and when the remote takes another one
//! on the same tuple. Values in, values out.
//!
//! Sequence numbers and timestamps are in host byte order and compared as RFC 1982 says: they wrap around.

use crate::flow::{FLOW_INITIATOR_ACKED, FLOW_NO_TIME_WAIT, FLOW_RESPONDER_ACKED, FLOW_TO_ENDPOINT, Flow};
use crate::header::tcp;
use crate::meta::Meta;

/// What a segment says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Segment {
    /// Its sequence number.
    pub sequence: u32,
    /// The one after it: data, SYN and FIN counted.
    pub end: u32,
    /// What it acknowledges; counts only with [`tcp::ACK`].
    pub acknowledgement: u32,
    /// The sender's timestamp (RFC 7323); 0: none, a real 0 is told as 1.
    pub timestamp: u32,
    /// The receiver's timestamp that it echoes; 0: none.
    pub echo: u32,
    /// Where the timestamp option is, from the start of the TCP header; 0: nowhere.
    pub option_at: u32,
    /// Its flags.
    pub flags: u32,
}

impl Segment {
    /// Whether it opens a connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & tcp::OPENING as u32 == tcp::SYN as u32
    }

    /// Whether one of these flags is set.
    #[inline(always)]
    const fn has(&self, flags: u8) -> bool {
        self.flags & flags as u32 != 0
    }
}

/// Whether `a` is after `b`.
#[inline(always)]
pub const fn after(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) > 0
}

#[inline(always)]
const fn later(a: u32, b: u32) -> u32 {
    if after(a, b) { a } else { b }
}

/// What a closed connection leaves behind on its tuple: the end of what its initiator has sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tombstone {
    /// The sequence number after the last one.
    pub end: u32,
    /// The last timestamp; 0: there was none.
    pub timestamp: u32,
    /// The responder can have no TIME_WAIT: it was reset before it sent its FIN, or its FIN acknowledged the other's.
    pub no_time_wait: bool,
}

impl Tombstone {
    /// Of a responder's entry.
    #[inline(always)]
    pub fn of<A>(answer: &Flow<A>) -> Self {
        Self {
            end: answer.next,
            timestamp: answer.timestamp(),
            no_time_wait: answer.flags & FLOW_NO_TIME_WAIT != 0,
        }
    }

    /// Whether the responder's TIME_WAIT takes this SYN as a new connection's (RFC 6191, RFC 1122 4.2.2.13).
    ///
    /// Linux asks for a later timestamp, stacks of BSD's line for a later sequence number: both are asked for.
    /// `strip`: the SYN's timestamp may be taken away, then the sequence number alone decides everywhere.
    #[inline(always)]
    pub const fn takes(&self, syn: &Segment, strip: bool) -> Takes {
        if self.no_time_wait {
            return Takes::AsItIs;
        }
        if !after(syn.sequence, self.end) {
            return Takes::Not;
        }
        if self.timestamp == 0 || syn.timestamp == 0 || after(syn.timestamp, self.timestamp) {
            return Takes::AsItIs;
        }
        if strip { Takes::WithoutTimestamp } else { Takes::Not }
    }
}

/// See [`Tombstone::takes`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Takes {
    /// It would be refused.
    Not,
    /// It is taken.
    AsItIs,
    /// It is taken if its timestamp option is overwritten.
    WithoutTimestamp,
}

/// Who sent a segment.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Sender {
    /// The side that opened the connection.
    pub initiator: bool,
    /// An endpoint; else a remote, or whoever pretends to be one.
    pub endpoint: bool,
}

/// A connection: both entries of its flow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Connection {
    /// [`Meta::bits`] of the initiator's entry.
    pub initiator: u8,
    /// [`Meta::bits`] of the responder's entry.
    pub responder: u8,
    /// [`Flow::flags`] of the responder's entry.
    pub flags: u8,
    /// [`Flow::next`] of the responder's entry.
    pub initiator_next: u32,
    /// [`Flow::next`] of the initiator's entry.
    pub responder_next: u32,
    /// The initiator's last timestamp, see [`Flow::timestamp`].
    pub timestamp: u32,
}

impl Connection {
    /// Of both entries' values.
    #[inline(always)]
    pub fn of(initiator: Meta, responder: Meta) -> Self {
        Self { initiator: initiator.bits(), responder: responder.bits(), ..Self::default() }
    }

    /// Takes note of a segment that ends something, or follows one that did.
    #[inline(always)]
    pub fn show(&mut self, by: Sender, segment: &Segment) {
        let acks = if segment.has(tcp::ACK) { Meta::ACK } else { 0 };
        if segment.has(tcp::RST) {
            return self.reset(by, segment);
        }
        self.revive();
        self.set(by.initiator, Meta::ACTIVE | acks);
        if segment.has(tcp::FIN) && self.believes_fin(by, segment) {
            self.finish(by, segment);
        }
        if self.initiator & Meta::CLOSING != 0 {
            self.close(by, segment);
        }
    }

    /// Whether both sides have sent their last and know it, or one was reset.
    #[inline(always)]
    pub const fn is_closed(&self) -> bool {
        self.responder & Meta::CLOSED != 0
    }

    #[inline(always)]
    fn set(&mut self, initiator: bool, bits: u8) {
        if initiator {
            self.initiator |= bits;
        } else {
            self.responder |= bits;
        }
    }

    #[inline(always)]
    fn reset(&mut self, by: Sender, segment: &Segment) {
        let counts = self.believes_reset(by, segment);
        let was_closing = self.initiator & Meta::CLOSING != 0;
        self.set(by.initiator, Meta::RST);
        self.initiator |= Meta::CLOSING;
        self.responder |= Meta::CLOSING;
        if !counts || self.is_closed() {
            return;
        }
        self.initiator |= Meta::CLOSED;
        self.responder |= Meta::CLOSED;
        if self.responder & Meta::FIN == 0 {
            self.flags |= FLOW_NO_TIME_WAIT;
        }
        if by.initiator {
            self.initiator_next =
                if was_closing { later(segment.end, self.initiator_next) } else { segment.end };
        }
    }

    /// An endpoint's reset counts at once, but for the one that it sends to a stranger's segment while its own SYN is
    /// on its way. A remote's counts to a SYN if it acknowledges that SYN, later if it continues exactly where the
    /// endpoint's last acknowledgement ends (RFC 5961 3.2): whoever only guesses ports ends nothing.
    #[inline(always)]
    const fn believes_reset(&self, by: Sender, segment: &Segment) -> bool {
        let opened = self.initiator & Meta::ACK != 0;
        if by.initiator {
            return (by.endpoint && opened) || segment.sequence == self.initiator_next;
        }
        if by.endpoint {
            return true;
        }
        if opened {
            segment.sequence == self.responder_next
        } else {
            segment.has(tcp::ACK) && segment.acknowledgement == self.initiator_next
        }
    }

    /// A reset that was not believed is forgotten when the connection goes on.
    #[inline(always)]
    fn revive(&mut self) {
        let either = self.initiator | self.responder;
        if either & Meta::RST == 0 || self.is_closed() {
            return;
        }
        let gone = if either & Meta::FIN == 0 { Meta::RST | Meta::CLOSING } else { Meta::RST };
        self.initiator &= !gone;
        self.responder &= !gone;
    }

    /// Before both sides have acknowledged, a FIN is a stranger's; so is a remote's that the endpoint has already
    /// acknowledged, unless it has been seen.
    #[inline(always)]
    const fn believes_fin(&self, by: Sender, segment: &Segment) -> bool {
        let known = if by.initiator { self.initiator_next } else { self.responder_next };
        let own = if by.initiator { self.initiator } else { self.responder };
        self.initiator & self.responder & Meta::ACK != 0
            && (by.endpoint || own & Meta::FIN != 0 || after(segment.end, known))
    }

    #[inline(always)]
    fn finish(&mut self, by: Sender, segment: &Segment) {
        if self.initiator & Meta::CLOSING == 0 {
            // From here on a running maximum, see Flow::next.
            self.initiator_next = if by.initiator { segment.end } else { segment.acknowledgement };
            self.initiator |= Meta::CLOSING;
            self.responder |= Meta::CLOSING;
        }
        self.set(by.initiator, Meta::FIN);
        if by.initiator {
            return;
        }
        self.responder_next = segment.end;
        if self.initiator & Meta::FIN != 0 && self.acks_initiator(segment) {
            // In CLOSE_WAIT before, in LAST_ACK now.
            self.flags |= FLOW_NO_TIME_WAIT;
        }
    }

    #[inline(always)]
    fn close(&mut self, by: Sender, segment: &Segment) {
        if by.initiator {
            self.initiator_next = later(segment.end, self.initiator_next);
            self.seen(segment.timestamp);
            if self.responder & Meta::FIN == 0 {
                // Half-closed: the other side goes on.
                if by.endpoint && segment.has(tcp::ACK) {
                    self.responder_next = segment.acknowledgement;
                }
            } else if segment.has(tcp::ACK) && !after(self.responder_next, segment.acknowledgement) {
                self.flags |= FLOW_INITIATOR_ACKED;
            }
        } else {
            self.seen(segment.echo);
            if self.initiator & Meta::FIN != 0 && self.acks_initiator(segment) {
                self.flags |= FLOW_RESPONDER_ACKED;
            }
        }
        const BOTH: u8 = FLOW_INITIATOR_ACKED | FLOW_RESPONDER_ACKED;
        if self.flags & BOTH == BOTH {
            self.initiator |= Meta::CLOSED;
            self.responder |= Meta::CLOSED;
        }
    }

    #[inline(always)]
    const fn acks_initiator(&self, segment: &Segment) -> bool {
        segment.has(tcp::ACK) && !after(self.initiator_next, segment.acknowledgement)
    }

    /// A timestamp of the initiator.
    #[inline(always)]
    fn seen(&mut self, timestamp: u32) {
        if timestamp != 0 && (self.timestamp == 0 || after(timestamp, self.timestamp)) {
            self.timestamp = timestamp;
        }
    }
}

impl<A> Flow<A> {
    /// The last timestamp that the initiator of a closing connection has sent; 0: none, or there is no room for it.
    /// In the word of `via` that MACs leave.
    #[inline(always)]
    pub const fn timestamp(&self) -> u32 {
        if self.flags & FLOW_TO_ENDPOINT != 0 { self.via[3] } else { 0 }
    }
}
