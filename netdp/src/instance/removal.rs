//! What can't be brought back is removed last: when the state says so, and nothing else can fail any more.

use super::{Instance, bpffs_release, delete_namespace, remove_files};
use crate::datapath::select;
use crate::error::Error;
use crate::hostfiles;
use crate::net::{NetNsId, is_namespace};
use crate::output;
use crate::state::{Endpoint, Network, Removal};
use crate::target::Target;
use crate::undo::Undo;

impl Instance {
    /// Removes what the command has put on the state's list, which has just been written. While nothing is gone yet, a
    /// failure takes the whole command back; later it leaves the rest to the next command, and says so.
    pub(super) async fn complete(&mut self) -> Result<(), Error> {
        let stale = self.before.as_ref().map_or(0, |before| before.removing.len());
        // The command's own first: what nobody can remove must not take it back.
        let length = self.state.removing.len();
        self.state.removing.rotate_left(stale.min(length));
        if length > stale
            && let Err(error) = self.remove(&self.state.removing[0].clone()).await
        {
            if let Some(before) = self.before.clone() {
                // With its revision, the list of what is to be undone is valid again.
                before.save_again(&self.dir)?;
                self.state = before;
            }
            return Err(error);
        }
        self.remove_listed().await
    }

    /// Goes on with the removals of a command that was killed, or could not complete them.
    pub(super) async fn complete_interrupted(&mut self) -> Result<(), Error> {
        self.remove_listed().await?;
        self.before = self.before.is_some().then(|| self.state.clone());
        self.undo = Undo::new(&self.dir, self.state.revision);
        Ok(())
    }

    /// Removes all that is listed. What fails stays listed, and is said.
    async fn remove_listed(&mut self) -> Result<(), Error> {
        if self.state.removing.is_empty() {
            return Ok(());
        }
        let mut failures = Vec::new();
        for removal in std::mem::take(&mut self.state.removing) {
            if let Err(error) = self.remove(&removal).await {
                failures.push(error.to_string());
                self.state.removing.push(removal);
            }
        }
        failures.extend(self.save().err().map(|error| error.to_string()));
        if failures.is_empty() {
            return Ok(());
        }
        output::warning(format!("{}: the next command tries again", failures.join("; ")))
    }

    async fn remove(&mut self, removal: &Removal) -> Result<(), Error> {
        match removal {
            Removal::Link { index, name } => {
                let link = self.net.link_by_index(*index).await?;
                if link.is_some_and(|link| link.name == *name) {
                    self.net.delete_link(*index).await?;
                }
                Ok(())
            }
            Removal::Endpoint(entry) => Ok(self.datapath()?.remove_endpoint(entry)?),
            Removal::Network(bridge) => Ok(self.datapath()?.remove_network(*bridge)?),
            Removal::Files(dir) => remove_files(dir),
            Removal::Namespace { name, id } => {
                // A plain file is what is left when a removal is killed between unmounting and unlinking.
                let target = Target::Named(name.clone());
                let another = is_namespace(&target.file()) && !target.is_at(*id);
                if another { Ok(()) } else { delete_namespace(name) }
            }
        }
    }

    /// Removes the instance. Goes on when something can't be removed, and returns all of it. One that is killed
    /// meanwhile is completed by the next command.
    pub async fn remove_everything(mut self) -> Vec<String> {
        let mut failures = Vec::new();
        let note = |failures: &mut Vec<String>, result: Result<(), Error>| {
            failures.extend(result.err().map(|error| error.to_string()));
        };
        if !self.is_fresh() && !self.state.ending {
            self.state.ending = true;
            note(&mut failures, self.save());
        }
        if self.state.host == self.host.id() {
            self.remove_links(&mut failures).await;
        }
        failures.extend(hostfiles::remove(&self.name));
        let opened = self.datapath.take();
        let removed = select::remove(opened, self.place()).map_err(Error::from);
        let said = removed.and_then(|left| {
            left.iter().try_for_each(|what| output::warning(format!("left as it is: {what}")))
        });
        note(&mut failures, said);
        note(&mut failures, bpffs_release());
        if failures.is_empty() || self.is_fresh() {
            note(&mut failures, self.forget());
        } else {
            note(&mut failures, self.save());
        }
        failures
    }

    /// Deletes the links, then the names of namespaces that netdp made. What is gone leaves the state.
    async fn remove_links(&mut self, failures: &mut Vec<String>) {
        for removal in self.state.removing.clone() {
            match self.remove(&removal).await {
                Ok(()) => self.state.removing.retain(|other| *other != removal),
                Err(error) => failures.push(error.to_string()),
            }
        }
        for (name, endpoint) in self.state.endpoints.clone() {
            match self.remove_endpoint(&endpoint).await {
                Ok(()) => drop(self.state.endpoints.remove(&name)),
                Err(error) => failures.push(error.to_string()),
            }
        }
        for (name, bound) in self.state.bound.clone() {
            match self.remove_name(&bound.target, bound.netns, bound.created).await {
                Ok(()) => drop(self.state.bound.remove(&name)),
                Err(error) => failures.push(error.to_string()),
            }
        }
        for (name, network) in self.state.networks.clone() {
            match self.remove_bridge(&network).await {
                Ok(()) => drop(self.state.networks.remove(&name)),
                Err(error) => failures.push(error.to_string()),
            }
        }
    }

    async fn remove_endpoint(&mut self, endpoint: &Endpoint) -> Result<(), Error> {
        let Endpoint { host_ifindex: index, host_ifname: name, .. } = endpoint;
        self.remove(&Removal::Link { index: *index, name: name.clone() }).await?;
        self.remove_name(&endpoint.target, endpoint.netns, endpoint.created).await
    }

    /// Removes a namespace's name if netdp made it.
    async fn remove_name(&mut self, target: &Target, id: NetNsId, created: bool) -> Result<(), Error> {
        match target {
            Target::Named(name) if created => {
                self.remove(&Removal::Namespace { name: name.clone(), id }).await
            }
            _ => Ok(()),
        }
    }

    /// A bridge that somebody renamed, or gave another address, still is ours; one with neither is somebody else's.
    async fn remove_bridge(&mut self, network: &Network) -> Result<(), Error> {
        let link = self.net.link_by_index(network.ifindex).await?;
        match link.filter(|link| link.name == network.bridge || link.mac == Some(network.mac)) {
            Some(link) => Ok(self.net.delete_link(link.index).await?),
            None => Ok(()),
        }
    }
}
