//! Names of instances, networks, endpoints and interfaces.

/// Longest interface name the kernel takes (`IFNAMSIZ` less its final zero).
pub const IFNAME_MAX: usize = 15;
/// Longest name of an endpoint or network: a DNS label, because endpoints are looked up by name.
pub const NAME_MAX: usize = 63;
/// An endpoint's interface, if it isn't named.
pub const DEFAULT_IFNAME: &str = "eth0";
/// The name by which an endpoint reaches its host.
pub const HOST_NAME: &str = "host.netdp.internal";
/// Names that mean something else in every hosts file.
const RESERVED: [&str; 4] = ["localhost", "ip6-localhost", "ip6-loopback", HOST_NAME];
/// The network that the first `attach` makes.
pub const DEFAULT_NETWORK: &str = "default";
/// Its bridge.
pub const DEFAULT_BRIDGE: &str = "netdp0";
/// What every interface that netdp makes on the host begins with, the default bridge excepted.
const PREFIX: &str = "nd";
/// What bridges of named networks begin with.
const BRIDGE_PREFIX: &str = "nd-";
/// Words that `--network` understands as modes.
const MODES: [&str; 3] = ["none", "host", "container"];

/// Why a name is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// No character at all.
    #[error("the {kind} name is empty: give it one of letters, digits, `-`, `_` and `.`")]
    Empty {
        /// What is being named.
        kind: &'static str,
    },
    /// More bytes than there may be.
    #[error("the {kind} name `{name}` has {} bytes: at most {max} fit", name.len())]
    TooLong {
        /// What is being named.
        kind: &'static str,
        /// The name.
        name: String,
        /// The limit.
        max: usize,
    },
    /// A character that is not allowed.
    #[error("the {kind} name `{}` has the character {bad:?}: use letters, digits, `-`, `_` and `.`, the first one a letter or digit", name.escape_debug())]
    Character {
        /// What is being named.
        kind: &'static str,
        /// The name.
        name: String,
        /// The first character that is wrong.
        bad: char,
    },
    /// A network named like a mode.
    #[error("`{0}` can't name a network: `--network {0}` means a mode; choose another name")]
    Mode(String),
    /// An endpoint named like the host.
    #[error(
        "`{0}` can't name an endpoint: in every one, that name means itself or the host; choose another --name"
    )]
    Reserved(String),
}

/// Checks the name of an instance, network or endpoint.
pub fn check(kind: &'static str, name: &str) -> Result<(), Error> {
    let Some(first) = name.chars().next() else {
        return Err(Error::Empty { kind });
    };
    let bad = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
    let odd = if first.is_ascii_alphanumeric() { name.chars().find(|&c| bad(c)) } else { Some(first) };
    if let Some(bad) = odd {
        return Err(Error::Character { kind, name: name.into(), bad });
    }
    if name.len() > NAME_MAX {
        return Err(Error::TooLong { kind, name: name.into(), max: NAME_MAX });
    }
    Ok(())
}

/// Checks the name of an endpoint.
pub fn check_endpoint(name: &str) -> Result<(), Error> {
    if RESERVED.iter().any(|reserved| reserved.eq_ignore_ascii_case(name)) {
        return Err(Error::Reserved(name.into()));
    }
    check("endpoint", name)
}

/// Checks the name of a network.
pub fn check_network(name: &str) -> Result<(), Error> {
    if MODES.contains(&name) {
        return Err(Error::Mode(name.into()));
    }
    check("network", name)
}

/// Checks the name of an interface.
pub fn check_ifname(name: &str) -> Result<(), Error> {
    let kind = "interface";
    if name.len() > IFNAME_MAX {
        return Err(Error::TooLong { kind, name: name.into(), max: IFNAME_MAX });
    }
    check(kind, name)
}

/// The bridge of a network for which none was named: `netdp0`, or `nd-NAME` cut to what the kernel takes.
pub fn bridge(network: &str) -> String {
    if network == DEFAULT_NETWORK {
        return DEFAULT_BRIDGE.into();
    }
    let mut name = format!("{BRIDGE_PREFIX}{network}");
    name.truncate(IFNAME_MAX);
    name
}

/// A host veth's name from a random number; 40 bits, so that two hardly ever meet.
pub fn host_ifname(random: u64) -> String {
    format!("{PREFIX}{:010x}", random & 0xff_ffff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["web", "web-1", "a.b_c", "7", &"x".repeat(63)] {
            assert_eq!(check("endpoint", good), Ok(()), "{good}");
        }
        for bad in ["", "-web", ".hidden", "..", "a/b", "a b", "wéb", "a\n", "a:b", &"x".repeat(64)] {
            assert!(check("endpoint", bad).is_err(), "{bad}");
        }
        for reserved in ["localhost", "Localhost", "host.netdp.internal"] {
            assert_eq!(check_endpoint(reserved), Err(Error::Reserved(reserved.into())));
        }
        assert_eq!(check_network("host"), Err(Error::Mode("host".into())));
        assert!(check_ifname("0123456789abcdef").unwrap_err().to_string().contains("16 bytes: at most 15"));
    }

    #[test]
    fn control_characters_do_not_break_the_line() {
        let error = check("endpoint", "a\nb").unwrap_err().to_string();
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn interface_names_fit_the_kernel() {
        assert_eq!(bridge("default"), "netdp0");
        assert_eq!(bridge("blue"), "nd-blue");
        assert_eq!(bridge("a-network-with-a-long-name"), "nd-a-network-wi");
        assert_eq!(host_ifname(u64::MAX), "ndffffffffff");
        assert!(check_ifname(&host_ifname(7)).is_ok());
    }
}
