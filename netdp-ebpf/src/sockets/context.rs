//! What a socket hook's context says, for the hooks of both families.

use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;
use netdp_common::family::{Address, Be16, Ipv4Addr, Ipv6Addr, V4, V6};
use netdp_common::header::{tcp, udp};

/// `IPPROTO_MPTCP`: on the wire it is TCP.
const MPTCP: u32 = 262;

/// A transport address; IPv4 as `::ffff:a.b.c.d` (RFC 4291 2.5.5.2), so that the hooks of both families speak of one
/// thing: an IPv6 socket reaches IPv4 so.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct SocketAddr {
    /// The address.
    pub addr: Ipv6Addr,
    /// The port.
    pub port: Be16,
    /// TCP or UDP.
    pub proto: u8,
    /// Zero.
    pub pad: u8,
}

/// A family's hooks.
pub(crate) trait Hook {
    /// The address in the context.
    fn address(context: *mut bpf_sock_addr) -> Ipv6Addr;
    /// Writes it.
    fn set_address(context: *mut bpf_sock_addr, addr: &Ipv6Addr);
    /// Whether the socket was bound to 127.0.0.0/8 or ::1 before.
    fn is_bound_to_loopback(context: *mut bpf_sock_addr) -> bool;
}

impl Hook for V4 {
    #[inline(always)]
    fn address(context: *mut bpf_sock_addr) -> Ipv6Addr {
        // SAFETY: a field of the program's context that is readable in IPv4 hooks.
        Ipv4Addr(unsafe { ptr::read_volatile(&raw const (*context).user_ip4) }).into()
    }

    #[inline(always)]
    fn set_address(context: *mut bpf_sock_addr, addr: &Ipv6Addr) {
        // SAFETY: a field that is writable in IPv4 hooks.
        unsafe { ptr::write_volatile(&raw mut (*context).user_ip4, addr.0[3]) };
    }

    #[inline(always)]
    fn is_bound_to_loopback(context: *mut bpf_sock_addr) -> bool {
        // SAFETY: the socket of a sock_addr context is readable and may be null.
        unsafe {
            let socket = (*context).__bindgen_anon_1.sk;
            !socket.is_null() && Ipv4Addr(ptr::read_volatile(&raw const (*socket).src_ip4)).is_loopback()
        }
    }
}

impl Hook for V6 {
    #[inline(always)]
    fn address(context: *mut bpf_sock_addr) -> Ipv6Addr {
        // SAFETY: fields of the program's context that are readable in IPv6 hooks, a word at a time.
        unsafe {
            let words = &raw const (*context).user_ip6;
            Ipv6Addr([
                ptr::read_volatile(&raw const (*words)[0]),
                ptr::read_volatile(&raw const (*words)[1]),
                ptr::read_volatile(&raw const (*words)[2]),
                ptr::read_volatile(&raw const (*words)[3]),
            ])
        }
    }

    #[inline(always)]
    fn set_address(context: *mut bpf_sock_addr, addr: &Ipv6Addr) {
        // SAFETY: fields that are writable in IPv6 hooks, a word at a time.
        unsafe {
            let words = &raw mut (*context).user_ip6;
            ptr::write_volatile(&raw mut (*words)[0], addr.0[0]);
            ptr::write_volatile(&raw mut (*words)[1], addr.0[1]);
            ptr::write_volatile(&raw mut (*words)[2], addr.0[2]);
            ptr::write_volatile(&raw mut (*words)[3], addr.0[3]);
        }
    }

    #[inline(always)]
    fn is_bound_to_loopback(context: *mut bpf_sock_addr) -> bool {
        // SAFETY: the socket of a sock_addr context is readable and may be null.
        let bound = unsafe {
            let socket = (*context).__bindgen_anon_1.sk;
            if socket.is_null() {
                return false;
            }
            let words = &raw const (*socket).src_ip6;
            Ipv6Addr([
                ptr::read_volatile(&raw const (*words)[0]),
                ptr::read_volatile(&raw const (*words)[1]),
                ptr::read_volatile(&raw const (*words)[2]),
                ptr::read_volatile(&raw const (*words)[3]),
            ])
        };
        bound.is_loopback() || bound.to_ipv4().is_some_and(|bound| bound.is_loopback())
    }
}

/// The address that the call is about; none for protocols that can't be published to the host's sockets.
#[inline(always)]
pub(super) fn destination<H: Hook>(context: *mut bpf_sock_addr) -> Option<SocketAddr> {
    // SAFETY: fields of the program's context that are readable in every sock_addr program.
    let (port, proto) = unsafe {
        (
            ptr::read_volatile(&raw const (*context).user_port) as u16,
            ptr::read_volatile(&raw const (*context).protocol),
        )
    };
    let proto = match proto {
        MPTCP => tcp::PROTO,
        proto if proto == u32::from(tcp::PROTO) => tcp::PROTO,
        proto if proto == u32::from(udp::PROTO) => udp::PROTO,
        _ => return None,
    };
    Some(SocketAddr { addr: H::address(context), port: bytemuck::cast(port), proto, pad: 0 })
}

/// Writes the port.
#[inline(always)]
pub(super) fn set_port(context: *mut bpf_sock_addr, port: Be16) {
    // SAFETY: a field that is writable in every sock_addr program that rewrites.
    unsafe { ptr::write_volatile(&raw mut (*context).user_port, u32::from(port.raw())) };
}
