//! The text of the kernel's socket tables.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What the kernel calls TCP_LISTEN.
const LISTENING: &str = "0A";

/// A socket that is listening or bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Entry {
    /// Its address; an IPv4-mapped one as IPv4.
    pub(super) addr: IpAddr,
    /// Its port.
    pub(super) port: u16,
    /// The inode that the processes' descriptors name.
    pub(super) inode: u64,
}

/// The format of a table.
#[derive(Clone, Copy, Debug)]
pub(super) enum Table {
    /// `tcp`, `tcp6`: only listening sockets are taken.
    Tcp,
    /// `udp`, `udp6`: every socket is taken.
    Udp,
    /// `sctp/eps`.
    Sctp,
}

impl Table {
    /// The sockets, or the line that is not understood.
    pub(super) fn parse(self, text: &str) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        // The first line has the columns' names.
        for line in text.lines().skip(1).filter(|line| !line.trim().is_empty()) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let parsed = match self {
                Self::Tcp if fields.get(3).is_some_and(|&state| state != LISTENING) => continue,
                Self::Tcp | Self::Udp => inet(&fields).map(|entry| vec![entry]),
                Self::Sctp => sctp(&fields),
            };
            entries.extend(parsed.ok_or_else(|| line.to_owned())?);
        }
        Ok(entries)
    }
}

/// `sl local_address rem_address st tx_queue:rx_queue tr:tm->when retrnsmt uid timeout inode ...`
fn inet(fields: &[&str]) -> Option<Entry> {
    let (addr, port) = fields.get(1)?.split_once(':')?;
    Some(Entry {
        addr: address(addr)?,
        port: u16::from_str_radix(port, 16).ok()?,
        inode: fields.get(9)?.parse().ok()?,
    })
}

/// Words of 32 bits, each written as a number that this machine's byte order made of it.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |at: usize| u32::from_str_radix(hex.get(at..at + 8)?, 16).ok().map(u32::to_ne_bytes);
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut bytes = [0; 16];
            for (i, chunk) in bytes.chunks_exact_mut(4).enumerate() {
                chunk.copy_from_slice(&word(i * 8)?);
            }
            Some(IpAddr::from(Ipv6Addr::from(bytes)).to_canonical())
        }
        _ => None,
    }
}

/// `ENDPT SOCK STY SST HBKT LPORT UID INODE LADDRS...`: one entry for each address.
fn sctp(fields: &[&str]) -> Option<Vec<Entry>> {
    let port = fields.get(5)?.parse().ok()?;
    let inode = fields.get(7)?.parse().ok()?;
    let entry = |addr: &&str| {
        // The primary address has a star in front.
        let addr: IpAddr = addr.trim_start_matches('*').parse().ok()?;
        Some(Entry { addr: addr.to_canonical(), port, inode })
    };
    fields[8..].iter().map(entry).collect()
}

#[cfg(test)]
#[cfg(target_endian = "little")]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn entry(addr: &str, port: u16, inode: u64) -> Entry {
        Entry { addr: addr.parse().expect("an address"), port, inode }
    }

    #[test]
    fn tcp_takes_listeners_only() {
        let text = format!(
            "{HEAD}   0: 0100007F:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1234 1 0 100 0\n\
             \x20  1: 0100007F:0017 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 1235 1 0 20 4\n"
        );
        assert_eq!(Table::Tcp.parse(&text), Ok(vec![entry("127.0.0.1", 22, 1234)]));
    }

    #[test]
    fn udp6_takes_all_and_maps_ipv4() {
        let text = format!(
            "{HEAD}  10: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000   101        0 99 2 0 0\n\
             \x20 11: 0000000000000000FFFF0000010200C0:0044 00000000000000000000000000000000:0000 01 00000000:00000000 00:00000000 00000000   101        0 98 2 0 0\n"
        );
        assert_eq!(Table::Udp.parse(&text), Ok(vec![entry("::1", 53, 99), entry("192.0.2.1", 68, 98)]));
    }

    #[test]
    fn sctp_has_one_entry_for_each_address() {
        let text = " ENDPT     SOCK   STY SST HBKT LPORT   UID INODE LADDRS\n\
                    ffff8880 ffff8881 2   10  29   36412     0 15126 *192.0.2.1 2001:db8:0000:0000:0000:0000:0000:0001 \n";
        let expected = vec![entry("192.0.2.1", 36412, 15126), entry("2001:db8::1", 36412, 15126)];
        assert_eq!(Table::Sctp.parse(text), Ok(expected));
    }

    #[test]
    fn an_odd_line_is_returned() {
        assert_eq!(Table::Udp.parse(&format!("{HEAD}nonsense\n")), Err("nonsense".to_owned()));
        assert_eq!(Table::Sctp.parse("head\n1 2 3\n"), Err("1 2 3".to_owned()));
    }
}
