//! The BPF file system, in which pins live.

use std::fs;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::{Error, Result};
use crate::failpoint;

/// Where every tool expects it.
pub const DIR: &str = "/sys/fs/bpf";

/// What the kernel itself pins in every new BPF file system (CONFIG_BPF_PRELOAD).
const PRELOADED: [&str; 2] = ["maps.debug", "progs.debug"];

/// Whoever lists the open files of all processes (as `ss -p` and `lsof` do) keeps a file system busy for a moment.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: Duration = Duration::from_millis(10);

/// Whether the BPF file system is mounted at [`DIR`].
pub fn is_mounted() -> Result<bool> {
    let stat = statfs(DIR).map_err(Error::system(|| {
        format!("looking for the BPF file system at {DIR} (is sysfs mounted, and the kernel built with BPF?)")
    }))?;
    Ok(stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Mounts the BPF file system at [`DIR`] unless it is mounted; says whether it did.
pub fn ensure_bpffs() -> Result<bool> {
    if is_mounted()? {
        return Ok(false);
    }
    failpoint::pass("mount bpffs")
        .map_err(Error::system(|| format!("mounting the BPF file system at {DIR}")))?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("bpf"), DIR, Some("bpf"), flags, Some("mode=0700"))
        .map_err(Error::system(|| format!("mounting the BPF file system at {DIR}")))?;
    Ok(true)
}

/// Unmounts what [`ensure_bpffs`] mounted, if nothing is pinned there any more (unmounting would unpin it) and
/// nobody uses it; says whether it did.
pub fn release_bpffs() -> Result<bool> {
    if !is_mounted()? {
        return Ok(false);
    }
    if has_pins()? {
        return Ok(false);
    }
    let unmounting = || format!("unmounting the BPF file system at {DIR}");
    failpoint::pass("unmount bpffs").map_err(Error::system(unmounting))?;
    for _ in 0..BUSY_TRIES {
        match umount2(DIR, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => return Ok(true),
            Err(Errno::EBUSY) => thread::sleep(BUSY_PAUSE),
            Err(errno) => return Err(Error::system(unmounting)(errno)),
        }
    }
    Ok(false)
}

/// The listing is not kept open: it would make the file system busy.
fn has_pins() -> Result<bool> {
    let listing = || Error::system(|| format!("listing {DIR}"));
    for entry in fs::read_dir(DIR).map_err(listing())? {
        let name = entry.map_err(listing())?.file_name();
        if !PRELOADED.iter().any(|preloaded| name == *preloaded) {
            return Ok(true);
        }
    }
    Ok(false)
}
