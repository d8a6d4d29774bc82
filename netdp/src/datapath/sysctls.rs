//! Sysctls that netdp needs and that aren't its own interfaces': remembered with the value before, and put back when
//! no instance needs them any more. Never over what somebody else wrote since.
//!
//! * IPv4 checks forwarding on the interface by which a packet comes: an endpoint's answers come by the uplink, so
//!   `net.ipv4.conf.UPLINK.forwarding` is set, and never `ip_forward`.
//! * IPv6 checks `conf.all.forwarding`, or since Linux 6.17 `conf.UPLINK.force_forwarding`. With the former a host
//!   stops taking routers' advertisements, its default route with them, unless `accept_ra` is 2.
//! * conntrack, where it is, sees one packet a second of a connection that takes the fast path, and so loses its windows: it
//!   must not call for that invalid what it can't place (`be_liberal`, `ignore_invalid_rst`), and what it took for not
//!   acknowledged, or for a closed window, stays so: it must not forget such a connection after five minutes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use serde::{Deserialize, Serialize};

use super::Error;
use super::iptables::Family;
use crate::failpoint;
use crate::instance;
use crate::net::{NetNs, NetNsId, sysctl};
use crate::state::{remove_next, replace_file};
use crate::target;

/// Beside the instances' directories. No instance has a name that begins with a dot.
const FILE: &str = ".sysctls";

/// Makes conntrack take segments for valid that it can't place.
const BE_LIBERAL: [&str; 3] = ["net", "netfilter", "nf_conntrack_tcp_be_liberal"];
/// The same for resets.
const IGNORE_INVALID_RST: [&str; 3] = ["net", "netfilter", "nf_conntrack_tcp_ignore_invalid_rst"];
/// Seconds for which it remembers connections with something unacknowledged, or with a closed window.
const UNFINISHED: [[&str; 3]; 2] = [
    ["net", "netfilter", "nf_conntrack_tcp_timeout_unacknowledged"],
    ["net", "netfilter", "nf_conntrack_tcp_timeout_max_retrans"],
];
/// What these must be at least: an established connection lives so long (RFC 5382 REQ-5: 2 h 4 min).
const ESTABLISHED: u64 = 7440;

/// A sysctl that netdp changed.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
struct Change {
    host: NetNsId,
    path: Vec<String>,
    before: String,
    written: String,
    /// The instances that need it.
    users: BTreeSet<String>,
}

/// The sysctls of one instance's host.
pub(super) struct Sysctls {
    file: PathBuf,
    host: NetNsId,
    instance: String,
    /// Pretend that the kernel can't forward IPv6 from one interface only.
    without_force_forwarding: bool,
    /// Who changes anything is alone.
    _lock: Option<Flock<File>>,
}

impl Sysctls {
    /// Of an instance, by its directory; to look at.
    pub(super) fn of(dir: &Path, instance: &str, without_force_forwarding: bool) -> Result<Self, Error> {
        let host = NetNs::current().map_err(doing("finding the host's namespace"))?.id();
        let (file, instance) = (dir.with_file_name(FILE), instance.to_owned());
        Ok(Self { file, host, instance, without_force_forwarding, _lock: None })
    }

    /// The same to change: no other instance does, as long as the result lives.
    pub(super) fn alone(dir: &Path, instance: &str, without_force_forwarding: bool) -> Result<Self, Error> {
        let lock = instance::lock_all_instances().map_err(doing("waiting for other instances"))?;
        let sysctls = Self { _lock: Some(lock), ..Self::of(dir, instance, without_force_forwarding)? };
        remove_next(&sysctls.file).map_err(doing("looking at the sysctls that netdp changed"))?;
        Ok(sysctls)
    }

    /// Makes an interface forward what comes by it; returns whether it only does because of netdp.
    pub(super) fn forward(&self, family: Family, ifname: &str) -> Result<bool, Error> {
        match family {
            Family::V4 => {
                let own = self.want(&["net", "ipv4", "conf", ifname, "forwarding"], "1")?;
                Ok(own && !host_forwards(Family::V4))
            }
            Family::V6 if has_force_forwarding(ifname, self.without_force_forwarding) => {
                if host_forwards(Family::V6) {
                    return Ok(false);
                }
                self.want(&["net", "ipv6", "conf", ifname, "force_forwarding"], "1")
            }
            Family::V6 => {
                let accept_ra = ["net", "ipv6", "conf", ifname, "accept_ra"];
                if value(&accept_ra).as_deref() == Some("1") {
                    self.want(&accept_ra, "2")?;
                }
                self.want(&["net", "ipv6", "conf", "all", "forwarding"], "1")
            }
        }
    }

    /// Makes conntrack bear with TCP connections of which it sees only some segments; false: it is not there.
    pub(super) fn track_liberally(&self) -> Result<bool, Error> {
        for knob in [BE_LIBERAL, IGNORE_INVALID_RST] {
            self.want(&knob, "1")?;
        }
        for knob in UNFINISHED {
            if seconds(&knob).is_some_and(|now| now <= ESTABLISHED) {
                self.want(&knob, &ESTABLISHED.to_string())?;
            }
        }
        Ok(has_conntrack())
    }

