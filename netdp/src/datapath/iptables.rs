//! The iptables datapath: netfilter does the work, and netdp writes the rules.
//!
//! Every change writes the whole of netdp's own chains anew, in one step for each table; chains with counters stay.
//! What the rules are made from lies in the instance's directory (`model.rs`), with what iptables-save showed
//! afterwards: what is no longer so was changed by somebody else, and is put back by the next command.

use std::cell::OnceCell;
use std::collections::HashSet;
use std::collections::btree_map::Entry;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use super::sysctls::Sysctls;
use super::{
    Datapath, EndpointEntry, Error, FlowHandle, FlowInfo, FlowsOfPort, Kind, NetworkEntry, PublishEntry,
    Stats, XdpMode,
};
use crate::net::{PortFlags, blocking, sysctl};

mod family;
mod flows;
mod host;
mod model;
mod names;
mod probe;
mod program;
mod rules;
mod ruleset;
mod saved;
mod stats;

pub(super) use family::Family;
use model::{Model, Network};
use names::Names;
pub use probe::probe;
use program::Backend;
use ruleset::Ruleset;
use saved::Saved;

/// How often a change is tried when somebody else changes rules at the same time.
const TRIES: u32 = 3;

/// What an opened datapath should do without.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Pretend that the kernel has no br_netfilter.
    pub without_br_netfilter: bool,
    /// Pretend that the kernel can't forward IPv6 from one interface only.
    pub without_force_forwarding: bool,
}

/// The iptables datapath of one instance.
#[derive(Debug)]
pub struct Iptables {
    instance: String,
    dir: PathBuf,
    options: Options,
    model: Model,
    /// Whether there was none before.
    created: bool,
    /// Whether the host has IPv6 rules; found out once.
    has_v6: OnceCell<bool>,
}

impl Iptables {
    /// Opens an instance's datapath; changes nothing yet if there is none.
    ///
    /// # Errors
    /// When there is no iptables that works, or the model can't be read.
    pub fn open(dir: &Path, instance: &str, options: Options) -> Result<Self, Error> {
        let found = Model::load(dir)?;
        let created = found.is_none();
        let model = match found {
            Some(model) => model,
            None => Model::new(Backend::detect()?),
        };
        let (instance, dir) = (instance.to_owned(), dir.to_owned());
        Ok(Self { instance, dir, options, model, created, has_v6: OnceCell::new() })
    }

    /// Whether an instance's datapath is there.
    pub fn exists(dir: &Path) -> bool {
        Model::exists(dir)
    }

    /// Whether there are rules of an instance whose files are gone. A host without iptables has none.
    pub fn left_rules(instance: &str) -> bool {
        let saved = Backend::detect().and_then(|backend| backend.save(Family::V4));
        saved.is_ok_and(|saved| !Saved::parse(&saved).own(&Names::of(instance)).is_empty())
    }

    /// Whether [`Iptables::open`] found none.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Changes the model, and makes the rules what it says; says whether there was anything to do. What fails is taken
    /// back.
    fn change(&mut self, change: impl FnOnce(&mut Model)) -> Result<bool, Error> {
        let before = self.model.clone();
        change(&mut self.model);
        if self.model.settled && self.model == before {
            return Ok(false);
        }
        // First, so that it is known when a command was killed in between.
        self.model.settled = false;
        self.model.save(&self.dir)?;
        let Err(error) = self.apply() else {
            self.model.settled = true;
            return self.model.save(&self.dir).map(|()| true);
        };
        let made_tables = std::mem::take(&mut self.model.made_tables);
        self.model = Model { made_tables, settled: true, ..before };
        match self.apply().and_then(|()| self.model.save(&self.dir)) {
            Ok(()) => Err(error),
            Err(again) => {
                let cause = format!("{}; taking it back failed too: {again}", error.cause);
                Err(Error { doing: error.doing, cause: cause.into() })
            }
        }
    }

