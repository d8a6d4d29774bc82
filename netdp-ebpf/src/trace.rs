//! Telling who watches (`netdp monitor`) about dropped packets.

use core::net::IpAddr;

use aya_ebpf::programs::TcContext;
use netdp_common::packet::Packet as _;

use crate::maps::{CONFIG, Maps};
use crate::skb::Skb;

/// Logs a dropped packet. Nobody watches: one comparison.
#[inline(never)]
pub(crate) fn trace<F: Maps>(skb: &Skb<F>, reason: u32) {
    if CONFIG.get(0).is_none_or(|config| config.trace == 0) {
        return;
    }
    let context = TcContext::new(skb.context());
    if let Some(header) = F::read_header(skb, skb.l3()) {
        let (src, dst): (IpAddr, IpAddr) = (header.src.into(), header.dst.into());
        aya_log_ebpf::info!(
            &context,
            "drop {} if {} proto {} {:i} -> {:i} len {}",
            reason,
            skb.interface(),
            header.proto,
            src,
            dst,
            skb.len()
        );
    } else {
        aya_log_ebpf::info!(&context, "drop {} if {} len {}", reason, skb.interface(), skb.len());
    }
}
