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
    /// An endpoint, or a socket of the host; else a remote, or whoever pretends to be one.
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
    /// [`Flow::ended_at`] of the responder's entry.
    pub ended_at: u32,
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

/// What is learnt of a connection's end and kept in its responder's entry.
#[derive(Clone, Copy, Debug)]
pub struct End {
    /// [`Flow::flags`].
    pub flags: u8,
    /// [`Flow::timestamp`], if there is room for it.
    pub timestamp: u32,
    /// [`Flow::ended_at`].
    pub ended_at: u32,
}

impl End {
    /// Sets it in a copy of the entry.
    pub const fn write_to<A>(&self, flow: &mut Flow<A>) {
        flow.flags = self.flags;
        if self.flags & FLOW_TO_ENDPOINT != 0 {
            flow.via[3] = self.timestamp;
        }
        flow.ended_at = self.ended_at;
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

#[cfg(test)]
mod tests {
    use super::*;

    const INITIATOR: Sender = Sender { initiator: true, endpoint: true };
    const REMOTE: Sender = Sender { initiator: false, endpoint: false };
    const OPEN: u8 = Meta::ACTIVE | Meta::ACK;

    fn segment(flags: u8, sequence: u32, acknowledgement: u32) -> Segment {
        let counted = u32::from(flags & tcp::SYN != 0) + u32::from(flags & tcp::FIN != 0);
        let (end, flags) = (sequence.wrapping_add(counted), u32::from(flags));
        Segment { sequence, end, acknowledgement, flags, ..Segment::default() }
    }

    /// RFC 1982: the half of the circle ahead is after.
    #[test]
    fn numbers_wrap_around() {
        for (a, b, expected) in [
            (1, 0, true),
            (0, 0, false),
            (0, 1, false),
            (0, u32::MAX, true),
            (u32::MAX, 0, false),
            (5, u32::MAX - 5, true),
            (0x7fff_ffff, 0, true),
            (0x8000_0001, 0, false),
            (0x8000_0000, 1, true),
        ] {
            assert_eq!(after(a, b), expected, "{a:#x} after {b:#x}");
            assert_eq!(later(a, b), if expected { a } else { b });
        }
    }

    #[test]
    fn what_a_time_wait_takes() {
        let tombstone = Tombstone { end: 1000, timestamp: 500, no_time_wait: false };
        let wrapping = Tombstone { end: u32::MAX - 1, timestamp: u32::MAX, no_time_wait: false };
        let untimed = Tombstone { timestamp: 0, ..tombstone };
        let gone = Tombstone { no_time_wait: true, ..tombstone };
        let mut mismatches = Vec::new();
        for (name, tombstone, sequence, timestamp, expected) in [
            ("both after", tombstone, 1001, 501, Takes::AsItIs),
            ("the same sequence number", tombstone, 1000, 501, Takes::Not),
            ("an earlier sequence number", tombstone, 999, 501, Takes::Not),
            ("the same timestamp", tombstone, 1001, 500, Takes::WithoutTimestamp),
            ("an earlier timestamp", tombstone, 1001, 499, Takes::WithoutTimestamp),
            ("neither", tombstone, 999, 499, Takes::Not),
            ("a SYN without timestamp", tombstone, 1001, 0, Takes::AsItIs),
            ("such a SYN with an earlier sequence number", tombstone, 1000, 0, Takes::Not),
            ("a connection without timestamps", untimed, 1001, 1, Takes::AsItIs),
            ("both wrapped around", wrapping, 1, 1, Takes::AsItIs),
            ("the timestamp has not", wrapping, 1, u32::MAX - 1, Takes::WithoutTimestamp),
            ("no TIME_WAIT", gone, 1, 1, Takes::AsItIs),
        ] {
            let syn = Segment { timestamp, ..segment(tcp::SYN, sequence, 0) };
            let unstripped = if expected == Takes::WithoutTimestamp { Takes::Not } else { expected };
            if (tombstone.takes(&syn, true), tombstone.takes(&syn, false)) != (expected, unstripped) {
                mismatches.push(name);
            }
        }
        assert_eq!(mismatches, Vec::<&str>::new());
    }

    /// An established connection whose initiator sends 100 next, and whose responder 900.
    fn established() -> Connection {
        Connection {
            initiator: OPEN,
            responder: OPEN,
            initiator_next: 1,
            responder_next: 900,
            ..Connection::default()
        }
    }

    fn shown(mut connection: Connection, segments: &[(Sender, Segment)]) -> Connection {
        for (by, segment) in segments {
            connection.show(*by, segment);
        }
        connection
    }

    const FIN: u8 = tcp::FIN | tcp::ACK;
    const ACK: u8 = tcp::ACK;

    #[test]
    fn closing() {
        let first_fin = (INITIATOR, segment(FIN, 100, 900));
        let answer = |flags, seq, ack| (REMOTE, segment(flags, seq, ack));
        let last_ack = (INITIATOR, segment(ACK, 101, 901));
        for (name, segments, closed, no_time_wait) in [
            ("the initiator first", vec![first_fin, answer(FIN, 900, 101), last_ack], true, true),
            (
                "the same in four steps",
                vec![first_fin, answer(ACK, 900, 101), answer(FIN, 900, 101), last_ack],
                true,
                true,
            ),
            ("its FIN is not acknowledged", vec![first_fin, answer(FIN, 900, 100), last_ack], false, false),
            (
                "at the same time",
                vec![first_fin, answer(FIN, 900, 100), last_ack, answer(ACK, 901, 101)],
                true,
                false,
            ),
            (
                "the responder first",
                vec![answer(FIN, 900, 100), (INITIATOR, segment(FIN, 100, 901)), answer(ACK, 901, 101)],
                true,
                false,
            ),
            (
                "its FIN is acknowledged late",
                vec![
                    answer(FIN, 900, 100),
                    (INITIATOR, segment(FIN, 100, 900)),
                    answer(ACK, 901, 101),
                    (INITIATOR, segment(ACK, 101, 901)),
                ],
                true,
                false,
            ),
            ("half-closed, and more data", vec![first_fin, answer(ACK, 950, 101)], false, false),
            ("a stranger's FIN from before", vec![answer(FIN, 800, 100)], false, false),
        ] {
            let connection = shown(established(), &segments);
            assert_eq!(connection.is_closed(), closed, "{name}");
            assert_eq!(connection.initiator & Meta::CLOSED != 0, closed, "{name}");
            assert_eq!(connection.flags & FLOW_NO_TIME_WAIT != 0, no_time_wait, "{name}");
            if closed {
                assert_eq!(connection.initiator_next, 101, "{name}");
            }
        }
    }

    /// More than half of the circle may lie between the SYN and the FIN.
    #[test]
    fn the_end_is_the_latest_number_sent_since_closing_began() {
        let far = 0x9000_0000;
        let connection = shown(
            established(),
            &[
                (REMOTE, Segment { echo: 70, ..segment(FIN, 900, far) }),
                (INITIATOR, Segment { timestamp: 72, end: far + 500, ..segment(ACK, far, 901) }),
                (INITIATOR, Segment { timestamp: 71, end: far + 100, ..segment(ACK, far, 901) }),
            ],
        );
        assert_eq!((connection.initiator_next, connection.timestamp), (far + 500, 72));
    }

    #[test]
    fn resets() {
        let syn_sent = Connection { initiator: Meta::ACTIVE, initiator_next: 101, ..Connection::default() };
        let published = Sender { initiator: true, endpoint: false };
        let endpoint = Sender { initiator: false, endpoint: true };
        let fin = shown(established(), &[(REMOTE, segment(FIN, 900, 100))]);
        for (name, before, by, reset, counts) in [
            ("an endpoint's", established(), INITIATOR, segment(tcp::RST, 7, 0), true),
            ("a server's behind a published port", established(), endpoint, segment(tcp::RST, 7, 0), true),
            ("refused", syn_sent, REMOTE, segment(tcp::RST | tcp::ACK, 0, 101), true),
            ("a stranger refuses", syn_sent, REMOTE, segment(tcp::RST | tcp::ACK, 0, 100), false),
            ("a stranger's to a SYN", syn_sent, REMOTE, segment(tcp::RST, 0, 101), false),
            ("an answer to a stranger", syn_sent, INITIATOR, segment(tcp::RST, 7, 0), false),
            ("a SYN taken back", syn_sent, INITIATOR, segment(tcp::RST, 101, 0), true),
            ("exactly the next", established(), REMOTE, segment(tcp::RST, 900, 0), true),
            ("one further", established(), REMOTE, segment(tcp::RST, 901, 0), false),
            ("exactly the next after a FIN", fin, REMOTE, segment(tcp::RST, 901, 0), true),
            ("a client's", established(), published, segment(tcp::RST, 1, 0), true),
            (
                "a stranger's instead of the client's",
                established(),
                published,
                segment(tcp::RST, 2, 0),
                false,
            ),
        ] {
            let after = shown(before, &[(by, reset)]);
            assert_eq!(after.is_closed(), counts, "{name}");
            assert_eq!(after.initiator & after.responder & Meta::CLOSING, Meta::CLOSING, "{name}");
            let has_fin = before.responder & Meta::FIN != 0;
            assert_eq!(after.flags & FLOW_NO_TIME_WAIT != 0, counts && !has_fin, "{name}");
            let later = shown(after, &[(INITIATOR, segment(ACK, 100, 900))]);
            assert_eq!(later.responder & Meta::RST != 0, counts && !by.initiator, "{name}: revived");
            assert_eq!(later.is_closed(), counts, "{name}: later");
        }
    }

    /// Both SYNs cross, then both acknowledgements.
    #[test]
    fn simultaneous_open() {
        let mut connection = Connection::default();
        connection.open(&segment(tcp::SYN, 100, 0));
        let connection = shown(
            connection,
            &[
                (REMOTE, segment(tcp::SYN, 900, 0)),
                (INITIATOR, segment(tcp::SYN | tcp::ACK, 100, 901)),
                (REMOTE, segment(tcp::SYN | tcp::ACK, 900, 101)),
            ],
        );
        assert_eq!(connection.initiator & connection.responder & Meta::ACK, Meta::ACK);
        assert_eq!(connection.initiator & Meta::CLOSING, 0);
        assert_eq!(connection.initiator_next, 101);
    }

    use std::vec;
    use std::vec::Vec;
}
