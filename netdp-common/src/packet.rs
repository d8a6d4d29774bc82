//! The only door to a packet's bytes.

use bytemuck::Pod;

/// A packet that starts at its Ethernet header (or at the network header, see [`Packet::l3`]).
///
/// Offsets are in bytes from the start. Multi-byte values are as they lie in memory, network byte order.
pub trait Packet {
    /// Where the network header starts: 14, or 0 on interfaces without Ethernet header.
    fn l3(&self) -> usize;
    /// The EtherType in host byte order, from outside of any VLAN tag.
    fn ethertype(&self) -> u16;
    /// Length in bytes, link-layer header included; of an aggregated packet, the whole.
    fn len(&self) -> usize;
    /// Never true: there is always a link-layer or network header.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Addressed to the receiving interface (not broadcast, multicast or another host's frame).
    fn addressed_to_us(&self) -> bool;
    /// Reads a value; none if the packet is too short.
    fn load<T: Pod>(&self, at: usize) -> Option<T>;
    /// Writes a value that no checksum covers, or whose checksum is put right otherwise.
    fn store<T: Pod>(&mut self, at: usize, value: &T) -> Option<()>;
    /// Writes a value whose change no checksum within the packet takes back, as IPv6's header: what a network card has
    /// summed up over the whole packet (`CHECKSUM_COMPLETE`) has to follow it.
    fn store_unsummed<T: Pod>(&mut self, at: usize, value: &T) -> Option<()> {
        self.store(at, value)
    }
    /// Of an aggregated packet (GSO, GRO), the payload bytes of each of its segments; else 0.
    fn segment_size(&self) -> u32;
    /// Cuts the packet off after `len` bytes from its start, or fills it up with zeros; none if it can't be.
    fn resize(&mut self, len: usize) -> Option<()>;
    /// Puts `new` zero bytes in the place of the first `old` ones of the network header and what follows. Nobody is
    /// to fill in a checksum any more that was left to the device, provided that its place was among them.
    fn replace_head(&mut self, old: usize, new: usize) -> Option<()>;
    /// Tells the next hop for [`crate::verdict::Action::ToNextHop`]: its address in network byte order, IPv4 in
    /// the first word.
    fn set_next_hop(&mut self, via: [u32; 4], via_v6: bool);
    /// Puts a transport checksum right after the words under it changed.
    ///
    /// Works on complete, unchecked and partial (offloaded) checksums; only the implementation knows which.
    fn fix_l4_checksum(&mut self, at: usize, fix: &L4Fix) -> Option<()>;
}

/// What changed under a transport checksum.
#[derive(Clone, Copy, Debug)]
pub struct L4Fix {
    /// Ones' complement difference of the addresses, folded to 32 bits; 0 if the checksum does not cover them.
    pub addresses: u32,
    /// The checksum covers a pseudo-header.
    pub pseudo_header: bool,
    /// The two ports (or the identifier alone, in the low half) before.
    pub old_ports: u32,
    /// The two ports after.
    pub new_ports: u32,
    /// A checksum of zero means that there is none, and one that comes out as zero is written as ones.
    pub zero_is_none: bool,
}

/// The ones' complement difference that replacing `old` by `new` makes in a checksum over them (RFC 1624).
///
/// Words are in network byte order, as is the result.
#[inline(always)]
pub fn difference(old: &[u32], new: &[u32], sum: u32) -> u32 {
    let mut total = u64::from(sum);
    for word in old {
        total += u64::from(!*word);
    }
    for word in new {
        total += u64::from(*word);
    }
    total = (total & 0xffff_ffff) + (total >> 32);
    total = (total & 0xffff_ffff) + (total >> 32);
    total as u32
}

/// Applies a [`difference`] to a checksum field and returns the new field.
#[inline(always)]
pub fn apply_difference(field: u16, difference: u32) -> u16 {
    let mut sum = u32::from(!field) & 0xffff;
    sum += (difference & 0xffff) + (difference >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}
