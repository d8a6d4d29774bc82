//! IPv6's extension headers, as far as they are whole.
//!
//! One by one: etherparse's own iterator over them (0.21) reads past the end of what `from_slice_lax` found cut off.

use etherparse::{IpAuthHeaderSlice, IpNumber, Ipv6FragmentHeaderSlice, Ipv6RawExtHeaderSlice};

/// What stands behind the extension headers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Behind {
    /// The protocol of what follows; an extension header that is cut off.
    pub proto: u8,
    /// Bytes of extension headers.
    pub len: usize,
    /// With a fragment header: the fragment's offset in units of 8 bytes, and whether more follow.
    pub fragment: Option<(u16, bool)>,
}

/// Walks the extension headers in `bytes`, of which `first` is the first one's protocol number.
pub fn behind(first: u8, bytes: &[u8]) -> Behind {
    let mut found = Behind { proto: first, len: 0, fragment: None };
    while let Some((next, len)) = step(&mut found, bytes) {
        found.proto = next.0;
        found.len += len;
    }
    found
}

/// The next header's number and this one's length; none if this is not an extension header, or cut off.
fn step(found: &mut Behind, bytes: &[u8]) -> Option<(IpNumber, usize)> {
    let bytes = bytes.get(found.len..)?;
    match IpNumber(found.proto) {
        // Only at the start (RFC 8200 4.1).
        IpNumber::IPV6_HEADER_HOP_BY_HOP if found.len != 0 => None,
        IpNumber::IPV6_HEADER_HOP_BY_HOP
        | IpNumber::IPV6_ROUTE_HEADER
        | IpNumber::IPV6_DESTINATION_OPTIONS => {
            let header = Ipv6RawExtHeaderSlice::from_slice(bytes).ok()?;
            Some((header.next_header(), header.slice().len()))
        }
        IpNumber::IPV6_FRAGMENTATION_HEADER => {
            let header = Ipv6FragmentHeaderSlice::from_slice(bytes).ok()?;
            found.fragment = Some((header.fragment_offset().value(), header.more_fragments()));
            Some((header.next_header(), header.slice().len()))
        }
        IpNumber::AUTHENTICATION_HEADER => {
            let header = IpAuthHeaderSlice::from_slice(bytes).ok()?;
            Some((header.next_header(), header.slice().len()))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::{Behind, behind};

    #[test]
    fn stops_where_a_header_is_cut_off() {
        let options = [44u8, 0, 1, 4, 0, 0, 0, 0];
        let fragment = [17, 0, 0, 0x19, 0, 0, 0, 1];
        let both = [options, fragment].concat();
        assert_eq!(behind(0, &both), Behind { proto: 17, len: 16, fragment: Some((3, true)) });
        assert_eq!(behind(60, &both[..15]), Behind { proto: 44, len: 8, fragment: None });
        assert_eq!(behind(60, &both[..7]), Behind { proto: 60, len: 0, fragment: None });
        assert_eq!(behind(17, &both), Behind { proto: 17, len: 0, fragment: None });
    }
}
