//! The hooks: a few lines each, from context to core to action. What they decide stands in `netdp-common`.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "the hooks' macros pass the context by value")]

mod atomic;
mod host;
mod maps;
mod skb;
mod sockets;

use aya_ebpf::bindings::{TC_ACT_SHOT, bpf_redir_neigh, tcx_action_base};
use aya_ebpf::helpers::{bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::macros::{cgroup_sock_addr, classifier};
use aya_ebpf::programs::{SockAddrContext, TcContext};
use bytemuck::{Pod, Zeroable};
use netdp_common::family::{Family, Ipv4Addr, V4, V6};
use netdp_common::flow::Tuple;
use netdp_common::packet::Packet;
use netdp_common::tables::{Host, Step, Work};
use netdp_common::verdict::{DropReason, Verdict, VerdictKind, drop_index};
use netdp_common::{icmp_error, inbound, nat, outbound, reclaim, refusal};

use crate::maps::{CONFIG, Continuation, Maps, PROGRAMS};
use crate::skb::{NextHop, Skb};

/// The next program on the hook, then the stack: TCX_NEXT, and TC_ACT_UNSPEC for clsact.
const NEXT: i32 = tcx_action_base::TCX_NEXT;

/// Ingress of an endpoint's host veth.
#[classifier]
fn from_container(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        V4::ETHERTYPE => nat::from_container::<V4, _>(&mut skb),
        V6::ETHERTYPE => nat::unserved::<V6, _>(&skb.of_family::<V6>()),
        _ => Verdict::STACK,
    };
    act_or_continue(&ctx, &mut skb, verdict, Continuation::OpenFromContainer)
}

/// Continues [`from_container`] for packets that no flow knows, with a stack and a verifier budget of its own, and
/// goes back to it when the flow is in the table.
#[classifier]
fn open_from_container(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match work::<V4>() {
        Some(work) => outbound::open::<V4, _>(&mut skb, work),
        None => Verdict::drop(DropReason::TableFull),
    };
    if verdict.is_told() {
        return refuse_after(&ctx, &skb, verdict);
    }
    act_or_continue(&ctx, &mut skb, verdict, Continuation::FromContainer)
}

/// Continues [`open_from_container`] when it has refused a packet (and counted it): tells the endpoint.
#[classifier]
fn refuse(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = refusal::reset::<V4, _>(&mut skb);
    act(&mut skb, verdict)
}

/// Ingress of an uplink.
#[classifier]
fn from_world(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        V4::ETHERTYPE => nat::from_world::<V4, _>(&mut skb),
        _ => Verdict::STACK,
    };
    act_or_continue(&ctx, &mut skb, verdict, Continuation::OpenFromWorld)
}

/// Continues [`from_world`].
#[classifier]
fn open_from_world(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match work::<V4>() {
        Some(work) => inbound::open::<V4, _>(&mut skb, work),
        None => Verdict::drop(DropReason::TableFull),
    };
    act_or_continue(&ctx, &mut skb, verdict, Continuation::FromWorld)
}

/// Continues both for ICMP errors.
#[classifier]
fn icmp_error(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = icmp_error::translate::<V4, _>(&mut skb);
    act(&mut skb, verdict)
}

/// Egress of an uplink.
#[classifier]
fn to_world(ctx: TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = match skb.ethertype() {
        V4::ETHERTYPE => nat::to_world::<V4, _>(&mut skb),
        _ => Verdict::STACK,
    };
    act(&mut skb, verdict)
}

/// Run by user space (BPF_PROG_TEST_RUN): removes the flows that the "packet" names, through the same gate as
/// everybody else. After 14 bytes come up to [`REMOVALS`] records. Returns how many were removed.
#[classifier]
fn remove_flows(ctx: TcContext) -> i32 {
    let skb = Skb::<V4>::new(ctx.skb.skb);
    let mut removal = Removal { skb, removed: 0 };
    skb.repeat(REMOVALS, &mut removal);
    removal.removed
}

