//! What belongs to a port, found without looking at what belongs to others: thousands may be published at once.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use super::{Proto, PublishEntry};

/// Values by protocol and port. A range has its value at each of its ports.
#[derive(Debug)]
pub struct PortMap<T>(HashMap<(u8, u16), Vec<T>>);

impl<T> Default for PortMap<T> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<T: Clone> PortMap<T> {
    /// Adds a value to each port of a range.
    pub fn add(&mut self, proto: Proto, ports: RangeInclusive<u16>, value: T) {
        for port in ports {
            self.0.entry((proto.number(), port)).or_default().push(value.clone());
        }
    }

    /// What a port has, in the order in which it was added; the protocol by its IP number.
    pub fn at(&self, proto: u8, port: u16) -> &[T] {
        self.0.get(&(proto, port)).map_or(&[], Vec::as_slice)
    }
}

impl<'a> PortMap<&'a PublishEntry> {
    /// Published ports by their host ports.
    pub fn of_host_ports(entries: impl IntoIterator<Item = &'a PublishEntry>) -> Self {
        let mut map = Self::default();
        for entry in entries {
            map.add(entry.proto, entry.host_port..=entry.host_port_end, entry);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_is_at_each_of_its_ports() {
        let mut map = PortMap::default();
        map.add(Proto::Tcp, 80..=82, 'a');
        map.add(Proto::Tcp, 82..=82, 'b');
        map.add(Proto::Udp, 65_535..=65_535, 'c');
        assert_eq!(map.at(6, 82), ['a', 'b']);
        assert_eq!((map.at(6, 79), map.at(6, 83), map.at(17, 80)), (&[][..], &[][..], &[][..]));
        assert_eq!(map.at(17, 65_535), ['c']);
    }
}