    /// Sets a sysctl if it isn't so; returns whether it is netdp that made it so. One that is gone is nobody's.
    fn want(&self, path: &[&str], wanted: &str) -> Result<bool, Error> {
        let Some(before) = value(path) else { return Ok(false) };
        let mut changes = self.load()?;
        let own = changes.iter_mut().find(|change| change.host == self.host && change.path == path);
        match own {
            Some(change) => drop(change.users.insert(self.instance.clone())),
            None if before == wanted => return Ok(false),
            None => changes.push(Change {
                host: self.host,
                path: path.iter().map(|&part| part.to_owned()).collect(),
                before: before.clone(),
                written: wanted.to_owned(),
                users: BTreeSet::from([self.instance.clone()]),
            }),
        }
        // Written down first: a command that is killed in between leaves nothing that nobody knows of.
        self.save(&changes)?;
        if before != wanted {
            sysctl::set(path, wanted).map_err(doing(format!("setting {}", path.join("."))))?;
        }
        Ok(true)
    }

    /// What somebody set back that this instance needs.
    pub(super) fn undone(&self) -> Result<Vec<String>, Error> {
        let lost = |change: &Change| {
            change.host == self.host
                && change.users.contains(&self.instance)
                && value(&parts(&change.path)).is_some_and(|now| !is_enough(&now, &change.written))
        };
        let changes = self.load()?;
        Ok(changes.iter().filter(|change| lost(change)).map(|change| change.path.join(".")).collect())
    }

    /// Puts back what no other instance needs, see [`release`]; returns what is left as it is, and why.
    pub(super) fn release(&self) -> Result<Vec<String>, Error> {
        let mut changes = self.load()?;
        let mut left = Vec::new();
        // In reverse: accept_ra is what keeps the default route until forwarding is off again.
        for change in changes.iter_mut().rev().filter(|change| change.host == self.host) {
            if change.users.remove(&self.instance) && change.users.is_empty() {
                left.extend(put_back(change)?);
            }
        }
        // A namespace that is gone took its sysctls along, and the next one may get its number.
        changes.retain(|change| !change.users.is_empty() && target::exists(change.host));
        self.save(&changes)?;
        Ok(left)
    }

    fn load(&self) -> Result<Vec<Change>, Error> {
        let reading = || format!("reading {}", self.file.display());
        match fs::read(&self.file) {
            Ok(text) => serde_json::from_slice(&text).map_err(doing(reading())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(doing(reading())(error)),
        }
    }

    fn save(&self, changes: &[Change]) -> Result<(), Error> {
        let writing = || format!("writing {}", self.file.display());
        if !changes.is_empty() {
            return replace_file(&self.file, &changes).map_err(doing(writing()));
        }
        match failpoint::pass("forget sysctls").and_then(|()| fs::remove_file(&self.file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(doing(writing())(error)),
            _ => Ok(()),
        }
    }
}

/// Puts back what an instance changed, whichever datapath and mode it had: a first command that was killed may have left
/// nothing that tells. Returns what is left as it is, and why.
pub(super) fn release(dir: &Path, instance: &str) -> Result<Vec<String>, Error> {
    let is_user = |change: &Change| change.users.contains(instance);
    if !Sysctls::of(dir, instance, false)?.load()?.iter().any(is_user) {
        return Ok(Vec::new());
    }
    Sysctls::alone(dir, instance, false)?.release()
}

/// Whether conntrack is loaded: it has its sysctls in every namespace then.
pub(super) fn has_conntrack() -> bool {
    value(&BE_LIBERAL).is_some()
}

fn seconds(knob: &[&str]) -> Option<u64> {
    value(knob)?.parse().ok()
}

/// Whether a sysctl is what was written, or a number that is more.
fn is_enough(now: &str, written: &str) -> bool {
    let more = now.parse::<u64>().ok().zip(written.parse().ok()).is_some_and(|(now, written)| now > written);
    now == written || more
}

/// Whether the whole host forwards, so that an interface that does is nobody's exception.
fn host_forwards(family: Family) -> bool {
    let family = if family == Family::V4 { "ipv4" } else { "ipv6" };
    value(&["net", family, "conf", "all", "forwarding"]).as_deref() == Some("1")
}

fn put_back(change: &Change) -> Result<Option<String>, Error> {
    let path = parts(&change.path);
    let name = change.path.join(".");
    let Some(now) = value(&path) else { return Ok(None) };
    if now != change.written {
        return Ok(Some(format!("{name} is {now}: somebody else set it")));
    }
    if path.starts_with(&["net", "ipv4"]) && host_forwards(Family::V4) {
        return Ok(Some(format!("{name} stays {now}: the whole host forwards since")));
    }
    sysctl::set(&path, &change.before).map_err(doing(format!("setting {name} back")))?;
    Ok(None)
}

/// Whether this kernel can forward IPv6 from one interface only.
pub(super) fn has_force_forwarding(ifname: &str, without_force_forwarding: bool) -> bool {
    !without_force_forwarding && value(&["net", "ipv6", "conf", ifname, "force_forwarding"]).is_some()
}

fn value(path: &[&str]) -> Option<String> {
    sysctl::get(path).ok()
}

fn parts(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn doing<E: std::error::Error + Send + Sync + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
    let doing = what.into();
    move |cause| Error { doing, cause: Box::new(cause) }
}
