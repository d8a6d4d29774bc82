//! `netdp doctor`: what this kernel and host offer, and what is wrong.

use serde::Serialize;

use super::network;
use crate::cli::Global;
use crate::datapath::{Kind, XdpMode, ebpf, iptables};
use crate::entry;
use crate::error::{Error, shortened};
use crate::instance::Instance;
use crate::net::{Net, NetNs};
use crate::output;
use crate::progress::Progress;
use crate::refusal::Refusal;

mod choice;
mod firewall;
mod host;
mod reachability;
mod xdp;

/// What was looked at, in JSON.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, and what to do about it.
    pub detail: String,
}

impl Check {
    fn new(name: impl Into<String>, ok: bool, detail: impl Into<String>) -> Self {
        Self { name: name.into(), ok, detail: detail.into() }
    }
}

/// The whole report, in JSON.
#[derive(Debug, Serialize)]
struct Report {
    /// The datapath that the instance uses, or that `auto` would take; none: none works here.
    datapath: Option<&'static str>,
    /// Why.
    reason: String,
    checks: Vec<Check>,
}

/// Looks at everything, or at who reaches published ports, and says what it sees. Changes nothing.
pub async fn run(global: &Global, reachability: bool) -> Result<(), Error> {
    if reachability {
        return reachability::run(global).await;
    }
    let report = {
        let _progress = Progress::begin("looking at the kernel and the host");
        report(global).await?
    };
    if global.json {
        return output::json(&report);
    }
    output::line(format!("datapath: {} ({})", report.datapath.unwrap_or("none"), report.reason))?;
    let row = |check: Check| {
        let mark = if check.ok { "ok" } else { "WRONG" };
        [mark.to_owned(), check.name, check.detail]
    };
    output::table(["", "WHAT", "FOUND"], report.checks.into_iter().map(row).collect())
}

async fn report(global: &Global) -> Result<Report, Error> {
    let mut checks = vec![host::kernel(), host::btf()];
    let missing = entry::missing_capabilities(global.datapath);
    if !missing.is_empty() {
        checks.push(Check::new("privilege", false, format!("{missing} missing: run netdp with sudo")));
        let reason = "without privilege nothing more can be found out".into();
        return Ok(Report { datapath: None, reason, checks });
    }
    checks.push(Check::new("privilege", true, "root"));
    let probes = ebpf::probe(&global.instance, &global.without);
    let ebpf = choice::ebpf(global, &probes);
    let iptables = iptables::probe();
    checks.extend(probes.into_iter().map(|probe| Check::new(probe.name, probe.ok, shortened(&probe.detail))));
    checks.push(match &iptables {
        Ok(version) => Check::new("iptables", true, version.as_str()),
        Err(error) => Check::new("iptables", ebpf.is_ok(), shortened(error)),
    });
    let unfinished = Instance::unfinished(global);
    let instance = match Instance::look(global) {
        Ok(instance) => instance,
        // Of another host, of another version: that is a finding.
        Err(error)
            if matches!(
                error,
                Error::Refused(Refusal::OtherHost { .. } | Refusal::HostGone { .. }) | Error::State(_)
            ) =>
        {
            checks.push(Check::new("instance", false, error.to_string()));
            None
        }
        Err(error) => return Err(error),
    };
    if let Ok(Some(left)) = unfinished {
        checks.push(Check::new("commands", false, left));
    }
    let state = instance.as_ref().map(|instance| &instance.state);
    let (datapath, reason) = choice::datapath(global, state, ebpf, iptables);
    if datapath == Some(Kind::Iptables) {
        checks.extend(choice::limits());
    }
    let networks = state.into_iter().flat_map(|state| state.networks.values());
    let mode = state.map_or(global.firewall.unwrap_or_default(), |state| state.firewall);
    checks.push(firewall::check(datapath, mode, networks)?);
    checks.push(foreign_programs().await?);
    if datapath == Some(Kind::Ebpf) {
        checks.push(xdp::check(&global.instance, state.map_or(XdpMode::Off, |state| state.xdp))?);
    }
    if let Some(mut instance) = instance {
        instance_checks(&mut instance, &mut checks).await?;
    }
    Ok(Report { datapath: datapath.map(Kind::name), reason, checks })
}

