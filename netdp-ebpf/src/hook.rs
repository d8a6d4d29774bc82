//! The hooks of a family: a few lines each, from context to core to action.

use aya_ebpf::bindings::{__sk_buff, TC_ACT_SHOT, bpf_redir_neigh, tcx_action_base};
use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh};
use aya_ebpf::programs::TcContext;
use netdp_common::family::{Family, V4, V6};
use netdp_common::flow::Kind;
use netdp_common::packet::Packet;
use netdp_common::tables::Host;
use netdp_common::verdict::{DropReason, Verdict, VerdictKind};
use netdp_common::{
    closing, firewall, fragment as fragments, icmp_error, inbound, link, nat, opening, outbound, own, refusal,
};

use crate::frame::{Frame, Hooked as _};
use crate::host;
use crate::maps::{Continuation, Maps, PROGRAMS};
use crate::scratch::with_scratch;
use crate::skb::{Bare, Buffer, RedirNeigh, Skb};
use crate::trace::lose;

/// The next program on the hook, then the stack: TCX_NEXT, and TC_ACT_UNSPEC for clsact.
const NEXT: i32 = tcx_action_base::TCX_NEXT;

/// An IPv4 packet here, an IPv6 packet in its own program, and what is neither.
#[inline(always)]
pub(crate) fn by_family(
    ctx: &TcContext,
    v4: impl FnOnce(&TcContext) -> i32,
    v6: Continuation,
    other: impl FnOnce(&TcContext) -> i32,
) -> i32 {
    match Skb::<V4>::new(ctx.skb.skb).ethertype() {
        V4::ETHERTYPE => v4(ctx),
        V6::ETHERTYPE => go_on::<V6>(ctx, v6),
        _ => other(ctx),
    }
}

/// A frame as the stack will take it, see [`Skb::drop_priority_tag`].
#[inline(always)]
pub(crate) fn received(ctx: TcContext) -> TcContext {
    Skb::<V4>::new(ctx.skb.skb).drop_priority_tag();
    ctx
}

/// Not ours.
#[inline(always)]
pub(crate) fn pass(_: &TcContext) -> i32 {
    NEXT
}

/// See [`link::from_container`].
#[inline(always)]
pub(crate) fn other_from_container(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<V4>::new(ctx.skb.skb);
    let verdict = link::from_container::<V4, _>(&skb);
    act(&mut skb, verdict)
}

/// See [`nat::from_container`].
#[inline(always)]
pub(crate) fn from_container<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| nat::from_container::<F, _>(&mut skb, &mut scratch.known));
    act_or_continue(ctx, &mut skb, verdict, Continuation::OpenFromContainer)
}

/// See [`outbound::open`].
#[inline(always)]
pub(crate) fn open_from_container<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| outbound::open::<F, _>(&mut skb, scratch));
    act_or_continue(ctx, &mut skb, verdict, Continuation::Claim)
}

/// See [`refusal::tell`].
#[inline(always)]
pub(crate) fn refuse<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let refused = skb.note();
    let verdict = refusal::tell::<F, _>(&mut skb, refused);
    act(&mut skb, verdict)
}

/// See [`fragments::carry`].
#[inline(always)]
pub(crate) fn fragment<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| fragments::carry::<F, _>(&mut skb, &mut scratch.known));
    let is_endpoint = skb.sender(skb.interface()).is_some();
    let open = if is_endpoint { Continuation::OpenFromContainer } else { Continuation::OpenFromWorld };
    act_or_continue(ctx, &mut skb, verdict, open)
}

/// See [`fragments::wait`].
#[inline(always)]
pub(crate) fn wait<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let to_host = skb.note() != 0;
    let verdict = with_scratch::<F>(|scratch| fragments::wait::<F, _>(&mut skb, &mut scratch.known, to_host));
    act_or_continue(ctx, &mut skb, verdict, Continuation::Wait)
}

/// See [`nat::from_world`].
#[inline(always)]
pub(crate) fn from_world<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| nat::from_world::<F, _>(&mut skb, &mut scratch.known));
    act_or_continue(ctx, &mut skb, verdict, Continuation::OpenFromWorld)
}

/// A packet that comes by a device without Ethernet header: [`from_world`] gets it with one.
#[inline(always)]
pub(crate) fn from_world_bare(ctx: &TcContext) -> i32 {
    let mut skb = Frame::<V4, Bare>::new(ctx.skb.skb.cast());
    let ethertype = skb.ethertype();
    if !matches!(ethertype, V4::ETHERTYPE | V6::ETHERTYPE) {
        return NEXT;
    }
    if skb.put_ethernet_header().is_none() {
        return act(&mut skb, Verdict::drop(DropReason::RewriteFailed));
    }
    if ethertype == V4::ETHERTYPE {
        go_on::<V4>(ctx, Continuation::FromWorld)
    } else {
        go_on::<V6>(ctx, Continuation::FromWorld)
    }
}

