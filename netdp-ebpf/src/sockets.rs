//! The host's own sockets: a connection to a published port goes straight to its endpoint.

use core::ptr;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::{bpf_get_netns_cookie, bpf_sk_release, bpf_skc_lookup_tcp};
use netdp_common::family::{Address, Be16, Ipv4Addr, V4};
use netdp_common::flow::PublishedKey;
use netdp_common::header::tcp;

use crate::host::{CURRENT_NETNS, SocketTuple, published, reserved};
use crate::maps::{CONFIG, Maps};

/// `TCP_LISTEN` of `enum bpf_tcp_state`.
const LISTEN: u32 = 10;

/// `connect(2)` of an IPv4 socket: rewrites the destination if it is published on this host. Always allowed.
#[inline(always)]
pub(crate) fn connect4(context: *mut bpf_sock_addr) {
    if !of_this_host(context) {
        return;
    }
    // SAFETY: fields of the program's context that are readable in connect4 programs.
    let (addr, port, proto) = unsafe {
        (
            Ipv4Addr(ptr::read_volatile(&raw const (*context).user_ip4)),
            ptr::read_volatile(&raw const (*context).user_port) as u16,
            ptr::read_volatile(&raw const (*context).protocol) as u8,
        )
    };
    let port: Be16 = bytemuck::cast(port);
    if proto != tcp::PROTO || !reserved(proto, port.get()) || bound_to_loopback(context) {
        return;
    }
    let key = PublishedKey { addr, proto, pad: 0, port };
    let found = published::<V4>(&key).or_else(|| {
        // SAFETY: a presence test.
        let local = addr.is_loopback() || unsafe { V4::locals().get(addr) }.is_some();
        if local { published::<V4>(&PublishedKey { addr: Ipv4Addr::UNSPECIFIED, ..key }) } else { None }
    });
    let Some(found) = found else { return };
    if has_listener(context, addr, port) {
        return;
    }
    // SAFETY: fields that are writable in connect4 programs.
    unsafe {
        ptr::write_volatile(&raw mut (*context).user_ip4, found.endpoint.0);
        ptr::write_volatile(&raw mut (*context).user_port, u32::from(found.endpoint_port(port).raw()));
    }
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

/// A socket that was bound to 127.0.0.0/8 can't leave the host: it is left alone and fails at once.
#[inline(always)]
fn bound_to_loopback(context: *mut bpf_sock_addr) -> bool {
    // SAFETY: the socket of a sock_addr context is readable and may be null.
    unsafe {
        let socket = (*context).__bindgen_anon_1.sk;
        !socket.is_null() && Ipv4Addr(ptr::read_volatile(&raw const (*socket).src_ip4)).is_loopback()
    }
}

/// A host process that listens on the very address and port wins over the published port.
#[inline(always)]
fn has_listener(context: *mut bpf_sock_addr, addr: Ipv4Addr, port: Be16) -> bool {
    let mut tuple = SocketTuple { remote: addr, local: addr, remote_port: Be16::new(0), local_port: port };
    // SAFETY: the tuple has the layout that its size tells; a socket that is found is released at once.
    unsafe {
        let size = size_of::<SocketTuple<Ipv4Addr>>() as u32;
        let socket = bpf_skc_lookup_tcp(context.cast(), (&raw mut tuple).cast(), size, CURRENT_NETNS, 0);
        if socket.is_null() {
            return false;
        }
        let listens = (*socket).state == LISTEN;
        bpf_sk_release(socket.cast());
        listens
    }
}
