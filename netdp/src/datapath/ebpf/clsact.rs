//! Filters behind a `clsact` qdisc, where the kernel has no TCX (before Linux 6.6).
//!
//! A filter can't be pinned: it stays until somebody removes it, its qdisc or its interface. What netdp has attached
//! is told from what others have by the program: `filters/IFINDEX-PROGRAM` is one more pin of the very program that
//! was attached there, made before the filter, so that a killed command leaves nothing that no other finds. If
//! somebody deletes pins by hand, the instance's `programs` still tell its filters; and if those are gone, too, a
//! filter of netdp's that no instance knows is nobody's.
//!
//! The qdisc: see [`qdisc`].

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use aya::maps::MapInfo;
use aya::programs::tc::{NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{ProgramError, ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use nix::net::if_::if_indextoname;

use super::super::Error;
use super::{TC_HOOKS, doing, object, step};
use crate::net::{self, Filter};

mod qdisc;

/// The map that each of them has.
const COUNTERS: &str = "COUNTS";

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
    // One whose pin was deleted by hand.
    let swept = program_id(pin).and_then(|id| sweep(hook.ifindex, id.as_slice()));
    let attached = swept.and_then(|()| {
        (1..ATTEMPTS)
            .find_map(|_| add_filter(program, hook, pin).ok())
            .map_or_else(|| add_filter(program, hook, pin), Ok)
    });
    if attached.is_err() {
        release(pin)?;
    }
    attached
}

fn add_filter(program: &mut SchedClassifier, hook: Hook<'_>, pin: &Path) -> Result<(), Error> {
    let what = || format!("adding a filter to {}", hook.ifname);
    qdisc::ensure(hook, &qdisc::record(pin, hook.ifindex))?;
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
    let Some((ifindex, program)) = parts(pin) else { return Ok(()) };
    if program != qdisc::QDISC
        && let Some(id) = program_id(pin)?
    {
        remove_filters_of(ifindex, &[id])?;
        step("unpin")?;
        gone_is_fine(fs::remove_file(pin), || format!("removing the pin {}", pin.display()))?;
    }
    qdisc::release(ifindex, &qdisc::record(pin, ifindex))
}

/// Removes the filters of these pinned programs from all interfaces, and what is nobody's, though no pin tells which
/// interfaces have some.
pub(super) fn sweep_all(programs: &Path) -> Result<(), Error> {
    let ids = program_ids(programs)?;
    let links =
        net::blocking(async |net| net.links().await).map_err(|e| doing("listing the interfaces", e))?;
    links.iter().try_for_each(|link| sweep(link.index, &ids))
}

/// Removes the filters of these programs, and what is nobody's.
fn sweep(ifindex: u32, programs: &[u32]) -> Result<(), Error> {
    let there = filters_if_there(ifindex)?;
    let is_named_so =
        |filter: &&Filter| filter.program.as_deref().is_some_and(|name| TC_HOOKS.contains(&name));
    let suspects: Vec<u32> =
        there.iter().filter(is_named_so).filter_map(|filter| filter.program_id).collect();
    if suspects.is_empty() {
        return Ok(());
    }
    let mut known = Vec::new();
    for pinned in object::pinned_programs() {
        known.extend(program_ids(&pinned)?);
    }
    let mut doomed = programs.to_vec();
    for id in suspects {
        if !known.contains(&id) && counts_for_netdp(id)? {
            doomed.push(id);
        }
    }
    remove_filters_of(ifindex, &doomed)
}

/// Whether a program has netdp's counters: others may have its name.
fn counts_for_netdp(program: u32) -> Result<bool, Error> {
    let what = || format!("asking for the maps of the program {program}");
    for info in loaded_programs() {
        let info = info.map_err(|e| doing(what(), e))?;
        if info.id() == program {
            let maps = info.map_ids().map_err(|e| doing(what(), e))?.unwrap_or_default();
            let mut infos = maps.into_iter().filter_map(|id| MapInfo::from_id(id).ok());
            return Ok(infos.any(|map| map.name_as_str() == Some(COUNTERS)));
        }
    }
    Ok(false)
}

fn remove_filters_of(ifindex: u32, programs: &[u32]) -> Result<(), Error> {
    let ours = |filter: &&Filter| filter.program_id.is_some_and(|id| programs.contains(&id));
    filters_if_there(ifindex)?.iter().filter(ours).try_for_each(|filter| remove_filter(ifindex, filter))
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

/// The interface and the program that a pin's name tells.
fn parts(pin: &Path) -> Option<(u32, &str)> {
    let (ifindex, program) = pin.file_name()?.to_str()?.split_once('-')?;
    Some((ifindex.parse().ok()?, program))
}

fn gone_is_fine(removed: std::io::Result<()>, what: impl FnOnce() -> String) -> Result<(), Error> {
    match removed {
        Err(e) if e.kind() != ErrorKind::NotFound => Err(doing(what(), e)),
        _ => Ok(()),
    }
}

/// The ids of all programs that are pinned in a directory, which may be gone.
fn program_ids(programs: &Path) -> Result<Vec<u32>, Error> {
    let pins = fs::read_dir(programs).into_iter().flatten().flatten();
    pins.filter_map(|pin| program_id(&pin.path()).transpose()).collect()
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
