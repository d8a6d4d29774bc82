//! Undoes steps: of a command that fails, and of one that was killed.

use std::path::Path;

use nix::errno::Errno;

use super::{Instance, bpffs_release, files, remove_files};
use crate::datapath::{FlowsOfPort, select};
use crate::error::Error;
use crate::net::{LOOPBACK, Net, NetNs, NetNsId, sysctl};
use crate::state::State;
use crate::undo::{Step, Undo};

impl Instance {
    /// Undoes what a killed command left half done, or completes its removals.
    pub async fn recover(&mut self) -> Result<(), Error> {
        self.recover_undoing().await?;
        self.complete_interrupted().await
    }

    async fn recover_undoing(&mut self) -> Result<(), Error> {
        State::remove_incomplete(&self.dir)?;
        let Some(left) = Undo::left_behind(&self.dir, self.state.revision)? else {
            return Ok(());
        };
        let own = std::mem::replace(&mut self.undo, left);
        let failures = self.undo_all().await;
        let left = std::mem::replace(&mut self.undo, own);
        if failures.is_empty() {
            return Ok(left.done()?);
        }
        Err(Error::Incomplete { doing: "undoing what an interrupted command left".into(), failures })
    }

    pub(super) async fn undo_all(&mut self) -> Vec<String> {
        let mut failures = Vec::new();
        for step in self.undo.backwards() {
            tracing::info!(?step, "undoing");
            if let Err(error) = self.undo_one(step).await {
                failures.push(error.to_string());
            }
        }
        // Of links and addresses that are gone again.
        if let Some(Err(error)) = self.datapath.as_mut().map(|datapath| datapath.refresh_host()) {
            failures.push(error.to_string());
        }
        failures
    }

    async fn undo_one(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::RemoveDatapath => {
                // What is left was there before this command.
                select::remove(self.datapath.take(), self.place())?;
                return bpffs_release();
            }
            Step::DeleteNamespace(name) => return delete_namespace(&name),
            Step::RemoveNeighbour(bridge, addr) => {
                return Ok(self.net.remove_neighbour(bridge, addr).await?);
            }
            Step::SwitchOffDefaultForwarding => return switch_off_default_forwarding(),
            Step::RemoveFiles(dir) => return remove_files(&dir),
            Step::RestoreNeighbour(bridge, addr, mac) => {
                return match self.net.replace_neighbour(bridge, addr, mac).await {
                    // The bridge is gone, by somebody else's hand.
                    Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(()),
                    other => Ok(other?),
                };
            }
            Step::LoopbackDown(file, id) => return loopback_down(&file, id).await,
            Step::DeleteLink(name, mac) => {
                let link = self.net.link(&name).await?.filter(|link| link.mac == Some(mac));
                return match link {
                    Some(link) => Ok(self.net.delete_link(link.index).await?),
                    None => Ok(()),
                };
            }
            Step::RestoreEndpoint(endpoint) => {
                let restored = self.datapath()?.add_endpoint(&endpoint);
                // What nobody can bring back is as it was without its veth.
                let gone = self.net.link_by_index(endpoint.host_ifindex).await?.is_none();
                return if gone { Ok(()) } else { Ok(restored?) };
            }
            _ => {}
        }
        let datapath = self.datapath()?;
        match step {
            Step::ForgetNetwork(bridge) => datapath.remove_network(bridge)?,
            Step::RestoreNetwork(network) => datapath.add_network(&network)?,
            Step::ForgetEndpoint(endpoint) => datapath.remove_endpoint(&endpoint)?,
            Step::Unpublish(entries) => datapath.unpublish(&entries, FlowsOfPort::End)?,
            Step::Republish(entries) => datapath.publish(&entries)?,
            Step::Xdp(mode) => datapath.set_xdp(mode)?,
            _ => {}
        }
        Ok(())
    }
}

/// A host that has been made a router since has this switched on by its owner.
fn switch_off_default_forwarding() -> Result<(), Error> {
    let _others_wait = files::lock()?;
    if sysctl::forwards_v6("all")? {
        return Ok(());
    }
    Ok(sysctl::set_default_forwarding_v6(false)?)
}

/// A file that can't be opened, or names another namespace by now, means that the namespace is gone or out of reach.
async fn loopback_down(file: &Path, id: NetNsId) -> Result<(), Error> {
    let Ok(ns) = NetNs::open(file) else { return Ok(()) };
    if ns.id() != id {
        return Ok(());
    }
    let net = Net::open(&ns)?;
    match net.link(LOOPBACK).await? {
        Some(lo) => Ok(net.set_down(lo.index).await?),
        None => Ok(()),
    }
}

/// Deletes a namespace's name; it may be gone.
pub fn delete_namespace(name: &str) -> Result<(), Error> {
    match NetNs::delete_named(name) {
        Err(crate::net::Error::NoNamespace { .. }) => Ok(()),
        other => Ok(other?),
    }
}
