//! Which host ports an endpoint's published ports get, and who has a port already.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::datapath::Proto;
use crate::spec::{PortRange, Spec};

/// Where netdp looks for a free host port: the kernel's default `ip_local_port_range`, as Docker does.
const CHOSEN: PortRange = PortRange { first: 32_768, last: 60_999 };
/// How often it looks at random before it goes through the range in order.
const RANDOM_TRIES: u32 = 64;

/// A published port or range, as it stands in the state and in JSON listings.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// Protocol.
    pub proto: Proto,
    /// Host address; none: every address of the host.
    pub host_addr: Option<IpAddr>,
    /// First host port.
    pub host_port: u16,
    /// Last host port.
    pub host_port_end: u16,
    /// First endpoint port.
    pub port: u16,
    /// Last endpoint port.
    pub port_end: u16,
}

impl Published {
    /// The host ports.
    pub const fn host(&self) -> PortRange {
        PortRange { first: self.host_port, last: self.host_port_end }
    }

    /// The endpoint's ports.
    pub const fn ports(&self) -> PortRange {
        PortRange { first: self.port, last: self.port_end }
    }

    /// Whether a spec means this entry; one without host port means every entry of that endpoint port.
    pub fn is_meant_by(&self, spec: &Spec) -> bool {
        self.proto == spec.proto
            && self.ports() == spec.ports
            && match spec.host {
                Some(host) => self.host() == host && self.host_addr == spec.host_addr,
                None => spec.host_addr.is_none() || self.host_addr == spec.host_addr,
            }
    }

    /// Whether one packet could match both.
    fn meets(&self, other: &Self) -> bool {
        let same_addr = match (self.host_addr, other.host_addr) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        self.proto == other.proto
            && same_addr
            && self.host_port <= other.host_port_end
            && other.host_port <= self.host_port_end
    }

    /// Whether both have the same key, so that one can take the other's place in one step.
    pub fn same_key(&self, other: &Self) -> bool {
        self.proto == other.proto && self.host_addr == other.host_addr && self.host() == other.host()
    }

    fn host_name(&self) -> String {
        match self.host_addr {
            Some(IpAddr::V6(addr)) => format!("[{addr}]:{}", self.host()),
            Some(IpAddr::V4(addr)) => format!("{addr}:{}", self.host()),
            None => format!("0.0.0.0:{}", self.host()),
        }
    }
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} -> {}", self.ports(), self.proto.name(), self.host_name())
    }
}

/// Why a port can't be published.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Another endpoint, or this one, has it.
    #[error(
        "{wanted}: endpoint {owner} publishes {taken} already: choose another host port, unpublish that one, or move it with --replace"
    )]
    TakenByEndpoint {
        /// What was asked for.
        wanted: String,
        /// Who has it.
        owner: String,
        /// What it has.
        taken: String,
    },
    /// `--replace` of a port or range that is not exactly the one that is published.
    #[error(
        "{wanted}: endpoint {owner} publishes {taken}, which overlaps but is not the same range: unpublish it first"
    )]
    NotTheSameRange {
        /// What was asked for.
        wanted: String,
        /// Who has it.
        owner: String,
        /// What it has.
        taken: String,
    },
    /// `--replace`, and nobody has the port.
    #[error("{0}: no endpoint publishes that port, so there is nothing to replace: leave --replace out")]
    NothingToReplace(String),
    /// Two specs of one command.
    #[error("{first} and {second} overlap: publish a host port once")]
    Twice {
        /// One.
        first: String,
        /// The other.
        second: String,
    },
    /// A socket of the host has it.
    #[error(
        "{wanted}: {proto} port {port} of the host is in use by {holder}: choose another host port, or stop it"
    )]
    TakenByHost {
        /// What was asked for.
        wanted: String,
        /// Protocol.
        proto: &'static str,
        /// The first port that is in use.
        port: u16,
        /// By whom.
        holder: String,
    },
    /// The host doesn't have that address.
    #[error(
        "{wanted}: this host has no address {addr}: use one of its own, 127.0.0.1 for this host only, or none for all"
    )]
    NoSuchAddress {
        /// What was asked for.
        wanted: String,
        /// The address.
        addr: IpAddr,
    },
    /// An IPv6 host address.
    #[error(
        "{0}: publishing at IPv6 addresses comes with a later version; use an IPv4 address, or none for all"
    )]
    V6(String),
    /// SCTP.
    #[error("{0}: publishing sctp comes with a later version; use tcp or udp")]
    Sctp(String),
    /// Every port that netdp would choose is taken.
    #[error("{wanted}: no {count} free host ports in a row from {first} to {last}: name a host port")]
    NoneFree {
        /// What was asked for.
        wanted: String,
        /// How many are wanted.
        count: u32,
        /// First port looked at.
        first: u16,
        /// Last port looked at.
        last: u16,
    },
}

