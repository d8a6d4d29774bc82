//! `/etc/netns/NAME`: the files that `ip netns exec NAME` bind-mounts over those in `/etc`.
//!
//! A file of ours says so in its first line, with its instance; every other one, links included, is somebody else's and
//! stays as it is. All of this is done under the lock of all instances, which share the directory.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::slots::{Slots, render};
use super::{FILES, Lines};
use crate::error::Error;
use crate::failpoint;

/// Where `ip netns exec` looks.
const ROOT: &str = "/etc/netns";
/// Says that netdp made that directory. No instance has a name that begins with a dot.
const MADE_ROOT: &str = "/run/netdp/.made-etc-netns";
/// A file that is being written. It is no directory, so that `ip netns` does not take it for a namespace's.
const DRAFT: &str = "/etc/netns/.netdp-draft";
/// Longer than every mark.
const MARK_MAX: u64 = 128;

/// Gives each namespace its files, and takes those of every other namespace away that the instance had given files.
/// Goes on when something fails; returns all that did.
pub(super) fn update(instance: &str, wanted: &BTreeMap<&str, Lines>, bare: &Lines) -> Vec<String> {
    let mut failures = Vec::new();
    let mut note = |result: Result<(), Error>| failures.extend(result.err().map(|error| error.to_string()));
    // Of a command that was killed.
    note(remove_file(Path::new(DRAFT)));
    for (name, lines) in wanted {
        note(give(instance, &dir(name), lines));
    }
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let others =
        entries.filter(|entry| entry.file_name().to_str().is_none_or(|name| !wanted.contains_key(name)));
    for other in others {
        note(take(instance, &other.path(), bare));
    }
    note(release_root());
    failures
}

/// Where a namespace's files are.
pub(super) fn dir(name: &str) -> PathBuf {
    Path::new(ROOT).join(name)
}

/// Whether there is nothing to look at.
pub(super) fn is_absent() -> bool {
    !Path::new(ROOT).exists() && !Path::new(MADE_ROOT).exists()
}

/// Whose a file is.
enum Found {
    Nothing,
    Theirs,
    Ours {
        file: File,
        /// netdp made the directory that it is in.
        made_dir: bool,
    },
}

fn give(instance: &str, dir: &Path, lines: &Lines) -> Result<(), Error> {
    ensure_root()?;
    let paths = FILES.map(|file| dir.join(file));
    let mut made_dir = make_dir(dir)?;
    let found = [find(instance, &paths[0])?, find(instance, &paths[1])?];
    made_dir |= found.iter().any(|found| matches!(found, Found::Ours { made_dir: true, .. }));
    for ((found, path), (number, lines)) in found.into_iter().zip(&paths).zip(lines.0.iter().enumerate()) {
        match found {
            Found::Theirs => tracing::info!(path = %path.display(), "left alone: it is not netdp's"),
            Found::Nothing => {
                draft(&render(&mark(instance, made_dir), lines))?;
                publish(path)?;
            }
            Found::Ours { file, .. } => {
                let slots = Slots::read(file).map_err(Error::system(reading(path)))?;
                match slots {
                    Some(slots) => super::change(slots, number, lines, path)?,
                    None => {
                        draft(&render(&mark(instance, made_dir), lines))?;
                        fs::rename(DRAFT, path).map_err(Error::system(writing(path)))?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Removes the instance's files. Who still has the hosts file mounted sees the names go.
fn take(instance: &str, dir: &Path, bare: &Lines) -> Result<(), Error> {
    let mut made = false;
    for (number, file) in FILES.iter().enumerate() {
        let path = dir.join(file);
        if let Found::Ours { file, made_dir } = find(instance, &path)? {
            if let Some(slots) = Slots::read(file).map_err(Error::system(reading(&path)))? {
                super::change(slots, number, &bare.0[number], &path)?;
            }
            remove_file(&path)?;
            made |= made_dir;
        }
    }
    if made {
        // Stays if somebody has put something into it.
        let _ = fs::remove_dir(dir);
    }
    Ok(())
}

fn find(instance: &str, path: &Path) -> Result<Found, Error> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOFOLLOW).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Found::Nothing);
        }
        // A link, a directory.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ELOOP | libc::EISDIR)) => {
            return Ok(Found::Theirs);
        }
        Err(error) => return Err(Error::system(reading(path))(error)),
    };
    let mut first = Vec::new();
    (&file).take(MARK_MAX).read_to_end(&mut first).map_err(Error::system(reading(path)))?;
    std::io::Seek::rewind(&mut &file).map_err(Error::system(reading(path)))?;
    let has = |made_dir| first.starts_with(mark(instance, made_dir).as_bytes());
    Ok(if has(true) || has(false) { Found::Ours { file, made_dir: has(true) } } else { Found::Theirs })
}

fn mark(instance: &str, made_dir: bool) -> String {
    let directory = if made_dir { "made" } else { "found" };
    format!("# netdp instance={instance} directory={directory}; change this line to own it")
}

/// Whether it was not there.
fn make_dir(dir: &Path) -> Result<bool, Error> {
    match failpoint::pass("create a directory").and_then(|()| fs::create_dir(dir)) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::system(format!("creating {}", dir.display()))(error)),
    }
}

fn ensure_root() -> Result<(), Error> {
    if Path::new(ROOT).exists() {
        return Ok(());
    }
    failpoint::pass("remember the directory")
        .and_then(|()| File::create(MADE_ROOT))
        .map_err(Error::system(format!("creating {MADE_ROOT}")))?;
    make_dir(Path::new(ROOT)).map(drop)
}

/// Removes the directory of all if netdp made it and it is empty.
fn release_root() -> Result<(), Error> {
    if Path::new(MADE_ROOT).exists() && (fs::remove_dir(ROOT).is_ok() || !Path::new(ROOT).exists()) {
        remove_file(Path::new(MADE_ROOT))?;
    }
    Ok(())
}

fn draft(bytes: &[u8]) -> Result<(), Error> {
    let write = || {
        failpoint::pass("write a file")?;
        File::create(DRAFT)?.write_all(bytes)
    };
    write().map_err(Error::system(format!("writing {DRAFT}")))
}

/// Gives the draft its name, complete as it is; a file that somebody has put there meanwhile stays.
fn publish(path: &Path) -> Result<(), Error> {
    match failpoint::pass("link a file").and_then(|()| fs::hard_link(DRAFT, path)) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(Error::system(writing(path))(error)),
        _ => remove_file(Path::new(DRAFT)),
    }
}

fn remove_file(path: &Path) -> Result<(), Error> {
    if !path.is_symlink() && !path.exists() {
        return Ok(());
    }
    match failpoint::pass("remove a file").and_then(|()| fs::remove_file(path)) {
        Err(error) if !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(Error::system(format!("removing {}", path.display()))(error))
        }
        _ => Ok(()),
    }
}

fn reading(path: &Path) -> String {
    format!("reading {}", path.display())
}

fn writing(path: &Path) -> String {
    format!("writing {}", path.display())
}
