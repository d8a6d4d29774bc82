//! The eBPF datapath: programs, maps and links pinned below `/sys/fs/bpf/netdp/INSTANCE`.
//!
//! The first command of an instance loads the object, the later ones open what is pinned; when no netdp process
//! runs, everything goes on.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use aya::maps::{Array, HashMap, LpmTrie, MapData};
use netdp_common::family::{V4, V6};
use netdp_common::flow;

use crate::net::PortFlags;

use super::{
    Datapath, EndpointEntry, Error, FlowHandle, FlowInfo, FlowsOfPort, Kind, NetworkEntry, PublishEntry,
    Stats, XdpMode,
};

mod allowed;
mod attachment;
mod clsact;
mod damage;
mod family;
pub mod flows;
mod forwarding;
pub mod hooks;
pub mod host;
pub mod monitor;
pub mod object;
pub mod probe;
pub mod published;
mod queueing;
mod sources;
pub mod stats;
mod timeouts;
pub mod xdp;

use attachment::Attachment;
use family::Served;
use forwarding::Forwarding;
pub use object::{OpenOptions, Unsupported};
pub use probe::{Probe, probe};

/// Loads the programs into the kernel without pinning or attaching anything: all of it ends with what is returned.
/// For tests and measurements that fill the maps themselves.
///
/// # Errors
/// When the kernel refuses the programs.
pub fn load_unpinned(options: &OpenOptions) -> Result<aya::Ebpf, Error> {
    object::load(options)
}

/// The programs that are attached to interfaces.
pub const TC_HOOKS: [&str; 6] =
    ["from_container", "to_container", "from_world", "to_world", "from_world_bare", "to_world_bare"];

/// Where an instance's TC links are pinned; without TCX, what is attached behind `clsact` qdiscs. Each is in such
/// instances only, and one of them always is.
const TCX: &str = "tcx";
const FILTERS: &str = "filters";

/// A family's flow table.
type FlowTable<A> = HashMap<MapData, flow::Tuple<A>, flow::Flow<A>>;

/// The eBPF datapath of one instance.
#[derive(Debug)]
pub struct Ebpf {
    /// Whose it is.
    instance: String,
    /// Where this layout's pins are.
    dir: PathBuf,
    /// Whether this process loaded the programs (else they were there).
    created: bool,
    /// What lets the host's stack forward, where the host's firewall decides.
    forwarding: Option<Forwarding>,
    /// How uplinks carry the XDP program.
    xdp: XdpMode,
}

impl Ebpf {
    /// Opens an instance's datapath; loads and pins it if there is none.
    ///
    /// # Errors
    /// When `/sys/fs/bpf` is not a BPF file system, when the kernel refuses the programs (the end of the
    /// verifier's log is in the error), or when another version's layout is pinned there.
    pub fn open(instance: &str, options: &OpenOptions) -> Result<Self, Error> {
        let (dir, created) = object::open(instance, options)?;
        Ok(Self { instance: instance.to_owned(), dir, created, forwarding: None, xdp: options.xdp })
    }

    /// The host's firewall decides about translated packets: its stack has to forward them. `dir`: the instance's.
    pub fn let_stack_forward(&mut self, dir: &Path, instance: &str, without_force_forwarding: bool) {
        self.forwarding = Some(Forwarding::new(dir, instance, without_force_forwarding));
    }

    /// Whether an instance's datapath is there, all of it.
    pub fn exists(instance: &str) -> bool {
        Self::missing(instance).is_ok_and(|missing| missing.is_empty())
    }

    /// What of an instance's datapath is not there, in words. A datapath of which something is missing is made anew by
    /// [`Ebpf::open`], without the flows that it had.
    ///
    /// # Errors
    /// When a pinned program can't be opened.
    pub fn missing(instance: &str) -> Result<Vec<String>, Error> {
        let dir = object::layout_dir(instance);
        if dir.exists() { damage::missing_pins(&dir) } else { Ok(vec!["everything".to_owned()]) }
    }

    /// Whether [`Ebpf::open`] has just created the datapath, so that a failing command must remove it again.
    pub fn was_created(&self) -> bool {
        self.created
    }

    /// Where what is attached is pinned, and how it is attached: an instance attaches as it did first.
    fn hooks(&self) -> (PathBuf, Attachment) {
        let tcx = self.dir.join(TCX);
        if tcx.exists() { (tcx, Attachment::Tcx) } else { (self.dir.join(FILTERS), Attachment::Clsact) }
    }

