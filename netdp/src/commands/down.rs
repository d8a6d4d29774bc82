//! `netdp down`: removes everything of an instance.

use std::path::Path;

use crate::cli::Global;
use crate::datapath::{Firewall, XdpMode, select};
use crate::error::Error;
use crate::hostfiles;
use crate::instance::{Instance, ROOT, bpffs_release};
use crate::progress::Progress;
use crate::state;

/// Removes the instance. Goes on when something can't be removed, and reports all of it.
pub async fn run(global: &Global) -> Result<(), Error> {
    let _progress = Progress::begin("removing the instance");
    let mut failures = Vec::new();
    let instance = match Instance::for_removal(global) {
        Err(Error::State(state::Error::Damaged { path, .. })) => {
            let left = "the bridges and veths that it named are left, delete them by hand";
            failures.push(format!("{} was damaged and is removed: {left}", path.display()));
            Instance::for_removal_without_state(global)?
        }
        other => other?,
    };
    match instance {
        Some(mut instance) => {
            if instance.state.host == instance.host.id() {
                failures.extend(instance.recover().await.err().map(|error| error.to_string()));
            }
            failures.extend(instance.remove_everything().await);
        }
        None => {
            // Pins, rules and files without state.
            failures.extend(hostfiles::remove(&global.instance));
            let place = select::Place {
                instance: &global.instance,
                dir: &Path::new(ROOT).join(&global.instance),
                flows_max: None,
                firewall: Firewall::default(),
                xdp: XdpMode::Off,
                without: &[],
            };
            let removed = select::remove_left_behind(place).map_err(Error::from);
            failures.extend(removed.and_then(|()| bpffs_release()).err().map(|error| error.to_string()));
        }
    }
    if failures.is_empty() {
        return Ok(());
    }
    Err(Error::Incomplete { doing: format!("removing instance {}", global.instance), failures })
}
