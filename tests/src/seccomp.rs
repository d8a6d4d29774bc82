//! A kernel without `bpf(2)`, for one process and its children.

use std::io;

/// Loads the 32-bit word at a constant offset (classic BPF, `linux/filter.h`).
const LOAD: u16 = 0x20;
/// Jumps if equal to a constant.
const JUMP_IF_EQUAL: u16 = 0x15;
/// Returns a constant.
const RETURN: u16 = 0x06;

/// Offset of the system call's number in `struct seccomp_data`.
const NUMBER: u32 = 0;

/// From here on `bpf(2)` is a system call that this kernel doesn't have. Async-signal-safe.
pub fn forbid_bpf() -> io::Result<()> {
    let number = u32::try_from(libc::SYS_bpf).unwrap_or(u32::MAX);
    let not_there = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let instruction = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        instruction(LOAD, 0, 0, NUMBER),
        instruction(JUMP_IF_EQUAL, 0, 1, number),
        instruction(RETURN, 0, 0, not_there),
        instruction(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    // SAFETY: the program is as long as it says, and lives as long as the call.
    let result = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