    fn pin(&self, name: &str) -> PathBuf {
        self.dir.join("maps").join(name)
    }

    fn map(&self, name: &str) -> Result<aya::maps::Map, Error> {
        step(name)?;
        let path = self.pin(name);
        let data =
            MapData::from_pin(&path).map_err(|e| doing(format!("opening the pinned map {name}"), e))?;
        aya::maps::Map::from_map_data(data).map_err(|e| doing(format!("opening the pinned map {name}"), e))
    }

    fn array<V: aya::Pod>(&self, name: &str) -> Result<Array<MapData, V>, Error> {
        self.map(name)?.try_into().map_err(|e| doing(format!("opening the array {name}"), e))
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> Result<HashMap<MapData, K, V>, Error> {
        self.map(name)?.try_into().map_err(|e| doing(format!("opening the hash map {name}"), e))
    }

    fn trie<K: aya::Pod, V: aya::Pod>(&self, name: &str) -> Result<LpmTrie<MapData, K, V>, Error> {
        self.map(name)?.try_into().map_err(|e| doing(format!("opening the trie {name}"), e))
    }

    fn flow_table<F: Served>(&self) -> Result<FlowTable<F::Addr>, Error> {
        self.hash(&F::map("FLOWS"))
    }

    /// Marks the prefix of an endpoint's address, so that the programs ask the endpoint table about addresses in it.
    fn mark_prefix<F: Served>(&self, addr: &F::Addr) -> Result<(), Error> {
        let digest = F::prefix_digest(addr);
        self.mark_digests(digest..=digest)
    }

    fn mark_digests(&self, digests: RangeInclusive<u16>) -> Result<(), Error> {
        let mut prefixes = self.array::<u64>("PREFIXES")?;
        for digest in digests.map(u32::from) {
            let index = digest / u64::BITS;
            let word = prefixes.get(&index, 0).map_err(|e| doing("reading the prefixes", e))?;
            let marked = word | 1 << (digest % u64::BITS);
            if marked != word {
                prefixes.set(index, marked, 0).map_err(|e| doing("marking the prefixes of endpoints", e))?;
            }
        }
        Ok(())
    }

    /// A network has an entry in both families: that of a family which it does not serve has no gateway.
    fn add_network<F: Served>(&self, network: &NetworkEntry, timeouts: u32) -> Result<(), Error> {
        let ephemeral =
            crate::net::ports::local_range().map_err(|e| doing("reading ip_local_port_range", e))?;
        let (lo, hi) = network.snat_ports;
        let snat_to: Vec<F::Addr> = network.snat_to.iter().filter_map(F::addr).collect();
        let mut addresses = [F::Addr::default(); flow::SNAT_ADDRESSES];
        for (place, addr) in addresses.iter_mut().zip(&snat_to) {
            *place = *addr;
        }
        let value = flow::Network {
            gateway: F::first(&network.gateways),
            snat_to: addresses,
            snat_addresses: u32::try_from(snat_to.len().min(addresses.len())).unwrap_or(0),
            flags: [
                (network.internal, flow::NETWORK_INTERNAL),
                (network.no_icc, flow::NETWORK_NO_ICC),
                (network.routed, flow::NETWORK_ROUTED),
            ]
            .iter()
            .filter(|(on, _)| *on)
            .fold(0, |flags, (_, flag)| flags | flag),
            ports: flow::PortSpans::new(lo, hi, ephemeral),
            timeouts,
        };
        self.hash::<u32, flow::Network<F::Addr>>(&F::map("NETWORKS"))?
            .insert(network.bridge, value, 0)
            .map_err(|e| doing(format!("adding the network of bridge {}", network.bridge), e))
    }

    fn remove_network<F: Served>(&self, bridge: u32) -> Result<(), Error> {
        let mut networks = self.hash::<u32, flow::Network<F::Addr>>(&F::map("NETWORKS"))?;
        absent_is_ok(networks.remove(&bridge), || format!("removing the network of bridge {bridge}"))
    }

    /// An endpoint is known by its veth in both families: without an address, whatever it sends in that family is
    /// another's.
    fn add_endpoint<F: Served>(&self, endpoint: &EndpointEntry) -> Result<(), Error> {
        let what = || format!("adding the endpoint behind {}", endpoint.host_ifname);
        let with = |addr| flow::Endpoint {
            addr,
            ifindex: endpoint.host_ifindex,
            network: endpoint.bridge,
            max_flows: endpoint.max_flows.unwrap_or(0),
            mac: endpoint.mac,
            bridge_mac: endpoint.bridge_mac,
        };
        let sender = with(F::first(&endpoint.addresses));
        self.hash::<u32, flow::Endpoint<F::Addr>>(&F::map("SENDERS"))?
            .insert(endpoint.host_ifindex, sender, 0)
            .map_err(|e| doing(what(), e))?;
        let mut endpoints = self.hash::<F::Addr, flow::Endpoint<F::Addr>>(&F::map("ENDPOINTS"))?;
        for addr in endpoint.addresses.iter().filter_map(F::addr) {
            self.mark_prefix::<F>(&addr)?;
            endpoints.insert(addr, with(addr), 0).map_err(|e| doing(what(), e))?;
        }
        allowed::add::<F>(self, endpoint)
    }

    fn remove_endpoint<F: Served>(&self, endpoint: &EndpointEntry) -> Result<(), Error> {
        let what = || format!("removing the endpoint behind {}", endpoint.host_ifname);
        let mut endpoints = self.hash::<F::Addr, flow::Endpoint<F::Addr>>(&F::map("ENDPOINTS"))?;
        for addr in endpoint.addresses.iter().filter_map(F::addr) {
            // Its address may be another endpoint's by now.
            if endpoints.get(&addr, 0).is_ok_and(|found| found.ifindex == endpoint.host_ifindex) {
                absent_is_ok(endpoints.remove(&addr), what)?;
            }
        }
        let mut senders = self.hash::<u32, flow::Endpoint<F::Addr>>(&F::map("SENDERS"))?;
        absent_is_ok(senders.remove(&endpoint.host_ifindex), what)?;
        allowed::remove::<F>(self, endpoint)?;
        flows::remove_where::<F>(self, |_, flow| {
            flow.iif == endpoint.host_ifindex || flow.oif == endpoint.host_ifindex
        })
        .map(drop)
    }
}

/// See [`netdp_common::quota`].
impl Ebpf {
    /// An endpoint that is there already keeps its count.
    fn count_flows_of(&self, host_ifindex: u32) -> Result<(), Error> {
        let mut held = self.hash::<u32, [u64; 2]>("HELD_FLOWS")?;
        if held.get(&host_ifindex, 0).is_ok() {
            return Ok(());
        }
        held.insert(host_ifindex, [0, 0], 0)
            .map_err(|e| doing(format!("counting the flows behind interface {host_ifindex}"), e))
    }

