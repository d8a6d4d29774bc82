//! The qdisc is shared by all instances and by strangers. One that netdp has made is written down in the instance that
//! did, as the empty directory `filters/IFINDEX-qdisc`; who leaves before others hands it on to one of them, and the
//! last removes the qdisc. So nothing outlives the instances, whatever becomes of the host's namespace.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::tc::{TcError, qdisc_add_clsact};

use super::super::super::Error;
use super::super::{FILTERS, doing, object, step};
use super::{Hook, filters, gone_is_fine, name_of, program_ids};
use crate::net::{self, Filter};

/// Behind the ifindex: the name of what stands for a qdisc that netdp made.
pub(super) const QDISC: &str = "qdisc";

/// The interface's qdisc: there, or made now and written down before.
pub(super) fn ensure(hook: Hook<'_>, record: &Path) -> Result<(), Error> {
    let what = || format!("adding a clsact qdisc to {}", hook.ifname);
    let is_recorded = record.exists();
    if !is_recorded {
        step("write down a qdisc")?;
        fs::create_dir(record).map_err(|e| doing(format!("creating {}", record.display()), e))?;
    }
    step("add a qdisc")?;
    match qdisc_add_clsact(hook.ifname) {
        Ok(()) => Ok(()),
        // Another's, or, if it was written down, ours.
        Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {
            if is_recorded {
                Ok(())
            } else {
                forget(record)
            }
        }
        Err(error) => {
            forget(record)?;
            Err(doing(what(), error))
        }
    }
}

/// Removes a qdisc that netdp made when nobody uses it any more; an instance that does gets the record.
pub(super) fn release(ifindex: u32, record: &Path) -> Result<(), Error> {
    if !record.exists() {
        return Ok(());
    }
    if name_of(ifindex).is_some() {
        let left = filters(ifindex)?;
        if !left.is_empty() {
            return hand_on(ifindex, record, &left);
        }
        let what = || format!("removing the clsact qdisc of the interface {ifindex}");
        net::blocking(async |net| net.remove_clsact(ifindex).await).map_err(|e| doing(what(), e))?;
    }
    forget(record)
}

/// While the instance has filters there itself, the record stays with it.
fn hand_on(ifindex: u32, record: &Path, left: &[Filter]) -> Result<(), Error> {
    let own = record.parent().map(Path::to_owned);
    let others = object::pinned_programs().into_iter().map(|programs| programs.with_file_name(FILTERS));
    let heirs = own.into_iter().chain(others).filter(|hooks| hooks.exists());
    for hooks in heirs {
        let programs = program_ids(&hooks.with_file_name("programs"))?;
        if !left.iter().any(|filter| filter.program_id.is_some_and(|id| programs.contains(&id))) {
            continue;
        }
        let heir = hooks.join(format!("{ifindex}-{QDISC}"));
        if heir == record {
            return Ok(());
        }
        step("hand on a qdisc")?;
        return fs::rename(record, &heir)
            .map_err(|e| doing(format!("renaming {} to {}", record.display(), heir.display()), e));
    }
    // Only strangers use it: it is theirs now.
    forget(record)
}

/// What stands beside a pin for the qdisc.
pub(super) fn record(pin: &Path, ifindex: u32) -> PathBuf {
    pin.with_file_name(format!("{ifindex}-{QDISC}"))
}

fn forget(record: &Path) -> Result<(), Error> {
    step("forget a qdisc")?;
    gone_is_fine(fs::remove_dir(record), || format!("removing {}", record.display()))
}
