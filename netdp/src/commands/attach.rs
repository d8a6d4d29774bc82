//! `netdp attach`: gives a network namespace an interface on a network.

use std::net::IpAddr;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use ipnet::IpNet;

use super::{detach, heal, network, publish};
use crate::cli::{self, Attachment, Global};
use crate::datapath::Kind;
use crate::entry::Caller;
use crate::error::Error;
use crate::instance::Instance;
use crate::net::{Mac, Net, NetNs, sysctl};
use crate::output;
use crate::plan::ipam::Pool;
use crate::plan::mode::Mode;
use crate::plan::ports::Plan;
use crate::plan::published::Published;
use crate::plan::{allowed, mac, names, subnet};
use crate::refusal::Refusal;
use crate::state::{Bound, Endpoint, Network};
use crate::target::Target;
use crate::undo::Step;

pub(crate) mod connect;
pub mod mode;

use connect::{connect, loopback};

/// Attaches one namespace.
pub async fn run(global: &Global, args: cli::Attach, caller: Caller) -> Result<(), Error> {
    let mode = Mode::parse(&args.attachment.network);
    check(&args.attachment)?;
    let name = args.attachment.name.clone().unwrap_or_else(|| args.target.default_name());
    names::check_endpoint(&name)?;
    let mut instance = Instance::change(global).await?;
    if let Some(mode) = mode {
        let bound = async {
            let place = find(&args, caller)?;
            mode::bind(&mut instance, &name, args.target, place, mode).await
        };
        let bound = bound.await;
        let bound = instance.finish(bound).await?;
        return print_bound(global, &name, &bound);
    }
    let attached = async {
        let place = find(&args, caller)?;
        attach(&mut instance, &name, args.target, place, &args.attachment).await
    };
    let attached = attached.await;
    let endpoint = instance.finish(attached).await?;
    print(global, &name, &endpoint)
}

/// What can be refused without looking at anything.
pub fn check(attachment: &Attachment) -> Result<(), Error> {
    allowed::check(&attachment.allow_address)?;
    if attachment.max_flows == Some(0) {
        return Err(Refusal::NoFlows.into());
    }
    if let Some(mode) = Mode::parse(&attachment.network) {
        return mode::check(attachment, &mode);
    }
    names::check_ifname(&attachment.ifname)?;
    if attachment.mac.as_ref().is_some_and(String::is_empty) {
        return Err(mac::Error::Syntax(String::new()).into());
    }
    Ok(())
}

/// A namespace to attach.
pub enum Place {
    /// It is there.
    There(NetNs),
    /// It is to be created under this name.
    New(String),
}

/// Finds the namespace that TARGET means.
fn find(args: &cli::Attach, caller: Caller) -> Result<Place, Error> {
    let target = &args.target;
    let named = match target {
        Target::Named(name) => Some(name),
        _ if args.create => return Err(Refusal::CreateNeedsName(target.to_string()).into()),
        _ => None,
    };
    if let Some(name) = named.filter(|_| !target.file().exists()) {
        names::check("namespace", name)?;
        let missing = Refusal::NoNamespace { name: name.clone() };
        return if args.create { Ok(Place::New(name.clone())) } else { Err(missing.into()) };
    }
    let opened = match (target, caller.target) {
        (Target::Path(_), Some(file)) => {
            NetNs::open(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
        }
        (Target::Pid(pid), _) => NetNs::of_pid(*pid),
        _ => NetNs::open(&target.file()),
    };
    let bad = |why: crate::net::Error| match why {
        crate::net::Error::NotANamespace(_) => "it is not a network namespace".to_owned(),
        why => why.to_string(),
    };
    Ok(Place::There(opened.map_err(|why| Refusal::BadTarget { target: target.to_string(), why: bad(why) })?))
}

/// Whether the network's bridge is there.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Bridge {
    There,
    /// The network is the default one, and not there yet.
    New,
    /// Somebody deleted it.
    Lost,
}

/// What is going to be made, checked against everything that is there.
pub struct Planned {
    network: Network,
    bridge: Bridge,
    /// An endpoint of that name is there whose namespace is gone.
    replaces: bool,
    addresses: Vec<IpNet>,
    mac: Mac,
    ports: Plan,
}

