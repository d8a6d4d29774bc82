//! Which datapath an instance has: opens, finds and removes it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::ebpf::{Ebpf, OpenOptions};
use super::{Datapath, Error, Kind};

/// Where instances pin.
const PINS: &str = "/sys/fs/bpf/netdp";

/// An opened datapath.
pub struct Opened {
    /// The datapath.
    pub datapath: Box<dyn Datapath>,
    /// It was not there before, so it knows nothing.
    pub is_new: bool,
}

/// Opens an instance's datapath; makes it, if it isn't there.
pub fn open(kind: Kind, instance: &str, flows_max: Option<u32>) -> Result<Opened, Error> {
    match kind {
        Kind::Ebpf => {
            let ebpf = Ebpf::open(instance, &OpenOptions { flows_max })?;
            let is_new = ebpf.was_created();
            Ok(Opened { datapath: Box::new(ebpf), is_new })
        }
        Kind::Iptables => Err(Error {
            doing: format!("opening the datapath of instance {instance}"),
            cause: "the iptables datapath comes with a later version".into(),
        }),
    }
}

/// Whether an instance's datapath is there.
pub fn is_there(kind: Kind, instance: &str) -> bool {
    kind == Kind::Ebpf && Ebpf::exists(instance)
}

/// Removes an instance's datapath; one that can't be opened by removing its pins.
pub fn remove(opened: Option<Box<dyn Datapath>>, kind: Kind, instance: &str) -> Result<(), Error> {
    let opened = match opened {
        None if is_there(kind, instance) => open(kind, instance, None).ok().map(|opened| opened.datapath),
        other => other,
    };
    if let Some(datapath) = opened {
        datapath.remove()?;
    }
    match fs::remove_dir_all(pins(instance)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error { doing: format!("removing {}", pins(instance).display()), cause: error.into() })
        }
        _ => Ok(()),
    }
}

fn pins(instance: &str) -> PathBuf {
    Path::new(PINS).join(instance)
}
