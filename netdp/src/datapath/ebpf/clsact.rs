//! Filters behind a `clsact` qdisc, where the kernel has no TCX (before Linux 6.6).
//!
//! A filter can't be pinned: it stays until somebody removes it, its qdisc or its interface. What netdp has attached
//! is told from what others have by the program: `filters/IFINDEX-PROGRAM` is one more pin of the very program that
//! was attached there, made before the filter, so that a killed command leaves nothing that no other finds.
//!
//! The qdisc is shared by all instances and by strangers. Which ones netdp has made is kept beside the instances, as
//! empty directories [`MADE`]`/COOKIE-IFINDEX` (the network namespace's cookie); the last that leaves removes the qdisc.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use aya::programs::tc::{
    NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType};
use nix::net::if_::if_indextoname;

use super::super::Error;
use super::object::{self, netns_cookie};
use super::{doing, step};
use crate::net::{self, Filter};

/// Where it stands which qdiscs netdp made. No instance has such a name.
const MADE: &str = "@clsact";

/// Somebody may take the place, or the qdisc away, between looking and attaching.
const ATTEMPTS: u32 = 3;

/// An interface and the side of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hook<'a> {
    pub(super) ifindex: u32,
    pub(super) ifname: &'a str,
    pub(super) side: TcAttachType,
}

/// Attaches a program before all filters that are there, and pins it as `pin`.
pub(super) fn attach(program: &mut SchedClassifier, hook: Hook<'_>, pin: &Path) -> Result<(), Error> {
    step("pin the program of a filter")?;
    program.pin(pin).map_err(|e| doing(format!("pinning {}", pin.display()), e))?;
    let attached = (1..ATTEMPTS)
        .find_map(|_| add_filter(program, hook).ok())
        .map_or_else(|| add_filter(program, hook), Ok);
    if attached.is_err() {
        release(pin)?;
    }
    attached
}

fn add_filter(program: &mut SchedClassifier, hook: Hook<'_>) -> Result<(), Error> {
    let what = || format!("adding a filter to {}", hook.ifname);
    ensure_qdisc(hook)?;
    let taken: Vec<u16> =
        filters(hook.ifindex)?.iter().filter(|filter| hook.sees(filter)).map(|it| it.priority).collect();
    let priority = (1..u16::MAX).find(|priority| !taken.contains(priority)).unwrap_or(u16::MAX);
    // The kernel adds to what is there but replaces nothing (NLM_F_EXCL).
    let options = NlOptions { priority, handle: TcHandle::new(0, 1), classid: None };
    step("attach a program")?;
    let id = program
        .attach_with_options(hook.ifname, hook.side, TcAttachOptions::Netlink(options))
        .map_err(|e| doing(what(), e))?;
    // Dropping it would remove the filter.
    std::mem::forget(program.take_link(id).map_err(|e| doing(what(), e))?);
    Ok(())
}

/// Whether the program that is pinned as `pin` is attached.
pub(super) fn is_attached(hook: Hook<'_>, pin: &Path) -> Result<bool, Error> {
    let Some(id) = program_id(pin)? else { return Ok(false) };
    Ok(filters(hook.ifindex)?.iter().any(|filter| hook.sees(filter) && filter.program_id == Some(id)))
}

/// Removes what [`attach`] made; there may be nothing, and the interface may be gone.
pub(super) fn release(pin: &Path) -> Result<(), Error> {
    let Some(id) = program_id(pin)? else { return Ok(()) };
    let file = pin.file_name().unwrap_or_default().to_string_lossy();
    let ifindex = file.split_once('-').and_then(|(ifindex, _)| ifindex.parse().ok()).unwrap_or(0);
    for filter in filters_if_there(ifindex)?.iter().filter(|filter| filter.program_id == Some(id)) {
        remove_filter(ifindex, filter)?;
    }
    release_qdisc(ifindex)?;
    step("unpin")?;
    gone_is_fine(fs::remove_file(pin), || format!("removing the pin {}", pin.display()))
}