/// Validates everything, then attaches.
pub async fn attach(
    instance: &mut Instance,
    name: &str,
    target: Target,
    place: Place,
    attachment: &Attachment,
) -> Result<Endpoint, Error> {
    let planned = plan(instance, name, &target, &place, attachment).await?;
    let kept = if planned.replaces { detach::replace(instance, name, &target).await? } else { Vec::new() };
    let network = match planned.bridge {
        Bridge::There => planned.network,
        Bridge::New => network::make(instance, &attachment.network, planned.network).await?,
        Bridge::Lost => heal::network(instance, &attachment.network).await?,
    };
    let (ns, created) = match place {
        Place::There(ns) => {
            let created = kept.iter().any(|kept| kept.is_name_of(&target, ns.id()));
            (ns, created)
        }
        Place::New(name) => (create_namespace(instance, &name, NetNs::create_named)?, true),
    };
    let endpoint = Endpoint {
        target,
        netns: ns.id(),
        created,
        network: attachment.network.clone(),
        ifname: attachment.ifname.clone(),
        ifindex: 0,
        host_ifname: free_ifname(instance).await?,
        host_ifindex: 0,
        mac: planned.mac,
        addresses: planned.addresses,
        published: Vec::new(),
        max_flows: attachment.max_flows,
        allowed: attachment.allow_address.clone(),
    };
    // The first command's datapath may only be found out now.
    instance.datapath()?;
    check_limits(instance, attachment)?;
    let endpoint = connect(instance, &ns, &network, endpoint).await?;
    instance.state.endpoints.insert(name.into(), endpoint);
    publish::carry_out(instance, name, &planned.ports)?;
    let target = instance.endpoint(name)?.target.clone();
    loopback(instance, &ns, &target).await?;
    let endpoint = instance.endpoint(name)?.clone();
    publish::warn(instance, &endpoint.published)?;
    Ok(endpoint)
}

fn create_namespace(
    instance: &mut Instance,
    name: &str,
    create: impl FnOnce(&str) -> crate::net::Result<NetNs>,
) -> Result<NetNs, Error> {
    instance.will(Step::DeleteNamespace(name.into()))?;
    let created = create(name);
    if matches!(created, Err(crate::net::Error::NamespaceExists { .. })) {
        // Somebody else's, made just now.
        instance.will_not()?;
    }
    Ok(created?)
}

async fn plan(
    instance: &Instance,
    name: &str,
    target: &Target,
    place: &Place,
    attachment: &Attachment,
) -> Result<Planned, Error> {
    let wanted = &attachment.network;
    let is_new = wanted == names::DEFAULT_NETWORK && !instance.state.networks.contains_key(wanted);
    let network =
        if is_new { network::plan_default(instance).await? } else { instance.network(wanted)?.clone() };
    check_limits(instance, attachment)?;
    let replaces = check_name(instance, name).await?;
    if let Place::There(ns) = place {
        check_namespace(instance, name, target, ns, attachment).await?;
    }
    let bridge = if is_new { Bridge::New } else { check_bridge(instance, wanted, &network).await? };
    let others = instance.state.endpoints.iter().filter(|(other, _)| *other != name);
    let pool = Pool { network: wanted, subnets: &network.subnets, taken: taken(others.clone(), &network) };
    let addresses = pool.choose(&attachment.ip)?;
    check_allowed(instance, name, &network, &attachment.allow_address).await?;
    let macs: Vec<(Mac, String)> = others
        .map(|(name, endpoint)| (endpoint.mac, format!("endpoint {name}")))
        .chain([(network.mac, format!("the bridge of network {wanted}"))])
        .collect();
    let mac = attachment.mac.as_ref().map(|text| mac::parse(text, &macs)).transpose()?;
    let mut published = instance.state.published();
    published.retain(|(owner, _)| owner != name);
    let ports = publish::plan(instance, &attachment.publish, &addresses, &published, false).await?;
    Ok(Planned { network, bridge, replaces, addresses, mac: mac.unwrap_or_else(Mac::random_local), ports })
}

/// Whether an endpoint of that name is there and gone; refuses one that lives.
async fn check_name(instance: &Instance, name: &str) -> Result<bool, Error> {
    if let Some(bound) = instance.state.bound.get(name) {
        if !bound.is_alive() {
            return Ok(true);
        }
        let (netns, network) = (bound.target.to_string(), bound.mode.to_string());
        return Err(Refusal::EndpointExists { name: name.into(), netns, network }.into());
    }
    let Some(endpoint) = instance.state.endpoints.get(name) else {
        return Ok(false);
    };
    if !instance.is_alive(endpoint).await? {
        return Ok(true);
    }
    let (netns, network) = (endpoint.target.to_string(), endpoint.network.clone());
    Err(Refusal::EndpointExists { name: name.into(), netns, network }.into())
}

