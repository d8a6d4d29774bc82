//! `netdp network`: bridges with their subnets.

use std::net::IpAddr;

use ipnet::IpNet;
use netdp_common::flow::SNAT_ADDRESSES;
use serde::Serialize;

use crate::cli::{self, Global, NetworkCreate};
use crate::datapath::Kind;
use crate::error::Error;
use crate::instance::{Instance, lock_all_instances};
use crate::net::{BridgeSpec, Link, Mac, sysctl};
use crate::output;
use crate::plan::subnet::Used;
use crate::plan::timeouts::{Given, NetworkTimeouts};
use crate::plan::{ipam, names, subnet};
use crate::refusal::Refusal;
use crate::state::{Network, Removal};
use crate::undo::Step;

/// MTU where the host has no default route to take one from: Ethernet's.
const DEFAULT_MTU: u32 = 1500;
/// The least that IPv4 works with (RFC 791).
const LEAST_MTU: u32 = 68;
/// The least that IPv6 works with (RFC 8200, 5): the kernel takes it off a link with less.
const LEAST_MTU_V6: u32 = 1280;
/// The most that the kernel gives a bridge.
const MOST_MTU: u32 = 65_535;
/// Ports for mappings: all that are not for privileged services.
const SNAT_PORTS: (u16, u16) = (1024, 65_535);

/// `network create|ls|inspect|rm`.
pub async fn run(global: &Global, command: cli::Network) -> Result<(), Error> {
    match command {
        cli::Network::Create(args) => create(global, &args).await,
        cli::Network::Ls => ls(global).await,
        cli::Network::Inspect { name } => inspect(global, &name).await,
        cli::Network::Rm { name } => rm(global, &name).await,
    }
}

/// A network in JSON.
#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    #[serde(flatten)]
    network: &'a Network,
    endpoints: Vec<&'a str>,
}

impl<'a> Listed<'a> {
    fn all(instance: &'a Instance) -> Vec<Self> {
        let listed = |(name, network): (&'a String, &'a Network)| Self {
            name,
            network,
            endpoints: instance.state.endpoints_of(name),
        };
        instance.state.networks.iter().map(listed).collect()
    }

    fn row(&self) -> [String; 6] {
        let Network { bridge, ifindex, subnets, gateways, mtu, .. } = self.network;
        [
            self.name.to_owned(),
            format!("{bridge} ({ifindex})"),
            output::joined(subnets),
            output::joined(gateways),
            mtu.to_string(),
            output::joined(&self.endpoints),
        ]
    }
}

const HEAD: [&str; 6] = ["NETWORK", "BRIDGE", "SUBNETS", "GATEWAYS", "MTU", "ENDPOINTS"];

async fn ls(global: &Global) -> Result<(), Error> {
    let instance = Instance::read(global).await?;
    let listed = instance.as_ref().map(Listed::all).unwrap_or_default();
    if global.json {
        return output::json(&listed);
    }
    output::table(HEAD, listed.iter().map(Listed::row).collect())
}

async fn inspect(global: &Global, name: &str) -> Result<(), Error> {
    let instance = Instance::read(global).await?;
    let listed = instance.as_ref().map(Listed::all).unwrap_or_default();
    let Some(listed) = listed.iter().find(|listed| listed.name == name) else {
        let known = listed.iter().map(|listed| listed.name.to_owned()).collect();
        return Err(Refusal::NoNetwork { name: name.into(), known }.into());
    };
    if global.json {
        return output::json(listed);
    }
    output::table(HEAD, vec![listed.row()])?;
    let Network { mac, snat_to, snat_ports: (first, last), internal, no_icc, routed, timeouts, .. } =
        listed.network;
    let options = [("internal", internal), ("no-icc", no_icc), ("routed", routed)];
    let options = options.iter().filter(|(_, on)| **on).map(|(name, _)| name);
    output::line(format!(
        "mac {mac}, snat to {} ports {first}-{last}, options {}",
        output::joined(snat_to),
        output::joined(options)
    ))?;
    match timeouts {
        Some(timeouts) => output::line(format!("timeouts {timeouts}")),
        None => output::line("timeouts those of netfilter: sysctl net.netfilter"),
    }
}