    /// Makes the kernel's rules what the model says.
    fn apply(&mut self) -> Result<(), Error> {
        for family in self.families()? {
            let want = rules::ruleset(&self.model, &self.instance, family);
            let found = self.saved(family)?;
            if let Entry::Vacant(unknown) = self.model.made_tables.entry(family) {
                let made = want.tables.keys().filter(|table| !found.has(**table));
                unknown.insert(made.map(|table| table.name().to_owned()).collect());
                // First: tables that nobody remembers would stay for ever.
                self.model.save(&self.dir)?;
            }
            self.write(family, &want, found)?;
            let own = self.saved(family)?.own(&self.names());
            self.model.installed.insert(family, own);
        }
        Ok(())
    }

    /// Tells iptables-restore; again, when what it was told was made from rules that somebody changed meanwhile.
    fn write(&self, family: Family, want: &Ruleset, mut found: Saved) -> Result<(), Error> {
        let names = self.names();
        for _ in 1..TRIES {
            match self.model.backend.restore(family, &found.change(&names, want)) {
                Ok(()) => return Ok(()),
                Err(error) => tracing::info!(%error, "once more"),
            }
            found = self.saved(family)?;
        }
        self.model.backend.restore(family, &found.change(&names, want))
    }

    fn saved(&self, family: Family) -> Result<Saved, Error> {
        Ok(Saved::parse(&self.model.backend.save(family)?))
    }

    /// IPv4, and IPv6 where the host has it; a host without it can't be asked for networks with it.
    fn families(&self) -> Result<Vec<Family>, Error> {
        let v6 = *self.has_v6.get_or_init(|| self.model.backend.works(Family::V6));
        let needs = self.model.networks.values().any(|network| network.subnets(Family::V6).next().is_some());
        if needs && !v6 {
            return self.saved(Family::V6).map(|_| Vec::new());
        }
        Ok(Family::ALL.into_iter().filter(|family| *family == Family::V4 || v6).collect())
    }

    fn names(&self) -> Names {
        Names::of(&self.instance)
    }

    /// What is not as the last change left it.
    fn differences(&self) -> Result<Vec<String>, Error> {
        let mut found = Vec::new();
        if !self.model.settled {
            found.push("a change of the rules was cut short".to_owned());
        }
        for (family, installed) in &self.model.installed {
            let saved = self.saved(*family)?;
            let now = saved.own(&self.names());
            let program = self.model.backend.name(*family);
            let [before, after] = [installed, &now].map(|lines| lines.iter().collect::<HashSet<_>>());
            let gone = installed.iter().filter(|line| !after.contains(line));
            found.extend(gone.map(|line| format!("{program}: gone: {line}")));
            let strange = now.iter().filter(|line| !before.contains(line));
            found.extend(strange.map(|line| format!("{program}: not netdp's: {line}")));
            let want = rules::ruleset(&self.model, &self.instance, *family);
            let late = saved.overtaken(&want);
            found.extend(late.iter().map(|chain| format!("{program}: other rules come first in {chain}")));
        }
        Ok(found)
    }

    /// Takes everything of ours out of one family's tables, and tables that have nothing else, if netdp made them.
    fn clear(&self, family: Family) -> Result<(), Error> {
        let found = self.saved(family)?;
        if !found.own(&self.names()).is_empty() {
            self.write(family, &Ruleset::default(), found)?;
        }
        match self.model.made_tables.get(&family) {
            Some(made) => host::remove_tables(self.model.backend, family, made),
            None => Ok(()),
        }
    }
}

impl Datapath for Iptables {
    fn kind(&self) -> Kind {
        Kind::Iptables
    }

    fn add_network(&mut self, network: &NetworkEntry) -> Result<(), Error> {
        let filtered = host::filter_bridge(network, self.options)?;
        let told = Network { filtered, entry: network.clone() };
        self.change(|model| drop(model.networks.insert(network.bridge, told)))?;
        host::prepare_bridge(network, self.options)
    }

