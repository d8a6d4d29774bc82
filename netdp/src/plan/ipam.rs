//! Which address an endpoint gets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::subnet::usable;

/// Why an address is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Outside every subnet of the network.
    #[error("{addr} is not in network {network} ({subnets}): choose an address there, or leave --ip out")]
    Outside {
        /// As asked.
        addr: IpAddr,
        /// The network.
        network: String,
        /// Its subnets.
        subnets: String,
    },
    /// The subnet's own or its broadcast address; in IPv6, that of all its routers.
    #[error("{addr} is reserved in {subnet}: endpoints get {first} to {last}; choose one of those for --ip")]
    Reserved {
        /// As asked.
        addr: IpAddr,
        /// The subnet.
        subnet: IpNet,
        /// First usable address.
        first: IpAddr,
        /// Last usable address.
        last: IpAddr,
    },
    /// Somebody has it.
    #[error("{addr} is taken by {owner}: choose another --ip, or leave it out")]
    Taken {
        /// As asked.
        addr: IpAddr,
        /// Who has it.
        owner: String,
    },
    /// Two addresses of one family.
    #[error("--ip {0}: an endpoint has one address of each family; leave one out")]
    Twice(IpAddr),
    /// No address is left.
    #[error(
        "network {network}: every address of {subnet} is taken: detach an endpoint, or create a larger network"
    )]
    Full {
        /// The network.
        network: String,
        /// The subnet.
        subnet: IpNet,
    },
}

/// A network's addresses: what there is and what is taken.
pub struct Pool<'a> {
    /// The network's name.
    pub network: &'a str,
    /// Its subnets.
    pub subnets: &'a [IpNet],
    /// Taken addresses and prefixes and who has them, the gateways included.
    pub taken: Vec<(IpNet, String)>,
}

impl Pool<'_> {
    /// One address for each subnet: those asked for, the lowest free one for the rest.
    pub fn choose(&self, asked: &[IpAddr]) -> Result<Vec<IpNet>, Error> {
        let mut chosen: Vec<Option<IpAddr>> = vec![None; self.subnets.len()];
        for &addr in asked {
            let at = self.check(addr)?;
            if chosen[at].replace(addr).is_some() {
                return Err(Error::Twice(addr));
            }
        }
        let pick = |(subnet, chosen): (&IpNet, Option<IpAddr>)| match chosen {
            Some(addr) => Ok(with_prefix(addr, *subnet)),
            None => self.lowest(*subnet),
        };
        self.subnets.iter().zip(chosen).map(pick).collect()
    }

    fn check(&self, addr: IpAddr) -> Result<usize, Error> {
        let Some(at) = self.subnets.iter().position(|subnet| subnet.contains(&addr)) else {
            let subnets = self.subnets.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            return Err(Error::Outside { addr, network: self.network.into(), subnets });
        };
        let (first, last) = usable(self.subnets[at]);
        if addr < first || last < addr {
            return Err(Error::Reserved { addr, subnet: self.subnets[at], first, last });
        }
        match self.owner(addr) {
            Some((_, owner)) => Err(Error::Taken { addr, owner: owner.clone() }),
            None => Ok(at),
        }
    }

    fn owner(&self, addr: IpAddr) -> Option<&(IpNet, String)> {
        self.taken.iter().find(|(taken, _)| taken.contains(&addr))
    }

    fn lowest(&self, subnet: IpNet) -> Result<IpNet, Error> {
        let (first, last) = usable(subnet);
        let mut candidate = Some(first);
        while let Some(addr) = candidate.filter(|addr| *addr <= last) {
            match self.owner(addr) {
                Some((taken, _)) => candidate = following(taken.broadcast()),
                None => return Ok(with_prefix(addr, subnet)),
            }
        }
        Err(Error::Full { network: self.network.into(), subnet })
    }
}

/// The next address, if there is one.
fn following(addr: IpAddr) -> Option<IpAddr> {
    match addr {
        IpAddr::V4(addr) => addr.to_bits().checked_add(1).map(|bits| Ipv4Addr::from_bits(bits).into()),
        IpAddr::V6(addr) => addr.to_bits().checked_add(1).map(|bits| Ipv6Addr::from_bits(bits).into()),
    }
}

