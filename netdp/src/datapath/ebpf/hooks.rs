//! Which program is attached where. Every link is pinned as `tcx/IFINDEX-PROGRAM`; without TCX, see `clsact`.

use std::fs;
use std::path::PathBuf;

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};

use super::super::{EndpointEntry, Error};
use super::{Attachment, Ebpf, clsact, doing, release, step};
use crate::net::{Framing, Link};

/// A program's name, and the side of an interface that it is attached to.
type Hook = (&'static str, TcAttachType);

/// The hooks of uplinks: of those with an Ethernet header, and of those without.
const UPLINK_HOOKS: [[Hook; 2]; 2] = [
    [("from_world", TcAttachType::Ingress), ("to_world", TcAttachType::Egress)],
    [("from_world_bare", TcAttachType::Ingress), ("to_world_bare", TcAttachType::Egress)],
];

/// The hooks of an endpoint's host veth. The second: where the host's firewall decides, see [`netdp_common::firewall`].
const ENDPOINT_HOOKS: [Hook; 2] =
    [("from_container", TcAttachType::Ingress), ("to_container", TcAttachType::Egress)];

/// Those that there are in this mode.
fn endpoint_hooks(ebpf: &Ebpf) -> &'static [Hook] {
    if ebpf.forwarding.is_some() { &ENDPOINT_HOOKS } else { &ENDPOINT_HOOKS[..1] }
}

/// Hooks an endpoint's host veth, unless it is hooked: no packet goes by meanwhile.
pub(super) fn attach_endpoint(ebpf: &Ebpf, endpoint: &EndpointEntry) -> Result<(), Error> {
    // Before it was known as an endpoint's, the veth may have been taken for an uplink.
    detach_uplink(ebpf, endpoint.host_ifindex)?;
    for hook in endpoint_hooks(ebpf) {
        if !is_attached(ebpf, endpoint.host_ifindex, &endpoint.host_ifname, *hook)? {
            attach(ebpf, endpoint.host_ifindex, &endpoint.host_ifname, *hook)?;
        }
    }
    Ok(())
}

/// Whether an endpoint's host veth carries its programs.
pub(super) fn is_endpoint_hooked(ebpf: &Ebpf, ifindex: u32, name: &str) -> Result<bool, Error> {
    for hook in endpoint_hooks(ebpf) {
        if !is_attached(ebpf, ifindex, name, *hook)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Unhooks an endpoint's host veth, which may be gone.
pub(super) fn detach_endpoint(ebpf: &Ebpf, ifindex: u32) -> Result<(), Error> {
    ENDPOINT_HOOKS.iter().try_for_each(|(program, _)| release(&hook_pin(ebpf, ifindex, program)))
}

/// Hooks an uplink unless it is hooked.
pub(super) fn attach_uplink(ebpf: &Ebpf, link: &Link) -> Result<(), Error> {
    for hook in uplink_hooks(link) {
        if !is_attached(ebpf, link.index, &link.name, hook)? {
            attach(ebpf, link.index, &link.name, hook)?;
        }
    }
    Ok(())
}

/// Whether an uplink carries its programs.
pub(super) fn is_uplink_hooked(ebpf: &Ebpf, link: &Link) -> Result<bool, Error> {
    for hook in uplink_hooks(link) {
        if !is_attached(ebpf, link.index, &link.name, hook)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn uplink_hooks(link: &Link) -> [Hook; 2] {
    let [ethernet, bare] = UPLINK_HOOKS;
    if link.framing == Framing::Bare { bare } else { ethernet }
}

/// Unhooks an uplink, which may be gone.
pub(super) fn detach_uplink(ebpf: &Ebpf, ifindex: u32) -> Result<(), Error> {
    for (program, _) in UPLINK_HOOKS.into_iter().flatten() {
        release(&hook_pin(ebpf, ifindex, program))?;
    }
    Ok(())
}

/// The interfaces for which there are pinned uplink hooks.
pub(super) fn hooked_uplinks(ebpf: &Ebpf) -> Result<Vec<u32>, Error> {
    let (hooks, _) = ebpf.hooks();
    let entries = fs::read_dir(&hooks).map_err(|e| doing(format!("reading {}", hooks.display()), e))?;
    let mut found: Vec<u32> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let (ifindex, program) = name.to_str()?.split_once('-')?;
            if UPLINK_HOOKS.iter().flatten().any(|(hook, _)| *hook == program) {
                ifindex.parse().ok()
            } else {
                None
            }
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

fn attach(ebpf: &Ebpf, ifindex: u32, name: &str, hook: Hook) -> Result<(), Error> {
    let (program_name, side) = hook;
    let what = || format!("attaching {program_name} to {name}");
    let pin = hook_pin(ebpf, ifindex, program_name);
    // What is left of an earlier interface with this ifindex holds nothing any more.
    release(&pin)?;
    let mut program = open_program(ebpf, program_name)?;
    if ebpf.hooks().1 == Attachment::Clsact {
        return clsact::attach(&mut program, clsact::Hook { ifindex, ifname: name, side }, &pin);
    }
    step("attach a program")?;
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let id = program.attach_with_options(name, side, order).map_err(|e| doing(what(), e))?;
    let link = program.take_link(id).map_err(|e| doing(what(), e))?;
    let link: FdLink = link.try_into().map_err(|e| doing(what(), e))?;
    step("pin a link")?;
    link.pin(&pin).map(drop).map_err(|e| doing(what(), e))
}

fn is_attached(ebpf: &Ebpf, ifindex: u32, name: &str, hook: Hook) -> Result<bool, Error> {
    let (program_name, side) = hook;
    let pin = hook_pin(ebpf, ifindex, program_name);
    if !pin.exists() {
        return Ok(false);
    }
    if ebpf.hooks().1 == Attachment::Clsact {
        return clsact::is_attached(clsact::Hook { ifindex, ifname: name, side }, &pin);
    }
    let what = || format!("asking which programs {name} has");
    let ours = open_program(ebpf, program_name)?.info().map_err(|e| doing(what(), e))?.id();
    let (_, attached) = SchedClassifier::query_tcx(name, side).map_err(|e| doing(what(), e))?;
    Ok(attached.iter().any(|program| program.id() == ours))
}

/// A pinned program.
pub(super) fn open_program(ebpf: &Ebpf, name: &str) -> Result<SchedClassifier, Error> {
    let path = ebpf.dir.join("programs").join(name);
    SchedClassifier::from_pin(path).map_err(|e| doing(format!("opening the pinned program {name}"), e))
}

fn hook_pin(ebpf: &Ebpf, ifindex: u32, program: &str) -> PathBuf {
    ebpf.hooks().0.join(format!("{ifindex}-{program}"))
}
