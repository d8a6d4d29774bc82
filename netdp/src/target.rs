//! TARGET of `attach`: which network namespace is meant, and whether it still is there.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::net::NetNsId;

/// Where `ip netns add` puts names.
const NAMED_DIR: &str = "/run/netns";
/// How a TARGET that is a process begins.
const PID_PREFIX: &str = "pid:";

/// A namespace, as the user names it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Target {
    /// By its name in `/run/netns`.
    Named(String),
    /// By a path.
    Path(PathBuf),
    /// By a process in it.
    Pid(u32),
}

/// Text that names no namespace.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("`{0}` is no TARGET: give the name of a namespace, a path, or pid:N")]
pub struct ParseError(pub String);

impl FromStr for Target {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let error = || ParseError(text.escape_debug().to_string());
        if let Some(pid) = text.strip_prefix(PID_PREFIX) {
            return pid.parse().ok().filter(|pid| *pid > 0).map(Self::Pid).ok_or_else(error);
        }
        if text.contains('/') {
            return Ok(Self::Path(text.into()));
        }
        if text.is_empty() || matches!(text, "." | "..") || text.contains('\0') {
            return Err(error());
        }
        Ok(Self::Named(text.into()))
    }
}

impl TryFrom<String> for Target {
    type Error = ParseError;

    fn try_from(text: String) -> Result<Self, ParseError> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Path(path) => path.display().fmt(f),
            Self::Pid(pid) => write!(f, "{PID_PREFIX}{pid}"),
        }
    }
}

impl Target {
    /// The name of an endpoint that is given none.
    pub fn default_name(&self) -> String {
        match self {
            Self::Named(name) => name.clone(),
            Self::Path(path) => {
                path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
            }
            Self::Pid(pid) => format!("pid-{pid}"),
        }
    }

    /// Its name among the named namespaces, if it has one.
    pub fn netns_name(&self) -> Option<&str> {
        match self {
            Self::Named(name) => Some(name),
            Self::Path(path) => {
                path.strip_prefix(NAMED_DIR).ok()?.to_str().filter(|name| !name.contains('/'))
            }
            Self::Pid(_) => None,
        }
    }

    /// The namespace's file.
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Named(name) => Path::new(NAMED_DIR).join(name),
            Self::Path(path) => path.clone(),
            Self::Pid(pid) => format!("/proc/{pid}/ns/net").into(),
        }
    }

    /// Whether the namespace `id` still is where it was found, or has another name, or a process in it.
    pub fn is_alive(&self, id: NetNsId) -> bool {
        self.is_at(id) || exists(id)
    }

    /// Whether this still names the namespace `id`.
    pub fn is_at(&self, id: NetNsId) -> bool {
        id_of(&self.file()) == Some(id)
    }
}

/// Whether a namespace has a name in `/run/netns` or a process in it. One that only an open file or another mount
/// keeps alive is not seen.
pub fn exists(id: NetNsId) -> bool {
    find(id).is_some()
}

/// A file of the namespace: its name in `/run/netns` or a process in it.
pub fn find(id: NetNsId) -> Option<PathBuf> {
    let named = files_in(NAMED_DIR);
    let of_processes =
        files_in("/proc").into_iter().filter(|path| is_process(path)).map(|path| path.join("ns/net"));
    named.into_iter().chain(of_processes).find(|path| id_of(path) == Some(id))
}

fn id_of(path: &Path) -> Option<NetNsId> {
    fs::metadata(path).ok().map(|stat| NetNsId { dev: stat.dev(), inode: stat.ino() })
}

fn files_in(dir: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn is_process(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.as_encoded_bytes().iter().all(u8::is_ascii_digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_names_paths_and_processes() {
        let rows = [
            ("web", Target::Named("web".into()), "web"),
            ("/run/docker/netns/ab12", Target::Path("/run/docker/netns/ab12".into()), "ab12"),
            ("./ns", Target::Path("./ns".into()), "ns"),
            ("pid:12", Target::Pid(12), "pid-12"),
        ];
        for (text, target, name) in rows {
            assert_eq!(text.parse(), Ok(target.clone()));
            assert_eq!(target.default_name(), name);
            assert_eq!(target.to_string(), text);
        }
        for (text, name) in [("web", Some("web")), ("/run/netns/web", Some("web")), ("/proc/7/ns/net", None)]
        {
            assert_eq!(text.parse::<Target>().unwrap().netns_name(), name);
        }
        for bad in ["", ".", "..", "pid:", "pid:0", "pid:x", "pid:-1"] {
            assert!(bad.parse::<Target>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_namespace_of_a_process_is_alive() {
        let target = Target::Pid(std::process::id());
        let id = id_of(&target.file()).unwrap();
        assert!(target.is_alive(id));
        assert!(!target.is_alive(NetNsId { dev: id.dev, inode: 1 }));
    }
}
