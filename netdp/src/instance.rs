//! An instance while a command works on it: locked, with its state, its datapath and a way back.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::Flock;
use tokio::signal::unix::{SignalKind, signal};

use crate::cli::{DatapathChoice, Global};
use crate::datapath::ebpf::Unsupported;
use crate::datapath::select::{Feature, Opened, Place};
use crate::datapath::{self, Datapath, Firewall, Kind, XdpMode, select};
use crate::error::{Error, shortened};
use crate::hostfiles;
use crate::net::{Net, NetNs};
use crate::output;
use crate::plan::names;
use crate::progress::Progress;
use crate::refusal::Refusal;
use crate::state::{Endpoint, Network, State};
use crate::target::Target;
use crate::undo::{Step, Undo};

mod files;
mod fixed;
mod lock;
mod removal;
mod undoing;
mod xdp;

pub use files::{ROOT, bpffs_release, lock as lock_all_instances, remove_files};
use fixed::check_fixed;
use lock::Lock;
pub use undoing::delete_namespace;

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
    /// The state before this command; none: it had none.
    before: Option<State>,
    /// Which datapath is found out by the first command.
    choose: bool,
    without: Vec<Feature>,
    /// As this command said.
    xdp: Option<XdpMode>,
    datapath: Option<Box<dyn Datapath>>,
    undo: Undo,
    _lock: Lock,
}