/// The hooks of the host's own sockets: each a program, and what it does.
macro_rules! socket_hooks {
    ($($(#[$doc:meta])* $hook:ident: $work:expr;)*) => {$(
        $(#[$doc])*
        #[cgroup_sock_addr($hook)]
        fn $hook(ctx: SockAddrContext) -> i32 {
            ($work)(&ctx)
        }
    )*};
}

socket_hooks! {
    /// `connect(2)` of an IPv4 socket.
    connect4: |ctx| sockets::redirect::<V4>(ctx, true);
    /// `connect(2)` of an IPv6 socket.
    connect6: |ctx| sockets::redirect::<V6>(ctx, true);
    /// `sendto(2)` of an IPv4 UDP socket; also of an IPv6 one to `::ffff:a.b.c.d`.
    sendmsg4: |ctx| sockets::redirect::<V4>(ctx, true);
    /// `sendto(2)` of an IPv6 UDP socket.
    sendmsg6: |ctx| sockets::redirect::<V6>(ctx, false);
    /// `recvfrom(2)` of an IPv4 UDP socket.
    recvmsg4: sockets::restore::<V4>;
    /// `recvfrom(2)` of an IPv6 UDP socket.
    recvmsg6: sockets::restore::<V6>;
    /// `getpeername(2)` of an IPv4 socket.
    getpeername4: sockets::restore::<V4>;
    /// `getpeername(2)` of an IPv6 socket.
    getpeername6: sockets::restore::<V6>;
    /// `bind(2)` of an IPv4 socket.
    bind4: sockets::hold::<V4>;
    /// `bind(2)` of an IPv6 socket.
    bind6: sockets::hold::<V6>;
}

/// Records in one run of [`remove_flows`], a power of two.
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
        // The mask changes nothing: the verifier wants to see how far into the packet this reads.
        let at = self.skb.l3() + (i & (REMOVALS - 1)) as usize * size_of::<RemovalRecord>();
        let Some(record) = self.skb.load::<RemovalRecord>(at) else { return false };
        if reclaim::remove_exact(&self.skb, &record.key, record.generation) {
            self.removed += 1;
        }
        true
    }
}

/// This CPU's scratch space.
#[inline(always)]
fn work<F: Maps>() -> Option<&'static mut Work<F::Addr>> {
    // SAFETY: one per CPU, and the TC programs of one CPU do not interrupt each other.
    F::work().get_ptr_mut(0).map(|work| unsafe { &mut *work })
}

/// Carries a verdict out, or goes on in another program. The kernel ends what goes back and forth (33 tail calls).
#[inline(always)]
fn act_or_continue(ctx: &TcContext, skb: &mut Skb<V4>, verdict: Verdict, program: Continuation) -> i32 {
    let program = match verdict {
        Verdict::NO_FLOW_YET | Verdict::FLOW_OPENED => program,
        Verdict::ICMP_ERROR => Continuation::IcmpError,
        _ => return act(skb, verdict),
    };
    // SAFETY: a tail call with the program's own context; it returns only if it fails.
    unsafe { PROGRAMS.tail_call(ctx, program as u32) };
    act(skb, Verdict::drop(DropReason::ClaimContended))
}

/// Counts a drop and goes on in [`refuse`], which tells who sent the packet.
#[inline(always)]
fn refuse_after(ctx: &TcContext, skb: &Skb<V4>, verdict: Verdict) -> i32 {
    let (_, reason) = verdict.parts();
    host::add(drop_index(reason), 1);
    trace(skb, reason);
    // SAFETY: a tail call with the program's own context; it returns only if it fails.
    unsafe { PROGRAMS.tail_call(ctx, Continuation::Refuse as u32) };
    TC_ACT_SHOT
}

/// Carries a verdict out: the one place where it becomes an action.
#[inline(always)]
fn act(skb: &mut Skb<V4>, verdict: Verdict) -> i32 {
    let (kind, detail) = verdict.parts();
    match kind {
        VerdictKind::Stack => NEXT,
        VerdictKind::Refused => TC_ACT_SHOT,
        VerdictKind::Drop => {
            host::add(drop_index(detail), 1);
            trace(skb, detail);
            TC_ACT_SHOT
        }
        VerdictKind::ToEndpoint => {
            skb.hand_over();
            // SAFETY: a helper without pointers; `detail` is the host end of a veth pair.
            unsafe { bpf_redirect_peer(detail, 0) as i32 }
        }
        VerdictKind::ToNextHop => {
            let params: *mut bpf_redir_neigh = skb.next_hop().cast();
            // SAFETY: NextHop has the layout and size of struct bpf_redir_neigh, and whoever says ToNextHop has set it
            // (the verifier checks that).
            unsafe { bpf_redirect_neigh(detail, params, size_of::<NextHop>() as i32, 0) as i32 }
        }
    }
}

/// Tells who watches (`netdp monitor`) about a dropped packet. Nobody does: one comparison.
#[inline(never)]
fn trace(skb: &Skb<V4>, reason: u32) {
    if CONFIG.get(0).is_none_or(|config| config.trace == 0) {
        return;
    }
    let context = TcContext::new(skb.context());
    if let Some(header) = V4::read_header(skb, skb.l3()) {
        aya_log_ebpf::info!(
            &context,
            "drop {} if {} proto {} {:i} -> {:i} len {}",
            reason,
            skb.interface(),
            header.proto,
            u32::from_be(header.src.0),
            u32::from_be(header.dst.0),
            skb.len()
        );
    } else {
        aya_log_ebpf::info!(&context, "drop {} if {} len {}", reason, skb.interface(), skb.len());
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
