//! A lab: the world, a host, containers; in namespaces that go with it.
//!
//! ```text
//! world  w0 10.99.0.2/24 (.3, .4) ── up0 10.99.0.1/24  host  bridges ── eth0  containers
//! ```
//! In IPv6, the same addresses as [`Lab::at`] tells. The world has no route to the containers, so that a packet that leaves untranslated is never answered.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;

use serde_json::Value;

use crate::netdp::Netdp;
use crate::netns::{Netns, OwnedNetns};
use crate::sweep;
use crate::variant::{Family, Variant};

/// The world's first address.
pub const WORLD: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
/// Another remote.
pub const WORLD_2: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 3);
/// And one more.
pub const WORLD_3: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 4);
/// The host's address on its uplink.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// The host's uplink.
pub const UPLINK: &str = "up0";
/// The world's interface.
pub const WORLD_LINK: &str = "w0";

/// Everything that `ethtool -K` has to say about checksums and segmentation.
const OFFLOADS: &str = "rx off tx off sg off tso off gso off gro off";

/// One lab.
#[derive(Debug)]
pub struct Lab {
    /// Names of everything begin with it; the instance's name.
    pub id: String,
    /// How it runs.
    pub variant: Variant,
    /// netdp on this lab's host.
    pub netdp: Netdp,
    /// Servers and clients outside.
    pub world: Netns,
    /// The container host.
    pub host: Netns,
    owned: RefCell<Vec<OwnedNetns>>,
}

/// An attached container.
#[derive(Clone, Debug)]
pub struct Container {
    /// The endpoint's name.
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its address, of the lab's family.
    pub address: IpAddr,
    /// Its gateway's address.
    pub gateway: IpAddr,
    /// Its interface on the host.
    pub host_ifname: String,
}

impl Lab {
    /// A world and a host, connected. netdp has not been called yet.
    pub fn new(variant: Variant) -> Self {
        Self::with_binary(variant, Netdp::default_binary())
    }

    /// The same for another build of netdp.
    pub fn with_binary(variant: Variant, binary: std::path::PathBuf) -> Self {
        sweep::once();
        let id = sweep::new_id();
        let world = OwnedNetns::create(&format!("{id}-world"));
        let host = OwnedNetns::create(&format!("{id}-host"));
        let netdp = Netdp {
            binary,
            instance: id.clone(),
            host: host.name().into(),
            datapath: variant.datapath.name(),
            variables: if variant.tcx { Vec::new() } else { vec![("NETDP_WITHOUT", "tcx".into())] },
        };
        let (world_in, host_in) = ((*world).clone(), (*host).clone());
        let owned = RefCell::new(vec![world, host]);
        let lab = Self { id, variant, netdp, world: world_in, host: host_in, owned };
        lab.connect();
        lab
    }

    fn connect(&self) {
        let (world, host) = (&self.world, &self.host);
        // What the machine's own namespace has is inherited; netdp must do without forwarding.
        host.set_sysctl("net/ipv4/ip_forward", "0");
        world.set_sysctl("net/core/somaxconn", "65535");
        world.set_sysctl("net/ipv4/tcp_max_syn_backlog", "65535");
        world.sh(&format!("ip link add {WORLD_LINK} type veth peer name {UPLINK} netns {}", host.name()));
        let families = [Family::V4, Family::V6];
        for address in [WORLD, WORLD_2, WORLD_3] {
            for family in families {
                let address = family.with_prefix(address, 24);
                world.sh(&format!("ip addr add {address} dev {WORLD_LINK} nodad"));
            }
        }
        for family in families {
            host.sh(&format!("ip addr add {} dev {UPLINK} nodad", family.with_prefix(HOST, 24)));
        }
        world.sh(&format!("ip link set {WORLD_LINK} up"));
        host.sh(&format!("ip link set {UPLINK} up"));
        for family in families {
            host.sh(&format!("ip route add default via {}", family.at(WORLD)));
        }
        self.apply_offloads(world, WORLD_LINK);
        self.apply_offloads(host, UPLINK);
    }

    /// The address of the lab's family that stands for an IPv4 address: the same bytes behind another prefix.
    pub fn at(&self, address: Ipv4Addr) -> IpAddr {
        self.variant.family.at(address)
    }

    /// An address as it stands in a publish spec.
    pub fn in_spec(&self, address: Ipv4Addr) -> String {
        match self.at(address) {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        }
    }

    /// The option of `netdp network create` for this IPv4 subnet and, in an IPv6 lab, its counterpart beside it.
    pub fn subnet(&self, subnet: &str) -> String {
        let Some((address, prefix)) = subnet.split_once('/') else { panic!("no subnet: {subnet}") };
        let (address, prefix) = (address.parse().expect("an address"), prefix.parse().expect("a prefix"));
        match self.variant.family {
            Family::V4 => format!("--subnet {subnet}"),
            Family::V6 => format!("--subnet {subnet} --subnet {}", Family::V6.with_prefix(address, prefix)),
        }
    }

