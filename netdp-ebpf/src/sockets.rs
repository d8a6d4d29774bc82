//! The host's own sockets: what they send to a published port goes straight to its endpoint, and what comes back
//! is told as if it came from where they sent it.
//!
//! The kernel chooses the source address after the rewriting, so that 127.0.0.1 and ::1 need no `route_localnet`;
//! no packet is translated.

use aya_ebpf::bindings::{BPF_ANY, bpf_sock_addr};
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_get_socket_cookie, bpf_set_retval, bpf_sk_lookup_udp, bpf_sk_release,
    bpf_skc_lookup_tcp,
};
use aya_ebpf::programs::SockAddrContext;
use netdp_common::family::{Address, Be16, Ipv4Addr, Ipv6Addr, V4, V6};
use netdp_common::flow::PublishedKey;
use netdp_common::header::{tcp, udp};

use crate::host::{CURRENT_NETNS, SocketTuple, has_port, published, reserved};
use crate::maps::{CONFIG, DIALLED, HELD, Maps};

mod context;

pub(crate) use context::{Hook, SocketAddr};

/// `TCP_LISTEN` of `enum bpf_tcp_state`.
const LISTEN: u32 = 10;
/// `EADDRINUSE`.
const ADDRESS_IN_USE: i32 = 98;

/// Allow the call. `recvmsg` and `getpeername` may return nothing else.
pub(crate) const ALLOW: i32 = 1;
/// Let the call fail.
const DENY: i32 = 0;

/// By which socket (its cookie) and at which endpoint: a reply is told apart by both.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct DialledKey {
    cookie: u64,
    endpoint: SocketAddr,
    pad: u32,
}

/// `connect(2)`, or `sendto(2)` of a UDP socket that is not connected: rewrites the destination if it is published
/// on this host. Always allowed.
///
/// `to_ipv4`: whether an IPv6 socket may be sent to an IPv4 endpoint; `sendmsg6` may not (the kernel says ENOTSUPP).
#[inline(always)]
pub(crate) fn redirect<H: Hook>(ctx: &SockAddrContext, to_ipv4: bool) -> i32 {
    let _rewritten = try_redirect::<H>(ctx.sock_addr, to_ipv4);
    ALLOW
}

#[inline(always)]
fn try_redirect<H: Hook>(context: *mut bpf_sock_addr, to_ipv4: bool) -> Option<()> {
    if !of_this_host(context) {
        return None;
    }
    let to = context::destination::<H>(context)?;
    // What is bound to a loopback address can't leave the host: it is left alone and fails at once.
    if !reserved(to.proto, to.port.get()) || H::is_bound_to_loopback(context) {
        return None;
    }
    let endpoint = endpoint(&to, to_ipv4)?;
    if has_listener(context, &to) {
        return None;
    }
    let key = DialledKey { cookie: cookie(context), endpoint, pad: 0 };
    // Without the way back the socket would be answered by a stranger: then it is not served.
    DIALLED.insert(key, to, u64::from(BPF_ANY)).ok()?;
    H::set_address(context, &endpoint.addr);
    context::set_port(context, endpoint.port);
    Some(())
}

/// `recvfrom(2)` and `getpeername(2)`: tells what was dialled. Always allowed.
#[inline(always)]
pub(crate) fn restore<H: Hook>(ctx: &SockAddrContext) -> i32 {
    let _restored = try_restore::<H>(ctx.sock_addr);
    ALLOW
}

#[inline(always)]
fn try_restore<H: Hook>(context: *mut bpf_sock_addr) -> Option<()> {
    if !of_this_host(context) {
        return None;
    }
    let endpoint = context::destination::<H>(context)?;
    let key = DialledKey { cookie: cookie(context), endpoint, pad: 0 };
    // SAFETY: copied at once; an element that is recycled meanwhile is another reply's of this very socket or of one
    // that is gone.
    let dialled = *unsafe { DIALLED.get(key) }?;
    H::set_address(context, &dialled.addr);
    context::set_port(context, dialled.port);
    Some(())
}

/// `bind(2)`: a published port is taken.
#[inline(always)]
pub(crate) fn hold<H: Hook>(ctx: &SockAddrContext) -> i32 {
    let context = ctx.sock_addr;
    if !of_this_host(context) {
        return ALLOW;
    }
    match context::destination::<H>(context) {
        Some(wanted) if is_held(&wanted) => {
            // SAFETY: a helper without pointers (Linux 5.18).
            unsafe { bpf_set_retval(-ADDRESS_IN_USE) };
            DENY
        }
        _ => ALLOW,
    }
}