async fn create(global: &Global, args: &NetworkCreate) -> Result<(), Error> {
    names::check_network(&args.name)?;
    let subnets = subnet::parse_all(&args.subnet)?;
    let gateways = subnet::gateways(&subnets, &args.gateway)?;
    if let Some(bridge) = &args.bridge {
        names::check_ifname(bridge)?;
    }
    let least = least_mtu(&subnets);
    if let Some(mtu) = args.mtu.filter(|mtu| !(least..=MOST_MTU).contains(mtu)) {
        return Err(Refusal::Mtu { mtu, least, most: MOST_MTU }.into());
    }
    check_snat_to(&args.snat_to, &subnets)?;
    let timeouts = NetworkTimeouts::with(&args.timeout)?;
    let mut instance = Instance::change(global).await?;
    let created = async {
        let mut network = plan(&instance, args, subnets, gateways).await?;
        if let Some(usual) = &mut network.timeouts {
            *usual = timeouts;
        } else if !args.timeout.is_empty() {
            return Err(Refusal::NoTimeouts.into());
        }
        make(&mut instance, &args.name, network).await
    };
    let created = created.await;
    let network = instance.finish(created).await?;
    for advice in args.timeout.iter().filter_map(Given::advice) {
        output::warning(advice)?;
    }
    if global.json {
        return output::json(&Listed { name: &args.name, network: &network, endpoints: Vec::new() });
    }
    output::line(format!("{}: {} on {}", args.name, output::joined(&network.subnets), network.bridge))
}

/// Refuses external addresses that no host could serve the network with.
fn check_snat_to(addresses: &[IpAddr], subnets: &[IpNet]) -> Result<(), Refusal> {
    for (number, addr) in addresses.iter().enumerate() {
        let before = &addresses[..number];
        if !subnet::has_family(subnets, addr) {
            return Err(Refusal::SnatToFamily(*addr));
        }
        if matches!(addr, IpAddr::V6(addr) if addr.is_unicast_link_local()) {
            return Err(Refusal::SnatToLinkLocal(*addr));
        }
        if before.contains(addr) {
            return Err(Refusal::SnatToTwice(*addr));
        }
        if before.iter().filter(|other| other.is_ipv4() == addr.is_ipv4()).count() >= SNAT_ADDRESSES {
            return Err(Refusal::SnatToMany { addr: *addr, most: SNAT_ADDRESSES });
        }
    }
    Ok(())
}

async fn plan(
    instance: &Instance,
    args: &NetworkCreate,
    subnets: Vec<IpNet>,
    gateways: Vec<IpAddr>,
) -> Result<Network, Error> {
    if instance.state.networks.contains_key(&args.name) {
        return Err(Refusal::NetworkExists(args.name.clone()).into());
    }
    if let Some(subnet) = subnets.iter().find(|subnet| subnet::is_v6(subnet)) {
        check_v6(*subnet)?;
    }
    let used = used(instance).await?;
    for subnet in &subnets {
        subnet::check_free(*subnet, &used)?;
    }
    let addresses = instance.net.addresses().await?;
    let own = |addr: &IpAddr| addresses.iter().any(|(_, net)| net.addr() == *addr);
    if let Some(strange) = args.snat_to.iter().find(|addr| !own(addr)) {
        return Err(Refusal::SnatTo(*strange).into());
    }
    let bridge = args.bridge.clone().unwrap_or_else(|| names::bridge(&args.name));
    let mut network = blank(instance, &args.name, bridge, subnets, gateways).await?;
    network.mtu = args.mtu.unwrap_or(network.mtu);
    network.snat_to.clone_from(&args.snat_to);
    network.snat_ports = snat_ports(&args.snat_ports)?;
    (network.internal, network.no_icc, network.routed) = (args.internal, args.no_icc, args.routed);
    Ok(network)
}

/// Refuses an IPv6 subnet where its addresses would not work.
fn check_v6(subnet: IpNet) -> Result<(), Error> {
    if !sysctl::has_v6() {
        return Err(Refusal::NoV6(subnet).into());
    }
    match sysctl::v6_disabled_by()? {
        Some(sysctl) => Err(Refusal::V6Disabled { subnet, place: "this host".into(), sysctl }.into()),
        None => Ok(()),
    }
}

/// The network that the first `attach` makes.
pub async fn plan_default(instance: &Instance) -> Result<Network, Error> {
    let subnets = vec![subnet::choose_default(&used(instance).await?)?];
    let gateways = subnet::gateways(&subnets, &[])?;
    blank(instance, names::DEFAULT_NETWORK, names::DEFAULT_BRIDGE.into(), subnets, gateways).await
}

/// Creates what was planned.
pub async fn make(instance: &mut Instance, name: &str, mut network: Network) -> Result<Network, Error> {
    instance.datapath()?;
    instance.will(Step::DeleteLink(network.bridge.clone(), network.mac))?;
    network.ifindex = create_bridge(instance, &network).await?.index;
    let bridge = network.ifindex;
    for (gateway, subnet) in network.gateways.iter().zip(&network.subnets) {
        instance.net.add_address(bridge, ipam::with_prefix(*gateway, *subnet)).await?;
    }
    sysctl::set_forwarding_v4(&network.bridge, true)?;
    instance.will(Step::ForgetNetwork(bridge))?;
    instance.datapath()?.add_network(&network.entry())?;
    instance.state.networks.insert(name.into(), network.clone());
    Ok(network)
}