fn remove_filter(ifindex: u32, filter: &Filter) -> Result<(), Error> {
    let what = || format!("removing netdp's filter from the interface {ifindex}");
    let Some(ifname) = name_of(ifindex) else { return Ok(()) };
    let side = if filter.egress { TcAttachType::Egress } else { TcAttachType::Ingress };
    let link = SchedClassifierLink::attached(&ifname, side, filter.priority, filter.handle.into(), None);
    let link = link.map_err(|e| doing(what(), e))?;
    step("remove a filter")?;
    match aya::programs::links::Link::detach(link) {
        Err(error) if name_of(ifindex).is_some() => Err(doing(what(), error)),
        _ => Ok(()),
    }
}

/// The interface's qdisc: there, or made now and written down before.
fn ensure_qdisc(hook: Hook<'_>) -> Result<(), Error> {
    let what = || format!("adding a clsact qdisc to {}", hook.ifname);
    let record = record(hook.ifindex)?;
    let is_recorded = record.exists();
    if !is_recorded {
        step("write down a qdisc")?;
        fs::create_dir_all(&record).map_err(|e| doing(format!("creating {}", record.display()), e))?;
    }
    step("add a qdisc")?;
    match qdisc_add_clsact(hook.ifname) {
        Ok(()) => Ok(()),
        // Another's, or, if it was written down, ours.
        Err(TcError::NetlinkError(e)) if e.raw_os_error() == Some(libc::EEXIST) => {
            if is_recorded {
                Ok(())
            } else {
                forget(&record)
            }
        }
        Err(error) => {
            forget(&record)?;
            Err(doing(what(), error))
        }
    }
}

/// Removes a qdisc that netdp made when nobody uses it any more.
fn release_qdisc(ifindex: u32) -> Result<(), Error> {
    let record = record(ifindex)?;
    if !record.exists() {
        return Ok(());
    }
    if name_of(ifindex).is_some() {
        if !filters(ifindex)?.is_empty() {
            return Ok(());
        }
        let what = || format!("removing the clsact qdisc of the interface {ifindex}");
        net::blocking(async |net| net.remove_clsact(ifindex).await).map_err(|e| doing(what(), e))?;
    }
    forget(&record)
}

fn record(ifindex: u32) -> Result<PathBuf, Error> {
    let cookie = netns_cookie().map_err(|e| doing("reading the network namespace's cookie", e))?;
    Ok(Path::new(object::ROOT).join(MADE).join(format!("{cookie}-{ifindex}")))
}

fn forget(record: &Path) -> Result<(), Error> {
    let what = || format!("removing {}", record.display());
    step("forget a qdisc")?;
    gone_is_fine(fs::remove_dir(record), what)?;
    match record.parent().map_or(Ok(()), fs::remove_dir) {
        // Others are written down there.
        Err(e) if e.raw_os_error() == Some(libc::ENOTEMPTY) => Ok(()),
        removed => gone_is_fine(removed, what),
    }
}

fn gone_is_fine(removed: std::io::Result<()>, what: impl FnOnce() -> String) -> Result<(), Error> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(doing(what(), e)),
        _ => Ok(()),
    }
}

fn program_id(pin: &Path) -> Result<Option<u32>, Error> {
    if !pin.exists() {
        return Ok(None);
    }
    let info = ProgramInfo::from_pin(pin)
        .map_err(|e: ProgramError| doing(format!("opening {}", pin.display()), e))?;
    Ok(Some(info.id()))
}

fn filters(ifindex: u32) -> Result<Vec<Filter>, Error> {
    let what = || format!("listing the filters of the interface {ifindex}");
    net::blocking(async |net| net.filters(ifindex).await).map_err(|e| doing(what(), e))
}

/// None of an interface that is gone, also if it goes meanwhile.
fn filters_if_there(ifindex: u32) -> Result<Vec<Filter>, Error> {
    if name_of(ifindex).is_none() {
        return Ok(Vec::new());
    }
    filters(ifindex).or_else(|error| if name_of(ifindex).is_some() { Err(error) } else { Ok(Vec::new()) })
}

fn name_of(ifindex: u32) -> Option<String> {
    if_indextoname(ifindex).ok()?.into_string().ok()
}

impl Hook<'_> {
    fn sees(&self, filter: &Filter) -> bool {
        filter.egress == (self.side == TcAttachType::Egress)
    }
}
