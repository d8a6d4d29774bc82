//! A packet in a TC program: the only code that touches its bytes.

use core::ptr;

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::{
    __sk_buff, BPF_CSUM_LEVEL_RESET, BPF_F_INGRESS, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR,
    BPF_F_RECOMPUTE_CSUM,
};
use aya_ebpf::helpers::{
    bpf_clone_redirect, bpf_csum_level, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_head,
    bpf_skb_change_tail, bpf_skb_change_type, bpf_skb_load_bytes, bpf_skb_pull_data, bpf_skb_store_bytes,
    bpf_skb_vlan_pop,
};
use bytemuck::Pod;
use netdp_common::header::ethernet;
use netdp_common::packet::{L4Fix, Packet};

use crate::atomic::length;
use crate::frame::{Frame, Hooked};

/// `skb->pkt_type` of a frame for this host.
const PACKET_HOST: u32 = 0;
/// Index in `skb->cb` of [`Skb::leave_note`].
const NOTE: usize = 0;

/// A packet in a TC program: a socket buffer that begins with an Ethernet header.
pub(crate) type Skb<F> = Frame<F, __sk_buff>;

/// The context of a TC program at the egress of a device without Ethernet header, as tun, WireGuard and PPP devices
/// are: what leaves by it begins with its network header.
#[repr(transparent)]
pub(crate) struct Bare(__sk_buff);

/// What a socket buffer begins with.
pub(crate) trait Buffer {
    /// See [`Packet::l3`].
    const L3: usize;
}

impl Buffer for __sk_buff {
    const L3: usize = ethernet::LEN;
}

impl Buffer for Bare {
    const L3: usize = 0;
}

/// `struct bpf_redir_neigh`: an address family and an address.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct RedirNeigh {
    family: u32,
    addr: [u32; 4],
}

const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Reads a context field; volatile, because the verifier wants each access as it is declared.
macro_rules! field {
    ($skb:expr, $name:ident) => {{
        // SAFETY: the context is valid for the program's run, and the field is readable in TC programs.
        unsafe { ptr::read_volatile(&raw const (*$skb).$name) }
    }};
}

impl<F, K: Buffer> Hooked<F> for Frame<F, K> {
    #[inline(always)]
    fn interface(&self) -> u32 {
        field!(self.skb(), ifindex)
    }

    #[inline(always)]
    fn came_by(&self) -> u32 {
        field!(self.skb(), ingress_ifindex)
    }

    #[inline(always)]
    fn socket_buffer(&self) -> Option<Skb<F>> {
        Some(Skb::new(self.skb()))
    }
}

impl<F, K: Buffer> Frame<F, K> {
    /// The context as the helpers take it.
    #[inline(always)]
    const fn skb(&self) -> *mut __sk_buff {
        self.context.cast()
    }

    /// Where [`Packet::set_next_hop`] pointed to, as `struct bpf_redir_neigh`; uninitialised before.
    #[inline(always)]
    pub(crate) fn next_hop(&mut self) -> *mut RedirNeigh {
        self.next_hop.as_mut_ptr()
    }

    /// Leaves a word for the program that continues this one.
    #[inline(always)]
    pub(crate) fn leave_note(&mut self, note: u32) {
        // SAFETY: the control buffer is writable in TC programs.
        unsafe { ptr::write_volatile(&raw mut (*self.skb()).cb[NOTE], note) };
    }

    /// What the program left that this one continues.
    #[inline(always)]
    pub(crate) fn note(&self) -> u32 {
        // SAFETY: the control buffer is readable in TC programs.
        unsafe { ptr::read_volatile(&raw const (*self.skb()).cb[NOTE]) }
    }

    /// Copies the whole frame and returns its length; 0 if there is no room for it.
    #[inline(always)]
    pub(crate) fn copy_to<const ROOM: usize>(&self, to: *mut [u8; ROOM]) -> u32 {
        let Some(len) = length(field!(self.skb(), len), ROOM) else { return 0 };
        // SAFETY: writes `len` bytes, for which there is room (the verifier checks it).
        if unsafe { bpf_skb_load_bytes(self.skb().cast(), 0, to.cast(), len) } == 0 { len } else { 0 }
    }

