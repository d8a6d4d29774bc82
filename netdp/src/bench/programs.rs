//! The bench's own TC programs: they run as long as their links are open here, and go with the process.

use std::net::Ipv4Addr;

use std::os::fd::{AsFd as _, AsRawFd as _};

use aya::maps::{Array, MapInfo, PerCpuArray};
use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType};
use aya::{Ebpf, EbpfLoader, include_bytes_aligned};

use super::Error;
use crate::net::NetNs;

static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netdp-bench"));

/// Index in `ARRIVED` of what came as it should; the other is what did not.
const AS_EXPECTED: u32 = 0;
const OTHERWISE: u32 = 1;

/// A program at work.
#[derive(Debug)]
pub(super) struct Hooked {
    object: Ebpf,
    #[expect(dead_code, reason = "held for its Drop")]
    link: FdLink,
}

/// A redirect without NAT.
#[derive(Debug)]
pub(super) struct Redirect {
    /// Whose packets.
    pub(super) direction: Direction,
    /// Outbound, the next hop's address; inbound, any: the destination is the next hop. None: the kernel looks it up.
    pub(super) next_hop: Option<Ipv4Addr>,
}

/// Which way.
#[derive(Debug)]
pub(super) enum Direction {
    /// From a container to this ifindex.
    Out {
        /// The uplink's.
        uplink: u32,
    },
    /// From the world to the containers.
    In {
        /// Their addresses, and ifindexes of their links on the host.
        veths: Vec<(Ipv4Addr, u32)>,
    },
}

/// What should come to the sink: IPv4 UDP.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Expected {
    /// From this address; none: any.
    pub(super) source: Option<Ipv4Addr>,
    /// To this address; none: any.
    pub(super) destination: Option<Ipv4Addr>,
    /// To this port; none: any.
    pub(super) port: Option<u16>,
}

/// What came to the sink.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrived {
    /// As expected.
    pub(super) as_expected: u64,
    /// Other IPv4 UDP.
    pub(super) otherwise: u64,
}

/// The end of the way at an interface.
#[derive(Debug)]
pub(super) struct Sink(Hooked);

impl Redirect {
    /// Attaches it to the ingress of an interface.
    pub(super) fn hook(&self, ns: &NetNs, interface: &str) -> Result<Hooked, Error> {
        let next_hop = self.next_hop.map_or(0, in_wire_order);
        let mut loader = EbpfLoader::new();
        loader.override_global("NEXT_HOP", &next_hop, true);
        match &self.direction {
            Direction::Out { uplink } => {
                loader.override_global("UPLINK", uplink, true);
                Hooked::new(&mut loader, "redirect_out", ns, interface)
            }
            Direction::In { veths } => {
                let mut hooked = Hooked::new(&mut loader, "redirect_in", ns, interface)?;
                let doing = "telling the bench's program the containers' links";
                let map = hooked.object.map_mut("VETHS").ok_or_else(|| missing("VETHS"))?;
                let mut map = Array::<_, u32>::try_from(map).map_err(Error::bpf(doing))?;
                for (address, ifindex) in veths {
                    map.set(address.octets()[3].into(), ifindex, 0).map_err(Error::bpf(doing))?;
                }
                Ok(hooked)
            }
        }
    }
}

impl Sink {
    /// Attaches it to the ingress of an interface.
    pub(super) fn hook(ns: &NetNs, interface: &str, expected: Expected) -> Result<Self, Error> {
        let under_mask =
            |address: Option<Ipv4Addr>| address.map_or((0, 0), |address| (in_wire_order(address), u32::MAX));
        let (source, source_mask) = under_mask(expected.source);
        let (destination, destination_mask) = under_mask(expected.destination);
        let port = expected.port.unwrap_or(0).to_be();
        let mut loader = EbpfLoader::new();
        loader
            .override_global("SINK_SOURCE", &source, true)
            .override_global("SINK_SOURCE_MASK", &source_mask, true)
            .override_global("SINK_DESTINATION", &destination, true)
            .override_global("SINK_DESTINATION_MASK", &destination_mask, true)
            .override_global("SINK_PORT", &port, true);
        Ok(Self(Hooked::new(&mut loader, "sink", ns, interface)?))
    }