/// See [`inbound::open`].
#[inline(always)]
pub(crate) fn open_from_world<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| inbound::open::<F, _>(&mut skb, scratch));
    act_or_continue(ctx, &mut skb, verdict, Continuation::Claim)
}

/// See [`icmp_error::translate`].
#[inline(always)]
pub(crate) fn translate_error<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| icmp_error::translate::<F, _>(&mut skb, scratch));
    act(&mut skb, verdict)
}

/// See [`closing::follow`].
#[inline(always)]
pub(crate) fn closing<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let from_host = skb.note() != 0;
    let verdict = with_scratch::<F>(|scratch| closing::follow::<F, _>(&mut skb, scratch, from_host));
    if from_host {
        return act_on_own(ctx, &mut skb, verdict, <__sk_buff as Egress>::FROM_HOST);
    }
    let program = match (skb.sender(skb.interface()).is_some(), verdict) {
        (true, Verdict::FLOW_OPENED) => Continuation::FromContainer,
        (true, _) => Continuation::OpenFromContainer,
        (false, Verdict::FLOW_OPENED) => Continuation::FromWorld,
        (false, _) => Continuation::OpenFromWorld,
    };
    act_or_continue(ctx, &mut skb, verdict, program)
}

/// Packets on their way out, and the programs that their hook goes on in.
pub(crate) trait Egress: Buffer {
    /// `from_host`.
    const FROM_HOST: Continuation;
    /// `open_from_host`.
    const OPEN_FROM_HOST: Continuation;
    /// `closing`, for the host's own.
    const CLOSING: Continuation;
}

impl Egress for __sk_buff {
    const FROM_HOST: Continuation = Continuation::FromHost;
    const OPEN_FROM_HOST: Continuation = Continuation::OpenFromHost;
    const CLOSING: Continuation = Continuation::Closing;
}

impl Egress for Bare {
    const FROM_HOST: Continuation = Continuation::FromHostBare;
    const OPEN_FROM_HOST: Continuation = Continuation::OpenFromHostBare;
    const CLOSING: Continuation = Continuation::ClosingBare;
}

/// See [`nat::to_world`].
#[inline(always)]
pub(crate) fn to_world<F: Maps, K: Egress>(ctx: &TcContext) -> i32 {
    let mut skb = Frame::<F, K>::new(ctx.skb.skb.cast());
    let mut verdict = nat::to_world::<F, _>(&mut skb);
    if verdict == Verdict::OWN {
        return go_on::<F>(ctx, K::FROM_HOST);
    }
    if verdict == Verdict::PRIVATE {
        verdict = with_scratch::<F>(|scratch| fragments::leave::<F, _>(&mut skb, &mut scratch.known));
    }
    act(&mut skb, verdict)
}

/// See [`firewall::to_container`].
#[inline(always)]
pub(crate) fn to_container<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let verdict = with_scratch::<F>(|scratch| {
        firewall::to_container::<F, _>(&mut skb, &mut scratch.known);
        Verdict::STACK
    });
    act(&mut skb, verdict)
}

/// See [`own::leave`].
#[inline(always)]
pub(crate) fn from_host<F: Maps, K: Egress>(ctx: &TcContext) -> i32 {
    let mut skb = Frame::<F, K>::new(ctx.skb.skb.cast());
    let verdict = with_scratch::<F>(|scratch| own::leave::<F, _>(&mut skb, &mut scratch.known));
    act_on_own(ctx, &mut skb, verdict, K::OPEN_FROM_HOST)
}

/// See [`own::open`].
#[inline(always)]
pub(crate) fn open_from_host<F: Maps, K: Egress>(ctx: &TcContext) -> i32 {
    let mut skb = Frame::<F, K>::new(ctx.skb.skb.cast());
    let verdict = with_scratch::<F>(|scratch| own::open::<F, _>(&mut skb, scratch));
    act_on_own(ctx, &mut skb, verdict, Continuation::Claim)
}

/// [`closing`] at the egress of a device without Ethernet header.
#[inline(always)]
pub(crate) fn closing_bare<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Frame::<F, Bare>::new(ctx.skb.skb.cast());
    let verdict = with_scratch::<F>(|scratch| closing::follow::<F, _>(&mut skb, scratch, true));
    act_on_own(ctx, &mut skb, verdict, Bare::FROM_HOST)
}

/// See [`opening::open`].
#[inline(always)]
pub(crate) fn claim<F: Maps>(ctx: &TcContext) -> i32 {
    let mut skb = Skb::<F>::new(ctx.skb.skb);
    let mut is_own = false;
    let verdict = with_scratch::<F>(|scratch| {
        is_own = scratch.work.request.kind == Kind::Own as u8;
        opening::open::<F, _>(&skb, scratch)
    });
    if is_own {
        let is_bare = skb.note() != 0;
        if is_bare && matches!(verdict.parts().0, VerdictKind::Drop) {
            return lose_bare::<F>(ctx.skb.skb, verdict);
        }
        let program = if is_bare { Bare::FROM_HOST } else { <__sk_buff as Egress>::FROM_HOST };
        return act_on_own(ctx, &mut skb, verdict, program);
    }
    let is_endpoint = skb.sender(skb.interface()).is_some();
    let program = if is_endpoint { Continuation::FromContainer } else { Continuation::FromWorld };
    act_or_continue(ctx, &mut skb, verdict, program)
}

