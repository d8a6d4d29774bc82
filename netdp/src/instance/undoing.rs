//! Undoes steps: of a command that fails, and of one that was killed.

use super::{Instance, bpffs_release, files, remove_files};
use crate::datapath::select;
use crate::error::Error;
use crate::net::{NetNs, sysctl};
use crate::undo::{Step, Undo};

impl Instance {
    /// Undoes what a killed command left half done.
    pub async fn recover(&mut self) -> Result<(), Error> {
        let Some(left) = Undo::left_behind(&self.dir, self.state.revision)? else {
            return Ok(());
        };
        let own = std::mem::replace(&mut self.undo, left);
        let failures = self.undo_all().await;
        let left = std::mem::replace(&mut self.undo, own);
        left.done()?;
        if failures.is_empty() {
            return Ok(());
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
        failures
    }

    async fn undo_one(&mut self, step: Step) -> Result<(), Error> {
        match step {
            Step::RemoveDatapath => {
                select::remove(self.datapath.take(), self.state.datapath, &self.name)?;
                return bpffs_release();
            }
            Step::DeleteNamespace(name) => return delete_namespace(&name),
            Step::RemoveNeighbour(bridge, addr) => {
                return Ok(self.net.remove_neighbour(bridge, addr).await?);
            }
            Step::SwitchOffDefaultForwarding => return switch_off_default_forwarding(),
            Step::RemoveFiles(dir) => return remove_files(&dir),
            Step::DeleteLink(name) => {
                let link = self.net.link(&name).await?;
                return match link {
                    Some(link) => Ok(self.net.delete_link(link.index).await?),
                    None => Ok(()),
                };
            }
            _ => {}
        }
        let datapath = self.datapath()?;
        match step {
            Step::ForgetNetwork(bridge) => datapath.remove_network(bridge)?,
            Step::RestoreNetwork(network) => datapath.add_network(&network)?,
            Step::ForgetEndpoint(endpoint) => datapath.remove_endpoint(&endpoint)?,
            Step::RestoreEndpoint(endpoint) => datapath.add_endpoint(&endpoint)?,
            Step::Unpublish(entry) => datapath.unpublish(&entry)?,
            Step::Republish(entry) => datapath.publish(&entry)?,
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

/// Deletes a namespace's name; it may be gone.
pub fn delete_namespace(name: &str) -> Result<(), Error> {
    match NetNs::delete_named(name) {
        Err(crate::net::Error::NoNamespace { .. }) => Ok(()),
        other => Ok(other?),
    }
}
