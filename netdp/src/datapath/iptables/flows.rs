//! Flows: what connection tracking says about connections of endpoints.

use std::net::IpAddr;

use super::super::{Error, FlowHandle, FlowInfo, PortMap, PublishEntry};
use super::model::Model;
use crate::net::conntrack::{self, Connection};
use crate::net::sysctl;

const ICMP: u8 = 1;
const TCP: u8 = 6;
const UDP: u8 = 17;
const ICMPV6: u8 = 58;

/// States by `enum tcp_conntrack`, each with the sysctl of its timeout.
const TCP_STATES: [(&str, &str); 9] = [
    ("syn", "syn_sent"),
    ("syn", "syn_sent"),
    ("syn", "syn_recv"),
    ("established", "established"),
    ("closing", "fin_wait"),
    ("closing", "close_wait"),
    ("closing", "last_ack"),
    ("closed", "time_wait"),
    ("closed", "close"),
];

/// Every connection that is translated.
pub(super) fn list(model: &Model) -> Result<Vec<FlowInfo>, Error> {
    let connections = connections()?;
    let described = connections.iter().filter_map(|connection| describe(model, connection));
    Ok(described.collect())
}

/// Removes these very ones; returns how many were still there.
pub(super) fn remove(handles: &[FlowHandle]) -> Result<usize, Error> {
    let names = handles.iter().map(|FlowHandle(name)| name.as_slice());
    conntrack::delete(names).map_err(|cause| Error { doing: "removing flows".into(), cause: cause.into() })
}

/// Removes the connections that fit, translated or not.
pub(super) fn remove_where(fits: impl Fn(&Connection) -> bool) -> Result<(), Error> {
    let handles: Vec<FlowHandle> = connections()?
        .iter()
        .filter(|connection| fits(connection))
        .map(|connection| FlowHandle(connection.name()))
        .collect();
    remove(&handles).map(drop)
}

/// Removes what published ports' packets belong to, unless it ends where it should (`keep`): connections to another
/// endpoint, those of clients that may not open them, and those that began before the port was published, which would go
/// on reaching the host.
pub(super) fn remove_published(model: &Model, entries: &[PublishEntry], keep: bool) -> Result<(), Error> {
    let host = host_addresses()?;
    let published = PortMap::of_host_ports(entries);
    remove_where(|connection| {
        let (addr, port) = connection.original.dst;
        let answerer = connection.reply.src;
        let is_at = |entry: &&&PublishEntry| {
            entry.host_addr.is_none_or(|wanted| wanted == addr) && addr.is_ipv4() == entry.endpoint.is_ipv4()
        };
        let Some(entry) = published.at(connection.proto, port).iter().find(is_at) else { return false };
        let client = connection.original.src.0;
        let may = host.contains(&client) || entry.sources.admit(&client);
        let is_right = may && answerer == (entry.endpoint, entry.port + (port - entry.host_port));
        let ours = if answerer.0 == addr { host.contains(&addr) } else { model.owner(answerer.0).is_some() };
        ours && !(keep && is_right)
    })
}

/// Removes all connections of addresses that were an endpoint's.
pub(super) fn remove_of(addresses: &[IpAddr]) -> Result<(), Error> {
    remove_where(|connection| {
        addresses.contains(&connection.original.src.0) || addresses.contains(&connection.reply.src.0)
    })
}

fn connections() -> Result<Vec<Connection>, Error> {
    conntrack::list().map_err(|cause| Error { doing: "listing flows".into(), cause: cause.into() })
}

/// The host's addresses; loopback is all of 127/8.
fn host_addresses() -> Result<HostAddresses, Error> {
    let addresses = nix::ifaddrs::getifaddrs()
        .map_err(|cause| Error { doing: "reading the host's addresses".into(), cause: cause.into() })?;
    let ip = |address: nix::ifaddrs::InterfaceAddress| {
        let storage = address.address?;
        let v4 = storage.as_sockaddr_in().map(|addr| IpAddr::V4(addr.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|addr| IpAddr::V6(addr.ip())))
    };
    Ok(HostAddresses(addresses.filter_map(ip).collect()))
}

struct HostAddresses(Vec<IpAddr>);

impl HostAddresses {
    fn contains(&self, addr: &IpAddr) -> bool {
        addr.is_loopback() || self.0.contains(addr)
    }
}

/// What a connection is to netdp; none if it isn't translated, or nobody's of this instance.
fn describe(model: &Model, connection: &Connection) -> Option<FlowInfo> {
    let (original, reply) = (connection.original, connection.reply);
    let opener = model.owner(original.src.0);
    let answerer = model.owner(reply.src.0);
    let moved = reply.src != original.dst;
    let masked = reply.dst != original.src;
    // What was dialled and who dialled, and what became of it.
    let (first, translated) = ((original.src, original.dst), (reply.dst, reply.src));
    let (kind, host_ifindex, inside, outside) = match (opener, answerer) {
        (Some(opener), Some(_)) if moved => ("hairpin", opener, first, translated),
        (Some(opener), None) if masked => ("snat", opener, first, translated),
        (None, Some(answerer)) if moved => ("dnat", answerer, translated, first),
        _ => return None,
    };
    let (state, timeout) = state(connection);
    let left = u64::from(connection.expires_s);
    Some(FlowInfo {
        kind,
        proto: connection.proto,
        host_ifindex,
        src: inside.0,
        dst: inside.1,
        ext_src: outside.0,
        ext_dst: outside.1,
        state,
        idle_s: timeout.saturating_sub(left),
        expires_s: left,
        handle: FlowHandle(connection.name()),
    })
}

/// A state's name, and how many seconds a connection lives in it without a packet.
fn state(connection: &Connection) -> (&'static str, u64) {
    let named = |name: &'static str, timeout: &str| (name, timeout_of(timeout).unwrap_or(0));
    match connection.proto {
        TCP => {
            let state = connection.tcp_state.and_then(|state| TCP_STATES.get(usize::from(state)));
            let (name, timeout) = state.unwrap_or(&TCP_STATES[0]);
            named(name, &format!("tcp_timeout_{timeout}"))
        }
        UDP if connection.assured => named("stream", "udp_timeout_stream"),
        UDP if connection.answered => named("answered", "udp_timeout"),
        UDP => named("new", "udp_timeout"),
        ICMP | ICMPV6 => {
            let name = if connection.answered { "answered" } else { "new" };
            named(name, if connection.proto == ICMP { "icmp_timeout" } else { "icmpv6_timeout" })
        }
        _ => named(if connection.answered { "answered" } else { "new" }, "generic_timeout"),
    }
}

fn timeout_of(what: &str) -> Option<u64> {
    sysctl::get(&["net", "netfilter", &format!("nf_conntrack_{what}")]).ok()?.parse().ok()
}
