//! The programs: a line each, from context to family and hook. What they decide stands in `netdp-common`.
//!
//! Each family has programs of its own: the verifier looks at one at a time, and IPv4 pays nothing for the longer
//! addresses of IPv6. The hooks' programs are IPv4's and go on in IPv6's.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]
#![expect(clippy::needless_pass_by_value, reason = "the hooks' macros pass the context by value")]

mod atomic;
mod frame;
mod hook;
mod host;
mod maps;
mod removal;
mod scratch;
mod skb;
mod sockets;
mod trace;
mod waiting;
mod xdp;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::macros::{cgroup_sock_addr, classifier, xdp};
use aya_ebpf::programs::{SockAddrContext, TcContext, XdpContext};
use netdp_common::family::{V4, V6};

use crate::maps::Continuation;
use crate::skb::Bare;

/// Ingress of an endpoint's host veth.
#[classifier]
fn from_container(ctx: TcContext) -> i32 {
    hook::by_family(
        &hook::received(ctx),
        hook::from_container::<V4>,
        Continuation::FromContainer,
        hook::other_from_container,
    )
}

/// Continues [`from_container`] for IPv6.
#[classifier]
fn from_container_v6(ctx: TcContext) -> i32 {
    hook::from_container::<V6>(&ctx)
}

/// Continues [`from_container`] for packets that no flow knows, with a stack and a verifier budget of its own.
#[classifier]
fn open_from_container(ctx: TcContext) -> i32 {
    hook::open_from_container::<V4>(&ctx)
}

/// Continues [`from_container_v6`].
#[classifier]
fn open_from_container_v6(ctx: TcContext) -> i32 {
    hook::open_from_container::<V6>(&ctx)
}

/// Continues the programs at an ingress when they have refused a packet (and counted it): tells who sent it.
#[classifier]
fn refuse(ctx: TcContext) -> i32 {
    hook::refuse::<V4>(&ctx)
}

/// The same for IPv6.
#[classifier]
fn refuse_v6(ctx: TcContext) -> i32 {
    hook::refuse::<V6>(&ctx)
}

/// Ingress of an uplink.
#[classifier]
fn from_world(ctx: TcContext) -> i32 {
    hook::by_family(&hook::received(ctx), hook::from_world::<V4>, Continuation::FromWorld, hook::pass)
}

/// Continues [`from_world`] for IPv6.
#[classifier]
fn from_world_v6(ctx: TcContext) -> i32 {
    hook::from_world::<V6>(&ctx)
}

/// Continues [`from_world`].
#[classifier]
fn open_from_world(ctx: TcContext) -> i32 {
    hook::open_from_world::<V4>(&ctx)
}

/// Continues [`from_world_v6`].
#[classifier]
fn open_from_world_v6(ctx: TcContext) -> i32 {
    hook::open_from_world::<V6>(&ctx)
}

/// Continues [`from_container`] and [`from_world`] for ICMP errors.
#[classifier]
fn icmp_error(ctx: TcContext) -> i32 {
    hook::translate_error::<V4>(&ctx)
}

/// Continues [`from_container_v6`] and [`from_world_v6`].
#[classifier]
fn icmp_error_v6(ctx: TcContext) -> i32 {
    hook::translate_error::<V6>(&ctx)
}

/// Continues [`from_container`] and [`from_world`] for fragments.
#[classifier]
fn fragment(ctx: TcContext) -> i32 {
    hook::fragment::<V4>(&ctx)
}

/// Continues [`from_container_v6`] and [`from_world_v6`].
#[classifier]
fn fragment_v6(ctx: TcContext) -> i32 {
    hook::fragment::<V6>(&ctx)
}

/// Continues [`open_from_container`] and [`open_from_world`] for fragments that have overtaken their datagram's first
/// one.
#[classifier]
fn wait(ctx: TcContext) -> i32 {
    hook::wait::<V4>(&ctx)
}

/// Continues [`open_from_container_v6`] and [`open_from_world_v6`].
#[classifier]
fn wait_v6(ctx: TcContext) -> i32 {
    hook::wait::<V6>(&ctx)
}

/// Continues [`from_container`], [`from_world`] and [`from_host`] for TCP connections that end, or begin once more.
#[classifier]
fn closing(ctx: TcContext) -> i32 {
    hook::closing::<V4>(&ctx)
}

/// Continues [`from_container_v6`], [`from_world_v6`] and [`from_host_v6`].
#[classifier]
fn closing_v6(ctx: TcContext) -> i32 {
    hook::closing::<V6>(&ctx)
}

/// Egress of an endpoint's host veth, where the host's firewall decides.
#[classifier]
fn to_container(ctx: TcContext) -> i32 {
    hook::by_family(&ctx, hook::to_container::<V4>, Continuation::ToContainer, hook::pass)
}

/// Continues [`to_container`] for IPv6.
#[classifier]
fn to_container_v6(ctx: TcContext) -> i32 {
    hook::to_container::<V6>(&ctx)
}

