//! Atomic operations on map values. The BPF target's `core::sync::atomic` has none that return the old value.

use core::arch::asm;

/// Compare-and-swap; true if `*at` was `old` and is `new` now. Full barrier (BPF_ATOMIC, Linux 5.12).
#[inline(always)]
pub(crate) fn compare_and_swap(at: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: `at` points into a map value (the verifier checks it) and is 8-byte aligned there.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({at} + 0, r0, {new})",
            at = in(reg) at,
            new = in(reg) new,
            inout("r0") old => found,
        );
    }
    found == old
}

/// Adds and returns the value before. Full barrier (BPF_ATOMIC, Linux 5.12).
#[inline(always)]
pub(crate) fn fetch_add(at: *mut u64, n: u64) -> u64 {
    let mut value = n;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({at} + 0), {value})",
            at = in(reg) at,
            value = inout(reg) value,
        );
    }
    value
}

/// Keeps the bits of `mask` and returns the value before. Full barrier (BPF_ATOMIC, Linux 5.12).
#[inline(always)]
pub(crate) fn fetch_and(at: *mut u64, mask: u64) -> u64 {
    let mut value = mask;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{value} = atomic_fetch_and((u64 *)({at} + 0), {value})",
            at = in(reg) at,
            value = inout(reg) value,
        );
    }
    value
}

/// Sets the bits of `mask` and returns the value before. Full barrier (BPF_ATOMIC, Linux 5.12).
#[inline(always)]
pub(crate) fn fetch_or(at: *mut u64, mask: u64) -> u64 {
    let mut value = mask;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{value} = atomic_fetch_or((u64 *)({at} + 0), {value})",
            at = in(reg) at,
            value = inout(reg) value,
        );
    }
    value
}

/// A length from 1 to `most`; none if it is not. The compiler would compare another register than the one that it passes
/// on, and verifiers before 6.8 learn nothing from `!= 0`.
#[inline(always)]
pub(crate) fn length(len: u32, most: usize) -> Option<u32> {
    let mut last = u64::from(len).wrapping_sub(1);
    // SAFETY: a register is copied onto itself; the compiler knows nothing of the number any more.
    unsafe { asm!("{0} = {0}", inout(reg) last) };
    if last >= most as u64 { None } else { Some((last + 1) as u32) }
}

/// The compiler moves no load or store across this. (x86-64 keeps the order of loads by itself.)
#[inline(always)]
pub(crate) fn compiler_barrier() {
    // SAFETY: no instruction.
    unsafe { asm!("") };
}
