//! Where programs keep what is too large for their 512 bytes of stack.

use netdp_common::family::{V4, V6};
use netdp_common::nat::Known;
use netdp_common::tables::Scratch;
use netdp_common::verdict::{DropReason, Verdict};

use crate::maps::Maps;

/// Lends a program this CPU's scratch space.
///
/// One for each CPU is enough: TC programs run with softirqs off (ingress in a softirq, egress below the
/// `rcu_read_lock_bh` of `__dev_queue_xmit`), so none interrupts another on its CPU, and a redirect is carried out when
/// its program has returned. Programs that continue in each other are about one packet. What user space runs by itself
/// (`remove_flows`) is interrupted on kernels before 6.11 and uses the stack.
#[inline(always)]
pub(crate) fn with_scratch<F: Maps>(work: impl FnOnce(&mut Scratch<F::Addr>) -> Verdict) -> Verdict {
    match F::scratch().get_ptr_mut(0) {
        // SAFETY: one per CPU, and nobody else uses this CPU's, see above.
        Some(scratch) => work(unsafe { &mut *scratch }),
        // Never: the map has an element 0.
        None => Verdict::drop(DropReason::TableFull),
    }
}

/// Where a family's packets are looked at first.
pub(crate) trait Room: Maps {
    /// Lends the room.
    fn with_known(work: impl FnOnce(&mut Known<Self::Addr>) -> Verdict) -> Verdict;
}

/// The stack: the compiler keeps most of it in registers.
impl Room for V4 {
    #[inline(always)]
    fn with_known(work: impl FnOnce(&mut Known<Self::Addr>) -> Verdict) -> Verdict {
        work(&mut Known::nothing())
    }
}

/// The scratch space: 216 bytes of addresses, most of them twice.
impl Room for V6 {
    #[inline(always)]
    fn with_known(work: impl FnOnce(&mut Known<Self::Addr>) -> Verdict) -> Verdict {
        with_scratch::<Self>(|scratch| work(&mut scratch.known))
    }
}
