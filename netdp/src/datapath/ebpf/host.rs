//! What the programs must know of the host and can't ask the kernel for: uplinks, addresses, reserved ports.

use std::collections::HashMap;
use std::net::IpAddr;

use netdp_common::family::{Family, V4, V6};
use netdp_common::flow::{Endpoint, Network, Uplink};

use super::super::sysctls::has_conntrack;
use super::super::{Error, NetworkEntry};
use super::{Ebpf, Served, absent_is_ok, doing, hooks, published, queueing, step};
use crate::net::{Framing, Link, Net, NetNs, ipsec, sysctl};

/// Hooks new uplinks, forgets those that are gone, and tells the programs the host's addresses and reserved ports.
pub(super) fn refresh(ebpf: &Ebpf) -> Result<(), Error> {
    let (links, addresses) = read_host()?;
    let uplinks = uplinks(ebpf, &links)?;
    for link in &uplinks {
        hooks::attach_uplink(ebpf, link)?;
        step("add an uplink")?;
        let own = |(index, addr): &(u32, IpAddr)| (*index == link.index).then_some(*addr);
        let own: Vec<IpAddr> = addresses.iter().filter_map(own).collect();
        add_uplink::<V4>(ebpf, link, &own)?;
        add_uplink::<V6>(ebpf, link, &own)?;
    }
    for gone in hooks::hooked_uplinks(ebpf)? {
        if !uplinks.iter().any(|link| link.index == gone) {
            hooks::detach_uplink(ebpf, gone)?;
            forget_uplink::<V4>(ebpf, gone)?;
            forget_uplink::<V6>(ebpf, gone)?;
        }
    }
    if let Some(forwarding) = &ebpf.forwarding {
        let bridges = ebpf.hash::<u32, Network<<V4 as Family>::Addr>>(&V4::map("NETWORKS"))?;
        let is_bridge = |link: &&Link| bridges.get(&link.index, 0).is_ok();
        let is_liberal = forwarding.set(uplinks.iter().copied().chain(links.iter().filter(is_bridge)))?;
        let set = ebpf.array("POPULATION")?.set(LIBERAL, u32::from(is_liberal), 0);
        set.map_err(|e| doing("telling the programs of conntrack", e))?;
    }
    note_policies(ebpf)?;
    queueing::note(ebpf, &endpoints(ebpf, &links)?)?;
    set_locals::<V4>(ebpf, &addresses)?;
    set_locals::<V6>(ebpf, &addresses)?;
    published::rebuild_reserved(ebpf)
}

/// The uplinks among the host's links: neither our bridges nor an endpoint's veth whose bridge somebody deleted.
fn uplinks<'a>(ebpf: &Ebpf, links: &'a [Link]) -> Result<Vec<&'a Link>, Error> {
    let bridges = ebpf.hash::<u32, Network<<V4 as Family>::Addr>>(&V4::map("NETWORKS"))?;
    let endpoints = endpoints(ebpf, links)?;
    let ours = |link: &Link| bridges.get(&link.index, 0).is_ok() || endpoints.contains(&link);
    Ok(links.iter().filter(|link| is_uplink(link) && !ours(link)).collect())
}

/// The endpoints' veths among the host's links. Each is known in both families.
fn endpoints<'a>(ebpf: &Ebpf, links: &'a [Link]) -> Result<Vec<&'a Link>, Error> {
    let senders = ebpf.hash::<u32, Endpoint<<V4 as Family>::Addr>>(&V4::map("SENDERS"))?;
    Ok(links.iter().filter(|link| senders.get(&link.index, 0).is_ok()).collect())
}

fn add_uplink<F: Served>(ebpf: &Ebpf, link: &Link, addresses: &[IpAddr]) -> Result<(), Error> {
    let value = Uplink { addr: F::first(addresses), flags: 0 };
    ebpf.hash::<u32, Uplink<F::Addr>>(&F::map("UPLINKS"))?
        .insert(link.index, value, 0)
        .map_err(|e| doing(format!("adding the uplink {}", link.name), e))
}

fn forget_uplink<F: Served>(ebpf: &Ebpf, index: u32) -> Result<(), Error> {
    let mut table = ebpf.hash::<u32, Uplink<F::Addr>>(&F::map("UPLINKS"))?;
    absent_is_ok(table.remove(&index), || format!("forgetting the uplink {index}"))
}

/// IPsec policies are heeded by the stack only: while there are some, the programs leave it what endpoints send outside.
/// No helper tells them: every command looks, and `doctor` says what came since.
fn note_policies(ebpf: &Ebpf) -> Result<(), Error> {
    let policies = ipsec::outbound_policies().map_err(|e| doing("looking for IPsec policies", e))?;
    let set = ebpf.array::<u32>("POPULATION")?.set(POLICIES, policies, 0);
    set.map_err(|e| doing("counting the IPsec policies", e))
}

