//! The instances' directory, and what all of them share: whether netdp mounted the BPF file system.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::open_dir;
use crate::error::Error;
use crate::failpoint;
use crate::net::bpffs;
use crate::output;

/// Where instances keep their state.
pub const ROOT: &str = "/run/netdp";
/// Says that netdp mounted the BPF file system. No instance has a name that begins with a dot.
const MOUNTED: &str = "/run/netdp/.mounted-bpffs";
/// Where instances pin.
const PINS: &str = "/sys/fs/bpf/netdp";

/// Mounts the BPF file system if nobody did, and remembers that. Until the result is dropped, no other instance
/// unmounts it or removes the directory that all pin below; others may load their programs meanwhile.
pub(super) fn bpffs_ensure() -> Result<Flock<File>, Error> {
    loop {
        let shared = lock_as(FlockArg::LockShared)?;
        if bpffs::is_mounted()? {
            return Ok(shared);
        }
        drop(shared);
        bpffs_mount()?;
    }
}

fn bpffs_mount() -> Result<(), Error> {
    let _lock = lock()?;
    if !bpffs::is_mounted()? {
        // First: a mount that nobody remembers would stay for ever.
        failpoint::pass("remember the mount")
            .and_then(|()| File::create(MOUNTED))
            .map_err(Error::system(format!("creating {MOUNTED}")))?;
        bpffs::ensure_bpffs()?;
    }
    Ok(())
}

/// Unmounts the BPF file system if netdp mounted it and nothing is pinned there.
pub fn bpffs_release() -> Result<(), Error> {
    let _lock = lock()?;
    // Only goes if it is empty.
    let _ = fs::remove_dir(PINS);
    if Path::new(MOUNTED).exists() && (!bpffs::is_mounted()? || bpffs::release_bpffs()?) {
        failpoint::pass("forget the mount")
            .and_then(|()| fs::remove_file(MOUNTED))
            .map_err(Error::system(format!("removing {MOUNTED}")))?;
    }
    if Path::new(MOUNTED).exists() && !Path::new(PINS).exists() {
        let stays = "stays mounted: somebody else has pinned something there, or uses it";
        output::warning(format!("the BPF file system at {} {stays}", bpffs::DIR))?;
    }
    // Only goes if this was the last instance.
    let _ = fs::remove_dir(ROOT);
    Ok(())
}

/// Removes a directory with files; it may be gone.
pub fn remove_files(dir: &Path) -> Result<(), Error> {
    match failpoint::pass("remove files").and_then(|()| fs::remove_dir_all(dir)) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::system(format!("removing {}", dir.display()))(error))
        }
        _ => Ok(()),
    }
}

/// Removes an instance's directory, and the one of all if it was the last.
pub(super) fn remove(dir: &Path) -> Result<(), Error> {
    remove_files(dir)?;
    // Only goes if this was the last instance.
    let _ = fs::remove_dir(ROOT);
    Ok(())
}

/// Removes an instance's directory if there is nothing but a lock in it.
pub(super) fn remove_if_unused(dir: &Path) {
    let used = |path: &Path| path.file_name().is_some_and(|name| name != "lock");
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    if !entries.map(|entry| entry.path()).any(|path| used(&path)) {
        // What can't be removed is found by the next command.
        let _ = remove(dir);
    }
}

/// What concerns all instances is done by one at a time, as long as the result lives.
pub fn lock() -> Result<Flock<File>, Error> {
    lock_as(FlockArg::LockExclusive)
}

fn lock_as(how: FlockArg) -> Result<Flock<File>, Error> {
    let root = Path::new(ROOT);
    loop {
        let locked = Flock::lock(open_dir(root)?, how)
            .map_err(|(_, errno)| Error::system(format!("locking {ROOT}"))(errno))?;
        let ours = locked.metadata().map_err(Error::system(format!("locking {ROOT}")))?.ino();
        // The last instance removes the directory: who waited has then locked one that nobody else will see.
        if fs::metadata(root).is_ok_and(|stat| stat.ino() == ours) {
            return Ok(locked);
        }
    }
}