impl Instance {
    /// Locks an instance for a change, and creates it if there is none. What a killed command left half done is undone
    /// or completed first.
    pub async fn change(global: &Global) -> Result<Self, Error> {
        // A change takes milliseconds: it is completed, not torn apart.
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            let _handled = signal(kind).map_err(Error::system("listening for signals"))?;
        }
        let dir = dir(global)?;
        loop {
            let lock = Lock::exclusive(&dir)?;
            let opened = Self::open(global, &dir, lock);
            if opened.is_err() {
                files::remove_if_unused(&dir);
            }
            let mut instance = opened?;
            instance.recover().await?;
            if !instance.state.ending {
                return match instance.check_xdp() {
                    Ok(()) => Ok(instance),
                    Err(refused) => instance.finish(Err(refused)).await,
                };
            }
            let failures = instance.remove_everything().await;
            if !failures.is_empty() {
                let doing = "completing a netdp down that was interrupted".into();
                return Err(Error::Incomplete { doing, failures });
            }
        }
    }

    /// Locks an instance for a change; none if there is none.
    pub async fn existing(global: &Global) -> Result<Option<Self>, Error> {
        if dir(global)?.exists() {
            let instance = Self::change(global).await?;
            if !instance.is_fresh() {
                return Ok(Some(instance));
            }
            // Of a first command that was killed.
            instance.forget()?;
        }
        xdp::check_absent(global)?;
        Ok(None)
    }

    /// Locks an instance against changes; none if there is none. What a killed command left is undone or completed.
    pub async fn read(global: &Global) -> Result<Option<Self>, Error> {
        if Self::unfinished(global)?.is_some() {
            Self::existing(global).await?.inspect(Self::update_names);
        }
        let instance = Self::look(global)?;
        if let Some(instance) = &instance {
            xdp::check_unchanged(global, instance.state.xdp)?;
        }
        Ok(instance)
    }

    /// As [`Self::read`], but touches nothing, whatever a killed command left.
    pub fn look(global: &Global) -> Result<Option<Self>, Error> {
        let dir = dir(global)?;
        if State::load(&dir)?.is_none() {
            return Ok(None);
        }
        let lock = Lock::shared(&dir)?;
        let instance = Self::open(global, &dir, lock)?;
        if instance.is_fresh() {
            // Somebody removed it while this command waited, which has made a directory again.
            files::remove_if_unused(&dir);
            return Ok(None);
        }
        Ok(Some(instance))
    }

    /// What a command that was killed has left, in words.
    pub fn unfinished(global: &Global) -> Result<Option<&'static str>, Error> {
        let dir = dir(global)?;
        if !dir.exists() {
            return Ok(None);
        }
        // Whoever is at work holds the lock.
        let _lock = Lock::shared(&dir)?;
        let state = State::load(&dir)?;
        Ok(match &state {
            Some(state) if state.ending => Some("a netdp down was interrupted: run it again"),
            _ if Undo::is_there(&dir) => Some("a command was interrupted: the next one undoes what it left"),
            Some(state) if !state.removing.is_empty() => {
                Some("a removal was interrupted: the next command completes it, for instance netdp gc")
            }
            Some(_) => None,
            None => Some(
                "an instance's first command was interrupted: the next one cleans up, for instance netdp gc",
            ),
        })
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

    /// Locks an instance for its removal whose state can't be read; none if there is none.
    pub fn for_removal_without_state(global: &Global) -> Result<Option<Self>, Error> {
        let dir = dir(global)?;
        let lock = Lock::exclusive(&dir)?;
        Self::build(global, &dir, lock, NetNs::current()?, None).map(Some)
    }

    /// Whether the instance had no state before this command.
    pub fn is_fresh(&self) -> bool {
        self.before.is_none()
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
        let before = found.clone();
        let kind = match global.datapath {
            DatapathChoice::Auto | DatapathChoice::Ebpf => Kind::Ebpf,
            DatapathChoice::Iptables => Kind::Iptables,
        };
        let firewall = global.firewall.unwrap_or_default();
        if found.is_none() && kind == Kind::Iptables && firewall == Firewall::Honour {
            return Err(Refusal::NoHonour.into());
        }
        let state =
            found.unwrap_or_else(|| State { firewall, ..State::new(host.id(), kind, global.flows_max) });
        let undo = Undo::new(dir, state.revision);
        let net = Net::open(&host)?;
        let name = global.instance.clone();
        let choose = before.is_none() && global.datapath == DatapathChoice::Auto;
        let (dir, without, xdp) = (dir.to_owned(), global.without.clone(), global.xdp);
        Ok(Self {
            state,
            host,
            net,
            name,
            dir,
            before,
            choose,
            without,
            xdp,
            datapath: None,
            undo,
            _lock: lock,
        })
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
        if self.is_fresh() {
            self.undo.push(Step::RemoveDatapath)?;
        }
        if self.state.datapath == Kind::Iptables {
            return Ok(self.open_kind(Kind::Iptables, None)?.datapath);
        }
        match self.open_ebpf() {
            Err(why) if self.choose && self.state.firewall == Firewall::Bypass => self.fall_back(&why),
            opened => Ok(opened?.datapath),
        }
    }

    fn open_ebpf(&self) -> Result<Opened, Error> {
        let others_wait = files::bpffs_ensure()?;
        let _progress = Progress::begin("loading the eBPF programs");
        self.open_kind(Kind::Ebpf, Some(others_wait))
    }

    /// `others_wait`: until there is something that they leave alone.
    fn open_kind(&self, kind: Kind, others_wait: Option<Flock<File>>) -> Result<Opened, Error> {
        let mut opened = select::open(kind, self.place()).map_err(refused_by_kernel)?;
        drop(others_wait);
        if opened.is_new {
            restore(&self.state, opened.datapath.as_mut())?;
            // Before the first endpoint has an address: its first packet finds the uplinks hooked.
            opened.datapath.refresh_host()?;
        }
        Ok(opened)
    }

    /// The kernel, or who guards it, doesn't take the eBPF programs: netfilter does the work.
    fn fall_back(&mut self, why: &Error) -> Result<Box<dyn Datapath>, Error> {
        select::remove(None, self.place())?;
        bpffs_release()?;
        let opened = self
            .open_kind(Kind::Iptables, None)
            .map_err(|also| Error::NoDatapath { ebpf: why_shortened(why), iptables: Box::new(also) })?;
        self.state.datapath = Kind::Iptables;
        self.state.datapath_reason = Some(why_shortened(why));
        Ok(opened.datapath)
    }

    fn place(&self) -> Place<'_> {
        let (instance, dir) = (self.name.as_str(), self.dir.as_path());
        let State { flows_max, firewall, xdp, .. } = self.state;
        Place { instance, dir, flows_max, firewall, xdp, without: &self.without }
    }

    /// The datapath for reading; none if somebody removed it.
    pub fn datapath_if_there(&mut self) -> Result<Option<&mut dyn Datapath>, Error> {
        if self.datapath.is_none() && !select::is_there(self.state.datapath, self.place()) {
            return Ok(None);
        }
        self.datapath().map(Some)
    }

    /// Announces a change by what undoes it. Call it before the change.
    pub fn will(&mut self, undo: Step) -> Result<(), Error> {
        tracing::debug!(?undo, "about to change something that this undoes");
        Ok(self.undo.push(undo)?)
    }

    /// Takes the last announcement back: there is nothing to undo.
    pub fn will_not(&mut self) -> Result<(), Error> {
        Ok(self.undo.pop()?)
    }

    /// An endpoint by name.
    pub fn endpoint(&self, name: &str) -> Result<&Endpoint, Refusal> {
        let State { endpoints, bound, .. } = &self.state;
        let refusal = || match bound.get(name) {
            Some(bound) => Refusal::NoInterface { name: name.into(), mode: bound.mode.to_string() },
            None => Refusal::NoEndpoint {
                name: name.into(),
                known: endpoints.keys().chain(bound.keys()).cloned().collect(),
            },
        };
        endpoints.get(name).ok_or_else(refusal)
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
        let Some(link) = link.filter(|link| link.name == endpoint.host_ifname) else {
            return Ok(false);
        };
        // A path may be one that only somebody else's mounts have: then the kernel's word counts, which comes late.
        let held = matches!(endpoint.target, Target::Path(_)) && link.peer_netnsid.is_some();
        Ok(held || endpoint.target.is_alive(endpoint.netns))
    }

    /// Ends a command: keeps what it did, or undoes it in reverse.
    pub async fn finish<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        let result = match result {
            Ok(value) => self.keep().await.map(|()| value),
            Err(error) => Err(error),
        };
        let Err(cause) = result else {
            // A list of a revision that is past is thrown away by the next command.
            let _ = self.undo.done();
            return result;
        };
        let failures = self.undo_all().await;
        if !failures.is_empty() {
            // The list stays: the next command tries again.
            return Err(Error::NotUndone { cause: Box::new(cause), failures });
        }
        if self.is_fresh() {
            self.forget()?;
        } else {
            self.undo.done()?;
        }
        Err(cause)
    }

    async fn keep(&mut self) -> Result<(), Error> {
        self.apply_xdp()?;
        if let Some(datapath) = &mut self.datapath {
            datapath.refresh_host()?;
        }
        self.save()?;
        if self.state.removing.is_empty() {
            self.update_names();
            return Ok(());
        }
        self.complete().await?;
        self.update_names();
        // Once more, without what has been removed. What fails here is done by the next command.
        match self.datapath.as_mut().map(|datapath| datapath.refresh_host()) {
            Some(Err(error)) => output::warning(error),
            _ => Ok(()),
        }
    }

    /// Tells the endpoints each other's names. Where that fails (a read-only `/etc`), all else works: it is no failure.
    fn update_names(&self) {
        for failure in hostfiles::update(&self.name, &self.dir, &self.state) {
            // Nothing can be said to somebody who closed standard error.
            let _ = output::warning(format!("endpoints may not find each other by name: {failure}"));
        }
    }

    /// Writes the state.
    pub fn save(&mut self) -> Result<(), Error> {
        Ok(self.state.save(&self.dir)?)
    }

    /// Removes the instance's files; the lock goes with them.
    pub fn forget(self) -> Result<(), Error> {
        // The lock is held until the end.
        files::remove(&self.dir)
    }
}

/// A kernel that doesn't take the programs is no failure of netdp: it is bad input to ask for them there.
fn refused_by_kernel(error: datapath::Error) -> Error {
    if error.cause.is::<Unsupported>() {
        Refusal::NoEbpf { why: error.to_string() }.into()
    } else {
        error.into()
    }
}

fn why_shortened(why: &Error) -> String {
    shortened(&why.to_string())
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
        datapath.publish(&endpoint.publish_entries(&endpoint.published))?;
    }
    Ok(())
}

fn dir(global: &Global) -> Result<PathBuf, Error> {
    names::check("instance", &global.instance)?;
    Ok(Path::new(ROOT).join(&global.instance))
}

/// A directory's open file, to be locked.
fn open_dir(path: &Path) -> Result<File, Error> {
    fs::create_dir_all(path).map_err(Error::system(format!("creating {}", path.display())))?;
    File::open(path).map_err(Error::system(format!("opening {}", path.display())))
}
