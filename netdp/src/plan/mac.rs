//! Which MAC an endpoint may ask for.

use crate::net::Mac;

/// Why a MAC is refused.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not six pairs of hex digits.
    #[error("`{0}` is no MAC address: write six pairs of hex digits, for instance 02:42:ac:1e:00:02")]
    Syntax(String),
    /// The group bit is set, broadcast included.
    #[error("{0} is a multicast address: the first pair must be even")]
    Multicast(String),
    /// All zero.
    #[error("{0} is no usable MAC address: choose another, or leave --mac out")]
    Zero(String),
    /// Somebody has it.
    #[error("{mac} is taken by {owner}: choose another --mac, or leave it out")]
    Taken {
        /// As asked.
        mac: String,
        /// Who has it.
        owner: String,
    },
}

/// The group bit (IEEE 802).
const GROUP: u8 = 1;

/// Reads a MAC and checks that nobody has it.
pub fn parse(text: &str, taken: &[(Mac, String)]) -> Result<Mac, Error> {
    let mac: Mac = text.parse().map_err(|_| Error::Syntax(text.into()))?;
    if mac.0[0] & GROUP != 0 {
        return Err(Error::Multicast(text.into()));
    }
    if mac.0 == [0; 6] {
        return Err(Error::Zero(text.into()));
    }
    match taken.iter().find(|(taken, _)| *taken == mac) {
        Some((_, owner)) => Err(Error::Taken { mac: text.into(), owner: owner.clone() }),
        None => Ok(mac),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn macs_are_checked() {
        let taken = [(Mac([2, 0, 0, 0, 0, 9]), "endpoint db".to_owned())];
        assert_eq!(parse("02:00:00:00:00:01", &taken), Ok(Mac([2, 0, 0, 0, 0, 1])));
        assert!(matches!(parse("02:00:00:00:00", &taken), Err(Error::Syntax(_))));
        assert!(matches!(parse("01:00:5e:00:00:01", &taken), Err(Error::Multicast(_))));
        assert!(matches!(parse("ff:ff:ff:ff:ff:ff", &taken), Err(Error::Multicast(_))));
        assert!(matches!(parse("00:00:00:00:00:00", &taken), Err(Error::Zero(_))));
        assert!(parse("02:00:00:00:00:09", &taken).unwrap_err().to_string().contains("endpoint db"));
    }
}
