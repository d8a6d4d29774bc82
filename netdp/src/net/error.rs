//! What can go wrong with the network's objects.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

/// The result of everything in [`crate::net`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the network could not be read or changed. [`Error::errno`] is the kernel's own reason, where it gave one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The kernel refused a system call or a netlink request.
    #[error("{doing}: {source}")]
    Kernel {
        /// What was being done to what.
        doing: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The netlink conversation itself failed.
    #[error("{doing}: {source}")]
    Netlink {
        /// What was being done to what.
        doing: String,
        /// What was wrong with the answer.
        source: rtnetlink::Error,
    },
    /// The kernel's answer didn't come, or not in a form that netdp understands.
    #[error("{doing}: no answer from the kernel that netdp understands within {seconds} s")]
    NoAnswer {
        /// What was being done to what.
        doing: String,
        /// How long it waited.
        seconds: u64,
    },
    /// A namespace's name that can't be a file's name.
    #[error("{0:?} is not a namespace's name: it must be non-empty, without '/', and neither '.' nor '..'")]
    BadNamespaceName(String),
    /// A named namespace doesn't exist.
    #[error("no network namespace {name:?} in {dir}", dir = crate::net::named::DIR)]
    NoNamespace {
        /// Its name.
        name: String,
    },
    /// A named namespace can't be created, because it exists.
    #[error("a network namespace {name:?} exists already in {dir}", dir = crate::net::named::DIR)]
    NamespaceExists {
        /// Its name.
        name: String,
    },
    /// A file exists but is no network namespace.
    #[error("{} is not a network namespace", .0.display())]
    NotANamespace(PathBuf),
    /// No process has that PID.
    #[error("no process has the PID {0}")]
    NoProcess(u32),
    /// A name that the kernel would refuse for a link, or fill in itself.
    #[error(
        "{0:?} is not a link's name: 1 to 15 bytes, without blanks and any of '/', ':', '%', neither '.' nor '..'"
    )]
    BadLinkName(String),
    /// A link that was just made or named can't be found: somebody removed or renamed it meanwhile.
    #[error("{doing}: the link {name} is gone again; did another program remove or rename it?")]
    LinkVanished {
        /// What was being done.
        doing: String,
        /// The link's name.
        name: String,
    },
    /// A sysctl path that leads out of `/proc/sys`.
    #[error(
        "{0:?} is not the path of a sysctl: components must be non-empty, without '/', and neither '.' nor '..'"
    )]
    BadSysctl(Vec<String>),
    /// A file of `/proc` doesn't have the format that the kernel documents.
    #[error("reading {path}: can't make sense of {content:?}")]
    Malformed {
        /// The file.
        path: String,
        /// The part that was not understood.
        content: String,
    },
    /// [`crate::net::Net::open`] was called outside a tokio runtime.
    #[error("opening an rtnetlink socket: there is no tokio runtime on this thread")]
    NoRuntime,
}

impl Error {
    /// The kernel's errno behind this error.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { source, .. } => source.raw_os_error().map(Errno::from_raw),
            _ => None,
        }
    }

    /// For `map_err` on system calls.
    pub(super) fn system<E: Into<io::Error>>(doing: impl FnOnce() -> String) -> impl FnOnce(E) -> Self {
        move |source| Self::Kernel { doing: doing(), source: source.into() }
    }

    /// For `map_err` on rtnetlink requests.
    pub(super) fn netlink(doing: impl FnOnce() -> String) -> impl FnOnce(rtnetlink::Error) -> Self {
        move |source| match source {
            rtnetlink::Error::NetlinkError(answer) => Self::Kernel { doing: doing(), source: answer.to_io() },
            source => Self::Netlink { doing: doing(), source },
        }
    }
}

/// Turns the errors that mean "there is nothing to remove" into success.
pub(super) fn gone_is_fine(result: Result<()>, gone: &[Errno]) -> Result<()> {
    match result {
        Err(error) if error.errno().is_some_and(|errno| gone.contains(&errno)) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: Errno) -> Result<()> {
        Err(errno).map_err(Error::system(|| "deleting link 7".to_owned()))
    }

    #[test]
    fn errno_is_reachable_and_the_message_names_the_object() {
        let error = failed(Errno::ENODEV).expect_err("it failed");
        assert_eq!(error.errno(), Some(Errno::ENODEV));
        assert!(error.to_string().starts_with("deleting link 7: "), "{error}");
    }

    #[test]
    fn only_the_listed_errors_are_fine() {
        assert!(gone_is_fine(failed(Errno::ENODEV), &[Errno::ENODEV]).is_ok());
        assert!(gone_is_fine(failed(Errno::EPERM), &[Errno::ENODEV]).is_err());
    }
}
