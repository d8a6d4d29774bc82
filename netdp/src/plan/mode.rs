//! `--network none|host|container:NAME`: namespaces that get no interface from netdp.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a mode begins that names an endpoint.
const CONTAINER: &str = "container:";

/// What a command or name gets instead of an interface on a network.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Mode {
    /// A namespace of its own with nothing but loopback.
    None,
    /// The host's namespace.
    Host,
    /// That of an endpoint.
    Container(String),
}

impl Mode {
    /// The mode that `--network` means; none: it names a network.
    pub fn parse(network: &str) -> Option<Self> {
        match network {
            "none" => Some(Self::None),
            "host" => Some(Self::Host),
            _ => network.strip_prefix(CONTAINER).map(|name| Self::Container(name.into())),
        }
    }

    /// The endpoint whose namespace is borrowed.
    pub fn lender(&self) -> Option<&str> {
        match self {
            Self::Container(name) => Some(name),
            Self::None | Self::Host => None,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Host => f.write_str("host"),
            Self::Container(name) => write!(f, "{CONTAINER}{name}"),
        }
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        mode.to_string()
    }
}

impl TryFrom<String> for Mode {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("{text} is no mode"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_told_from_networks() {
        for (text, mode) in
            [("none", Mode::None), ("host", Mode::Host), ("container:web", Mode::Container("web".into()))]
        {
            assert_eq!(Mode::parse(text), Some(mode.clone()));
            assert_eq!(mode.to_string(), text);
        }
        for network in ["default", "None", "container", "nonesuch"] {
            assert_eq!(Mode::parse(network), None);
        }
    }
}