/// Counts a drop of a packet without Ethernet header. Out of line: its caller's stack is short.
#[inline(never)]
fn lose_bare<F: Maps>(context: *mut __sk_buff, verdict: Verdict) -> i32 {
    let (_, detail) = verdict.parts();
    lose(&Frame::<F, Bare>::new(context.cast()), detail);
    TC_ACT_SHOT
}

/// Carries a verdict out at an egress, where nobody is told by a packet, or goes on in another program.
#[inline(always)]
fn act_on_own<F: Maps, K: Egress>(
    ctx: &TcContext,
    skb: &mut Frame<F, K>,
    verdict: Verdict,
    program: Continuation,
) -> i32 {
    let program = match verdict {
        Verdict::NO_FLOW_YET | Verdict::FLOW_OPENED => program,
        Verdict::CLAIM => {
            // It continues in the program of this kind of device.
            skb.leave_note(u32::from(K::L3 == 0));
            Continuation::Claim
        }
        Verdict::CLOSING => to_closing(skb, true),
        _ => return act(skb, verdict),
    };
    tail_call::<F>(ctx, program);
    act(skb, Verdict::drop(DropReason::ClaimContended))
}

/// Carries a verdict out, or goes on in another program. The kernel ends what goes back and forth (33 tail calls).
#[inline(always)]
fn act_or_continue<F: Maps>(
    ctx: &TcContext,
    skb: &mut Skb<F>,
    verdict: Verdict,
    program: Continuation,
) -> i32 {
    let program = match verdict {
        Verdict::NO_FLOW_YET | Verdict::FLOW_OPENED => program,
        Verdict::CLAIM => Continuation::Claim,
        Verdict::ICMP_ERROR => Continuation::IcmpError,
        Verdict::CLOSING => to_closing(skb, false),
        Verdict::FRAGMENT => Continuation::Fragment,
        Verdict::OVERTAKEN | Verdict::OVERTAKEN_TO_HOST => {
            skb.leave_note(u32::from(verdict == Verdict::OVERTAKEN_TO_HOST));
            Continuation::Wait
        }
        _ if verdict.is_told() => return refuse_after(ctx, skb, verdict),
        _ => return act(skb, verdict),
    };
    tail_call::<F>(ctx, program);
    act(skb, Verdict::drop(DropReason::ClaimContended))
}

/// [`closing`] is told whether the packet is the host's own.
#[inline(always)]
fn to_closing<F: Maps, K: Egress>(skb: &mut Frame<F, K>, from_host: bool) -> Continuation {
    skb.leave_note(u32::from(from_host));
    K::CLOSING
}

/// Goes on in another family's program.
#[inline(always)]
fn go_on<F: Maps>(ctx: &TcContext, program: Continuation) -> i32 {
    tail_call::<F>(ctx, program);
    // Not there: the loader enters all of them before it attaches any.
    TC_ACT_SHOT
}

/// Returns only if it fails.
#[inline(always)]
fn tail_call<F: Maps>(ctx: &TcContext, program: Continuation) {
    // SAFETY: a tail call with the program's own context.
    unsafe { PROGRAMS.tail_call(ctx, F::FIRST_PROGRAM + program as u32) };
}

/// Counts a drop and goes on in [`refuse`], which tells who sent the packet.
#[inline(always)]
fn refuse_after<F: Maps>(ctx: &TcContext, skb: &mut Skb<F>, verdict: Verdict) -> i32 {
    let (_, refused) = verdict.parts();
    lose(skb, refused);
    skb.leave_note(refused);
    go_on::<F>(ctx, Continuation::Refuse)
}

/// Carries a verdict out: the one place where it becomes an action.
#[inline(always)]
fn act<F: Maps, K: Buffer>(skb: &mut Frame<F, K>, verdict: Verdict) -> i32 {
    let (kind, detail) = verdict.parts();
    match kind {
        VerdictKind::Stack => NEXT,
        VerdictKind::Refused | VerdictKind::Wait => TC_ACT_SHOT,
        VerdictKind::Drop => {
            lose(skb, detail);
            TC_ACT_SHOT
        }
        VerdictKind::ToLink => {
            // SAFETY: a helper without pointers; `detail` is the interface whose hook runs.
            unsafe { bpf_redirect(detail, 0) as i32 }
        }
        VerdictKind::ToEndpoint => {
            skb.hand_over();
            host::deliver(detail)
        }
        VerdictKind::ToNextHop => {
            let params: *mut bpf_redir_neigh = skb.next_hop().cast();
            // SAFETY: RedirNeigh has the layout and size of struct bpf_redir_neigh, and whoever says ToNextHop has set it
            // (the verifier checks that).
            unsafe { bpf_redirect_neigh(detail, params, size_of::<RedirNeigh>() as i32, 0) as i32 }
        }
    }
}
