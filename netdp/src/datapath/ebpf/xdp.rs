//! The XDP program on uplinks, where `--xdp` asks for it. Every link is pinned as `xdp/IFINDEX-MODE`.
//!
//! It is for the interfaces from which a flood can come: those by which a router is reached. What it can't be on (see
//! [`Obstacle`]) is refused when it is asked for. What gets in its way later takes it off again: TC does the same
//! work, only later.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::xdp::XdpMode as Attach;
use aya::programs::{ProgramError, ProgramInfo, Xdp, loaded_programs};
use aya_obj::programs::XdpAttachType;

use super::super::{Error, XdpMode};
use super::{Ebpf, absent_is_ok, doing, host, object, release, step};
use crate::net::{self, Framing, Link, ethtool};

/// The program in native mode and in generic mode.
pub(super) const PROGRAMS: [&str; 2] = ["from_wire", "from_wire_generic"];
/// Where its links are pinned.
pub(super) const LINKS: &str = "xdp";

/// An interface that is to carry the program.
#[derive(Debug)]
pub struct Candidate {
    /// The interface.
    pub link: Link,
    /// What is in the way.
    pub obstacle: Option<Obstacle>,
}

/// Why an interface can't carry the program, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Obstacle {
    /// Somebody else's is there.
    #[error(
        "{ifname} has the XDP program {program} already, which is not this instance's: remove that, or leave --xdp off"
    )]
    Foreign {
        /// The interface.
        ifname: String,
        /// Name and id.
        program: String,
    },
    /// VLAN devices get frames whose tags the program may not see.
    #[error(
        "{ifname} carries the VLAN device {device}, whose frames can't be told from others before they are untagged: leave --xdp off"
    )]
    Vlan {
        /// The interface.
        ifname: String,
        /// The device on it.
        device: String,
    },
    /// The tags are taken off before the program sees the frame.
    #[error(
        "{ifname} takes VLAN tags off frames before an XDP program sees them: turn that off with ethtool -K {ifname} rxvlan off, or leave --xdp off"
    )]
    StripsVlan {
        /// The interface.
        ifname: String,
    },
    /// The kernel said no.
    #[error("{ifname} does not take an XDP program in {mode} mode ({source}): {}", if *mode == "native" { "use --xdp generic" } else { "leave --xdp off" })]
    NotTaken {
        /// The interface.
        ifname: String,
        /// The mode.
        mode: &'static str,
        /// What it said.
        source: ProgramError,
    },
}

/// The interfaces that are meant: uplinks by which a router is reached. (The program looks at Ethernet frames.)
///
/// # Errors
/// When the kernel does not tell.
pub fn candidates(instance: &str) -> Result<Vec<Candidate>, Error> {
    let own = own_programs(&object::layout_dir(instance))?;
    let (links, routes) = net::blocking(async |net| Ok((net.links().await?, net.routes().await?)))
        .map_err(|e| doing("reading the host's links and routes", e))?;
    let reaches_router =
        |link: &&Link| routes.iter().any(|route| route.gateway.is_some() && route.oif == Some(link.index));
    let is_meant = |link: &&Link| host::is_uplink(link) && link.framing == Framing::Ethernet;
    let meant = links.iter().filter(is_meant).filter(reaches_router);
    meant.map(|link| Ok(Candidate { link: link.clone(), obstacle: obstacle(link, &links, &own)? })).collect()
}

fn obstacle(link: &Link, links: &[Link], own: &[u32]) -> Result<Option<Obstacle>, Error> {
    let ifname = link.name.clone();
    if let Some(id) = link.xdp.iter().find(|id| !own.contains(id)) {
        return Ok(Some(Obstacle::Foreign { ifname, program: name_of(*id)? }));
    }
    if let Some(device) = vlan_on(link, links) {
        return Ok(Some(Obstacle::Vlan { ifname, device: device.name.clone() }));
    }
    let features = ethtool::features(&ifname).map_err(|e| doing(format!("asking what {ifname} does"), e))?;
    Ok(features.strips_vlan.then_some(Obstacle::StripsVlan { ifname }))
}

/// A VLAN device of this namespace on an interface.
fn vlan_on<'a>(link: &Link, links: &'a [Link]) -> Option<&'a Link> {
    let is_on_it = |device: &&Link| {
        device.kind.as_deref() == Some("vlan")
            && device.peer_index == Some(link.index)
            && device.peer_netnsid.is_none()
    };
    links.iter().find(is_on_it)
}

/// The ids of an instance's programs; none if it is not there.
fn own_programs(dir: &Path) -> Result<Vec<u32>, Error> {
    let pins = PROGRAMS.map(|name| dir.join("programs").join(name)).into_iter().filter(|pin| pin.exists());
    let id = |pin: PathBuf| {
        let info = ProgramInfo::from_pin(&pin).map_err(|e| doing(format!("opening {}", pin.display()), e))?;
        Ok(info.id())
    };
    pins.map(id).collect()
}

/// How somebody may find a program: its name and its id.
fn name_of(id: u32) -> Result<String, Error> {
    for program in loaded_programs() {
        let program = program.map_err(|e| doing("listing the programs", e))?;
        if program.id() == id {
            return Ok(format!("{} (id {id})", program.name_as_str().unwrap_or("without a name")));
        }
    }
    Ok(format!("with id {id}"))
}

/// Does what the mode says on every interface that is meant, or tells which one is in the way.
pub(super) fn set(ebpf: &Ebpf) -> Result<(), Error> {
    put(ebpf, |_, obstacle| {
        Err(Error { doing: format!("--xdp {}", ebpf.xdp.name()), cause: Box::new(obstacle) })
    })
}