/// Whether a bound socket would share its port with an endpoint: at its own address, or at any.
#[inline(always)]
fn is_held(wanted: &SocketAddr) -> bool {
    if !has_port(&HELD, wanted.proto, wanted.port.get()) {
        return false;
    }
    let any = match wanted.addr.to_ipv4() {
        Some(addr) => addr == Ipv4Addr::UNSPECIFIED,
        None => wanted.addr == Ipv6Addr::UNSPECIFIED,
    };
    any || endpoint(wanted, true).is_some()
}

/// Who is behind a published address and port.
#[inline(always)]
fn endpoint(to: &SocketAddr, to_ipv4: bool) -> Option<SocketAddr> {
    if let Some(addr) = to.addr.to_ipv4() {
        return endpoint_of::<V4>(addr, to);
    }
    let found = endpoint_of::<V6>(to.addr, to);
    if found.is_some() {
        return found;
    }
    // An endpoint without IPv6 address.
    let of_host = to.addr.is_loopback() || to.addr == Ipv6Addr::UNSPECIFIED;
    if to_ipv4 && of_host { published_at::<V4>(Ipv4Addr::UNSPECIFIED, to) } else { None }
}

#[inline(always)]
fn endpoint_of<F: Maps>(addr: F::Addr, to: &SocketAddr) -> Option<SocketAddr>
where
    Ipv6Addr: From<F::Addr>,
{
    let found = published_at::<F>(addr, to);
    if found.is_some() {
        return found;
    }
    // SAFETY: a presence test.
    let local = addr.is_loopback() || unsafe { F::locals().get(addr) }.is_some();
    if local { published_at::<F>(F::Addr::UNSPECIFIED, to) } else { None }
}

#[inline(always)]
fn published_at<F: Maps>(addr: F::Addr, to: &SocketAddr) -> Option<SocketAddr>
where
    Ipv6Addr: From<F::Addr>,
{
    let found = published::<F>(&PublishedKey { addr, proto: to.proto, pad: 0, port: to.port })?;
    let port = found.endpoint_port(to.port);
    Some(SocketAddr { addr: Ipv6Addr::from(found.endpoint), port, proto: to.proto, pad: 0 })
}

/// The hook runs for every process below the cgroup: containers' processes live in other network namespaces.
#[inline(always)]
fn of_this_host(context: *mut bpf_sock_addr) -> bool {
    // SAFETY: a helper call on the program's own context (Linux 5.7).
    let cookie = unsafe { bpf_get_netns_cookie(context.cast()) };
    match CONFIG.get(0) {
        Some(config) => config.host_netns_cookie == cookie,
        None => false,
    }
}

#[inline(always)]
fn cookie(context: *mut bpf_sock_addr) -> u64 {
    // SAFETY: a helper call on the program's own context (Linux 4.12).
    unsafe { bpf_get_socket_cookie(context.cast()) }
}

/// A host process that has the very address and port since before it was published wins over the published port.
#[inline(always)]
fn has_listener(context: *mut bpf_sock_addr, to: &SocketAddr) -> bool {
    match to.addr.to_ipv4() {
        Some(local) => has_socket(
            context,
            to,
            SocketTuple {
                remote: Ipv4Addr::UNSPECIFIED,
                local,
                remote_port: Be16::new(0),
                local_port: to.port,
            },
        ),
        None => has_socket(
            context,
            to,
            SocketTuple {
                remote: Ipv6Addr::UNSPECIFIED,
                local: to.addr,
                remote_port: Be16::new(0),
                local_port: to.port,
            },
        ),
    }
}

#[inline(always)]
fn has_socket<A>(context: *mut bpf_sock_addr, to: &SocketAddr, mut tuple: SocketTuple<A>) -> bool {
    let (tuple, size) = ((&raw mut tuple).cast(), size_of::<SocketTuple<A>>() as u32);
    // SAFETY: the tuple has the layout that its size tells; a socket that is found is released at once.
    unsafe {
        let socket = match to.proto {
            tcp::PROTO => bpf_skc_lookup_tcp(context.cast(), tuple, size, CURRENT_NETNS, 0),
            _ => bpf_sk_lookup_udp(context.cast(), tuple, size, CURRENT_NETNS, 0),
        };
        if socket.is_null() {
            return false;
        }
        let listens = to.proto == udp::PROTO || (*socket).state == LISTEN;
        bpf_sk_release(socket.cast());
        listens
    }
}
