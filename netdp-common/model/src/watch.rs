//! Packets through a host, watched from outside: what must hold whatever the packets are.
//!
//! The watcher reads frames with a few lines of its own, leniently: what the core has translated must not escape it
//! because a stricter parser finds something to complain about.

use std::collections::{HashMap, HashSet};

use netdp_common::family::Be16;
use netdp_common::flow::{NETWORK_NO_ICC, NETWORK_ROUTED, PublishedKey, Tuple};
use netdp_common::header::{ethernet, icmp, ipv4, ipv6, sctp, tcp, udp};
use netdp_common::reclaim::remove_exact;
use netdp_common::tables::{Entry as _, Flows as _, Host as _};

use crate::checksum::checksums_are_right;
use crate::cpu::Cpu;
use crate::frame::{ethertype, load};
use crate::hook::{Fate, Hook};
use crate::plan::{Place, Plan};
use crate::table::Table;
use crate::{NEXT_HOP, World, extensions, ifindex, same_prefix};

/// Protocol, source, source port, destination, destination port; of an echo as in [`Tuple`].
type Seen<A> = (u8, A, u16, A, u16);

fn reversed<A: Copy>((proto, src, sport, dst, dport): Seen<A>) -> Seen<A> {
    (proto, dst, dport, src, sport)
}

/// A host, its flow table, and what has been seen of it.
pub struct Watched<F: Plan> {
    /// What the control plane has set up.
    pub world: World<F::Addr>,
    /// The flow table.
    pub table: Table<F::Addr>,
    /// What packets became, and what their answers may become.
    translations: HashMap<Seen<F::Addr>, Seen<F::Addr>>,
    /// What the addresses of first fragments became.
    fragmented: HashSet<[F::Addr; 4]>,
    packets: u64,
    /// Frames that come in once more: next.
    pub again: Vec<(Hook, Vec<u8>)>,
}

impl<F: Plan> Watched<F> {
    /// A host with room for `flows` flows.
    pub fn new(world: World<F::Addr>, flows: usize) -> Self {
        let table = Table::new(flows * 2, flows * 2);
        Self {
            world,
            table,
            translations: HashMap::new(),
            fragmented: HashSet::new(),
            packets: 0,
            again: Vec::new(),
        }
    }