/// What there is on the host: taken before the plan is made.
pub struct Host<'a> {
    /// Every address of the host.
    pub addresses: &'a [IpAddr],
    /// Every port that a bound or listening socket has on any address.
    pub busy: &'a [(Proto, u16)],
    /// Who has such a port at an address (none: at any); none: nobody.
    pub holder: &'a dyn Fn(Proto, Option<IpAddr>, u16) -> Option<String>,
    /// Random numbers.
    pub random: &'a dyn Fn() -> u64,
}

/// What to do for a `publish`.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// To be added to the endpoint.
    pub add: Vec<Published>,
    /// To be taken from their endpoints, by name, because they are replaced.
    pub replaced: Vec<(String, Published)>,
}

/// Checks specs against what is published (by endpoint name) and what the host has, and chooses free ports.
pub fn plan(
    specs: &[Spec],
    published: &[(String, Published)],
    host: &Host<'_>,
    replace: bool,
) -> Result<Plan, Error> {
    let mut plan = Plan::default();
    for spec in specs {
        check_supported(spec, host)?;
        let wanted = match spec.host {
            Some(ports) => entry(spec, ports),
            None => choose(spec, published, &plan.add, host)?,
        };
        if let Some(other) = plan.add.iter().find(|other| other.meets(&wanted)) {
            return Err(Error::Twice { first: other.to_string(), second: wanted.to_string() });
        }
        if let Some(replaced) = check_endpoints(spec, &wanted, published, replace)? {
            plan.replaced.push(replaced);
        } else if let Some((port, holder)) = held_by_host(&wanted, host) {
            return Err(Error::TakenByHost {
                wanted: spec.to_string(),
                proto: spec.proto.name(),
                port,
                holder,
            });
        }
        plan.add.push(wanted);
    }
    Ok(plan)
}

fn check_supported(spec: &Spec, host: &Host<'_>) -> Result<(), Error> {
    let wanted = spec.to_string();
    match (spec.proto, spec.host_addr) {
        (Proto::Sctp, _) => Err(Error::Sctp(wanted)),
        (_, Some(IpAddr::V6(_))) => Err(Error::V6(wanted)),
        (_, Some(addr)) if !addr.is_loopback() && !host.addresses.contains(&addr) => {
            Err(Error::NoSuchAddress { wanted, addr })
        }
        _ => Ok(()),
    }
}

/// The entry that this one replaces, if it may and there is one.
fn check_endpoints(
    spec: &Spec,
    wanted: &Published,
    published: &[(String, Published)],
    replace: bool,
) -> Result<Option<(String, Published)>, Error> {
    let Some((owner, taken)) = published.iter().find(|(_, taken)| taken.meets(wanted)) else {
        return if replace { Err(Error::NothingToReplace(spec.to_string())) } else { Ok(None) };
    };
    let (wanted_text, taken_text) = (spec.to_string(), taken.to_string());
    if !replace {
        return Err(Error::TakenByEndpoint { wanted: wanted_text, owner: owner.clone(), taken: taken_text });
    }
    if !taken.same_key(wanted) {
        return Err(Error::NotTheSameRange { wanted: wanted_text, owner: owner.clone(), taken: taken_text });
    }
    Ok(Some((owner.clone(), *taken)))
}