    /// Makes the frame another one: the first `len` bytes of `from`. Nobody has checked its checksums.
    #[inline(always)]
    pub(crate) fn copy_from<const ROOM: usize>(&mut self, from: *const [u8; ROOM], len: u32) -> Option<()> {
        self.resize(len as usize)?;
        let len = length(len, ROOM)?;
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: reads `len` bytes, which are there (the verifier checks it).
        if unsafe { bpf_skb_store_bytes(self.skb(), 0, from.cast(), len, flags) } != 0 {
            return None;
        }
        // SAFETY: a helper call on the program's own context. Where nobody had checked them before, it says so.
        unsafe { bpf_csum_level(self.skb(), u64::from(BPF_CSUM_LEVEL_RESET)) };
        Some(())
    }

    /// Lets a copy of the frame, as it is now, come in by an interface, through this CPU's backlog; false if it does not.
    #[inline(always)]
    pub(crate) fn come_in_again(&self, ifindex: u32) -> bool {
        // SAFETY: a helper call on the program's own context; packet pointers are read anew after it.
        unsafe { bpf_clone_redirect(self.skb(), ifindex, u64::from(BPF_F_INGRESS)) == 0 }
    }

    /// Takes off a tag that has a priority and no VLAN (802.1Q, VID 0): the frame is this interface's, and the stack
    /// takes it for untagged.
    #[inline(always)]
    pub(crate) fn drop_priority_tag(&mut self) {
        const VID: u32 = 0xfff;
        if field!(self.skb(), vlan_present) != 0 && field!(self.skb(), vlan_tci) & VID == 0 {
            // SAFETY: a helper call on the program's own context; packet pointers are read anew after it.
            unsafe { bpf_skb_vlan_pop(self.skb()) };
        }
    }

    /// Grows (or shrinks) the packet behind its link-layer header.
    #[inline(always)]
    fn adjust_room(&mut self, by: i32) -> Option<()> {
        // SAFETY: a helper call on the program's own context.
        (unsafe { bpf_skb_adjust_room(self.skb(), by, BPF_ADJ_ROOM_MAC, 0) } == 0).then_some(())
    }

    #[inline(always)]
    fn load_linear<T: Pod>(&self, at: usize) -> Option<T> {
        let from = field!(self.skb(), data) as usize + at;
        if from + size_of::<T>() > field!(self.skb(), data_end) as usize {
            return None;
        }
        // SAFETY: inside the packet, as just compared (the verifier checks it). Packet data may be unaligned for T;
        // the verifier admits that only on machines that load unaligned words.
        Some(unsafe { ptr::read(from as *const T) })
    }

    #[inline(always)]
    fn store_bytes<T: Pod>(&mut self, at: usize, value: &T, flags: u64) -> Option<()> {
        let (from, len) = (ptr::from_ref(value).cast(), size_of::<T>() as u32);
        // SAFETY: reads size_of::<T>() initialised bytes; the helper checks the offset.
        (unsafe { bpf_skb_store_bytes(self.skb(), at as u32, from, len, flags) } == 0).then_some(())
    }

    /// Makes the frame one that was received for the host that gets it, without marks of this one.
    #[inline(always)]
    pub(crate) fn hand_over(&mut self) {
        if field!(self.skb(), pkt_type) != PACKET_HOST {
            // SAFETY: a helper call on the program's own context.
            unsafe { bpf_skb_change_type(self.skb(), PACKET_HOST) };
        }
        if field!(self.skb(), mark) != 0 {
            // SAFETY: the mark is writable in TC programs.
            unsafe { ptr::write_volatile(&raw mut (*self.skb()).mark, 0) };
        }
    }
}

impl<F> Frame<F, Bare> {
    /// Puts an Ethernet header without MACs before it; none if there is no room. From then on it is a packet as if it had
    /// come by a device that has one: an endpoint's veth takes it. The stack looks no further back than the network
    /// header, and where it leaves by a device without, the kernel takes it off again (`__bpf_redirect_no_mac()`).
    #[inline(always)]
    pub(crate) fn put_ethernet_header(&mut self) -> Option<()> {
        let ethertype = field!(self.skb(), protocol) as u16;
        // SAFETY: a helper call on the program's own context; packet pointers are read anew after it.
        if unsafe { bpf_skb_change_head(self.skb(), ethernet::LEN as u32, 0) } != 0 {
            return None;
        }
        self.store(ethernet::ETHERTYPE, &ethertype)
    }
}

