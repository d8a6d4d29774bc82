//! A packet in an XDP program, and what becomes of it: it is dropped, or passed as it is.

use core::mem::MaybeUninit;
use core::ptr;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::helpers::{bpf_xdp_get_buff_len, bpf_xdp_load_bytes};
use aya_ebpf::programs::XdpContext;
use bytemuck::Pod;
use netdp_common::early;
use netdp_common::family::{Family, V4, V6};
use netdp_common::header::ethernet;
use netdp_common::packet::{L4Fix, Packet};
use netdp_common::verdict::VerdictKind;

use crate::frame::{Frame, Hooked};
use crate::maps::{Maps, WIRES};
use crate::scratch::with_scratch;
use crate::skb::Skb;
use crate::trace::lose;

/// A packet in an XDP program: a frame in a driver's buffers.
pub(crate) type Xdp<F> = Frame<F, xdp_md>;

/// See [`early::refuse`].
#[inline(always)]
pub(crate) fn from_wire(ctx: &XdpContext) -> u32 {
    match Xdp::<V4>::new(ctx.ctx).ethertype() {
        V4::ETHERTYPE => of_family::<V4>(ctx.ctx),
        V6::ETHERTYPE => of_family::<V6>(ctx.ctx),
        _ => xdp_action::XDP_PASS,
    }
}

/// Out of line: each family has the stack for itself.
#[inline(never)]
fn of_family<F: Maps>(ctx: *mut xdp_md) -> u32 {
    let frame = Xdp::<F>::new(ctx);
    let verdict = with_scratch::<F>(|scratch| early::refuse::<F, _>(&frame, scratch));
    let (VerdictKind::Drop, detail) = verdict.parts() else { return xdp_action::XDP_PASS };
    lose(&frame, detail);
    xdp_action::XDP_DROP
}

/// Reads a context field; volatile, because the verifier wants each access as it is declared.
macro_rules! field {
    ($context:expr, $name:ident) => {{
        // SAFETY: the context is valid for the program's run, and the field is readable in XDP programs.
        unsafe { ptr::read_volatile(&raw const (*$context).$name) }
    }};
}

impl<F> Hooked<F> for Xdp<F> {
    #[inline(always)]
    fn interface(&self) -> u32 {
        field!(self.context, ingress_ifindex)
    }

    #[inline(always)]
    fn came_by(&self) -> u32 {
        self.interface()
    }

    #[inline(always)]
    fn socket_buffer(&self) -> Option<Skb<F>> {
        None
    }
}

impl<F> Packet for Xdp<F> {
    #[inline(always)]
    fn l3(&self) -> usize {
        ethernet::LEN
    }

    /// A tag is in the frame: its EtherType is what is told then.
    #[inline(always)]
    fn ethertype(&self) -> u16 {
        self.load::<u16>(ethernet::ETHERTYPE).map_or(0, u16::from_be)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        // SAFETY: a helper call on the program's own context.
        unsafe { bpf_xdp_get_buff_len(self.context) as usize }
    }

    #[inline(always)]
    fn addressed_to_us(&self) -> bool {
        // SAFETY: user space replaces elements whole.
        let ours = unsafe { WIRES.get(self.interface()) };
        let to = self.load::<[u8; 6]>(ethernet::MACS);
        ours.zip(to.as_ref()).is_some_and(|(ours, to)| ours == to)
    }

    #[inline(always)]
    fn load<T: Pod>(&self, at: usize) -> Option<T> {
        let from = field!(self.context, data) as usize + at;
        if from + size_of::<T>() <= field!(self.context, data_end) as usize {
            // SAFETY: inside the packet, as just compared (the verifier checks it). Packet data may be unaligned for T;
            // the verifier admits that only on machines that load unaligned words.
            return Some(unsafe { ptr::read(from as *const T) });
        }
        // In another buffer of the frame, or not there.
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: writes size_of::<T>() bytes; the helper checks the offset.
        unsafe {
            let to = value.as_mut_ptr().cast();
            (bpf_xdp_load_bytes(self.context, at as u32, to, size_of::<T>() as u32) == 0)
                .then(|| value.assume_init())
        }
    }

    /// The program only looks.
    #[inline(always)]
    fn store<T: Pod>(&mut self, _at: usize, _value: &T) -> Option<()> {
        None
    }

    /// What is aggregated is so later on.
    #[inline(always)]
    fn segment_size(&self) -> u32 {
        0
    }

    #[inline(always)]
    fn resize(&mut self, _len: usize) -> Option<()> {
        None
    }

    #[inline(always)]
    fn replace_head(&mut self, _old: usize, _new: usize) -> Option<()> {
        None
    }

    /// Nothing is sent from here.
    #[inline(always)]
    fn set_next_hop(&mut self, _via: [u32; 4], _via_v6: bool) {}

    /// Nor could it: that a checksum is unfinished (a veth peer leaves it to a device that there is not) can't be seen
    /// before there is a socket buffer.
    #[inline(always)]
    fn fix_l4_checksum(&mut self, _at: usize, _fix: &L4Fix) -> Option<()> {
        None
    }
}
