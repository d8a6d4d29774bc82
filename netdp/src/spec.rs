//! The grammar of `-p` and `netdp publish`: `[[HOST_ADDR:]HOST_PORT[-END]:]PORT[-END][/tcp|udp|sctp]`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::datapath::Proto;

/// First and last port, both included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    /// First port.
    pub first: u16,
    /// Last port; the first one's if it is a single port.
    pub last: u16,
}

impl PortRange {
    /// How many ports more than one: a length without a special case for all 65536.
    pub const fn extra(self) -> u16 {
        self.last - self.first
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// What to publish, as the user wrote it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Spec {
    /// Protocol.
    pub proto: Proto,
    /// Host address; none: every address of the host.
    pub host_addr: Option<IpAddr>,
    /// Host ports; none: netdp chooses.
    pub host: Option<PortRange>,
    /// The endpoint's ports, as many as host ports.
    pub ports: PortRange,
}

/// Why a spec is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Nothing, or nothing between two colons.
    #[error(
        "`{0}` has no container port: write [[HOST_ADDR:]HOST_PORT:]PORT[/tcp|udp|sctp], for instance 8080:80"
    )]
    Empty(String),
    /// Not a number from 1 to 65535.
    #[error("`{spec}`: `{port}` is no port: ports are numbers from 1 to 65535")]
    Port {
        /// The whole spec.
        spec: String,
        /// The part in question.
        port: String,
    },
    /// A range whose end comes before its start.
    #[error("`{spec}`: the range {first}-{last} is inverted: write {last}-{first}")]
    Inverted {
        /// The whole spec.
        spec: String,
        /// As written.
        first: u16,
        /// As written.
        last: u16,
    },
    /// Host and container ranges differ in length.
    #[error("`{spec}`: {host} host ports for {container} container ports: both ranges must be equally long")]
    Lengths {
        /// The whole spec.
        spec: String,
        /// Number of host ports.
        host: u32,
        /// Number of container ports.
        container: u32,
    },
    /// Not tcp, udp or sctp.
    #[error("`{spec}`: unknown protocol `{proto}`: use tcp, udp or sctp")]
    Proto {
        /// The whole spec.
        spec: String,
        /// The part in question.
        proto: String,
    },
    /// SCTP with another host port than container port.
    #[error("`{0}`: sctp needs the same host and container port, because its checksum covers the ports")]
    SctpPorts(String),
    /// Not an address.
    #[error("`{spec}`: `{addr}` is no address: write 192.0.2.1:8080:80, or [2001:db8::1]:8080:80 for IPv6")]
    Addr {
        /// The whole spec.
        spec: String,
        /// The part in question.
        addr: String,
    },
}

impl FromStr for Spec {
    type Err = Error;

    fn from_str(spec: &str) -> Result<Self, Error> {
        let (rest, proto) = match spec.split_once('/') {
            Some((rest, proto)) => (rest, parse_proto(spec, proto)?),
            None => (spec, Proto::Tcp),
        };
        let (host_addr, rest) = split_addr(spec, rest)?;
        let (host, ports) = match rest.rsplit_once(':') {
            Some(("", ports)) if host_addr.is_some() => (None, ports),
            Some((host, ports)) => (Some(parse_range(spec, host)?), ports),
            None => (None, rest),
        };
        if ports.is_empty() {
            return Err(Error::Empty(spec.into()));
        }
        let ports = parse_range(spec, ports)?;
        let parsed = Self { proto, host_addr, host, ports };
        parsed.check(spec)?;
        Ok(parsed)
    }
}

impl Spec {
    fn check(&self, spec: &str) -> Result<(), Error> {
        if let Some(host) = self.host
            && host.extra() != self.ports.extra()
        {
            return Err(Error::Lengths {
                spec: spec.into(),
                host: u32::from(host.extra()) + 1,
                container: u32::from(self.ports.extra()) + 1,
            });
        }
        if self.proto == Proto::Sctp && self.host.is_some_and(|host| host != self.ports) {
            return Err(Error::SctpPorts(spec.into()));
        }
        Ok(())
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host_addr {
            Some(IpAddr::V6(addr)) => write!(f, "[{addr}]:")?,
            Some(IpAddr::V4(addr)) => write!(f, "{addr}:")?,
            None => {}
        }
        match self.host {
            Some(host) => write!(f, "{host}:")?,
            None if self.host_addr.is_some() => f.write_str(":")?,
            None => {}
        }
        write!(f, "{}/{}", self.ports, self.proto.name())
    }
}

