//! Source addresses that an endpoint may use besides its own (`--allow-address`).

use std::net::IpAddr;

use ipnet::IpNet;

use super::subnet;

/// Why a prefix is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Bits set behind the prefix.
    #[error("--allow-address {given}: it is an address within a prefix: write {network}")]
    HostBits {
        /// As given.
        given: IpNet,
        /// What was probably meant.
        network: IpNet,
    },
    /// Loopback, link-local, multicast, reserved; or a prefix with some of those.
    #[error("--allow-address {given}: {reserved} is not for unicast hosts: choose a prefix without it")]
    NotUnicast {
        /// As given.
        given: IpNet,
        /// What nobody sends from.
        reserved: IpNet,
    },
    /// A family that the network doesn't have.
    #[error(
        "--allow-address {0}: the network has no subnet of its family: leave it out, or choose a network that has one"
    )]
    Family(IpNet),
    /// Somebody has an address of it.
    #[error("--allow-address {given}: {addr} is that of {owner}: choose a prefix without it")]
    Taken {
        /// As given.
        given: IpNet,
        /// Somebody's address.
        addr: IpAddr,
        /// Whose.
        owner: String,
    },
}

/// What can be refused without looking at anything.
pub fn check(asked: &[IpNet]) -> Result<(), Error> {
    for given in asked.iter().copied() {
        if given.trunc() != given {
            return Err(Error::HostBits { given, network: given.trunc() });
        }
        let overlaps = |reserved: &IpNet| reserved.contains(&given) || given.contains(reserved);
        if let Some(reserved) = subnet::RESERVED.into_iter().find(overlaps) {
            return Err(Error::NotUnicast { given, reserved });
        }
    }
    Ok(())
}

/// Checks them against a network and everybody's own addresses.
pub fn check_free(asked: &[IpNet], subnets: &[IpNet], taken: &[(IpAddr, String)]) -> Result<(), Error> {
    for given in asked.iter().copied() {
        if !subnet::has_family(subnets, &given.addr()) {
            return Err(Error::Family(given));
        }
        if let Some((addr, owner)) = taken.iter().find(|(addr, _)| given.contains(addr)) {
            return Err(Error::Taken { given, addr: *addr, owner: owner.clone() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn what_nobody_sends_from_is_refused() {
        check(&nets(&["10.9.0.50/32", "169.254.0.0/16", "fd00::/64", "8.0.0.0/5", "2000::/3"])).unwrap();
        for (given, why) in [
            ("10.9.0.5/24", "write 10.9.0.0/24"),
            ("fd00::1/64", "write fd00::/64"),
            ("0.0.0.0/0", "0.0.0.0/8 is not"),
            ("127.0.0.1/32", "127.0.0.0/8 is not"),
            ("64.0.0.0/2", "127.0.0.0/8 is not"),
            ("239.0.0.0/8", "224.0.0.0/3 is not"),
            ("::/0", "::/8 is not"),
            ("fe80::/64", "fe80::/10 is not"),
            ("ff02::/16", "ff00::/8 is not"),
        ] {
            let error = check(&nets(&[given])).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("--allow-address {given}: ")) && error.contains(why),
                "{error}"
            );
        }
    }

    #[test]
    fn what_somebody_has_is_refused() {
        let taken = [("10.9.0.2", "endpoint web"), ("192.0.2.1", "this host")];
        let taken = taken.map(|(addr, owner)| (addr.parse().unwrap(), owner.to_owned()));
        let check = |given| check_free(&nets(&[given]), &nets(&["10.9.0.0/24"]), &taken);
        check("10.9.0.128/25").unwrap();
        check("10.7.0.0/16").unwrap();
        assert!(check("10.9.0.0/24").unwrap_err().to_string().contains("10.9.0.2 is that of endpoint web"));
        assert!(check("192.0.2.1/32").unwrap_err().to_string().contains("this host"));
        assert_eq!(check("fd00::/64"), Err(Error::Family("fd00::/64".parse().unwrap())));
    }
}