impl<F, K: Buffer> Packet for Frame<F, K> {
    #[inline(always)]
    fn l3(&self) -> usize {
        K::L3
    }

    #[inline(always)]
    fn ethertype(&self) -> u16 {
        // A frame with a VLAN tag belongs to the VLAN's interface.
        if field!(self.skb(), vlan_present) != 0 {
            0
        } else {
            u16::from_be(field!(self.skb(), protocol) as u16)
        }
    }

    #[inline(always)]
    fn len(&self) -> usize {
        field!(self.skb(), len) as usize
    }

    #[inline(always)]
    fn addressed_to_us(&self) -> bool {
        field!(self.skb(), pkt_type) == PACKET_HOST
    }

    #[inline(always)]
    fn load<T: Pod>(&self, at: usize) -> Option<T> {
        if let Some(value) = self.load_linear(at) {
            return Some(value);
        }
        // In a page fragment, or not there.
        // SAFETY: a helper call on the program's own context; packet pointers are read anew after it.
        if unsafe { bpf_skb_pull_data(self.skb(), (at + size_of::<T>()) as u32) } != 0 {
            return None;
        }
        self.load_linear(at)
    }

    #[inline(always)]
    fn store<T: Pod>(&mut self, at: usize, value: &T) -> Option<()> {
        self.store_bytes(at, value, 0)
    }

    #[inline(always)]
    fn store_unsummed<T: Pod>(&mut self, at: usize, value: &T) -> Option<()> {
        self.store_bytes(at, value, u64::from(BPF_F_RECOMPUTE_CSUM))
    }

    #[inline(always)]
    fn segment_size(&self) -> u32 {
        field!(self.skb(), gso_size)
    }

    #[inline(always)]
    fn resize(&mut self, len: usize) -> Option<()> {
        // The helper fills up what has no page fragments; a length of 0 would pull less.
        // SAFETY: helper calls on the program's own context.
        unsafe {
            if len > self.len() && bpf_skb_pull_data(self.skb(), self.len() as u32) != 0 {
                return None;
            }
            (bpf_skb_change_tail(self.skb(), len as u32, 0) == 0).then_some(())
        }
    }

    /// Taking bytes out from before the place of an unfinished checksum makes the kernel forget it
    /// (`skb_postpull_rcsum`).
    #[inline(always)]
    fn replace_head(&mut self, old: usize, new: usize) -> Option<()> {
        self.adjust_room(-(old as i32))?;
        self.adjust_room(new as i32)
    }

    #[inline(always)]
    fn set_next_hop(&mut self, via: [u32; 4], via_v6: bool) {
        self.next_hop.write(RedirNeigh { family: if via_v6 { AF_INET6 } else { AF_INET }, addr: via });
    }

    #[inline(always)]
    fn fix_l4_checksum(&mut self, at: usize, fix: &L4Fix) -> Option<()> {
        let zero = if fix.zero_is_none { u64::from(BPF_F_MARK_MANGLED_0) } else { 0 };
        if fix.addresses != 0 {
            let flags = zero | if fix.pseudo_header { u64::from(BPF_F_PSEUDO_HDR) } else { 0 };
            // SAFETY: a helper call on the program's own context; the helper checks the offset.
            // Size 0 in the flags: `to` is a checksum difference.
            if unsafe { bpf_l4_csum_replace(self.skb(), at as u32, 0, u64::from(fix.addresses), flags) } != 0
            {
                return None;
            }
        }
        if fix.old_ports != fix.new_ports {
            const WORD: u64 = 4;
            let (old, new) = (u64::from(fix.old_ports), u64::from(fix.new_ports));
            // SAFETY: as above.
            if unsafe { bpf_l4_csum_replace(self.skb(), at as u32, old, new, zero | WORD) } != 0 {
                return None;
            }
        }
        Some(())
    }
}