    /// A CPU of it, with random numbers that no other has.
    pub fn cpu(&mut self, now: u32) -> Cpu<'_, F, &Table<F::Addr>> {
        self.packets += 1;
        Cpu::new(&self.world, &self.table, self.packets << 20, now)
    }

    /// Runs a frame through a hook.
    ///
    /// # Errors
    /// What should not have happened.
    pub fn run(&mut self, now: u32, hook: Hook, frame: &[u8]) -> Result<(Fate, Vec<u8>), String> {
        let mut cpu = self.cpu(now);
        cpu.own = hook == Hook::ToWorld;
        let early = cpu.early(hook, frame);
        let fate = cpu.run(hook, frame.to_vec());
        let (after, next_hop) = (std::mem::take(&mut cpu.frame), cpu.next_hop);
        let again = cpu.again.take().into_iter().map(|(ifindex, frame)| (Hook::at_ingress(ifindex), frame));
        self.again.extend(again);
        let judged = self.judge(hook, frame, fate, &after).and_then(|()| match fate {
            Fate::ToNextHop(_) if next_hop != NEXT_HOP => Err("the wrong next hop"),
            _ => early.map_or(Ok(()), |early| early.judge(fate)),
        });
        match judged {
            Ok(()) => self.stays_inside(now, hook, frame, fate).map(|()| (fate, after)),
            Err(what) => {
                Err(format!("{what}: {hook:?}, {fate:?}\n before {frame:02x?}\n after  {after:02x?}"))
            }
        }
    }

    /// Removes the flow of an initiator's tuple, as `netdp flows flush` does. False: there is none.
    pub fn remove(&mut self, key: &Tuple<F::Addr>, now: u32) -> bool {
        let Some(generation) = (&self.table).get(key).map(|entry| entry.meta().generation()) else {
            return false;
        };
        remove_exact(&self.cpu(now), key, generation)
    }

    /// What the stack may do with what it is left: send it out.
    fn stays_inside(&mut self, now: u32, hook: Hook, frame: &[u8], fate: Fate) -> Result<(), String> {
        if fate != Fate::Stack || hook == Hook::ToWorld || ethertype(frame) != F::ETHERTYPE {
            return Ok(());
        }
        let mut cpu = self.cpu(now);
        let fate = cpu.run(Hook::ToWorld, frame.to_vec());
        let after = std::mem::take(&mut cpu.frame);
        let private = |frame| fields::<F>(frame).is_some_and(|fields| self.is_private(fields.src));
        match (private(frame), fate) {
            (true, Fate::Dropped(_)) | (false, Fate::Stack) => Ok(()),
            (true, Fate::Leaves) if !private(&after) => Ok(()),
            _ => Err(format!("by way of the stack {fate:?}: {frame:02x?}")),
        }
    }

    fn judge(&mut self, hook: Hook, before: &[u8], fate: Fate, after: &[u8]) -> Result<(), &'static str> {
        match fate {
            Fate::Stack if before != after => self.judge_delivered(hook, before, after),
            Fate::Dropped(_) if before != after => Err("touched, and not sent on"),
            Fate::Stack => self.judge_stack(hook, before),
            Fate::Dropped(_) | Fate::Waits => Ok(()),
            Fate::Answered(_) => match checksums_are_right(after) {
                Some(true) => Ok(()),
                _ => Err("an answer with a wrong checksum"),
            },
            Fate::Leaves if fields::<F>(after).is_none_or(|fields| self.is_private(fields.src)) => {
                Err("leaves untranslated")
            }
            Fate::Leaves if before.len() != after.len() => Err("another length"),
            Fate::Leaves
                if checksums_are_right(before) == Some(true) && checksums_are_right(after) != Some(true) =>
            {
                Err("a wrong checksum")
            }
            Fate::Leaves => {
                self.note_own(before, after);
                Ok(())
            }
            Fate::ToEndpoint(_) | Fate::ToNextHop(_) => {
                if before.len() != after.len() {
                    return Err("another length");
                }
                if checksums_are_right(before) == Some(true) && checksums_are_right(after) != Some(true) {
                    return Err("a wrong checksum");
                }
                self.judge_sent(hook, before, fate, after)
            }
        }
    }

    /// What the host's own sockets send with another port, its answers have it, too.
    fn note_own(&mut self, before: &[u8], after: &[u8]) {
        let seen = |watch: &Self, frame| watch.seen(frame, &fields::<F>(frame)?);
        if let (Some(old), Some(new)) = (seen(self, before), seen(self, after)) {
            self.translations.insert(old, new);
            self.translations.insert(reversed(new), reversed(old));
        }
    }

    /// The answer to one of the host's own sockets, or an error about what it sent.
    fn judge_delivered(&self, hook: Hook, before: &[u8], after: &[u8]) -> Result<(), &'static str> {
        let (old, new) = fields::<F>(before).zip(fields::<F>(after)).ok_or("without a network header")?;
        if hook != Hook::FromWorld || before.len() != after.len() || self.is_private(new.dst) {
            return Err("touched, and not sent on");
        }
        if checksums_are_right(before) == Some(true) && checksums_are_right(after) != Some(true) {
            return Err("a wrong checksum");
        }
        match (self.seen(before, &old), self.seen(after, &new)) {
            (Some(old), Some(new)) if self.translations.get(&old) == Some(&new) => Ok(()),
            (Some(_), Some(_)) => Err("nothing allows this"),
            _ => self.judge_error(before, &old, after, &new),
        }
    }

    /// The stack forwards to endpoints, where the host is a router.
    fn judge_stack(&self, hook: Hook, before: &[u8]) -> Result<(), &'static str> {
        if hook != Hook::FromWorld || ethertype(before) != F::ETHERTYPE {
            return Ok(());
        }
        match fields::<F>(before) {
            Some(fields) if self.is_private(fields.dst) => Err("left to the stack for an endpoint"),
            _ => Ok(()),
        }
    }

    fn judge_sent(
        &mut self,
        hook: Hook,
        before: &[u8],
        fate: Fate,
        after: &[u8],
    ) -> Result<(), &'static str> {
        let (old, new) =
            fields::<F>(before).zip(fields::<F>(after)).ok_or("sent without a network header")?;
        if let Fate::ToEndpoint(veth) = fate {
            let endpoint = self.world.senders.get(&veth).ok_or("to nobody")?;
            if !self.is_of(veth, new.dst) || after[..6] != endpoint.mac {
                return Err("to the wrong endpoint");
            }
            if before[ethernet::LEN..] == after[ethernet::LEN..] {
                return self.judge_neighbours(hook, before, &old, veth);
            }
        } else if fate != Fate::ToNextHop(ifindex::UPLINK) {
            return Err("out of the wrong interface");
        } else if self.is_private(new.src) {
            return Err("an endpoint's address leaves");
        }
        if new.ttl != old.ttl.wrapping_sub(1) || new.ttl == 0 {
            return Err("not one hop less");
        }
        let addresses = [old.src, old.dst, new.src, new.dst];
        if old.is_later_fragment {
            // Which datagram's, is for the tables of tests to say.
            return if self.fragmented.contains(&addresses) {
                Ok(())
            } else {
                Err("of nothing that was sent")
            };
        }
        self.fragmented.insert(addresses);
        match (self.seen(before, &old), self.seen(after, &new)) {
            (Some(old), Some(new)) => self.judge_translation(hook, fate, old, new),
            _ => self.judge_error(before, &old, after, &new),
        }
    }

    /// Untranslated: within a network, if that is allowed. Who is apart may still be found: a published port's answers go
    /// to a neighbour's MAC.
    fn judge_neighbours(
        &self,
        hook: Hook,
        before: &[u8],
        fields: &Fields<F::Addr>,
        veth: u32,
    ) -> Result<(), &'static str> {
        let network = |veth| self.world.senders.get(&veth).map(|endpoint| endpoint.network);
        let (from, to) = (network(hook.interface()), network(veth));
        let discovers = || {
            let is_one_of =
                |kind| matches!(kind, icmp::NEIGHBOUR_SOLICITATION | icmp::NEIGHBOUR_ADVERTISEMENT);
            fields.proto == icmp::PROTO_V6 && before.get(fields.l4).copied().is_some_and(is_one_of)
        };
        let icc = |network| self.world.networks[&network].flags & NETWORK_NO_ICC == 0 || discovers();
        match (hook, from, to) {
            (Hook::FromContainer(_), Some(from), Some(to)) if from == to && icc(from) => Ok(()),
            _ => Err("untranslated"),
        }
    }

    /// The answer to something, or to a published port, or from an endpoint to the world.
    fn judge_translation(
        &mut self,
        hook: Hook,
        fate: Fate,
        old: Seen<F::Addr>,
        new: Seen<F::Addr>,
    ) -> Result<(), &'static str> {
        let outward = matches!(fate, Fate::ToNextHop(_))
            && self.is_of(hook.interface(), old.1)
            && (old.3, old.4) == (new.3, new.4);
        let known = self.translations.get(&old) == Some(&new);
        if !known && !outward && !self.is_published(old, new) {
            return Err("nothing allows this");
        }
        self.translations.insert(old, new);
        self.translations.insert(reversed(new), reversed(old));
        Ok(())
    }

    fn is_published(&mut self, old: Seen<F::Addr>, new: Seen<F::Addr>) -> bool {
        let addr = F::at(Place::Unspecified);
        let port = Be16::new(old.4);
        let key = PublishedKey { addr, proto: old.0, pad: 0, port };
        let cpu = self.cpu(0);
        cpu.published(&key).is_some_and(|found| {
            let leads = (found.endpoint, found.endpoint_port(port).get()) == (new.3, new.4);
            leads && found.admits(&old.1, |list, addr| cpu.is_source(list, addr))
        })
    }

    /// An ICMP error: about a packet that was translated from what is quoted now to what was quoted.
    fn judge_error(
        &self,
        before: &[u8],
        old: &Fields<F::Addr>,
        after: &[u8],
        new: &Fields<F::Addr>,
    ) -> Result<(), &'static str> {
        const QUOTE: usize = 8;
        if old.proto != F::ICMP || new.proto != F::ICMP {
            return Err("translated without ports");
        }
        let quoted = |frame: &[u8], fields: &Fields<F::Addr>| {
            let quoted = fields_at::<F>(frame, fields.l4 + QUOTE)?;
            self.seen(frame, &quoted)
        };
        match (quoted(before, old), quoted(after, new)) {
            (Some(old), Some(new)) if self.translations.get(&new) == Some(&old) => Ok(()),
            _ => Err("an error about nothing"),
        }
    }

    fn is_private(&self, addr: F::Addr) -> bool {
        let routed = |network| {
            self.world.networks.get(&network).is_some_and(|network| network.flags & NETWORK_ROUTED != 0)
        };
        match self.world.endpoints.get(&addr) {
            Some(endpoint) => !routed(endpoint.network),
            None => self.is_allowed(0, addr),
        }
    }

    /// Whether the endpoint behind a host veth may have this address.
    fn is_of(&self, veth: u32, addr: F::Addr) -> bool {
        let own = self.world.senders.get(&veth).map(|endpoint| endpoint.addr);
        own == Some(addr) || self.is_allowed(veth, addr)
    }

    fn is_allowed(&self, veth: u32, addr: F::Addr) -> bool {
        let mut allowed = self.world.allowed.iter().filter(|(sender, ..)| *sender == veth);
        allowed.any(|(_, prefix, bits)| same_prefix(prefix, &addr, *bits))
    }

    fn seen(&self, frame: &[u8], fields: &Fields<F::Addr>) -> Option<Seen<F::Addr>> {
        let word = |at| load::<u16>(frame, at).map(u16::from_be);
        let (sport, dport) = if fields.proto == F::ICMP {
            let identifier = word(fields.l4 + icmp::IDENTIFIER)?;
            let [request, reply] = if F::ICMP == icmp::PROTO_V4 { [8, 0] } else { [128, 129] };
            match *frame.get(fields.l4)? {
                found if found == request => (identifier, 0),
                found if found == reply => (0, identifier),
                _ => return None,
            }
        } else if matches!(fields.proto, tcp::PROTO | udp::PROTO | sctp::PROTO) {
            (word(fields.l4)?, word(fields.l4 + 2)?)
        } else if matches!(fields.proto, 4 | 41 | 47 | 50 | 97 | 115 | 137) {
            (0, 0)
        } else {
            return None;
        };
        Some((fields.proto, fields.src, sport, fields.dst, dport))
    }
}

