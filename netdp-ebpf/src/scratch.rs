//! Where programs keep what is too large for their 512 bytes of stack.
//!
//! What is known of a packet is kept there, too, from its first program on: on the stack it would have to be zeroed, and
//! the compiler makes a call of a `memset` of that which stores byte by byte (bpf-linker has LLVM inline none): half of
//! all instructions of an established flow's packet.

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