/// The first port of the range that a host socket has, and whose it is.
fn held_by_host(wanted: &Published, host: &Host<'_>) -> Option<(u16, String)> {
    let ports = wanted.host_port..=wanted.host_port_end;
    let busy = host.busy.iter().filter(|(proto, port)| *proto == wanted.proto && ports.contains(port));
    busy.into_iter().find_map(|&(proto, port)| Some((port, (host.holder)(proto, wanted.host_addr, port)?)))
}

fn choose(
    spec: &Spec,
    published: &[(String, Published)],
    planned: &[Published],
    host: &Host<'_>,
) -> Result<Published, Error> {
    let extra = spec.ports.extra();
    let none_free = || Error::NoneFree {
        wanted: spec.to_string(),
        count: u32::from(extra) + 1,
        first: CHOSEN.first,
        last: CHOSEN.last,
    };
    let last_start =
        CHOSEN.last.checked_sub(extra).filter(|last| *last >= CHOSEN.first).ok_or_else(none_free)?;
    let starts = u64::from(last_start - CHOSEN.first) + 1;
    let random =
        (0..RANDOM_TRIES).map(|_| CHOSEN.first + u16::try_from((host.random)() % starts).unwrap_or(0));
    random
        .chain(CHOSEN.first..=last_start)
        .map(|first| entry(spec, PortRange { first, last: first + extra }))
        .find(|wanted| {
            held_by_host(wanted, host).is_none()
                && !published.iter().any(|(_, taken)| taken.meets(wanted))
                && !planned.iter().any(|taken| taken.meets(wanted))
        })
        .ok_or_else(none_free)
}