fn read_policies(ebpf: &Ebpf) -> Result<u32, Error> {
    ebpf.array("POPULATION")?.get(&POLICIES, 0).map_err(|e| doing("reading the number of IPsec policies", e))
}

/// Its word in the map `POPULATION`.
const POLICIES: u32 = 2;

/// The word there that says whether conntrack is liberal, see [`netdp_common::tables::Host::is_tracked_liberally`].
const LIBERAL: u32 = 3;

/// Where the host's firewall decides, conntrack may have been loaded since the last command.
fn misses_conntrack(ebpf: &Ebpf) -> Result<bool, Error> {
    let known = ebpf.array::<u32>("POPULATION")?.get(&LIBERAL, 0);
    let known = known.map_err(|e| doing("reading what the programs know of conntrack", e))?;
    Ok(ebpf.forwarding.is_some() && known == 0 && has_conntrack())
}

/// Lets the stack forward what it is left of a network's packets, as a bridge with `forwarding` does it in IPv4. In IPv6
/// the kernel can say so of one interface since Linux 6.17; before, it forwards only where the whole host does.
pub(super) fn let_bridge_forward(network: &NetworkEntry) -> Result<(), Error> {
    let name = network.bridge_ifname.as_str();
    let knob = ["net", "ipv6", "conf", name, "force_forwarding"];
    if sysctl::get(&knob).is_err() {
        return Ok(());
    }
    sysctl::set(&knob, "1").map_err(|e| doing(format!("preparing {name}"), e))
}

/// Uplinks and endpoints' veths without their programs, or with a queue that these don't know.
pub(super) fn unhooked(ebpf: &Ebpf) -> Result<Vec<String>, Error> {
    let (links, _) = read_host()?;
    let mut bare = Vec::new();
    for link in uplinks(ebpf, &links)? {
        if !hooks::is_uplink_hooked(ebpf, link)? {
            bare.push(link);
        }
    }
    for link in endpoints(ebpf, &links)? {
        if !hooks::is_endpoint_hooked(ebpf, link.index, &link.name)? {
            bare.push(link);
        }
    }
    let mut faults: Vec<String> =
        bare.iter().map(|link| format!("{} does not carry netdp's programs", link.name)).collect();
    let policies = ipsec::outbound_policies().map_err(|e| doing("looking for IPsec policies", e))?;
    if policies != 0 && read_policies(ebpf)? == 0 {
        faults.push("IPsec policies are not heeded".to_owned());
    }
    if misses_conntrack(ebpf)? {
        faults.push("TCP takes no fast path: conntrack was not prepared for it".to_owned());
    }
    faults.extend(queueing::faults(ebpf, &endpoints(ebpf, &links)?)?);
    Ok(faults)
}

/// Through which a remote may be reached: every interface that routes by itself, carries Ethernet frames or packets
/// without any frame, and is not the loopback. What belongs to a bridge or bond is reached through that.
pub(super) fn is_uplink(link: &Link) -> bool {
    link.framing != Framing::Other && !link.loopback && link.master.is_none()
}

fn set_locals<F: Served>(ebpf: &Ebpf, addresses: &[(u32, IpAddr)]) -> Result<(), Error> {
    let mut table = ebpf.hash::<F::Addr, u32>(&F::map("LOCALS"))?;
    let now: HashMap<F::Addr, u32> =
        addresses.iter().filter_map(|(index, addr)| Some((F::addr(addr)?, *index))).collect();
    let stale: Vec<F::Addr> = table.keys().flatten().filter(|addr| !now.contains_key(addr)).collect();
    for addr in stale {
        absent_is_ok(table.remove(&addr), || "forgetting an address of the host".to_owned())?;
    }
    for (addr, index) in now {
        table.insert(addr, index, 0).map_err(|e| doing("adding an address of the host", e))?;
    }
    Ok(())
}

/// Addresses, each with the interface that has it.
type Addresses = Vec<(u32, IpAddr)>;

/// Links and addresses of this thread's network namespace. The methods of a datapath are synchronous and may be
/// called from a runtime: the netlink conversation has a thread and a runtime of its own.
fn read_host() -> Result<(Vec<Link>, Addresses), Error> {
    let what = "reading the host's links and addresses";
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(|e| doing(what, e))?;
            runtime.block_on(async {
                let here = NetNs::current().map_err(|e| doing(what, e))?;
                let net = Net::open(&here).map_err(|e| doing(what, e))?;
                let links = net.links().await.map_err(|e| doing(what, e))?;
                let addresses = net.addresses().await.map_err(|e| doing(what, e))?;
                Ok((links, addresses.into_iter().map(|(index, net)| (index, net.addr())).collect()))
            })
        });
        thread
            .join()
            .unwrap_or_else(|_| Err(doing(what, std::io::Error::other("the netlink thread panicked"))))
    })
}
