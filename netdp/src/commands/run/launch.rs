//! The process of `netdp run`'s command: it enters its namespaces, says its pid, and waits for the word to go.

use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{self, PipeWriter, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::entry::Caller;
use crate::error::Error;
use crate::net::NetNs;
use crate::refusal::Refusal;

/// `open_tree(2)`: a copy of the mount, attached nowhere (`linux/mount.h`).
const OPEN_TREE_CLONE: libc::c_uint = 1;
/// `open_tree(2)`: close it on exec.
const OPEN_TREE_CLOEXEC: libc::c_uint = libc::O_CLOEXEC as libc::c_uint;
/// `move_mount(2)`: the mount is the open file itself.
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x4;
/// `move_mount(2)`: follow symbolic links at the destination.
const MOVE_MOUNT_T_SYMLINKS: libc::c_uint = 0x10;

/// What to start, and where.
pub(super) struct Plan {
    /// The command and its arguments.
    pub(super) command: Vec<OsString>,
    /// The network namespace; none: the host's.
    pub(super) ns: Option<NetNs>,
    /// Where the caller was: the command's mount namespace is made from that one.
    pub(super) caller: Caller,
    /// Files over its `/etc`.
    pub(super) mounts: Mounts,
}

/// Files to be mounted over others, as mounts that are attached nowhere yet. They can be moved to a mount namespace
/// that doesn't see their paths.
#[derive(Default)]
pub(super) struct Mounts(Vec<(OwnedFd, CString)>);

impl Mounts {
    /// Takes each file for its place.
    pub(super) fn prepare(files: &[(PathBuf, String)]) -> Result<Self, Error> {
        let take = |(file, place): &(PathBuf, String)| {
            let doing = || format!("preparing to mount {} on {place}", file.display());
            let path = CString::new(file.as_os_str().as_bytes()).map_err(Error::system(doing()))?;
            let place = CString::new(place.as_str()).map_err(Error::system(doing()))?;
            Ok((open_tree(&path).map_err(Error::system(doing()))?, place))
        };
        files.iter().map(take).collect::<Result<_, Error>>().map(Self)
    }
}

/// A process that waits for the word to become the command.
pub(super) struct Launch {
    pid: u32,
    command: String,
    go: PipeWriter,
    thread: JoinHandle<io::Result<Child>>,
}

impl Launch {
    /// Starts the process.
    pub(super) fn start(plan: Plan) -> Result<Self, Error> {
        let pipe = || io::pipe().map_err(Error::system("making a pipe"));
        let (mut told, tell) = pipe()?;
        let (wait, go) = pipe()?;
        let (go_fd, wait_fd) = (go.as_raw_fd(), wait.as_raw_fd());
        let name = plan.command[0].to_string_lossy().into_owned();
        let mut command = Command::new(&plan.command[0]);
        command.args(&plan.command[1..]);
        let prepare = move || {
            // Its own copy of the parent's end: while that is open, the parent's death would go unnoticed.
            nix::unistd::close(go_fd)?;
            enter(&plan)?;
            let pid = std::process::id().to_ne_bytes();
            (&tell).write_all(&pid)?;
            wait_for_go(wait_fd)
        };
        // SAFETY: between fork and exec only system calls: no allocation, no lock.
        unsafe { command.pre_exec(prepare) };
        // `spawn` returns when the command runs; the namespace has to be attached before.
        let thread = std::thread::Builder::new().spawn(move || {
            let spawned = command.spawn();
            drop((command, wait));
            spawned
        });
        let thread = thread.map_err(Error::system("starting a thread"))?;
        let mut pid = [0; 4];
        match told.read_exact(&mut pid) {
            Ok(()) => Ok(Self { pid: u32::from_ne_bytes(pid), command: name, go, thread }),
            Err(error) => {
                let failed = thread.join().ok().and_then(Result::err).unwrap_or(error);
                Err(Error::system(format!("preparing the namespaces of {name}"))(failed))
            }
        }
    }

    /// The process's pid, now and later.
    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it become the command.
    pub(super) fn go(mut self) -> Result<Child, Error> {
        let told = self.go.write_all(&[1]);
        drop(self.go);
        let spawned = self
            .thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that starts it panicked")));
        let refused = |why| Refusal::Command { command: self.command.clone(), why };
        let child = spawned.map_err(refused)?;
        told.map_err(Error::system("starting the command"))?;
        Ok(child)
    }
}

/// In the new process: its namespaces, its files, its directory.
fn enter(plan: &Plan) -> io::Result<()> {
    if let Some(ns) = &plan.ns {
        setns(ns.fd(), CloneFlags::CLONE_NEWNET)?;
    }
    if let Some(mounts) = &plan.caller.mounts {
        setns(mounts, CloneFlags::CLONE_NEWNS)?;
    }
    if !plan.mounts.0.is_empty() {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&CStr>, c"/", None::<&CStr>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&CStr>)?;
        for (file, place) in &plan.mounts.0 {
            match move_mount(file.as_raw_fd(), place) {
                // A caller without that file needs none.
                Err(Errno::ENOENT) => {}
                other => other?,
            }
        }
    }
    if let Some(cwd) = &plan.caller.cwd {
        nix::unistd::fchdir(cwd)?;
    }
    Ok(())
}

/// Waits for a byte. When the pipe ends without one, netdp has died or given up, and so does this process: there is
/// nobody left to tell.
fn wait_for_go(fd: RawFd) -> io::Result<()> {
    let mut byte = [0u8; 1];
    loop {
        // SAFETY: the buffer is one byte long.
        match unsafe { libc::read(fd, byte.as_mut_ptr().cast(), 1) } {
            1 => return Ok(()),
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Err(Errno::last().into()),
            // SAFETY: it may be called anywhere, and does not return.
            _ => unsafe { libc::_exit(1) },
        }
    }
}

fn open_tree(path: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
    // SAFETY: the path ends with a zero and lives as long as the call.
    let fd = unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) };
    let fd = RawFd::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }).into())
}

fn move_mount(from: RawFd, to: &CStr) -> Result<(), Errno> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
    // SAFETY: both paths end with a zero and live as long as the call.
    let moved = unsafe {
        libc::syscall(libc::SYS_move_mount, from, c"".as_ptr(), libc::AT_FDCWD, to.as_ptr(), flags)
    };
    Errno::result(moved).map(drop)
}
