//! `netdp publish`: host ports that lead to an endpoint.

use std::collections::{BTreeSet, HashSet};
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

use crate::cli::{self, Global};
use crate::datapath::{FlowsOfPort, Kind, Proto, PublishEntry, PublishKey};
use crate::error::Error;
use crate::instance::Instance;
use crate::net::sockets;
use crate::output;
use crate::plan::ports::{self, Host, Plan};
use crate::plan::published::Published;
use crate::plan::sources::{self, Sources};
use crate::plan::subnet;
use crate::random;
use crate::refusal::Refusal;
use crate::spec::Spec;
use crate::state::State;
use crate::undo::Step;

mod bound;

/// Publishes ports of one endpoint.
pub async fn run(global: &Global, args: &cli::Publish) -> Result<(), Error> {
    sources::check(&args.from)?;
    let mut instance = Instance::change(global).await?;
    let published = publish(&mut instance, args).await;
    let published = instance.finish(published).await?;
    print(global, &published)
}

async fn publish(instance: &mut Instance, args: &cli::Publish) -> Result<Vec<Published>, Error> {
    let endpoint = instance.endpoint(&args.name)?.clone();
    if !instance.is_alive(&endpoint).await? {
        return Err(Refusal::EndpointGone(args.name.clone()).into());
    }
    let published = instance.state.published();
    let mut plan = plan(instance, &args.spec, &endpoint.addresses, &published, args.replace).await?;
    restrict(&mut plan, &endpoint.addresses, &args.from)?;
    let unserved = no_longer_served(instance, &args.name, &plan)?;
    carry_out(instance, &args.name, &plan)?;
    warn(instance, &plan.add)?;
    unserved.into_iter().try_for_each(output::warning)?;
    Ok(plan.add)
}

/// Lets only these clients in, if any were named. A port that has such a list does not lose it by an oversight.
fn restrict(plan: &mut Plan, endpoint: &[IpNet], from: &[IpNet]) -> Result<(), Error> {
    if from.is_empty() {
        let listed = plan.replaced.iter().find(|(_, replaced)| !replaced.sources.is_everybody());
        return listed.map_or(Ok(()), |(_, replaced)| {
            Err(Refusal::SourcesLeftOut { published: replaced.to_string() }.into())
        });
    }
    let from = Sources::from(from.to_vec());
    for published in &mut plan.add {
        from.check_reach(published, endpoint)?;
        published.sources = from.clone();
    }
    Ok(())
}

/// Says what of publishing does not work on this host.
pub fn warn(instance: &mut Instance, published: &[Published]) -> Result<(), Error> {
    match instance.datapath()?.unserved() {
        Some(what) if !published.is_empty() => output::warning(what),
        _ => Ok(()),
    }
}

/// Checks specs for an endpoint with these addresses against what is published and what the host has.
pub async fn plan(
    instance: &Instance,
    specs: &[Spec],
    endpoint: &[IpNet],
    published: &[(String, Published)],
    replace: bool,
) -> Result<Plan, Error> {
    if specs.is_empty() {
        return Ok(Plan::default());
    }
    check_loopback(instance, specs.iter().map(|spec| spec.host_addr))?;
    let addresses: Vec<IpAddr> =
        instance.net.addresses().await?.into_iter().map(|(_, net)| net.addr()).collect();
    let mut busy = BTreeSet::new();
    for proto in [Proto::Tcp, Proto::Udp] {
        busy.extend(sockets::listening_ports(proto.number())?.into_iter().map(|port| (proto, port)));
    }
    // The datapath holds what is published; also what an endpoint that is being replaced had.
    let ours: Vec<Published> =
        instance.state.published().into_iter().map(|(_, published)| published).collect();
    busy.extend(bound::ports(specs, &ours)?.into_iter().map(|port| (Proto::Tcp, port)));
    let holder = |proto, addr, port| holder(proto, addr, port, &ours);
    let host = Host { addresses: &addresses, busy: &busy, holder: &holder, random: &random::number };
    Ok(ports::plan(specs, endpoint, published, &host, replace)?)
}

