//! Ethernet addresses.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The bit of the first byte that says: not from a manufacturer.
const LOCALLY_ADMINISTERED: u8 = 0x02;
/// The bit of the first byte that says: not one station's.
const GROUP: u8 = 0x01;

/// An Ethernet address, written `02:00:5e:10:00:01`.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

/// Text that is no Ethernet address.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is not a MAC address: it must be six two-digit hexadecimal numbers with ':' between them")]
pub struct MacError(pub String);

impl Mac {
    /// A random locally administered unicast address.
    pub fn random_local() -> Self {
        // Not for secrets: std's hasher keys are random and differ for every call.
        let [_, _, rest @ ..] = RandomState::new().hash_one(()).to_be_bytes();
        let mut bytes: [u8; 6] = rest;
        bytes[0] = bytes[0] & !GROUP | LOCALLY_ADMINISTERED;
        Self(bytes)
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for Mac {
    type Err = MacError;

    fn from_str(text: &str) -> Result<Self, MacError> {
        let error = || MacError(text.to_owned());
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part =
                parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or_else(error)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        if parts.next().is_some() { Err(error()) } else { Ok(Self(bytes)) }
    }
}

impl TryFrom<String> for Mac {
    type Error = MacError;

    fn try_from(text: String) -> Result<Self, MacError> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips() {
        let mac = Mac([0x02, 0, 0x5e, 0x10, 0xff, 1]);
        assert_eq!(mac.to_string(), "02:00:5e:10:ff:01");
        assert_eq!(mac.to_string().parse(), Ok(mac));
        assert_eq!(serde_json::to_string(&mac).expect("serializes"), "\"02:00:5e:10:ff:01\"");
    }

    #[test]
    fn other_text_is_refused() {
        for bad in [
            "",
            "02:00:5e:10:ff",
            "02:00:5e:10:ff:01:02",
            "2:0:5e:10:ff:1",
            "02-00-5e-10-ff-01",
            "+2:00:5e:10:ff:01",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(MacError(bad.to_owned())));
        }
    }

    #[test]
    fn random_ones_are_local_unicast_and_differ() {
        let macs: Vec<Mac> = (0..64).map(|_| Mac::random_local()).collect();
        for mac in &macs {
            assert_eq!(mac.0[0] & (LOCALLY_ADMINISTERED | GROUP), LOCALLY_ADMINISTERED);
        }
        let distinct: std::collections::HashSet<_> = macs.iter().collect();
        assert_eq!(distinct.len(), macs.len());
    }
}
