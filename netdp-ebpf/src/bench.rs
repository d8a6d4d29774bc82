//! Programs of `netdp bench`: the limits that netdp is compared with, and the end of the way. None of them is part of
//! the datapath.
#![no_std]
#![no_main]
#![expect(clippy::needless_pass_by_value, reason = "the hooks' macros pass the context by value")]

use core::ptr;

use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC};
use aya_ebpf::helpers::bpf_redirect_neigh;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, PerCpuArray};
use aya_ebpf::programs::TcContext;

/// Addresses are in network byte order, ifindexes and masks of nothing in the host's.
macro_rules! settings {
    ($($(#[$doc:meta])* $name:ident: $type:ty;)+) => {$(
        $(#[$doc])*
        #[unsafe(no_mangle)]
        static $name: $type = 0;
    )+};
}

settings! {
    /// Where `redirect_out` redirects to.
    UPLINK: u32;
    /// Its next hop's address, and whether `redirect_in` gives one; 0: the kernel looks the route up.
    NEXT_HOP: u32;
    /// Source address of what should come to the sink, under the mask.
    SINK_SOURCE: u32;
    /// See [`SINK_SOURCE`].
    SINK_SOURCE_MASK: u32;
    /// Its destination address, under the mask.
    SINK_DESTINATION: u32;
    /// See [`SINK_DESTINATION`].
    SINK_DESTINATION_MASK: u32;
    /// Its UDP destination port in network byte order; 0: any.
    SINK_PORT: u16;
}

/// Ifindexes of the containers' links on the host, by the last byte of their addresses.
#[map]
static VETHS: Array<u32> = Array::with_max_entries(256, 0);

/// What came to the sink: as it should, and otherwise.
#[map]
static ARRIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(2, 0);

/// ETH_P_IP in network byte order, as `skb->protocol` has it.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
/// `AF_INET`.
const AF_INET: u32 = 2;
/// IPPROTO_UDP.
const UDP: u8 = 17;

/// Offsets in an Ethernet frame with IPv4 without options, which is all that the bench sends.
mod at {
    pub(super) const PROTOCOL: usize = 14 + 9;
    pub(super) const SOURCE: usize = 14 + 12;
    pub(super) const DESTINATION: usize = 14 + 16;
    pub(super) const DESTINATION_PORT: usize = 14 + 20 + 2;
}

/// `struct bpf_redir_neigh`.
#[repr(C)]
struct NextHop {
    family: u32,
    address: [u32; 4],
}

/// Ingress of a container's link: everything to the uplink.
#[classifier]
fn redirect_out(ctx: TcContext) -> i32 {
    if !is_v4(&ctx) {
        return TC_ACT_UNSPEC;
    }
    redirect(setting(&UPLINK), setting(&NEXT_HOP))
}

/// Ingress of the uplink: everything to the containers.
#[classifier]
fn redirect_in(ctx: TcContext) -> i32 {
    let Some(destination) = field::<u32>(&ctx, at::DESTINATION).filter(|_| is_v4(&ctx)) else {
        return TC_ACT_UNSPEC;
    };
    let Some(veth) = VETHS.get(destination.to_ne_bytes()[3].into()).filter(|veth| **veth != 0) else {
        return TC_ACT_UNSPEC;
    };
    redirect(*veth, if setting(&NEXT_HOP) == 0 { 0 } else { destination })
}

/// Ingress of who is sent to: counts what comes, and ends it.
#[classifier]
fn sink(ctx: TcContext) -> i32 {
    if !is_v4(&ctx) || field::<u8>(&ctx, at::PROTOCOL) != Some(UDP) {
        return TC_ACT_UNSPEC;
    }
    let as_expected = field::<u32>(&ctx, at::SOURCE)
        .is_some_and(|address| address & setting(&SINK_SOURCE_MASK) == setting(&SINK_SOURCE))
        && field::<u32>(&ctx, at::DESTINATION)
            .is_some_and(|address| address & setting(&SINK_DESTINATION_MASK) == setting(&SINK_DESTINATION))
        && field::<u16>(&ctx, at::DESTINATION_PORT)
            .is_some_and(|port| matches!(setting(&SINK_PORT), 0) || port == setting(&SINK_PORT));
    if let Some(count) = ARRIVED.get_ptr_mut(u32::from(!as_expected)) {
        // SAFETY: the pointer is to this CPU's own counter.
        unsafe { *count += 1 };
    }
    TC_ACT_SHOT
}

#[inline(always)]
fn is_v4(ctx: &TcContext) -> bool {
    // SAFETY: the context is valid for the program's run.
    unsafe { (*ctx.skb.skb).protocol == IPV4 }
}

/// Reads a field, if the packet has it.
#[inline(always)]
fn field<T: Copy>(ctx: &TcContext, offset: usize) -> Option<T> {
    let start = ctx.data() + offset;
    if start + size_of::<T>() > ctx.data_end() {
        return None;
    }
    // SAFETY: the field lies in the packet.
    Some(unsafe { ptr::read_unaligned(start as *const T) })
}

/// Reads what the loader has set; the compiler would take the zero.
#[inline(always)]
fn setting<T: Copy>(name: &'static T) -> T {
    // SAFETY: a reference to a static of that type.
    unsafe { ptr::read_volatile(name) }
}

#[inline(always)]
fn redirect(ifindex: u32, next_hop: u32) -> i32 {
    if next_hop == 0 {
        // SAFETY: without parameters the helper reads nothing of ours.
        return unsafe { bpf_redirect_neigh(ifindex, ptr::null_mut(), 0, 0) as i32 };
    }
    let mut params = NextHop { family: AF_INET, address: [next_hop, 0, 0, 0] };
    // SAFETY: the parameters are a `struct bpf_redir_neigh` that outlives the call.
    unsafe { bpf_redirect_neigh(ifindex, (&raw mut params).cast(), size_of::<NextHop>() as i32, 0) as i32 }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: the verifier would refuse it. Every path returns a verdict.
    loop {}
}

/// `redirect_neigh` is for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