/// TC programs of others on the host's interfaces: netdp's go first, and hand on what is not theirs.
async fn foreign_programs() -> Result<Check, Error> {
    let net = Net::open(&NetNs::current()?)?;
    let mut foreign = Vec::new();
    for link in net.links().await? {
        foreign.extend(host::foreign_programs(&link.name));
        let filters = net.filters(link.index).await?;
        foreign.extend(filters.iter().filter_map(|filter| host::foreign_filter(filter, &link.name)));
    }
    let detail = if foreign.is_empty() { "none".to_owned() } else { foreign.join(", ") };
    Ok(Check::new("foreign tc", true, detail))
}

/// What is missing of a datapath that can't be opened as it is.
fn gone(instance: &Instance) -> String {
    if instance.state.datapath == Kind::Iptables {
        return "the rules' model is gone: netdp gc makes them anew".into();
    }
    let missing = ebpf::Ebpf::missing(instance.name()).unwrap_or_else(|error| vec![error.to_string()]);
    format!("gone: {}: netdp gc makes them anew, without the flows that there were", output::joined(missing))
}

/// Whether programs and maps, or rules, are as the last command left them.
fn datapath_check(instance: &mut Instance) -> Check {
    let (name, what) = match instance.state.datapath {
        Kind::Ebpf => ("pins", "the instance's programs and maps are"),
        Kind::Iptables => ("rules", "the instance's rules are"),
    };
    let faults = match instance.datapath_if_there() {
        Ok(Some(datapath)) => datapath.faults(),
        Ok(None) => return Check::new(name, false, gone(instance)),
        Err(error) => return Check::new(name, false, error.to_string()),
    };
    match faults {
        Ok(faults) if faults.is_empty() => Check::new(name, true, format!("{what} there")),
        Ok(faults) => {
            let found = shortened(&faults.join("; "));
            Check::new(name, false, format!("netdp repair puts right: {found}"))
        }
        Err(error) => Check::new(name, false, error.to_string()),
    }
}

/// Whether what the state says is there.
async fn instance_checks(instance: &mut Instance, checks: &mut Vec<Check>) -> Result<(), Error> {
    checks.push(datapath_check(instance));
    if let Ok(Some(datapath)) = instance.datapath_if_there()
        && let Some(what) = datapath.unserved()
    {
        checks.push(Check::new("host sockets", false, what));
    }
    for (name, network) in &instance.state.networks {
        let there = network::has_bridge(instance, network).await?;
        let forwarding = host::forwarding(&network.bridge);
        let detail = match (there, forwarding) {
            (false, _) => {
                format!(
                    "its bridge {} is gone: netdp gc, or the next attach to it, makes it again",
                    network.bridge
                )
            }
            (true, false) => format!(
                "forwarding is off on {}: turn it on with sysctl net.ipv4.conf.{}.forwarding=1",
                network.bridge, network.bridge
            ),
            (true, true) => {
                format!("bridge {}, {} endpoints", network.bridge, instance.state.endpoints_of(name).len())
            }
        };
        checks.push(Check::new(format!("network {name}"), there && forwarding, detail));
    }
    let mut gone = Vec::new();
    for (name, endpoint) in &instance.state.endpoints {
        if !instance.is_alive(endpoint).await? {
            gone.push(name.as_str());
        }
    }
    let (all, lost) = (instance.state.endpoints.len(), output::joined(&gone));
    checks.push(match gone.is_empty() {
        true => Check::new("endpoints", true, format!("{all}, all with namespace and veth")),
        false => {
            Check::new("endpoints", false, format!("namespace or veth gone: {lost}: netdp gc removes them"))
        }
    });
    Ok(())
}