async fn check_namespace(
    instance: &Instance,
    name: &str,
    target: &Target,
    ns: &NetNs,
    attachment: &Attachment,
) -> Result<(), Error> {
    let target = target.to_string();
    if ns.id() == instance.host.id() {
        return Err(Refusal::HostAsTarget(target).into());
    }
    let network = &attachment.network;
    for (other, endpoint) in &instance.state.endpoints {
        let same = other != name && endpoint.netns == ns.id() && endpoint.network == *network;
        if same && instance.is_alive(endpoint).await? {
            return Err(
                Refusal::AttachedAlready { target, network: network.clone(), name: other.clone() }.into()
            );
        }
    }
    check_v6(instance, &target, ns, network)?;
    let taken = Net::open(ns)?.link(&attachment.ifname).await?.is_some();
    // The veth of an endpoint that is replaced goes first.
    let own = instance.state.endpoints.get(name);
    if taken && !own.is_some_and(|own| own.netns == ns.id() && own.ifname == attachment.ifname) {
        return Err(Refusal::IfnameTaken { target, ifname: attachment.ifname.clone() }.into());
    }
    Ok(())
}

/// Refuses addresses of the host and of other endpoints, on whichever network.
async fn check_allowed(
    instance: &Instance,
    name: &str,
    network: &Network,
    asked: &[IpNet],
) -> Result<(), Error> {
    if asked.is_empty() {
        return Ok(());
    }
    let host = instance.net.addresses().await?.into_iter().map(|(_, net)| net.addr());
    let gateways = network.gateways.iter().copied();
    let mut taken: Vec<(IpAddr, String)> =
        host.chain(gateways).map(|addr| (addr, "this host".into())).collect();
    for (other, endpoint) in instance.state.endpoints.iter().filter(|(other, _)| *other != name) {
        taken.extend(endpoint.addresses.iter().map(|net| (net.addr(), format!("endpoint {other}"))));
    }
    Ok(allowed::check_free(asked, &network.subnets, &taken)?)
}

/// Netfilter counts connections by address, not flows by endpoint.
fn check_limits(instance: &Instance, attachment: &Attachment) -> Result<(), Refusal> {
    let is_limited = attachment.max_flows.is_some();
    if is_limited && instance.state.datapath == Kind::Iptables { Err(Refusal::NoLimits) } else { Ok(()) }
}

/// A namespace must give its interfaces IPv6 addresses, if the network has some.
fn check_v6(instance: &Instance, target: &str, ns: &NetNs, network: &str) -> Result<(), Error> {
    let subnets = instance.state.networks.get(network).map(|network| network.subnets.as_slice());
    let Some(&subnet) = subnets.unwrap_or_default().iter().find(|subnet| subnet::is_v6(subnet)) else {
        return Ok(());
    };
    match ns.run(sysctl::v6_disabled_by)?? {
        Some(sysctl) => Err(Refusal::V6Disabled { subnet, place: target.into(), sysctl }.into()),
        None => Ok(()),
    }
}

/// A bridge that somebody deleted comes back, unless somebody else has its name by now.
async fn check_bridge(instance: &Instance, wanted: &str, network: &Network) -> Result<Bridge, Error> {
    if network::has_bridge(instance, network).await? {
        return Ok(Bridge::There);
    }
    heal::check(instance, wanted, network).await?;
    Ok(Bridge::Lost)
}

fn taken<'a>(
    others: impl Iterator<Item = (&'a String, &'a Endpoint)>,
    network: &Network,
) -> Vec<(IpNet, String)> {
    let gateways = network.gateways.iter().map(|addr| (IpNet::from(*addr), "the gateway".to_owned()));
    let of_endpoint = |(name, endpoint): (&String, &'a Endpoint)| {
        let own = endpoint.addresses.iter().map(|net| IpNet::from(net.addr()));
        let owner = format!("endpoint {name}");
        own.chain(endpoint.allowed.iter().copied()).map(move |net| (net, owner.clone()))
    };
    gateways.chain(others.flat_map(of_endpoint)).collect()
}

async fn free_ifname(instance: &Instance) -> Result<String, Error> {
    loop {
        let name = names::host_ifname(crate::random::number());
        if instance.net.link(&name).await?.is_none() {
            return Ok(name);
        }
    }
}

fn print_bound(global: &Global, name: &str, bound: &Bound) -> Result<(), Error> {
    if global.json {
        return output::json(&serde_json::json!({"name": name, "network": bound.mode, "addresses": []}));
    }
    output::line(format!("{name}: {}, without an interface of its own", bound.mode))
}

fn print(global: &Global, name: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let Endpoint { addresses, network, ifname, host_ifname, published, .. } = endpoint;
    if global.json {
        return output::json(&serde_json::json!({
            "name": name, "network": network, "ifname": ifname, "host_ifname": host_ifname,
            "addresses": addresses, "mac": endpoint.mac, "published": published,
        }));
    }
    output::line(format!("{name}: {} on {network} ({ifname} <-> {host_ifname})", output::joined(addresses)))?;
    published.iter().try_for_each(|published: &Published| output::line(published))
}
