//! The hooks: a few lines each, from context to core to action. What they decide stands in `netdp-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod atomic;
mod host;
mod maps;
mod skb;
mod sockets;

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, bpf_redir_neigh, tcx_action_base};
use aya_ebpf::helpers::{bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use bytemuck::{Pod, Zeroable};
use netdp_common::family::{Family, Ipv4Addr, V4, V6};
use netdp_common::flow::Tuple;
use netdp_common::packet::Packet;
use netdp_common::tables::{Host, Step};
use netdp_common::verdict::{DropReason, Verdict};
use netdp_common::{nat, reclaim};

use crate::maps::CONFIG;
use crate::skb::Skb;

/// The next program on the hook, then the stack: TCX_NEXT, and TC_ACT_UNSPEC for clsact.
const NEXT: i32 = tcx_action_base::TCX_NEXT;

/// Ingress of an endpoint's host veth.
#[classifier]
pub fn from_container(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        V4::ETHERTYPE => nat::from_container::<V4, _>(&mut skb),
        V6::ETHERTYPE => nat::unserved::<V6, _>(&skb.of_family::<V6>()),
        _ => Verdict::Stack,
    };
    act(&mut skb, verdict)
}

/// Ingress of an uplink.
#[classifier]
pub fn from_world(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        V4::ETHERTYPE => nat::from_world::<V4, _>(&mut skb),
        _ => Verdict::Stack,
    };
    act(&mut skb, verdict)
}

/// Egress of an uplink.
#[classifier]
pub fn to_world(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        V4::ETHERTYPE => nat::to_world::<V4, _>(&mut skb),
        _ => Verdict::Stack,
    };
    act(&mut skb, verdict)
}

/// Run by user space (BPF_PROG_TEST_RUN): removes the flows that the "packet" names, through the same gate as
/// everybody else. After 14 bytes come up to [`REMOVALS`] records. Returns how many were removed.
#[classifier]
pub fn remove_flows(ctx: TcContext) -> i32 {
    let skb = Skb::<V4>::new(ctx.skb.skb);
    let mut removal = Removal { skb, removed: 0 };
    skb.repeat(REMOVALS, &mut removal);
    removal.removed
}

/// `connect(2)` of the host's own IPv4 sockets.
#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    const ALLOW: i32 = 1;
    sockets::connect4(ctx.sock_addr);
    ALLOW
}

/// Records in one run of [`remove_flows`].
const REMOVALS: u32 = 128;

/// What [`remove_flows`] reads: the key of a flow's initiator and its generation.
#[repr(C)]
#[derive(Clone, Copy)]
struct RemovalRecord {
    key: Tuple<Ipv4Addr>,
    generation: u32,
}

// SAFETY: plain data without padding: 16 + 4 bytes.
unsafe impl Zeroable for RemovalRecord {}
// SAFETY: as above.
unsafe impl Pod for RemovalRecord {}

struct Removal {
    skb: Skb<V4>,
    removed: i32,
}

impl Step for Removal {
    #[inline(always)]
    fn step(&mut self, i: u32) -> bool {
        let at = self.skb.l3() + i as usize * size_of::<RemovalRecord>();
        let Some(record) = self.skb.load::<RemovalRecord>(at) else { return false };
        if reclaim::remove_exact(&self.skb, &record.key, record.generation) {
            self.removed += 1;
        }
        true
    }
}

/// Carries a verdict out: the one place where it becomes an action.
#[inline(always)]
fn act(skb: &mut Skb<V4>, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Stack => NEXT,
        Verdict::Drop(reason) => {
            host::add(reason.index(), 1);
            trace(skb, reason);
            TC_ACT_SHOT
        }
        Verdict::ToEndpoint { oif } => {
            skb.hand_over();
            // SAFETY: a helper without pointers; oif is the host end of a veth pair.
            unsafe { bpf_redirect_peer(oif, 0) as i32 }
        }
        Verdict::ToNextHop { oif, via, via_v6 } => {
            const AF_INET: u32 = 2;
            const AF_INET6: u32 = 10;
            let mut next_hop = NextHop { family: if via_v6 { AF_INET6 } else { AF_INET }, addr: via };
            let params: *mut bpf_redir_neigh = (&raw mut next_hop).cast();
            // SAFETY: NextHop has the layout and size of struct bpf_redir_neigh.
            unsafe { bpf_redirect_neigh(oif, params, size_of::<NextHop>() as i32, 0) as i32 }
        }
    }
}

/// `struct bpf_redir_neigh`.
#[repr(C)]
struct NextHop {
    family: u32,
    addr: [u32; 4],
}

/// Tells who watches (`netdp monitor`) about a dropped packet. Nobody does: one comparison.
#[inline(always)]
fn trace(skb: &Skb<V4>, reason: DropReason) {
    if CONFIG.get(0).is_none_or(|config| config.trace == 0) {
        return;
    }
    let context = TcContext::new(skb.context());
    if let Some(header) = V4::read_header(skb, skb.l3()) {
        aya_log_ebpf::info!(
            &context,
            "drop {} if {} proto {} {:i} -> {:i} len {}",
            reason.index(),
            skb.interface(),
            header.proto,
            u32::from_be(header.src.0),
            u32::from_be(header.dst.0),
            skb.len()
        );
    } else {
        aya_log_ebpf::info!(&context, "drop {} if {} len {}", reason.index(), skb.interface(), skb.len());
    }
}

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: the verifier would refuse it. Every path returns a verdict.
    loop {}
}

/// Several helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
