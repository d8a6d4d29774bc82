//! One command at a time on an instance.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use crate::error::Error;

/// The lock's file in an instance's directory.
const FILE: &str = "lock";

/// Held as long as it lives; the kernel lets go of it when the process dies.
pub(super) struct Lock {
    _file: Flock<fs::File>,
}

impl Lock {
    /// Waits until nobody else works on the instance. Creates its directory.
    pub(super) fn exclusive(dir: &Path) -> Result<Self, Error> {
        Self::acquire(dir, FlockArg::LockExclusive)
    }

    /// Waits until nobody changes the instance.
    pub(super) fn shared(dir: &Path) -> Result<Self, Error> {
        Self::acquire(dir, FlockArg::LockShared)
    }

    fn acquire(dir: &Path, how: FlockArg) -> Result<Self, Error> {
        let path = dir.join(FILE);
        let doing = || format!("locking {}", path.display());
        loop {
            fs::create_dir_all(dir).map_err(Error::system(format!("creating {}", dir.display())))?;
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = match opened {
                // Somebody removed the directory in between.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.map_err(Error::system(doing()))?,
            };
            let locked = Flock::lock(file, how).map_err(|(_, errno)| Error::system(doing())(errno))?;
            // `down` removes the file under its lock: who waited has then locked a file that nobody else will see.
            let ours = locked.metadata().map_err(Error::system(doing()))?.ino();
            if fs::metadata(&path).is_ok_and(|stat| stat.ino() == ours) {
                return Ok(Self { _file: locked });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_for_a_removed_lock_gets_a_new_one() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("instance");
        let first = Lock::exclusive(&dir).unwrap();
        let (locked, wait) = channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let _second = Lock::exclusive(&dir).unwrap();
                locked.send(dir.join(FILE).exists()).unwrap();
            });
            assert!(wait.recv_timeout(Duration::from_millis(50)).is_err());
            fs::remove_dir_all(&dir).unwrap();
            drop(first);
            assert!(wait.recv().unwrap());
        });
    }
}