    fn forget_flows_of(&self, host_ifindex: u32) -> Result<(), Error> {
        let mut held = self.hash::<u32, [u64; 2]>("HELD_FLOWS")?;
        absent_is_ok(held.remove(&host_ifindex), || {
            format!("forgetting the flows behind interface {host_ifindex}")
        })
    }

    fn count_endpoints(&self) -> Result<(), Error> {
        let held = self.hash::<u32, [u64; 2]>("HELD_FLOWS")?;
        let count = u32::try_from(held.keys().count()).unwrap_or(u32::MAX);
        self.array::<u32>("POPULATION")?.set(0, count, 0).map_err(|e| doing("counting the endpoints", e))
    }
}

impl Datapath for Ebpf {
    fn kind(&self) -> Kind {
        Kind::Ebpf
    }

    fn add_network(&mut self, network: &NetworkEntry) -> Result<(), Error> {
        let number = timeouts::number::<V4>(self, network.bridge, &network.timeouts.0)?;
        Self::add_network::<V4>(self, network, number)?;
        Self::add_network::<V6>(self, network, number)?;
        timeouts::set(self, number, &network.timeouts.0)?;
        host::let_bridge_forward(network)?;
        // A bridge of ours that was taken for an uplink before it was known as such.
        hooks::detach_uplink(self, network.bridge)
    }

    fn remove_network(&mut self, bridge: u32) -> Result<(), Error> {
        timeouts::forget::<V4>(self, bridge)?;
        Self::remove_network::<V4>(self, bridge)?;
        Self::remove_network::<V6>(self, bridge)
    }