fn entry(spec: &Spec, host: PortRange) -> Published {
    Published {
        proto: spec.proto,
        host_addr: spec.host_addr,
        host_port: host.first,
        host_port_end: host.last,
        port: spec.ports.first,
        port_end: spec.ports.last,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;

    use super::*;

    struct Lab {
        published: Vec<(String, Published)>,
        sockets: Vec<(Proto, SocketAddr)>,
    }

    impl Lab {
        fn new(published: &[(&str, &str)], sockets: &[(Proto, &str)]) -> Self {
            let entry = |text: &str| {
                let spec: Spec = text.parse().unwrap();
                super::entry(&spec, spec.host.unwrap())
            };
            Self {
                published: published.iter().map(|(name, text)| ((*name).to_owned(), entry(text))).collect(),
                sockets: sockets.iter().map(|(proto, text)| (*proto, text.parse().unwrap())).collect(),
            }
        }

        fn plan(&self, specs: &[&str], replace: bool) -> Result<Plan, Error> {
            let specs: Vec<Spec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
            let random = Cell::new(0);
            let busy: Vec<_> = self.sockets.iter().map(|(proto, socket)| (*proto, socket.port())).collect();
            let host = Host {
                addresses: &["192.0.2.1".parse().unwrap()],
                busy: &busy,
                holder: &|proto, addr, port| self.holder(proto, addr, port),
                random: &|| random.replace(random.get() + 1),
            };
            plan(&specs, &self.published, &host, replace)
        }

        fn holder(&self, proto: Proto, addr: Option<IpAddr>, port: u16) -> Option<String> {
            let in_the_way = |(p, socket): &&(Proto, SocketAddr)| {
                *p == proto && socket.port() == port && addr.is_none_or(|addr| addr == socket.ip())
            };
            self.sockets.iter().find(in_the_way).map(|(_, socket)| format!("nginx (pid 7) at {socket}"))
        }

        fn error(&self, spec: &str, replace: bool) -> String {
            self.plan(&[spec], replace).unwrap_err().to_string()
        }
    }

    #[test]
    fn a_free_port_is_published() {
        let plan = Lab::new(&[], &[]).plan(&["8080:80", "127.0.0.1:53:53/udp"], false).unwrap();
        let lines: Vec<String> = plan.add.iter().map(ToString::to_string).collect();
        assert_eq!(lines, ["80/tcp -> 0.0.0.0:8080", "53/udp -> 127.0.0.1:53"]);
    }

    #[test]
    fn a_taken_port_names_its_owner() {
        let lab =
            Lab::new(&[("web", "8080-8089:80-89")], &[(Proto::Tcp, "0.0.0.0:22"), (Proto::Udp, "[::]:53")]);
        assert!(
            lab.error("8085:80", false).contains("endpoint web publishes 80-89/tcp -> 0.0.0.0:8080-8089")
        );
        assert!(lab.error("192.0.2.1:8085:80", false).contains("endpoint web"));
        assert!(
            lab.error("22:22", false)
                .contains("tcp port 22 of the host is in use by nginx (pid 7) at 0.0.0.0:22")
        );
        assert!(lab.error("50-60:50-60/udp", false).contains("[::]:53"));
        assert!(lab.plan(&["8085:80/udp", "22:22/udp"], false).is_ok());
    }

    #[test]
    fn addresses_tell_sockets_and_ports_apart() {
        let lab = Lab::new(&[("web", "127.0.0.1:8080:80")], &[(Proto::Tcp, "127.0.0.1:22")]);
        assert!(lab.plan(&["192.0.2.1:8080:80", "192.0.2.1:22:22"], false).is_ok());
        assert!(lab.error("8080:80", false).contains("endpoint web"));
        assert!(lab.error("22:22", false).contains("127.0.0.1:22"));
        assert!(lab.error("192.0.2.9:80:80", false).contains("no address 192.0.2.9"));
        assert!(lab.error("[::1]:80:80", false).contains("later version"));
    }

    #[test]
    fn replace_moves_exactly_what_is_published() {
        let lab = Lab::new(&[("web", "8080:80")], &[(Proto::Tcp, "0.0.0.0:8080")]);
        let plan = lab.plan(&["8080:8000"], true).unwrap();
        assert_eq!(plan.replaced, lab.published);
        assert_eq!(plan.add[0].to_string(), "8000/tcp -> 0.0.0.0:8080");
        assert!(lab.error("8079-8080:1-2", true).contains("not the same range"));
        assert!(lab.error("9000:80", true).contains("nothing to replace"));
    }

    #[test]
    fn one_command_publishes_a_port_once() {
        let error = Lab::new(&[], &[]).plan(&["8080:80", "127.0.0.1:8080:81"], false).unwrap_err();
        assert!(matches!(error, Error::Twice { .. }));
    }

    #[test]
    fn a_free_port_is_chosen() {
        let lab = Lab::new(&[("web", "32768-32770:1-3")], &[(Proto::Tcp, "0.0.0.0:32771")]);
        let plan = lab.plan(&["80", "81", "90-91"], false).unwrap();
        let lines: Vec<String> = plan.add.iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            ["80/tcp -> 0.0.0.0:32772", "81/tcp -> 0.0.0.0:32773", "90-91/tcp -> 0.0.0.0:32774-32775"]
        );
        let full = Lab::new(&[("web", "32768-60999:32768-60999")], &[]);
        assert!(full.error("80", false).contains("no 1 free host ports"));
        assert!(full.error("1-60000", false).contains("no 60000 free host ports"));
    }

    #[test]
    fn unpublish_finds_what_is_meant() {
        let lab = Lab::new(&[("web", "127.0.0.1:8080:80")], &[]);
        let meant = |text: &str| lab.published[0].1.is_meant_by(&text.parse().unwrap());
        assert!(meant("127.0.0.1:8080:80") && meant("80") && meant("127.0.0.1::80"));
        assert!(!meant("8080:80") && !meant("80/udp") && !meant("127.0.0.1:8080:81"));
    }
}
