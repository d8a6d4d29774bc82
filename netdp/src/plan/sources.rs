//! Who may open connections by a published port (`publish --from`).

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::published::Published;
use super::subnet;

/// Prefixes that every address of a family is in.
const ALL: [IpNet; 2] = [
    IpNet::new_assert(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
    IpNet::new_assert(IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0),
];

/// Why sources are refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Neither address nor prefix.
    #[error("`{0}` is no source: write an address or a prefix, for instance 198.51.100.7 or 2001:db8::/32")]
    Syntax(String),
    /// Bits set behind the prefix.
    #[error("--from {given}: it is an address within a prefix: write {network}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// What was probably meant.
        network: IpNet,
    },
    /// Loopback, link-local, multicast, reserved.
    #[error(
        "--from {given}: nobody comes from {reserved} by a network: leave it out; this host itself is always let in"
    )]
    NotUnicast {
        /// As given.
        given: IpNet,
        /// What nobody sends from.
        reserved: IpNet,
    },
    /// A port on a loopback address.
    #[error("--from: {0} is for this host only, which is always let in: leave --from out")]
    Loopback(String),
    /// No prefix of a family by which the port is reached.
    #[error("--from {given}: {published} is reached by {family} only: add a prefix of that family")]
    Family {
        /// The first one given.
        given: IpNet,
        /// The port.
        published: String,
        /// By which it is reached.
        family: &'static str,
    },
}

/// Prefixes of addresses, IPv4 first; none at all: everybody. Copies share them: there may be thousands.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<IpNet>", into = "Vec<IpNet>")]
pub struct Sources(Arc<[IpNet]>);

impl From<Vec<IpNet>> for Sources {
    /// In one order, whatever order they were given in, and each once.
    fn from(mut nets: Vec<IpNet>) -> Self {
        nets.sort_unstable();
        nets.dedup();
        let is_everybody = ALL.iter().all(|all| nets.contains(all));
        Self(if is_everybody { Arc::default() } else { nets.into() })
    }
}

impl From<Sources> for Vec<IpNet> {
    fn from(sources: Sources) -> Self {
        sources.0.to_vec()
    }
}

impl Sources {
    /// Whether there is no list.
    pub fn is_everybody(&self) -> bool {
        self.0.is_empty()
    }

    /// The list.
    pub fn nets(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether this address may.
    pub fn admit(&self, addr: &IpAddr) -> bool {
        self.is_everybody() || self.0.iter().any(|net| net.contains(addr))
    }

    /// Whether every address of a family may.
    pub fn admit_all_of(&self, family_of: &IpAddr) -> bool {
        let is_all = |net: &IpNet| net.prefix_len() == 0 && net.addr().is_ipv4() == family_of.is_ipv4();
        self.is_everybody() || IpNet::aggregate(&self.0.to_vec()).iter().any(is_all)
    }

    /// Refuses a list by which nobody at all would reach a port of an endpoint with these addresses.
    pub fn check_reach(&self, published: &Published, endpoint: &[IpNet]) -> Result<(), Error> {
        let Some(&given) = self.0.first() else { return Ok(()) };
        if published.host_addr.is_some_and(|addr| addr.is_loopback()) {
            return Err(Error::Loopback(published.to_string()));
        }
        let meant =
            |net: &&IpNet| published.host_addr.is_none_or(|addr| addr.is_ipv4() == net.addr().is_ipv4());
        let mut served = endpoint.iter().filter(meant);
        if served.clone().any(|net| subnet::has_family(&self.0, &net.addr())) {
            return Ok(());
        }
        let family = if served.any(subnet::is_v6) { "IPv6" } else { "IPv4" };
        Err(Error::Family { given, published: published.to_string(), family })
    }
}

impl fmt::Display for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [] => Ok(()),
            [one] => write!(f, " from {one}"),
            several => write!(f, " from {} prefixes", several.len()),
        }
    }
}

/// Reads one: an address is a prefix of its full length.
pub fn parse(text: &str) -> Result<IpNet, Error> {
    let addr = text.parse::<IpAddr>().map(IpNet::from);
    addr.or_else(|_| text.parse()).map_err(|_| Error::Syntax(text.into()))
}