    fn remove_network(&mut self, bridge: u32) -> Result<(), Error> {
        self.change(|model| drop(model.networks.remove(&bridge))).map(drop)
    }

    fn add_endpoint(&mut self, endpoint: &EndpointEntry) -> Result<(), Error> {
        match self.change(|model| drop(model.endpoints.insert(endpoint.host_ifindex, endpoint.clone())))? {
            // What is left of an earlier one with the same address.
            true => flows::remove_of(&endpoint.addresses),
            false => Ok(()),
        }
    }

    fn remove_endpoint(&mut self, endpoint: &EndpointEntry) -> Result<(), Error> {
        self.change(|model| drop(model.endpoints.remove(&endpoint.host_ifindex)))?;
        // Its address may be another endpoint's by now.
        let free: Vec<IpAddr> =
            endpoint.addresses.iter().filter(|addr| self.model.owner(**addr).is_none()).copied().collect();
        flows::remove_of(&free)
    }

    /// Netfilter sends packets back to the port that they came from, and knows senders by their port. Neighbours that
    /// may not reach each other are kept apart by the bridge where netfilter doesn't see them.
    fn port_flags(&self, bridge: u32) -> PortFlags {
        let apart = self.model.networks.get(&bridge).is_some_and(|net| net.entry.no_icc && !net.filtered);
        PortFlags { hairpin: true, locked: true, isolated: apart, ..PortFlags::default() }
    }

    fn publish(&mut self, entries: &[PublishEntry]) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        self.change(|model| model.publish(entries))?;
        flows::remove_published(&self.model, entries, true)
    }

    fn unpublish(&mut self, entries: &[PublishEntry], flows: FlowsOfPort) -> Result<(), Error> {
        if entries.is_empty() {
            return Ok(());
        }
        self.change(|model| model.unpublish(entries))?;
        match flows {
            FlowsOfPort::End => flows::remove_published(&self.model, entries, false),
            // Conntrack goes on to translate what it knows.
            FlowsOfPort::Drain => Ok(()),
        }
    }

    fn refresh_host(&mut self) -> Result<(), Error> {
        let guarded = self.forward_uplinks()?;
        if !self.differences()?.is_empty() {
            self.model.settled = false;
        }
        self.change(|model| model.guarded = guarded).map(drop)
    }

    fn set_xdp(&mut self, mode: XdpMode) -> Result<(), Error> {
        match mode {
            XdpMode::Off => Ok(()),
            XdpMode::Native | XdpMode::Generic => Err(Error {
                doing: format!("--xdp {}", mode.name()),
                cause: "the iptables datapath has no programs".into(),
            }),
        }
    }

    fn flows(&self) -> Result<Vec<FlowInfo>, Error> {
        flows::list(&self.model)
    }

    fn remove_flows(&mut self, flows: &[FlowHandle]) -> Result<usize, Error> {
        flows::remove(flows)
    }

    fn stats(&self) -> Result<Stats, Error> {
        stats::read(self)
    }

    fn unserved(&self) -> Option<&'static str> {
        None
    }

    fn faults(&self) -> Result<Vec<String>, Error> {
        let mut faults = self.differences()?;
        let undone =
            Sysctls::of(&self.dir, &self.instance, self.options.without_force_forwarding)?.undone()?;
        faults.extend(undone.iter().map(|name| format!("{name} was set back")));
        Ok(faults)
    }

    fn remove(self: Box<Self>) -> Result<Vec<String>, Error> {
        for family in self.families().unwrap_or_else(|_| vec![Family::V4]) {
            self.clear(family)?;
        }
        let left =
            Sysctls::alone(&self.dir, &self.instance, self.options.without_force_forwarding)?.release()?;
        Model::remove(&self.dir)?;
        Ok(left)
    }
}