    /// Lets the host forward, or not, in the lab's family.
    pub fn set_forwarding(&self, value: &str) {
        let sysctl = match self.variant.family {
            Family::V4 => "net/ipv4/ip_forward",
            Family::V6 => "net/ipv6/conf/all/forwarding",
        };
        self.host.set_sysctl(sysctl, value);
    }

    /// Turns an interface's offloads off if this lab runs without.
    pub fn apply_offloads(&self, netns: &Netns, interface: &str) {
        if !self.variant.offloads {
            netns.sh(&format!("ethtool -K {interface} {OFFLOADS}"));
        }
    }

    /// Makes a namespace named `ID-ROLE`; it is attached to nothing.
    pub fn netns(&self, role: &str) -> Netns {
        let owned = OwnedNetns::create(&format!("{}-{role}", self.id));
        let netns = (*owned).clone();
        self.owned.borrow_mut().push(owned);
        netns
    }

    /// Removes a namespace made by this lab, and all processes in it.
    pub fn remove_netns(&self, role: &str) {
        let name = format!("{}-{role}", self.id);
        self.owned.borrow_mut().retain(|owned| owned.name() != name);
    }

    /// A new namespace, attached under the name of its role; `options` are those of `netdp attach`.
    #[track_caller]
    pub fn container(&self, name: &str, options: &str) -> Container {
        let netns = self.netns(name);
        self.attach(name, &netns, options)
    }

    /// Attaches a namespace that exists.
    #[track_caller]
    pub fn attach(&self, name: &str, netns: &Netns, options: &str) -> Container {
        let network = self.network_option(options);
        self.netdp.ok(&format!("attach {} --name {name} {network} {options}", netns.name()));
        let container = self.inspect(name, netns);
        self.apply_offloads(&self.host, &container.host_ifname);
        let inner = self.netdp.json(&format!("inspect {name}"));
        self.apply_offloads(netns, inner["ifname"].as_str().expect("ifname"));
        container
    }

    /// The default network has no IPv6: an IPv6 lab has one of its own.
    fn network_option(&self, options: &str) -> &'static str {
        if self.variant.family == Family::V4 || options.contains("--network") {
            return "";
        }
        let networks = self.netdp.json("network ls");
        let has_both = |list: &Vec<Value>| list.iter().any(|network| network["name"] == "both");
        if !networks.as_array().is_some_and(has_both) {
            self.netdp.ok(&format!("network create both {}", self.subnet("10.88.0.0/24")));
        }
        "--network both"
    }

    /// What netdp says about an endpoint.
    #[track_caller]
    pub fn inspect(&self, name: &str, netns: &Netns) -> Container {
        let endpoint = self.netdp.json(&format!("inspect {name}"));
        let address = |value: &Value| {
            let text = value.as_str()?.split('/').next()?;
            let address: IpAddr = text.parse().ok()?;
            (address.is_ipv4() == (self.variant.family == Family::V4)).then_some(address)
        };
        let first = |field: &str| endpoint[field].as_array().and_then(|list| list.iter().find_map(address));
        Container {
            name: name.into(),
            netns: netns.clone(),
            address: first("addresses").unwrap_or_else(|| panic!("no address: {endpoint}")),
            gateway: first("gateway").unwrap_or_else(|| panic!("no gateway: {endpoint}")),
            host_ifname: endpoint["host_ifname"].as_str().expect("host_ifname").into(),
        }
    }
}

impl Family {
    /// See [`Lab::at`]: 10.99.0.2 is `fd00:a63::2`.
    pub fn at(self, address: Ipv4Addr) -> IpAddr {
        let [a, b, c, d] = address.octets();
        match self {
            Self::V4 => address.into(),
            Self::V6 if address == Ipv4Addr::LOCALHOST => Ipv6Addr::LOCALHOST.into(),
            Self::V6 if address == Ipv4Addr::UNSPECIFIED => Ipv6Addr::UNSPECIFIED.into(),
            Self::V6 => {
                let second = u16::from_be_bytes([a, b]);
                Ipv6Addr::new(0xfd00, second, c.into(), 0, 0, 0, 0, d.into()).into()
            }
        }
    }

    /// With a prefix length: in IPv6, that of a link.
    pub fn with_prefix(self, address: Ipv4Addr, v4: u8) -> String {
        let prefix = if self == Self::V4 { v4 } else { 64 };
        format!("{}/{prefix}", self.at(address))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let used = self.netdp.state().exists() || self.netdp.pins().exists();
        if used && thread::panicking() {
            self.show(&self.netdp.report());
        }
        let down = used.then(|| self.netdp.run("down"));
        self.owned.borrow_mut().clear();
        if let Some(down) = down.filter(|down| down.code != 0) {
            self.show(&format!("netdp down: {down:?}"));
            assert!(thread::panicking(), "netdp down failed");
        }
    }
}

impl Lab {
    #[expect(clippy::print_stderr, reason = "what a failed test shows beside its panic")]
    fn show(&self, text: &str) {
        eprintln!("{} ({:?}):\n{text}", self.id, self.variant);
    }
}
