//! An instance while a command works on it: locked, with its state, its datapath and a way back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use crate::cli::{DatapathChoice, Global};
use crate::datapath::{Datapath, Kind, select};
use crate::error::Error;
use crate::net::{Net, NetNs};
use crate::plan::names;
use crate::refusal::Refusal;
use crate::state::{Endpoint, Network, State};
use crate::target;
use crate::undo::{Step, Undo};

mod files;
mod lock;

pub use files::{ROOT, bpffs_release, remove_files};
use lock::Lock;

/// An instance that is locked for one command.
pub struct Instance {
    /// What there is. A command changes it beside the host; [`Instance::finish`] writes it.
    pub state: State,
    /// The host's namespace.
    pub host: NetNs,
    /// Netlink there.
    pub net: Net,
    name: String,
    dir: PathBuf,
    /// It had no state before this command.
    fresh: bool,
    datapath: Option<Box<dyn Datapath>>,
    undo: Undo,
    _lock: Lock,
}

impl Instance {
    /// Locks an instance for a change, and creates it if there is none. What a killed command left is undone first.
    pub async fn change(global: &Global) -> Result<Self, Error> {
        check_options(global)?;
        let dir = dir(global)?;
        let lock = Lock::exclusive(&dir)?;
        let opened = Self::open(global, &dir, lock);
        if opened.is_err() {
            files::remove_if_unused(&dir);
        }
        let mut instance = opened?;
        instance.recover().await?;
        Ok(instance)
    }

    /// Locks an instance for a change; none if there is none.
    pub async fn existing(global: &Global) -> Result<Option<Self>, Error> {
        check_options(global)?;
        if dir(global)?.exists() { Self::change(global).await.map(Some) } else { Ok(None) }
    }

    /// Locks an instance against changes; none if there is none.
    pub fn read(global: &Global) -> Result<Option<Self>, Error> {
        check_options(global)?;
        let dir = dir(global)?;
        if State::load(&dir)?.is_none() {
            return Ok(None);
        }
        let lock = Lock::shared(&dir)?;
        let instance = Self::open(global, &dir, lock)?;
        // Somebody removed it while this command waited.
        Ok(if instance.fresh { None } else { Some(instance) })
    }