/// The bridge of a network with IPv6 forwards it from its creation on. Switching that on later would purge the default
/// route that a router advertises to the host.
async fn create_bridge(instance: &mut Instance, network: &Network) -> Result<Link, Error> {
    let forwards_v6 = network.subnets.iter().any(subnet::is_v6);
    let spec = BridgeSpec { name: network.bridge.clone(), mac: network.mac, mtu: network.mtu, forwards_v6 };
    if !forwards_v6 {
        return Ok(instance.net.create_bridge(&spec).await?);
    }
    let _others_wait = lock_all_instances()?;
    if !sysctl::forwards_v6("default")? {
        instance.will(Step::SwitchOffDefaultForwarding)?;
    }
    Ok(instance.net.create_bridge(&spec).await?)
}

/// Creates a network's bridge again that somebody deleted, with a new ifindex.
pub async fn make_again(instance: &mut Instance, name: &str, network: Network) -> Result<Network, Error> {
    instance.datapath()?;
    instance.will(Step::RestoreNetwork(network.entry()))?;
    instance.datapath()?.remove_network(network.ifindex)?;
    make(instance, name, network).await
}

/// Whether a network's bridge is still the one that netdp made.
pub async fn has_bridge(instance: &Instance, network: &Network) -> Result<bool, Error> {
    let link = instance.net.link_by_index(network.ifindex).await?;
    Ok(link.is_some_and(|link| link.name == network.bridge && link.mac == Some(network.mac)))
}

async fn rm(global: &Global, name: &str) -> Result<(), Error> {
    let mut instance = Instance::change(global).await?;
    let removed = remove(&mut instance, name).await;
    instance.finish(removed).await
}

async fn remove(instance: &mut Instance, name: &str) -> Result<(), Error> {
    let network = instance.network(name)?.clone();
    let endpoints = instance.state.endpoints_of(name);
    if !endpoints.is_empty() {
        return Err(Refusal::NetworkInUse { network: name.into(), endpoints: endpoints.join(", ") }.into());
    }
    // In this order: an interface that is no network's bridge would be taken for an uplink.
    instance.datapath()?;
    if has_bridge(instance, &network).await? {
        instance.state.removing.push(Removal::Link { index: network.ifindex, name: network.bridge });
    }
    instance.state.removing.push(Removal::Network(network.ifindex));
    instance.state.networks.remove(name);
    Ok(())
}

/// A network with defaults for everything but the names and addresses. Refuses a bridge whose name is taken.
async fn blank(
    instance: &Instance,
    name: &str,
    bridge: String,
    subnets: Vec<IpNet>,
    gateways: Vec<IpAddr>,
) -> Result<Network, Error> {
    if instance.net.link(&bridge).await?.is_some() {
        return Err(Refusal::BridgeExists { network: name.into(), bridge }.into());
    }
    Ok(Network {
        bridge,
        ifindex: 0,
        mac: Mac::random_local(),
        mtu: uplink_mtu(instance).await?.max(least_mtu(&subnets)),
        subnets,
        gateways,
        snat_to: Vec::new(),
        snat_ports: SNAT_PORTS,
        internal: false,
        no_icc: false,
        routed: false,
        timeouts: (instance.state.datapath == Kind::Ebpf).then(NetworkTimeouts::default),
    })
}

fn least_mtu(subnets: &[IpNet]) -> u32 {
    if subnets.iter().any(subnet::is_v6) { LEAST_MTU_V6 } else { LEAST_MTU }
}

/// The MTU of the default route's interface, IPv4's first.
async fn uplink_mtu(instance: &Instance) -> Result<u32, Error> {
    let route = match instance.net.default_route(false).await? {
        None => instance.net.default_route(true).await?,
        route => route,
    };
    let Some(oif) = route.and_then(|route| route.oif) else {
        return Ok(DEFAULT_MTU);
    };
    let link = instance.net.link_by_index(oif).await?;
    Ok(link.map_or(DEFAULT_MTU, |link| link.mtu.clamp(LEAST_MTU, MOST_MTU)))
}

/// Every subnet that a new one must not overlap.
async fn used(instance: &Instance) -> Result<Vec<Used>, Error> {
    let networks = instance.state.networks.iter().flat_map(|(name, network)| {
        network.subnets.iter().map(move |net| Used { net: *net, owner: format!("network {name}") })
    });
    let mut used: Vec<Used> = networks.collect();
    let routes = instance.net.routes().await?.into_iter().filter_map(|route| route.destination);
    let routes = routes.filter(|net| net.prefix_len() > 0);
    used.extend(routes.map(|net| Used { net, owner: "a route of this host".into() }));
    let addresses = instance.net.addresses().await?;
    used.extend(
        addresses
            .into_iter()
            .map(|(_, net)| Used { net: net.trunc(), owner: "an address of this host".into() }),
    );
    Ok(used)
}

fn snat_ports(text: &str) -> Result<(u16, u16), Refusal> {
    let parsed =
        text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    parsed.filter(|(first, last)| 0 < *first && first <= last).ok_or_else(|| Refusal::SnatPorts(text.into()))
}
