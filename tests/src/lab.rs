//! A lab: the world, a host, containers; in namespaces that go with it.
//!
//! ```text
//! world  w0 10.99.0.2/24 (.3, .4) ── up0 10.99.0.1/24  host  bridges ── eth0  containers
//! ```
//! The world has no route to the containers, so that a packet that leaves untranslated is never answered.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::thread;

use serde_json::Value;

use crate::netdp::Netdp;
use crate::netns::{Netns, OwnedNetns};
use crate::sweep;
use crate::variant::Variant;

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
    /// Its IPv4 address.
    pub address: Ipv4Addr,
    /// Its gateway's IPv4 address.
    pub gateway: Ipv4Addr,
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
            variables: Vec::new(),
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
        for address in [WORLD, WORLD_2, WORLD_3] {
            world.sh(&format!("ip addr add {address}/24 dev {WORLD_LINK}"));
        }
        host.sh(&format!("ip addr add {HOST}/24 dev {UPLINK}"));
        world.sh(&format!("ip link set {WORLD_LINK} up"));
        host.sh(&format!("ip link set {UPLINK} up"));
        host.sh(&format!("ip route add default via {WORLD}"));
        self.apply_offloads(world, WORLD_LINK);
        self.apply_offloads(host, UPLINK);
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
        self.netdp.ok(&format!("attach {} --name {name} {options}", netns.name()));
        let container = self.inspect(name, netns);
        self.apply_offloads(&self.host, &container.host_ifname);
        let inner = self.netdp.json(&format!("inspect {name}"));
        self.apply_offloads(netns, inner["ifname"].as_str().expect("ifname"));
        container
    }

    /// What netdp says about an endpoint.
    #[track_caller]
    pub fn inspect(&self, name: &str, netns: &Netns) -> Container {
        let endpoint = self.netdp.json(&format!("inspect {name}"));
        let address = |value: &Value| {
            let text = value.as_str()?.split('/').next()?;
            match text.parse().ok()? {
                IpAddr::V4(address) => Some(address),
                IpAddr::V6(_) => None,
            }
        };
        let first_v4 =
            |field: &str| endpoint[field].as_array().and_then(|list| list.iter().find_map(address));
        Container {
            name: name.into(),
            netns: netns.clone(),
            address: first_v4("addresses").unwrap_or_else(|| panic!("no IPv4 address: {endpoint}")),
            gateway: first_v4("gateway").unwrap_or_else(|| panic!("no IPv4 gateway: {endpoint}")),
            host_ifname: endpoint["host_ifname"].as_str().expect("host_ifname").into(),
        }
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