/// What can be refused without looking at anything.
pub fn check(given: &[IpNet]) -> Result<(), Error> {
    for given in given.iter().copied() {
        if given.trunc() != given {
            return Err(Error::HostBits { given, network: given.trunc() });
        }
        if let Some(reserved) = subnet::RESERVED.into_iter().find(|reserved| reserved.contains(&given)) {
            return Err(Error::NotUnicast { given, reserved });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| parse(text).unwrap()).collect()
    }

    fn sources(texts: &[&str]) -> Sources {
        nets(texts).into()
    }

    #[test]
    fn a_list_has_one_form() {
        let list = sources(&["2001:db8::/32", "198.51.100.7", "10.0.0.0/8", "198.51.100.7/32"]);
        assert_eq!(list, sources(&["10.0.0.0/8", "198.51.100.7", "2001:db8::/32"]));
        let text = serde_json::to_string(&list).unwrap();
        assert_eq!(text, r#"["10.0.0.0/8","198.51.100.7/32","2001:db8::/32"]"#);
        assert_eq!(serde_json::from_str::<Sources>(&text).unwrap(), list);
        assert_eq!(list.to_string(), " from 3 prefixes");
        assert_eq!(sources(&["10.0.0.0/8"]).to_string(), " from 10.0.0.0/8");
    }

    #[test]
    fn everybody_is_no_list() {
        assert!(sources(&["::/0", "0.0.0.0/0", "10.0.0.0/8"]).is_everybody());
        let v4 = sources(&["0.0.0.0/1", "128.0.0.0/1"]);
        assert!(!v4.is_everybody());
        let (one, other) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        assert_eq!((v4.admit(&one), v4.admit(&other)), (true, false));
        assert_eq!((v4.admit_all_of(&one), v4.admit_all_of(&other)), (true, false));
        assert!(Sources::default().admit(&one) && Sources::default().admit_all_of(&other));
    }

    #[test]
    fn what_nobody_sends_from_is_refused() {
        check(&nets(&["0.0.0.0/0", "10.0.0.0/8", "198.51.100.7", "2000::/3", "fd00::/64"])).unwrap();
        for (given, why) in [
            ("10.9.0.5/24", "write 10.9.0.0/24"),
            ("127.0.0.1", "127.0.0.0/8"),
            ("224.0.0.0/4", "224.0.0.0/3"),
            ("::1", "::/8"),
            ("fe80::/64", "fe80::/10"),
        ] {
            let error = check(&nets(&[given])).unwrap_err().to_string();
            assert!(error.starts_with("--from ") && error.contains(why), "{error}");
        }
        for given in ["", "10.0.0.0/33", "localhost", "10.0.0"] {
            assert_eq!(parse(given), Err(Error::Syntax(given.into())));
        }
    }

    #[test]
    fn somebody_must_be_able_to_reach_the_port() {
        let both = nets(&["10.9.0.2/24", "fd09::2/64"]);
        let check = |spec: &str, endpoint: &[IpNet], from: &[&str]| {
            let spec: Spec = spec.parse().unwrap();
            sources(from).check_reach(&super::super::ports::entry(&spec, spec.host.unwrap()), endpoint)
        };
        check("80:80", &both, &["10.0.0.0/8"]).unwrap();
        check("80:80", &both, &["2001:db8::/32"]).unwrap();
        check("80:80", &both[..1], &["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        check("127.0.0.1:80:80", &both, &[]).unwrap();
        for (spec, endpoint, from, why) in [
            ("80:80", &both[..1], "2001:db8::/32", "by IPv4 only"),
            ("80:80", &both[1..], "10.0.0.0/8", "by IPv6 only"),
            ("[2001:db8::1]:80:80", &both[..], "10.0.0.0/8", "by IPv6 only"),
            ("127.0.0.1:80:80", &both[..], "10.0.0.0/8", "this host only"),
        ] {
            let error = check(spec, endpoint, &[from]).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
