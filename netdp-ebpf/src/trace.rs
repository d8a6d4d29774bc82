//! Dropped packets: counting them, and telling who watches (`netdp monitor`).

use core::ffi::c_void;
use core::net::IpAddr;

use aya_ebpf::EbpfContext;
use netdp_common::packet::Packet;

use netdp_common::verdict::{drop_index, reason_in};

use crate::frame::{Frame, Hooked};
use crate::host;
use crate::maps::{CONFIG, Maps};

/// Counts a dropped packet, and logs it. `refused`: the number of its verdict.
#[inline(always)]
pub(crate) fn lose<F: Maps, K>(frame: &Frame<F, K>, refused: u32)
where
    Frame<F, K>: Hooked<F> + Packet,
{
    let reason = reason_in(refused);
    host::add(drop_index(reason), 1);
    trace(frame, reason);
}

/// Logs a dropped packet. Nobody watches: one comparison.
#[inline(never)]
fn trace<F: Maps, K>(frame: &Frame<F, K>, reason: u32)
where
    Frame<F, K>: Hooked<F> + Packet,
{
    if CONFIG.get(0).is_none_or(|config| config.trace == 0) {
        return;
    }
    let context = Context(frame.context.cast());
    if let Some(header) = F::read_header(frame, frame.l3()) {
        let (src, dst): (IpAddr, IpAddr) = (header.src.into(), header.dst.into());
        aya_log_ebpf::info!(
            &context,
            "drop {} if {} proto {} {:i} -> {:i} len {}",
            reason,
            frame.interface(),
            header.proto,
            src,
            dst,
            frame.len()
        );
    } else {
        aya_log_ebpf::info!(&context, "drop {} if {} len {}", reason, frame.interface(), frame.len());
    }
}

/// Any kind of program's context.
struct Context(*mut c_void);

impl EbpfContext for Context {
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}