    fn add_endpoint(&mut self, endpoint: &EndpointEntry) -> Result<(), Error> {
        Self::add_endpoint::<V4>(self, endpoint)?;
        Self::add_endpoint::<V6>(self, endpoint)?;
        self.count_flows_of(endpoint.host_ifindex)?;
        self.count_endpoints()?;
        hooks::attach_endpoint(self, endpoint)
    }

    fn remove_endpoint(&mut self, endpoint: &EndpointEntry) -> Result<(), Error> {
        hooks::detach_endpoint(self, endpoint.host_ifindex)?;
        Self::remove_endpoint::<V4>(self, endpoint)?;
        Self::remove_endpoint::<V6>(self, endpoint)?;
        self.forget_flows_of(endpoint.host_ifindex)?;
        self.count_endpoints()
    }

    fn port_flags(&self, _: u32) -> PortFlags {
        PortFlags::default()
    }

    fn publish(&mut self, entries: &[PublishEntry]) -> Result<(), Error> {
        published::publish::<V4>(self, entries)?;
        published::publish::<V6>(self, entries)
    }

    fn unpublish(&mut self, entries: &[PublishEntry], flows: FlowsOfPort) -> Result<(), Error> {
        published::unpublish::<V4>(self, entries, flows)?;
        published::unpublish::<V6>(self, entries, flows)
    }

    fn refresh_host(&mut self) -> Result<(), Error> {
        host::refresh(self)?;
        xdp::refresh(self)
    }

    fn set_xdp(&mut self, mode: XdpMode) -> Result<(), Error> {
        self.xdp = mode;
        xdp::set(self)
    }

    fn flows(&self) -> Result<Vec<FlowInfo>, Error> {
        let mut flows = flows::list::<V4>(self)?;
        flows.append(&mut flows::list::<V6>(self)?);
        Ok(flows)
    }

    fn remove_flows(&mut self, flows: &[FlowHandle]) -> Result<usize, Error> {
        Ok(flows::remove::<V4>(self, flows)? + flows::remove::<V6>(self, flows)?)
    }

    fn stats(&self) -> Result<Stats, Error> {
        stats::read(self)
    }

    fn unserved(&self) -> Option<&'static str> {
        (!object::has_socket_hooks(&self.dir)).then_some(object::WITHOUT_SOCKET_HOOKS)
    }

    fn faults(&self) -> Result<Vec<String>, Error> {
        let mut faults = host::unhooked(self)?;
        if let Some(forwarding) = &self.forwarding {
            faults.extend(forwarding.faults()?);
        }
        faults.append(&mut xdp::faults(self)?);
        Ok(faults)
    }

    fn remove(self: Box<Self>) -> Result<Vec<String>, Error> {
        object::remove(&self.dir).map(|()| Vec::new())
    }
}

/// An error with what was being done.
fn doing(what: impl Into<String>, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error { doing: what.into(), cause: Box::new(cause) }
}

/// Passes a fail point of the tests.
fn step(what: &str) -> Result<(), Error> {
    crate::failpoint::pass(what).map_err(|e| doing(what, e))
}

/// Removing what is not there is done.
fn absent_is_ok(result: Result<(), aya::maps::MapError>, what: impl FnOnce() -> String) -> Result<(), Error> {
    match result {
        Ok(()) | Err(aya::maps::MapError::KeyNotFound) => Ok(()),
        Err(aya::maps::MapError::SyscallError(e)) if e.io_error.raw_os_error() == Some(libc::ENOENT) => {
            Ok(())
        }
        Err(e) => Err(doing(what(), e)),
    }
}

/// Removes the pin of what is attached, and with it the link or filter; there may be none.
///
/// The link is opened first: the kernel releases a link at once when a descriptor was the last that held it, and some
/// time later when a pin was (`bpf_link_put`); meanwhile the same program can't be attached there again.
fn release(pin: &Path) -> Result<(), Error> {
    use aya::programs::links::{LinkError, PinnedLink};
    if pin.parent().is_some_and(|dir| dir.ends_with(FILTERS)) {
        return clsact::release(pin);
    }
    step("unpin")?;
    let what = || format!("removing the pin {}", pin.display());
    match PinnedLink::from_pin(pin) {
        Ok(link) => link.unpin().map(drop).map_err(|e| doing(what(), e)),
        Err(LinkError::SyscallError(e)) if e.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(doing(what(), e)),
    }
}
