//! Removing flows that user space names, through the same gate as everybody else.

use aya_ebpf::programs::TcContext;
use bytemuck::{Pod, Zeroable};
use netdp_common::family::{Address, Ipv4Addr, Ipv6Addr};
use netdp_common::flow::Tuple;
use netdp_common::packet::Packet as _;
use netdp_common::reclaim;
use netdp_common::tables::{Host as _, Step};

use crate::maps::Maps;
use crate::skb::Skb;

/// Records in one run, a power of two.
const REMOVALS: u32 = 128;

/// Removes what the "packet" names: after 14 bytes up to [`REMOVALS`] records. Returns how many were removed.
#[inline(always)]
pub(crate) fn remove_flows<F: Maps>(ctx: &TcContext) -> i32 {
    let skb = Skb::<F>::new(ctx.skb.skb);
    let mut removal = Removal { skb, removed: 0 };
    skb.repeat(REMOVALS, &mut removal);
    removal.removed
}

/// The key of a flow's initiator and its generation.
#[repr(C)]
#[derive(Clone, Copy)]
struct Record<A> {
    key: Tuple<A>,
    generation: u32,
}

const _: () = assert!(size_of::<Record<Ipv4Addr>>() == 20 && size_of::<Record<Ipv6Addr>>() == 44);
// SAFETY: plain data without padding: the sizes are the sums.
unsafe impl<A: Address> Zeroable for Record<A> {}
// SAFETY: as above.
unsafe impl<A: Address> Pod for Record<A> {}

struct Removal<F> {
    skb: Skb<F>,
    removed: i32,
}

impl<F: Maps> Step for Removal<F> {
    #[inline(always)]
    fn step(&mut self, i: u32) -> bool {
        // The mask changes nothing: the verifier wants to see how far into the packet this reads.
        let at = self.skb.l3() + (i & (REMOVALS - 1)) as usize * size_of::<Record<F::Addr>>();
        let Some(record) = self.skb.load::<Record<F::Addr>>(at) else { return false };
        if reclaim::remove_exact(&self.skb, &record.key, record.generation) {
            self.removed += 1;
        }
        true
    }
}
