//! Which datapath an instance has: opens, finds and removes it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ebpf::{Ebpf, OpenOptions};
use super::iptables::{self, Iptables};
use super::{Datapath, Error, Firewall, Kind, XdpMode, sysctls};

/// Where instances pin.
const PINS: &str = "/sys/fs/bpf/netdp";

/// An opened datapath.
pub struct Opened {
    /// The datapath.
    pub datapath: Box<dyn Datapath>,
    /// It was not there before, so it knows nothing.
    pub is_new: bool,
}

/// Whose datapath it is, and what its first command said about it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The instance's name.
    pub instance: &'a str,
    /// Its directory.
    pub dir: &'a Path,
    /// How many flows the table holds, if that was said.
    pub flows_max: Option<u32>,
    /// Who decides about translated packets.
    pub firewall: Firewall,
    /// Whether uplinks carry the XDP program.
    pub xdp: XdpMode,
    /// What this kernel is said not to have.
    pub without: &'a [Feature],
}

/// Something of the kernel's that netdp can do without, and can be told to.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Feature {
    /// TC and cgroup programs.
    Ebpf,
    /// Links of TC programs (Linux 6.6): filters behind `clsact` then.
    Tcx,
    /// `iptables` for what a bridge forwards by itself.
    BrNetfilter,
    /// IPv6 forwarding of one interface (`force_forwarding`, Linux 6.17).
    ForceForwarding,
}

/// Opens an instance's datapath; makes it, if it isn't there.
pub fn open(kind: Kind, place: Place<'_>) -> Result<Opened, Error> {
    let Place { instance, dir, flows_max, firewall, xdp, without } = place;
    let without_force_forwarding = without.contains(&Feature::ForceForwarding);
    match kind {
        Kind::Ebpf if without.contains(&Feature::Ebpf) => Err(Error {
            doing: "loading the eBPF programs".into(),
            cause: "this kernel is said to have no eBPF (--without ebpf)".into(),
        }),
        Kind::Ebpf => {
            let options =
                OpenOptions { flows_max, without_tcx: without.contains(&Feature::Tcx), firewall, xdp };
            let mut ebpf = Ebpf::open(instance, &options)?;
            if firewall == Firewall::Honour {
                ebpf.let_stack_forward(dir, instance, without_force_forwarding);
            }
            let is_new = ebpf.was_created();
            Ok(Opened { datapath: Box::new(ebpf), is_new })
        }
        Kind::Iptables => {
            let options = iptables::Options {
                without_br_netfilter: without.contains(&Feature::BrNetfilter),
                without_force_forwarding,
            };
            let opened = Iptables::open(dir, instance, options)?;
            let is_new = opened.was_created();
            Ok(Opened { datapath: Box::new(opened), is_new })
        }
    }
}

/// Whether an instance's datapath is there.
pub fn is_there(kind: Kind, place: Place<'_>) -> bool {
    match kind {
        Kind::Ebpf => Ebpf::exists(place.instance),
        Kind::Iptables => Iptables::exists(place.dir),
    }
}

/// Removes an instance's datapath, whichever it has, also one that can't be opened any more; returns what is left on
/// the host as it is, and why.
pub fn remove(opened: Option<Box<dyn Datapath>>, place: Place<'_>) -> Result<Vec<String>, Error> {
    let (mut opened, mut left) = (opened, Vec::new());
    for kind in [Kind::Ebpf, Kind::Iptables] {
        let own = opened.take_if(|datapath| datapath.kind() == kind);
        let datapath = match own {
            None if is_there(kind, place) => {
                let reopened = open(kind, Place { without: &[], ..place }).map(|opened| opened.datapath);
                // Pins can be removed unopened; rules can't.
                if kind == Kind::Ebpf { reopened.ok() } else { Some(reopened?) }
            }
            own => own,
        };
        if let Some(datapath) = datapath {
            left.extend(datapath.remove()?);
        }
    }
    left.extend(sysctls::release(place.dir, place.instance)?);
    match fs::remove_dir_all(pins(place.instance)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error { doing: format!("removing {}", pins(place.instance).display()), cause: error.into() })
        }
        _ => Ok(left),
    }
}

/// Removes what there is of an instance whose files are gone.
pub fn remove_left_behind(place: Place<'_>) -> Result<(), Error> {
    remove(None, place)?;
    if Iptables::left_rules(place.instance) {
        Box::new(Iptables::open(place.dir, place.instance, iptables::Options::default())?).remove()?;
    }
    Ok(())
}

fn pins(instance: &str) -> PathBuf {
    Path::new(PINS).join(instance)
}