/// What the watcher reads of a network header; of none that every router drops (RFC 1812 5.2.2).
struct Fields<A> {
    src: A,
    dst: A,
    proto: u8,
    ttl: u8,
    l4: usize,
    is_later_fragment: bool,
}

fn fields<F: Plan>(frame: &[u8]) -> Option<Fields<F::Addr>> {
    fields_at::<F>(frame, ethernet::LEN)
}

fn fields_at<F: Plan>(frame: &[u8], l3: usize) -> Option<Fields<F::Addr>> {
    let byte = |at: usize| frame.get(l3 + at).copied();
    let is_v4 = F::ETHERTYPE == ethernet::IPV4;
    let (addresses, ttl, proto, l4, is_later_fragment) = if is_v4 {
        let header_len = usize::from(byte(0)? & 0xf) * 4;
        let is_later = byte(6)? & 0x1f != 0 || byte(7)? != 0;
        (ipv4::ADDRESSES, byte(8)?, byte(9)?, l3 + header_len, is_later)
    } else {
        let l4 = l3 + ipv6::LEN;
        let behind = extensions::behind(byte(6)?, frame.get(l4..).unwrap_or_default());
        let is_later = behind.fragment.is_some_and(|(offset, _)| offset != 0);
        (ipv6::ADDRESSES, byte(7)?, behind.proto, l4 + behind.len, is_later)
    };
    let version = if is_v4 { 4 } else { 6 };
    // An aggregated packet of 64 KiB and more says that it has no length.
    let total_len = load::<u16>(frame, l3 + 2).map_or(0, |len| usize::from(u16::from_be(len)));
    let too_short = is_v4 && (l4 < l3 + ipv4::LEN || (total_len != 0 && l3 + total_len < l4));
    if byte(0)? >> 4 != version || too_short {
        return None;
    }
    let [src, dst] = [0, size_of::<F::Addr>()].map(|at| load::<F::Addr>(frame, l3 + addresses + at));
    Some(Fields { src: src?, dst: dst?, proto, ttl, l4, is_later_fragment })
}