/// Publishes what was planned; the endpoint is in the state.
pub fn carry_out(instance: &mut Instance, name: &str, plan: &Plan) -> Result<(), Error> {
    if plan.add.is_empty() {
        return Ok(());
    }
    // The first command's datapath may only be found out now.
    instance.datapath()?;
    check_loopback(instance, plan.add.iter().map(|published| published.host_addr))?;
    let mut replaced = Vec::new();
    for (owner, published) in &plan.replaced {
        replaced.extend(instance.endpoint(owner)?.publish_entries([published]));
    }
    let entries = instance.endpoint(name)?.publish_entries(&plan.add);
    if !replaced.is_empty() {
        instance.will(Step::Republish(replaced.clone()))?;
    }
    let new = without(&entries, &replaced);
    if !new.is_empty() {
        instance.will(Step::Unpublish(new))?;
    }
    instance.datapath()?.publish(&entries)?;
    // Of a family that only the old endpoint has.
    instance.datapath()?.unpublish(&without(&replaced, &entries), FlowsOfPort::End)?;
    take_over(&mut instance.state, name, plan);
    Ok(())
}

/// What of replaced ports reaches nobody any more: of a family that only the old endpoint has, in words.
fn no_longer_served(instance: &Instance, name: &str, plan: &Plan) -> Result<Vec<String>, Error> {
    let new = &instance.endpoint(name)?.addresses;
    let mut unserved = Vec::new();
    for (owner, published) in &plan.replaced {
        for entry in instance.endpoint(owner)?.publish_entries([published]) {
            if !subnet::has_family(new, &entry.endpoint) {
                let family = if entry.endpoint.is_ipv6() { "IPv6" } else { "IPv4" };
                unserved.push(format!(
                    "{published}: {name} has no {family} address, so this port, which led to {owner}, reaches nobody by {family}"
                ));
            }
        }
    }
    Ok(unserved)
}

/// Those whose key none of the others has.
fn without(entries: &[PublishEntry], others: &[PublishEntry]) -> Vec<PublishEntry> {
    let keys: HashSet<PublishKey> = others.iter().map(PublishEntry::key).collect();
    entries.iter().filter(|entry| !keys.contains(&entry.key())).cloned().collect()
}

/// Notes in the state whose the ports are now.
fn take_over(state: &mut State, name: &str, plan: &Plan) {
    let replaced: HashSet<&Published> = plan.replaced.iter().map(|(_, published)| published).collect();
    let owners: BTreeSet<&String> = plan.replaced.iter().map(|(owner, _)| owner).collect();
    for owner in owners {
        if let Some(owner) = state.endpoints.get_mut(owner) {
            owner.published.retain(|published| !replaced.contains(published));
        }
    }
    if let Some(endpoint) = state.endpoints.get_mut(name) {
        endpoint.published.extend(plan.add.iter().cloned());
    }
}

/// No route leads a packet from ::1 to another interface, so only the eBPF datapath can, at the socket.
fn check_loopback(
    instance: &Instance,
    mut host_addrs: impl Iterator<Item = Option<IpAddr>>,
) -> Result<(), Refusal> {
    let v6 = Some(IpAddr::V6(Ipv6Addr::LOCALHOST));
    if instance.state.datapath == Kind::Iptables && host_addrs.any(|addr| addr == v6) {
        return Err(Refusal::LoopbackV6);
    }
    Ok(())
}

/// Prints what was published.
pub fn print(global: &Global, published: &[Published]) -> Result<(), Error> {
    if global.json {
        return output::json(published);
    }
    output::lines(published)
}

/// Who has a host port; what can't be found out counts as taken, with the reason.
fn holder(proto: Proto, addr: Option<IpAddr>, port: u16, ours: &[Published]) -> Option<String> {
    find_holder(proto, addr, port, ours)
        .unwrap_or_else(|error| Some(format!("a process that can't be told ({error})")))
}

fn find_holder(
    proto: Proto,
    addr: Option<IpAddr>,
    port: u16,
    ours: &[Published],
) -> Result<Option<String>, Error> {
    if let Some(holder) = sockets::holder(proto.number(), addr, port)? {
        return Ok(Some(holder.to_string()));
    }
    let bound = bound::is_bound(proto, addr, port, ours)?;
    Ok(bound.then(|| "a process that has bound it and does not listen yet".into()))
}