/// The address with its subnet's prefix length.
pub fn with_prefix(addr: IpAddr, subnet: IpNet) -> IpNet {
    // The subnet's own length always fits an address that it contains.
    IpNet::new(addr, subnet.prefix_len()).unwrap_or_else(|_| IpNet::from(addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool<'a>(subnets: &'a [IpNet], taken: &[&str]) -> Pool<'a> {
        let net = |text: &str| text.parse().unwrap_or_else(|_| IpNet::from(ip(text)));
        let taken = taken.iter().map(|taken| (net(taken), format!("owner of {taken}"))).collect();
        Pool { network: "blue", subnets, taken }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_lowest_free_address_is_chosen() {
        let subnets = ["10.9.0.0/24".parse().unwrap()];
        let chosen = |taken: &[&str]| pool(&subnets, taken).choose(&[]).unwrap()[0].to_string();
        assert_eq!(chosen(&["10.9.0.1"]), "10.9.0.2/24");
        assert_eq!(chosen(&["10.9.0.1", "10.9.0.2", "10.9.0.4"]), "10.9.0.3/24");
        assert_eq!(chosen(&["10.9.0.254"]), "10.9.0.1/24");
        assert_eq!(chosen(&["10.9.0.0/25", "10.9.0.129", "10.9.0.128"]), "10.9.0.130/24");
    }

    #[test]
    fn a_full_subnet_is_said() {
        let subnets = ["10.9.0.0/30".parse().unwrap()];
        assert_eq!(pool(&subnets, &["10.9.0.1"]).choose(&[]).unwrap()[0].to_string(), "10.9.0.2/30");
        let error = pool(&subnets, &["10.9.0.1", "10.9.0.2"]).choose(&[]).unwrap_err();
        assert!(matches!(error, Error::Full { .. }));
    }

    #[test]
    fn each_subnet_gives_an_address() {
        let subnets = ["10.9.0.0/24".parse().unwrap(), "fd09::/64".parse().unwrap()];
        let pool = pool(&subnets, &["10.9.0.1", "fd09::1", "fd09::2"]);
        let chosen = |asked: &[&str]| {
            let asked: Vec<IpAddr> = asked.iter().map(|addr| ip(addr)).collect();
            pool.choose(&asked).map(|nets| nets.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap(), ["10.9.0.2/24", "fd09::3/64"]);
        assert_eq!(chosen(&["fd09::77"]).unwrap(), ["10.9.0.2/24", "fd09::77/64"]);
        assert_eq!(chosen(&["fd09::77", "10.9.0.7"]).unwrap(), ["10.9.0.7/24", "fd09::77/64"]);
        assert!(matches!(chosen(&["fd09::7", "fd09::8"]), Err(Error::Twice(_))));
        assert!(matches!(chosen(&["fd09::"]), Err(Error::Reserved { .. })));
        assert!(matches!(chosen(&["fd09::2"]), Err(Error::Taken { .. })));
        assert!(matches!(chosen(&["fd08::2"]), Err(Error::Outside { .. })));
        assert!(chosen(&["fd09::ffff:ffff:ffff:ffff"]).is_ok());
    }

    #[test]
    fn a_full_ipv6_subnet_is_said() {
        let subnets = ["fd09::/126".parse().unwrap()];
        assert_eq!(
            pool(&subnets, &["fd09::1", "fd09::2"]).choose(&[]).unwrap()[0].to_string(),
            "fd09::3/126"
        );
        let error = pool(&subnets, &["fd09::1", "fd09::2", "fd09::3"]).choose(&[]).unwrap_err();
        assert!(matches!(error, Error::Full { .. }));
        let subnets = ["fd09::/64".parse().unwrap()];
        let error = pool(&subnets, &["fd09::/64"]).choose(&[]).unwrap_err();
        assert!(matches!(error, Error::Full { .. }), "what others may use is taken");
    }

    #[test]
    fn an_asked_address_is_checked() {
        let subnets = ["10.9.0.0/24".parse().unwrap()];
        let pool = pool(&subnets, &["10.9.0.1"]);
        assert_eq!(pool.choose(&[ip("10.9.0.77")]).unwrap()[0].to_string(), "10.9.0.77/24");
        assert!(matches!(pool.choose(&[ip("10.8.0.1")]), Err(Error::Outside { .. })));
        assert!(matches!(pool.choose(&[ip("10.9.0.0")]), Err(Error::Reserved { .. })));
        assert!(matches!(pool.choose(&[ip("10.9.0.255")]), Err(Error::Reserved { .. })));
        assert!(matches!(pool.choose(&[ip("10.9.0.1")]), Err(Error::Taken { .. })));
        assert!(matches!(pool.choose(&[ip("10.9.0.7"), ip("10.9.0.8")]), Err(Error::Twice(_))));
    }
}