    /// What has come so far.
    pub(super) fn arrived(&self) -> Result<Arrived, Error> {
        let doing = "reading what came to the bench's sink";
        let map = self.0.object.map("ARRIVED").ok_or_else(|| missing("ARRIVED"))?;
        let map = PerCpuArray::<_, u64>::try_from(map).map_err(Error::bpf(doing))?;
        let sum =
            |index| -> Result<u64, Error> { Ok(map.get(&index, 0).map_err(Error::bpf(doing))?.iter().sum()) };
        Ok(Arrived { as_expected: sum(AS_EXPECTED)?, otherwise: sum(OTHERWISE)? })
    }
}

impl Arrived {
    /// What came since.
    pub(super) fn since(self, before: Self) -> Self {
        Self {
            as_expected: self.as_expected - before.as_expected,
            otherwise: self.otherwise - before.otherwise,
        }
    }
}

impl Hooked {
    fn new(loader: &mut EbpfLoader<'_>, program: &str, ns: &NetNs, interface: &str) -> Result<Self, Error> {
        let mut object = loader.load(OBJECT).map_err(Error::bpf("loading the bench's programs"))?;
        let loaded = object.program_mut(program).ok_or_else(|| missing(program))?;
        let loaded: &mut SchedClassifier =
            loaded.try_into().map_err(Error::bpf("loading the bench's programs"))?;
        loaded.load().map_err(Error::bpf("loading the bench's programs"))?;
        let attach = Error::bpf("attaching one of the bench's programs (TCX, Linux 6.6)");
        let link = ns.run(|| {
            let options = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = loaded.attach_with_options(interface, TcAttachType::Ingress, options)?;
            loaded.take_link(id)
        })?;
        let link = link.map_err(attach)?;
        let link = FdLink::try_from(link).map_err(Error::bpf("attaching one of the bench's programs"))?;
        Ok(Self { object, link })
    }
}

fn missing(what: &str) -> Error {
    Error::Bpf { doing: "loading the bench's programs", why: format!("the object has no {what}") }
}

/// As the packets carry it, read as the machine reads a word.
fn in_wire_order(address: Ipv4Addr) -> u32 {
    u32::from_ne_bytes(address.octets())
}

/// Bytes that the kernel accounts for the pinned maps of an instance of netdp.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    /// All but those that are for IPv6 only.
    pub(super) v4: u64,
    /// Those that are for IPv6 only.
    pub(super) v6: u64,
}

/// How much an instance has.
pub(super) fn memory_of_pins(instance: &str) -> Result<Memory, Error> {
    let doing = "reading an instance's maps";
    let dir = std::path::Path::new("/sys/fs/bpf/netdp").join(instance).join("v1/maps");
    let entries = std::fs::read_dir(&dir).map_err(Error::system(format!("listing {}", dir.display())))?;
    let mut memory = Memory::default();
    for entry in entries {
        let path = entry.map_err(Error::system(format!("listing {}", dir.display())))?.path();
        let is_v6 = path.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_V6"));
        let map = MapInfo::from_pin(&path).map_err(Error::bpf(doing))?;
        *(if is_v6 { &mut memory.v6 } else { &mut memory.v4 }) +=
            memory_of(&map).map_err(Error::bpf(doing))?;
    }
    Ok(memory)
}

/// The kernel's own estimate, as it stands in the descriptor's fdinfo.
fn memory_of(map: &MapInfo) -> std::io::Result<u64> {
    let fd = map.fd().map_err(std::io::Error::other)?;
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let line = text.lines().find_map(|line| line.strip_prefix("memlock:"));
    line.and_then(|value| value.trim().parse().ok()).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}