/// The same, as far as it is possible now; [`faults`] tells where it is not.
pub(super) fn refresh(ebpf: &Ebpf) -> Result<(), Error> {
    put(ebpf, |link, obstacle| {
        tracing::warn!("no XDP program: {obstacle}");
        detach(ebpf, link.index)
    })
}

fn put(ebpf: &Ebpf, hindered: impl Fn(&Link, Obstacle) -> Result<(), Error>) -> Result<(), Error> {
    let meant = if ebpf.xdp.is_off() { Vec::new() } else { candidates(&ebpf.instance)? };
    for gone in known(ebpf)? {
        if !meant.iter().any(|candidate| candidate.link.index == gone) {
            detach(ebpf, gone)?;
        }
    }
    for Candidate { link, obstacle } in meant {
        let obstacle = match obstacle {
            None => attach(ebpf, &link)?,
            found => found,
        };
        if let Some(obstacle) = obstacle {
            hindered(&link, obstacle)?;
        }
    }
    Ok(())
}

/// Interfaces that don't carry the program though they are to.
pub(super) fn faults(ebpf: &Ebpf) -> Result<Vec<String>, Error> {
    if ebpf.xdp.is_off() {
        return Ok(Vec::new());
    }
    let mut faults = Vec::new();
    for Candidate { link, obstacle } in candidates(&ebpf.instance)? {
        match obstacle {
            Some(obstacle) => faults.push(obstacle.to_string()),
            None if is_attached(ebpf, &link)? => {}
            None => faults.push(format!("{} does not carry netdp's XDP program", link.name)),
        }
    }
    Ok(faults)
}

/// Attaches the program unless it is attached; says if the interface does not take it.
fn attach(ebpf: &Ebpf, link: &Link) -> Result<Option<Obstacle>, Error> {
    let [native, generic] = PROGRAMS;
    let is_native = ebpf.xdp == XdpMode::Native;
    let (name, mode) = if is_native { (native, Attach::Driver) } else { (generic, Attach::Skb) };
    let what = || format!("attaching {name} to {}", link.name);
    tell_mac(ebpf, link)?;
    if is_attached(ebpf, link)? {
        return Ok(None);
    }
    // In another mode, or of an earlier interface with this ifindex.
    release_links(ebpf, link.index)?;
    let pinned = ebpf.dir.join("programs").join(name);
    let mut program = Xdp::from_pin(pinned, XdpAttachType::Interface).map_err(|e| doing(what(), e))?;
    step("attach the XDP program")?;
    let id = match program.attach_to_if_index(link.index, mode) {
        Ok(id) => id,
        Err(source) => {
            let (ifname, mode) = (link.name.clone(), ebpf.xdp.name());
            return Ok(Some(Obstacle::NotTaken { ifname, mode, source }));
        }
    };
    let attached = program.take_link(id).map_err(|e| doing(what(), e))?;
    let attached: FdLink = attached.try_into().map_err(|e| doing(what(), e))?;
    step("pin a link")?;
    fs::create_dir_all(ebpf.dir.join(LINKS)).map_err(|e| doing(what(), e))?;
    attached.pin(pin(ebpf, link.index, ebpf.xdp)).map_err(|e| doing(what(), e))?;
    Ok(None)
}

/// Takes the program off an interface, which may be gone.
fn detach(ebpf: &Ebpf, ifindex: u32) -> Result<(), Error> {
    release_links(ebpf, ifindex)?;
    let mut wires = ebpf.hash::<u32, [u8; 6]>("WIRES")?;
    absent_is_ok(wires.remove(&ifindex), || format!("forgetting the MAC of interface {ifindex}"))
}

fn release_links(ebpf: &Ebpf, ifindex: u32) -> Result<(), Error> {
    [XdpMode::Native, XdpMode::Generic].into_iter().try_for_each(|mode| release(&pin(ebpf, ifindex, mode)))
}

/// The program compares it with each frame's.
fn tell_mac(ebpf: &Ebpf, link: &Link) -> Result<(), Error> {
    let Some(mac) = link.mac else { return Ok(()) };
    ebpf.hash::<u32, [u8; 6]>("WIRES")?
        .insert(link.index, mac.0, 0)
        .map_err(|e| doing(format!("telling the MAC of {}", link.name), e))
}

fn is_attached(ebpf: &Ebpf, link: &Link) -> Result<bool, Error> {
    if !pin(ebpf, link.index, ebpf.xdp).exists() {
        return Ok(false);
    }
    let own = own_programs(&ebpf.dir)?;
    Ok(link.xdp.iter().any(|id| own.contains(id)))
}

/// The interfaces for which there are pinned links, or of which the program was told.
fn known(ebpf: &Ebpf) -> Result<BTreeSet<u32>, Error> {
    let dir = ebpf.dir.join(LINKS);
    // Somebody may have removed it, with what was in it.
    let entries = fs::read_dir(&dir).into_iter().flatten();
    let ifindex = |name: &str| name.split_once('-')?.0.parse().ok();
    let pinned = entries.flatten().filter_map(|entry| ifindex(entry.file_name().to_str()?));
    let told = ebpf.hash::<u32, [u8; 6]>("WIRES")?;
    let known = pinned.chain(told.keys().flatten()).collect();
    Ok(known)
}

fn pin(ebpf: &Ebpf, ifindex: u32, mode: XdpMode) -> PathBuf {
    ebpf.dir.join(LINKS).join(format!("{ifindex}-{}", mode.name()))
}