/// Takes a leading `192.0.2.1:` or `[2001:db8::1]:` off; `0.0.0.0` and `[::]` mean every address.
fn split_addr<'a>(spec: &str, text: &'a str) -> Result<(Option<IpAddr>, &'a str), Error> {
    let bad = |addr: &str| Error::Addr { spec: spec.into(), addr: addr.into() };
    if let Some(inner) = text.strip_prefix('[') {
        let (addr, rest) = inner.split_once("]:").ok_or_else(|| bad(text))?;
        let addr: Ipv6Addr = addr.parse().map_err(|_| bad(addr))?;
        // ::ffff:192.0.2.1 is how IPv6 sockets write an IPv4 address.
        let addr = IpAddr::V6(addr).to_canonical();
        return Ok(((!addr.is_unspecified()).then_some(addr), rest));
    }
    match text.split(':').count() {
        0..=2 => Ok((None, text)),
        3 => {
            let (addr, rest) = text.split_once(':').unwrap_or((text, ""));
            let addr: IpAddr = addr.parse().map_err(|_| bad(addr))?;
            Ok(((!addr.is_unspecified()).then_some(addr), rest))
        }
        _ => Err(bad(text.rsplitn(3, ':').last().unwrap_or(text))),
    }
}

fn parse_range(spec: &str, text: &str) -> Result<PortRange, Error> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (parse_port(spec, first)?, parse_port(spec, last)?);
    if first > last {
        return Err(Error::Inverted { spec: spec.into(), first, last });
    }
    Ok(PortRange { first, last })
}

fn parse_port(spec: &str, text: &str) -> Result<u16, Error> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port) if digits && port > 0 => Ok(port),
        _ => Err(Error::Port { spec: spec.into(), port: text.into() }),
    }
}

fn parse_proto(spec: &str, text: &str) -> Result<Proto, Error> {
    match text {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        "sctp" => Ok(Proto::Sctp),
        _ => Err(Error::Proto { spec: spec.into(), proto: text.into() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(first: u16, last: u16) -> PortRange {
        PortRange { first, last }
    }

    #[test]
    fn specs_are_understood() {
        let one = |port| range(port, port);
        let rows = [
            ("80", Proto::Tcp, None, None, one(80)),
            ("8080:80", Proto::Tcp, None, Some(one(8080)), one(80)),
            ("8080:80/udp", Proto::Udp, None, Some(one(8080)), one(80)),
            ("127.0.0.1:8080:80", Proto::Tcp, Some("127.0.0.1"), Some(one(8080)), one(80)),
            ("0.0.0.0:8080:80", Proto::Tcp, None, Some(one(8080)), one(80)),
            ("[::1]:8080:80", Proto::Tcp, Some("::1"), Some(one(8080)), one(80)),
            ("[::]:8080:80", Proto::Tcp, None, Some(one(8080)), one(80)),
            ("[2001:db8::1]::80", Proto::Tcp, Some("2001:db8::1"), None, one(80)),
            ("[::ffff:192.0.2.1]:8080:80", Proto::Tcp, Some("192.0.2.1"), Some(one(8080)), one(80)),
            ("127.0.0.1::80", Proto::Tcp, Some("127.0.0.1"), None, one(80)),
            ("9000-9009:8000-8009", Proto::Tcp, None, Some(range(9000, 9009)), range(8000, 8009)),
            ("1-65535:1-65535", Proto::Tcp, None, Some(range(1, 65535)), range(1, 65535)),
            ("5000:5000/sctp", Proto::Sctp, None, Some(one(5000)), one(5000)),
        ];
        for (text, proto, addr, host, ports) in rows {
            let host_addr = addr.map(|addr| addr.parse().unwrap());
            assert_eq!(text.parse::<Spec>(), Ok(Spec { proto, host_addr, host, ports }), "{text}");
        }
    }

    #[test]
    fn bad_specs_are_refused_with_the_part_that_is_wrong() {
        let rows = [
            ("", "no container port"),
            ("8080:", "no container port"),
            ("0", "`0` is no port"),
            ("0:80", "`0` is no port"),
            ("65536:80", "`65536` is no port"),
            ("+80", "`+80` is no port"),
            ("http:80", "`http` is no port"),
            ("90-80", "range 90-80 is inverted: write 80-90"),
            ("8000-8001:80-82", "2 host ports for 3 container ports"),
            ("80/icmp", "unknown protocol `icmp`"),
            ("80/", "unknown protocol ``"),
            ("80:81/sctp", "sctp needs the same"),
            ("localhost:80:80", "`localhost` is no address"),
            ("::1:80:80", "is no address"),
            ("[::1]80", "is no address"),
            ("[127.0.0.1]:80:80", "`127.0.0.1` is no address"),
            (":80", "`` is no port"),
            ("80-", "`` is no port"),
        ];
        for (text, wanted) in rows {
            let error = text.parse::<Spec>().unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn a_spec_reads_back_as_itself() {
        for text in [
            "80/tcp",
            "8080:80/udp",
            "127.0.0.1:8080-8081:80-81/tcp",
            "[::1]:80:80/sctp",
            "127.0.0.1::80/tcp",
        ] {
            let spec: Spec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }
}
