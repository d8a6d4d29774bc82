//! What the host's stack needs to forward packets that the host's firewall decides about: `forwarding` of the interfaces
//! by which they come, and nothing for the whole host where the kernel can do without (see [`super::super::sysctls`]). And
//! what conntrack needs to bear that it sees only some packets of a connection.

use std::path::{Path, PathBuf};

use super::super::Error;
use super::super::iptables::Family;
use super::super::sysctls::Sysctls;
use crate::net::Link;

/// The sysctls of one instance.
#[derive(Clone, Debug)]
pub(super) struct Forwarding {
    dir: PathBuf,
    instance: String,
    without_force_forwarding: bool,
}

impl Forwarding {
    /// `dir`: the instance's.
    pub(super) fn new(dir: &Path, instance: &str, without_force_forwarding: bool) -> Self {
        Self { dir: dir.to_owned(), instance: instance.to_owned(), without_force_forwarding }
    }

    /// Makes uplinks and bridges forward what comes by them; returns whether conntrack bears with connections of which it
    /// sees some packets.
    pub(super) fn set<'a>(&self, links: impl Iterator<Item = &'a Link>) -> Result<bool, Error> {
        let sysctls = Sysctls::alone(&self.dir, &self.instance, self.without_force_forwarding)?;
        for link in links {
            for family in Family::ALL {
                sysctls.forward(family, &link.name)?;
            }
        }
        sysctls.track_liberally()
    }

    /// What somebody set back.
    pub(super) fn faults(&self) -> Result<Vec<String>, Error> {
        let sysctls = Sysctls::of(&self.dir, &self.instance, self.without_force_forwarding)?;
        Ok(sysctls.undone()?.iter().map(|name| format!("{name} was set back")).collect())
    }
}