    /// Locks an instance for its removal, also one whose host is gone; none if there is none.
    pub fn for_removal(global: &Global) -> Result<Option<Self>, Error> {
        let dir = dir(global)?;
        if !dir.exists() {
            return Ok(None);
        }
        let lock = Lock::exclusive(&dir)?;
        let host = NetNs::current()?;
        let state = State::load(&dir)?;
        if let Some(state) = &state {
            match check_fixed(global, state, &host) {
                Err(Refusal::HostGone { .. }) | Ok(()) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Self::build(global, &dir, lock, host, state).map(Some)
    }

    fn open(global: &Global, dir: &Path, lock: Lock) -> Result<Self, Error> {
        let host = NetNs::current()?;
        let found = State::load(dir)?;
        if let Some(state) = &found {
            check_fixed(global, state, &host)?;
        }
        Self::build(global, dir, lock, host, found)
    }

    fn build(
        global: &Global,
        dir: &Path,
        lock: Lock,
        host: NetNs,
        found: Option<State>,
    ) -> Result<Self, Error> {
        let fresh = found.is_none();
        let state = found.unwrap_or_else(|| State::new(host.id(), Kind::Ebpf, global.flows_max));
        let undo = Undo::new(dir, state.revision);
        let net = Net::open(&host)?;
        let name = global.instance.clone();
        Ok(Self { state, host, net, name, dir: dir.to_owned(), fresh, datapath: None, undo, _lock: lock })
    }

    /// The instance's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The datapath; made, and told everything that is in the state, if somebody removed it.
    pub fn datapath(&mut self) -> Result<&mut dyn Datapath, Error> {
        let datapath = match self.datapath.take() {
            Some(datapath) => datapath,
            None => self.open_datapath()?,
        };
        Ok(self.datapath.insert(datapath).as_mut())
    }

    fn open_datapath(&mut self) -> Result<Box<dyn Datapath>, Error> {
        if self.fresh {
            self.undo.push(Step::RemoveDatapath)?;
        }
        files::bpffs_ensure()?;
        let mut opened = select::open(self.state.datapath, &self.name, self.state.flows_max)?;
        if opened.is_new {
            restore(&self.state, opened.datapath.as_mut())?;
        }
        Ok(opened.datapath)
    }

    /// The datapath for reading; none if somebody removed it.
    pub fn datapath_if_there(&mut self) -> Result<Option<&mut dyn Datapath>, Error> {
        if self.datapath.is_none() && !select::is_there(self.state.datapath, &self.name) {
            return Ok(None);
        }
        self.datapath().map(Some)
    }

    /// Announces a change by what undoes it. Call it before the change.
    pub fn will(&mut self, undo: Step) -> Result<(), Error> {
        tracing::debug!(?undo, "about to change something that this undoes");
        Ok(self.undo.push(undo)?)
    }

    /// An endpoint by name.
    pub fn endpoint(&self, name: &str) -> Result<&Endpoint, Refusal> {
        let no_endpoint = || Refusal::NoEndpoint {
            name: name.into(),
            known: self.state.endpoints.keys().cloned().collect(),
        };
        self.state.endpoints.get(name).ok_or_else(no_endpoint)
    }

    /// A network by name.
    pub fn network(&self, name: &str) -> Result<&Network, Refusal> {
        let no_network =
            || Refusal::NoNetwork { name: name.into(), known: self.state.networks.keys().cloned().collect() };
        self.state.networks.get(name).ok_or_else(no_network)
    }

    /// Whether an endpoint's veth and namespace are still there.
    pub async fn is_alive(&self, endpoint: &Endpoint) -> Result<bool, Error> {
        let link = self.net.link_by_index(endpoint.host_ifindex).await?;
        Ok(link.is_some_and(|link| link.name == endpoint.host_ifname)
            && endpoint.target.is_alive(endpoint.netns))
    }

    /// Ends a command: keeps what it did, or undoes it in reverse.
    pub async fn finish<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        let result = match result {
            Ok(value) => self.keep().map(|()| value),
            Err(error) => Err(error),
        };
        let Err(cause) = result else {
            // A list of a revision that is past is thrown away by the next command.
            let _ = self.undo.done();
            return result;
        };
        let failures = self.undo_all().await;
        if self.fresh && failures.is_empty() {
            self.forget();
        }
        if failures.is_empty() {
            Err(cause)
        } else {
            Err(Error::NotUndone { cause: Box::new(cause), failures })
        }
    }

    fn keep(&mut self) -> Result<(), Error> {
        if let Some(datapath) = &mut self.datapath {
            datapath.refresh_host()?;
        }
        Ok(self.state.save(&self.dir)?)
    }

    /// Takes the datapath out, for its removal.
    pub fn take_datapath(&mut self) -> Option<Box<dyn Datapath>> {
        self.datapath.take()
    }

    /// Removes the instance's files; the lock goes with them.
    pub fn forget(self) {
        // What can't be removed is found by the next command.
        let _ = self.undo.done();
        files::remove(&self.dir);
    }

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

    async fn undo_all(&mut self) -> Vec<String> {
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

/// Deletes a namespace's name; it may be gone.
pub fn delete_namespace(name: &str) -> Result<(), Error> {
    match NetNs::delete_named(name) {
        Err(crate::net::Error::NoNamespace { .. }) => Ok(()),
        other => Ok(other?),
    }
}

/// Tells a new datapath what is in the state.
fn restore(state: &State, datapath: &mut dyn Datapath) -> Result<(), Error> {
    for network in state.networks.values() {
        datapath.add_network(&network.entry())?;
    }
    for endpoint in state.endpoints.values() {
        let Some(network) = state.networks.get(&endpoint.network) else { continue };
        // An endpoint whose veth is gone can't be added; it is found and removed by its name.
        if let Err(error) = datapath.add_endpoint(&endpoint.entry(network)) {
            tracing::info!(%error, "an endpoint is not taken into the new datapath");
            continue;
        }
        for entry in endpoint.published.iter().flat_map(|published| endpoint.publish_entries(published)) {
            datapath.publish(&entry)?;
        }
    }
    Ok(())
}

fn dir(global: &Global) -> Result<PathBuf, Error> {
    names::check("instance", &global.instance)?;
    Ok(Path::new(ROOT).join(&global.instance))
}

fn check_options(global: &Global) -> Result<(), Refusal> {
    if global.datapath == DatapathChoice::Iptables {
        let remedy = "use --datapath ebpf or auto";
        return Err(Refusal::NotInThisVersion { what: "--datapath iptables".into(), remedy });
    }
    Ok(())
}

fn check_fixed(global: &Global, state: &State, host: &NetNs) -> Result<(), Refusal> {
    let instance = global.instance.clone();
    if state.host != host.id() {
        let serves = state.host;
        return Err(if target::exists(serves) {
            Refusal::OtherHost { instance, serves, here: host.id() }
        } else {
            Refusal::HostGone { instance, serves }
        });
    }
    let asked = match global.datapath {
        DatapathChoice::Auto => None,
        DatapathChoice::Ebpf => Some((Kind::Ebpf, "ebpf")),
        DatapathChoice::Iptables => Some((Kind::Iptables, "iptables")),
    };
    if let Some((kind, asked)) = asked
        && kind != state.datapath
    {
        let has = if state.datapath == Kind::Ebpf { "ebpf" } else { "iptables" };
        return Err(Refusal::OtherDatapath { instance, asked, has });
    }
    match global.flows_max {
        Some(asked) if state.flows_max != Some(asked) => Err(Refusal::OtherFlowsMax { asked }),
        _ => Ok(()),
    }
}

/// A directory's open file, to be locked.
fn open_dir(path: &Path) -> Result<File, Error> {
    fs::create_dir_all(path).map_err(Error::system(format!("creating {}", path.display())))?;
    File::open(path).map_err(Error::system(format!("opening {}", path.display())))
}
