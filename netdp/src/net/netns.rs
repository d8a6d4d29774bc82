//! Network namespaces: open them, run in them, tell them apart.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::thread;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};
use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::named;

/// The namespace of the thread that opens it; `/proc/self` would be the main thread's.
pub(super) const OF_THIS_THREAD: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It stays alive as long as this value does.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
    id: NetNsId,
}

/// Tells namespaces apart: the device and inode of the namespace's file, equal for every path to the same one.
/// The kernel may give an inode to another namespace once this one is gone.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
pub struct NetNsId {
    /// Device of the namespace file system.
    pub dev: u64,
    /// Inode: the number in `net:[...]`.
    pub inode: u64,
}

impl fmt::Display for NetNsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "net:[{}]", self.inode)
    }
}

impl NetNs {
    /// The calling thread's namespace.
    pub fn current() -> Result<Self> {
        let path = Path::new(OF_THIS_THREAD);
        Self::from_file(File::open(path).map_err(opening(path))?, path)
    }

    /// The namespace that the file `path` stands for, like `/proc/PID/ns/net` or a bind mount of it.
    pub fn open(path: &Path) -> Result<Self> {
        let ns = Self::from_file(File::open(path).map_err(opening(path))?, path)?;
        // A file of another kind opens as well; only entering tells.
        match ns.run(|| ()) {
            Err(error) if error.errno() == Some(Errno::EINVAL) => Err(Error::NotANamespace(path.to_owned())),
            other => other.map(|()| ns),
        }
    }

    /// The namespace of the process `pid`.
    pub fn of_pid(pid: u32) -> Result<Self> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net"))).map_err(|error| match error.errno() {
            // ENOENT without the process; ESRCH when it ends meanwhile.
            Some(Errno::ENOENT | Errno::ESRCH) => Error::NoProcess(pid),
            _ => error,
        })
    }

    /// The namespace called `name`, as `ip netns add` makes them.
    pub fn named(name: &str) -> Result<Self> {
        let path = named::path(name)?;
        Self::open(&path).map_err(|error| match error.errno() {
            Some(Errno::ENOENT) => Error::NoNamespace { name: name.to_owned() },
            _ => error,
        })
    }

    /// Creates the namespace `name` as `ip netns add` does; refuses a name that exists. Its `lo` is down.
    pub fn create_named(name: &str) -> Result<Self> {
        named::create(name)
    }

    /// Gives this namespace the name `name`, too; refuses a name that exists.
    pub fn bind_named(&self, name: &str) -> Result<Self> {
        named::bind_to(name, self)
    }

    /// Deletes the name `name`; the namespace itself goes when nothing uses it any more.
    pub fn delete_named(name: &str) -> Result<()> {
        named::delete(name)
    }

    /// Creates a namespace without a name: it lives as long as something holds it. Its `lo` is down.
    pub fn create_anonymous() -> Result<Self> {
        Self::create_then(Ok)
    }

    /// Creates a namespace and calls `then` on the throw-away thread that is in it.
    pub(super) fn create_then(then: impl FnOnce(Self) -> Result<Self> + Send) -> Result<Self> {
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(Error::system(|| "creating a network namespace (needs CAP_SYS_ADMIN)".to_owned()))?;
            then(Self::current()?)
        })?
    }

    /// Calls `f` on a throw-away thread in this namespace and waits for it. A panic of `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        on_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET)
                .map_err(Error::system(|| format!("entering the network namespace {}", self.id)))?;
            Ok(f())
        })?
    }

    /// This namespace's identity.
    pub fn id(&self) -> NetNsId {
        self.id
    }

    /// The open file, for netlink attributes and `setns`.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    fn from_file(file: File, path: &Path) -> Result<Self> {
        let stat = file.metadata().map_err(opening(path))?;
        let id = NetNsId { dev: stat.dev(), inode: stat.ino() };
        Ok(Self { fd: file.into(), id })
    }
}

fn opening(path: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::system(move || format!("opening the network namespace {}", path.display()))
}

/// Whether there is a namespace at a path.
pub fn is_namespace(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
}

/// Runs `f` on a thread of its own, which then ends: it may move itself to any namespace.
fn on_thread<T: Send>(f: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)
            .map_err(Error::system(|| "starting a thread to enter a network namespace".to_owned()))?;
        thread.join().map_or_else(|panic| std::panic::resume_unwind(panic), Ok)
    })
}
