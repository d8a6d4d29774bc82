//! Which of the host's own sockets has a port, from `/proc/net` and `sock_diag` of the calling thread's network
//! namespace.
//!
//! Not visible there, hence not found: whether a socket on `[::]` takes IPv4 as well, and, before Linux 6.8, TCP sockets
//! that are bound and don't listen. Not asked for: TCP connections (an outgoing one may have any ephemeral port).

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use super::error::{Error, Result};

mod inactive;
mod owner;
mod table;

use table::{Entry, Table};

/// The IP protocol number of TCP.
const TCP: u8 = 6;
/// The IP protocol number of UDP.
const UDP: u8 = 17;
/// The IP protocol number of SCTP.
const SCTP: u8 = 132;

/// A socket that has a port. The process is known as far as `/proc` shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The name of a process that has the socket open.
    pub process: Option<String>,
    /// Its PID.
    pub pid: Option<u32>,
    /// What the socket is bound to.
    pub addr: SocketAddr,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let process = self.process.as_deref().unwrap_or("a process");
        match self.pid {
            Some(pid) => write!(f, "{process} (pid {pid}) at {}", self.addr),
            None => write!(f, "{process} at {}", self.addr),
        }
    }
}

/// The socket that would have got packets to `addr` and `port`: a listening or bound TCP, bound UDP (connected or not) or
/// SCTP one. `proto` is the IP protocol number; another than these three has no sockets here.
///
/// No `addr` means every address of both families; `0.0.0.0` and `[::]` mean every one of their own family. A socket
/// on a wildcard has every address of its family, and one on `[::]` every IPv4 address too, unless an IPv4 TCP socket
/// listens on the same port: both can't, if neither shares its port (SO_REUSEPORT), so that `[::]` is IPv6 only.
pub fn holder(proto: u8, addr: Option<IpAddr>, port: u16) -> Result<Option<Holder>> {
    let entries = entries(proto)?;
    let Some(entry) = conflict(&entries, proto, addr, port) else {
        return Ok(None);
    };
    let (pid, process) = owner::of(entry.inode).unzip();
    Ok(Some(Holder { process: process.flatten(), pid, addr: SocketAddr::new(entry.addr, entry.port) }))
}

/// Every port that a listening or bound TCP, bound UDP or SCTP socket has on any address. Sorted.
pub fn listening_ports(proto: u8) -> Result<Vec<u16>> {
    let ports: BTreeSet<u16> = entries(proto)?.iter().map(|entry| entry.port).collect();
    Ok(ports.into_iter().collect())
}

/// Whether TCP sockets that are bound and don't listen are found (Linux 6.8 with `sock_diag`).
pub fn bound_are_shown() -> Result<bool> {
    inactive::are_shown()
}

fn conflict(entries: &[Entry], proto: u8, addr: Option<IpAddr>, port: u16) -> Option<&Entry> {
    let same_port = || entries.iter().filter(|entry| entry.port == port);
    let v6_only = proto == TCP && same_port().any(|entry| entry.addr.is_ipv4());
    same_port().find(|entry| addr.is_none_or(|addr| overlap(entry.addr, addr, v6_only)))
}

fn overlap(socket: IpAddr, wanted: IpAddr, v6_only: bool) -> bool {
    let same_family = socket.is_ipv4() == wanted.is_ipv4();
    if socket.is_unspecified() {
        return same_family || socket.is_ipv6() && !v6_only;
    }
    socket == wanted.to_canonical() || same_family && wanted.is_unspecified()
}

/// The listening or bound sockets of a protocol, the unconnected TCP ones first.
fn entries(proto: u8) -> Result<Vec<Entry>> {
    // IPv6 may be switched off, and SCTP not loaded.
    let tables: &[(&str, Table, bool)] = match proto {
        TCP => &[("tcp", Table::Tcp, true), ("tcp6", Table::Tcp, false)],
        UDP => &[("udp", Table::Udp, true), ("udp6", Table::Udp, false)],
        SCTP => &[("sctp/eps", Table::Sctp, false)],
        _ => &[],
    };
    let mut entries = if proto == TCP { inactive::entries()? } else { Vec::new() };
    for &(name, table, required) in tables {
        let path = format!("/proc/thread-self/net/{name}");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let parsed = table.parse(&text).map_err(|line| Error::Malformed { path, content: line })?;
                entries.extend(parsed);
            }
            Err(error) if !required && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::system(|| format!("reading {path}"))(error)),
        }
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sockets(bound: &[&str]) -> Vec<Entry> {
        let entry = |text: &&str| {
            let addr: SocketAddr = text.parse().expect("an address");
            Entry { addr: addr.ip(), port: addr.port(), inode: 0 }
        };
        bound.iter().map(entry).collect()
    }

    fn held(proto: u8, bound: &[&str], wanted: Option<&str>) -> bool {
        let addr = wanted.map(|text| text.parse().expect("an address"));
        conflict(&sockets(bound), proto, addr, 80).is_some()
    }

    #[test]
    fn addresses_conflict_as_binding_would() {
        let cases: &[(&str, Option<&str>, bool)] = &[
            ("127.0.0.1:80", None, true),
            ("[::1]:80", None, true),
            ("127.0.0.1:81", None, false),
            ("0.0.0.0:80", Some("192.0.2.1"), true),
            ("0.0.0.0:80", Some("2001:db8::1"), false),
            ("127.0.0.1:80", Some("192.0.2.1"), false),
            ("127.0.0.1:80", Some("0.0.0.0"), true),
            ("127.0.0.1:80", Some("::"), false),
            ("[::]:80", Some("192.0.2.1"), true),
            ("[::]:80", Some("0.0.0.0"), true),
            ("[::]:80", Some("2001:db8::1"), true),
            ("[2001:db8::1]:80", Some("::"), true),
            ("[2001:db8::1]:80", Some("0.0.0.0"), false),
        ];
        for (bound, wanted, expected) in cases {
            assert_eq!(held(TCP, &[bound], *wanted), *expected, "{bound} {wanted:?}");
        }
    }

    #[test]
    fn beside_an_ipv4_listener_the_ipv6_wildcard_is_ipv6_only() {
        let bound = ["127.0.0.1:80", "[::]:80"];
        assert!(!held(TCP, &bound, Some("192.0.2.1")));
        assert!(held(TCP, &bound, Some("2001:db8::1")));
        assert!(held(UDP, &bound, Some("192.0.2.1")), "UDP sockets share ports with SO_REUSEADDR already");
    }
}
