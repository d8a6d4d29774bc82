//! Namespaces with a name: bind mounts in `/run/netns`, as `ip netns` makes them.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::error::{Error, Result, gone_is_fine};
use super::netns::{NetNs, OF_THIS_THREAD};
use crate::failpoint;

/// Where the names are.
pub(super) const DIR: &str = "/run/netns";

/// The file of the namespace `name`.
pub(super) fn path(name: &str) -> Result<PathBuf> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
        return Err(Error::BadNamespaceName(name.to_owned()));
    }
    Ok(Path::new(DIR).join(name))
}

pub(super) fn create(name: &str) -> Result<NetNs> {
    bind(name, |path| {
        NetNs::create_then(|ns| {
            mount_on(path, OF_THIS_THREAD)?;
            Ok(ns)
        })
    })
}

/// Gives a namespace that is there another name.
pub(super) fn bind_to(name: &str, ns: &NetNs) -> Result<NetNs> {
    bind(name, |path| {
        mount_on(path, &format!("/proc/thread-self/fd/{}", ns.fd().as_raw_fd()))?;
        NetNs::open(path)
    })
}

fn mount_on(path: &Path, ns: &str) -> Result<()> {
    step("mount a namespace")?;
    mount(Some(ns), path, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .map_err(Error::system(|| format!("bind-mounting a network namespace on {}", path.display())))
}

/// Creates the name, and mounts what it stands for on it.
fn bind(name: &str, mount: impl FnOnce(&Path) -> Result<NetNs>) -> Result<NetNs> {
    let path = path(name)?;
    share_dir()?;
    step("create a namespace's file")?;
    OpenOptions::new().write(true).create_new(true).mode(0o000).open(&path).map_err(|error| {
        if error.raw_os_error() == Some(Errno::EEXIST as i32) {
            Error::NamespaceExists { name: name.to_owned() }
        } else {
            Error::system(|| format!("creating {}", path.display()))(error)
        }
    })?;
    let created = mount(&path);
    if created.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&path);
    }
    created
}

pub(super) fn delete(name: &str) -> Result<()> {
    let path = path(name)?;
    step("unmount a namespace")?;
    let unmounted = umount2(&path, MntFlags::MNT_DETACH)
        .map_err(Error::system(|| format!("unmounting {}", path.display())));
    // EINVAL: a file that is no mount point, left behind by somebody who died between the two steps of creation.
    gone_is_fine(unmounted, &[Errno::EINVAL, Errno::ENOENT])?;
    step("remove a namespace's file")?;
    fs::remove_file(&path).map_err(|error| match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOENT) => Error::NoNamespace { name: name.to_owned() },
        _ => Error::system(|| format!("removing {}", path.display()))(error),
    })
}

fn step(what: &str) -> Result<()> {
    failpoint::pass(what).map_err(Error::system(|| what.to_owned()))
}

/// Makes [`DIR`] a shared mount point, so that a name created or deleted here is so in every mount namespace that
/// was copied from this one (otherwise they keep deleted namespaces alive). `ip netns` takes the same lock.
fn share_dir() -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(DIR)
        .map_err(Error::system(|| format!("creating the directory {DIR}")))?;
    let dir = File::open(DIR).map_err(Error::system(|| format!("opening the directory {DIR}")))?;
    let _lock = Flock::lock(dir, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::system(|| format!("locking the directory {DIR}"))(errno))?;
    let share = || mount(None::<&str>, DIR, None::<&str>, MsFlags::MS_SHARED | MsFlags::MS_REC, None::<&str>);
    let shared = match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            mount(Some(DIR), DIR, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
                .map_err(Error::system(|| format!("making {DIR} a mount point")))?;
            share()
        }
        other => other,
    };
    shared.map_err(Error::system(|| format!("making {DIR} a shared mount point")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_directory() {
        assert_eq!(path("c1").expect("a good name"), Path::new("/run/netns/c1"));
        for bad in ["", ".", "..", "a/b", "/", "../x", "a\0b"] {
            assert!(matches!(path(bad), Err(Error::BadNamespaceName(_))), "{bad:?}");
        }
    }
}
