//! The ports that the host's own sockets get, in the calling thread's network namespace. IPv6 uses the same ones.

use std::ops::RangeInclusive;

use super::error::{Error, Result};
use super::sysctl;

const RANGE: [&str; 3] = ["net", "ipv4", "ip_local_port_range"];
const RESERVED: [&str; 3] = ["net", "ipv4", "ip_local_reserved_ports"];

/// The ports, first and last, of which the kernel picks one for a socket that doesn't ask for any.
pub fn local_range() -> Result<(u16, u16)> {
    let text = sysctl::get(&RANGE)?;
    parse_range(&text).ok_or_else(|| malformed(&RANGE, &text))
}

/// The ports of that range which the kernel doesn't pick; a socket may still ask for one. Sorted.
pub fn reserved() -> Result<Vec<RangeInclusive<u16>>> {
    let text = sysctl::get(&RESERVED)?;
    parse_list(&text).ok_or_else(|| malformed(&RESERVED, &text))
}

fn parse_range(text: &str) -> Option<(u16, u16)> {
    let mut numbers = text.split_whitespace();
    let range = (numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?);
    numbers.next().is_none().then_some(range)
}

fn parse_list(text: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let ranges = text.trim().split(',').filter(|part| !part.is_empty());
    ranges
        .map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some(first.parse().ok()?..=last.parse().ok()?)
        })
        .collect()
}

fn malformed(path: &[&str], text: &str) -> Error {
    Error::Malformed { path: format!("/proc/sys/{}", path.join("/")), content: text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_range_is_two_numbers() {
        assert_eq!(parse_range("32768\t60999"), Some((32768, 60999)));
        for bad in ["", "1", "1 2 3", "a b", "1 65536"] {
            assert_eq!(parse_range(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_list_is_ports_and_ranges() {
        assert_eq!(parse_list(""), Some(Vec::new()));
        assert_eq!(parse_list("8080,9148-9150"), Some(vec![8080..=8080, 9148..=9150]));
        assert_eq!(parse_list("1-x"), None);
    }
}