/// Egress of an uplink.
#[classifier]
fn to_world(ctx: TcContext) -> i32 {
    hook::by_family(&ctx, hook::to_world::<V4, __sk_buff>, Continuation::ToWorld, hook::pass)
}

/// Continues [`to_world`] for IPv6.
#[classifier]
fn to_world_v6(ctx: TcContext) -> i32 {
    hook::to_world::<V6, __sk_buff>(&ctx)
}

/// Continues [`to_world`] for what the host's own sockets send.
#[classifier]
fn from_host(ctx: TcContext) -> i32 {
    hook::from_host::<V4, __sk_buff>(&ctx)
}

/// Continues [`to_world_v6`].
#[classifier]
fn from_host_v6(ctx: TcContext) -> i32 {
    hook::from_host::<V6, __sk_buff>(&ctx)
}

/// Continues [`from_host`] where a mapping has the packet's tuple.
#[classifier]
fn open_from_host(ctx: TcContext) -> i32 {
    hook::open_from_host::<V4, __sk_buff>(&ctx)
}

/// Continues [`from_host_v6`].
#[classifier]
fn open_from_host_v6(ctx: TcContext) -> i32 {
    hook::open_from_host::<V6, __sk_buff>(&ctx)
}

/// Ingress of an uplink without Ethernet header: [`from_world`] and [`from_world_v6`] see its packets with one.
#[classifier]
fn from_world_bare(ctx: TcContext) -> i32 {
    hook::from_world_bare(&ctx)
}

/// Egress of an uplink without Ethernet header. Who continues it has to know that, too.
#[classifier]
fn to_world_bare(ctx: TcContext) -> i32 {
    hook::by_family(&ctx, hook::to_world::<V4, Bare>, Continuation::ToWorldBare, hook::pass)
}

/// Continues [`to_world_bare`] for IPv6.
#[classifier]
fn to_world_bare_v6(ctx: TcContext) -> i32 {
    hook::to_world::<V6, Bare>(&ctx)
}

/// As [`from_host`].
#[classifier]
fn from_host_bare(ctx: TcContext) -> i32 {
    hook::from_host::<V4, Bare>(&ctx)
}

/// As [`from_host_v6`].
#[classifier]
fn from_host_bare_v6(ctx: TcContext) -> i32 {
    hook::from_host::<V6, Bare>(&ctx)
}

/// As [`open_from_host`].
#[classifier]
fn open_from_host_bare(ctx: TcContext) -> i32 {
    hook::open_from_host::<V4, Bare>(&ctx)
}

/// As [`open_from_host_v6`].
#[classifier]
fn open_from_host_bare_v6(ctx: TcContext) -> i32 {
    hook::open_from_host::<V6, Bare>(&ctx)
}

/// As [`closing`], for the host's own.
#[classifier]
fn closing_bare(ctx: TcContext) -> i32 {
    hook::closing_bare::<V4>(&ctx)
}

/// As [`closing_v6`], for the host's own.
#[classifier]
fn closing_bare_v6(ctx: TcContext) -> i32 {
    hook::closing_bare::<V6>(&ctx)
}

/// Continues [`open_from_container`], [`open_from_world`] and [`open_from_host`] where a flow may be made, and goes back to
/// where they came from when it is in the table.
#[classifier]
fn claim(ctx: TcContext) -> i32 {
    hook::claim::<V4>(&ctx)
}

/// Continues [`open_from_container_v6`], [`open_from_world_v6`] and [`open_from_host_v6`].
#[classifier]
fn claim_v6(ctx: TcContext) -> i32 {
    hook::claim::<V6>(&ctx)
}

/// Receive side of an uplink, where `--xdp native` asks for it: in the driver, whose frames may be of several buffers.
#[xdp(frags)]
fn from_wire(ctx: XdpContext) -> u32 {
    xdp::from_wire(&ctx)
}

/// The same for `--xdp generic`, behind the driver. The kernel makes one buffer of each packet here. (Where a program
/// takes several, it makes another socket buffer and forgets the length of its link-layer header, so that the TC
/// programs after it look at the wrong place: `skb_pp_cow_data()`, seen on Linux 6.18.)
#[xdp]
fn from_wire_generic(ctx: XdpContext) -> u32 {
    xdp::from_wire(&ctx)
}

/// Run by user space (BPF_PROG_TEST_RUN), see [`removal`].
#[classifier]
fn remove_flows(ctx: TcContext) -> i32 {
    removal::remove_flows::<V4>(&ctx)
}

/// The same for IPv6.
#[classifier]
fn remove_flows_v6(ctx: TcContext) -> i32 {
    removal::remove_flows::<V6>(&ctx)
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

#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Never linked: the verifier would refuse it. Every path returns a verdict.
    loop {}
}

/// Several helpers are for GPL-compatible programs only.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
