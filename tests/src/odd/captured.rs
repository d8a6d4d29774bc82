//! Frames from the captures that tcpdump's source package has for its own tests, many of them made to break it.
//! `cargo xtask setup` fetches them.

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use netdp_common::header::{ethernet, ipv4, ipv6, tcp, udp};
use pcap_file::DataLink;
use pcap_file::pcap::PcapReader;

use super::{Ends, right_header};

/// Where the captures are, if not where setup puts them.
const CAPTURES: &str = "NETDP_CAPTURES";
/// Where an IPv4 header has the protocol.
const PROTO_V4: usize = ipv4::TTL_WORD + 1;
/// What a link of the usual MTU carries.
const LONGEST: usize = 1514;

/// The captured frames, each from one end to the other by its MACs, and once more with an end's address in the place of
/// the captured one: the source's (`from_inside`), or the destination's, with its port.
///
/// # Panics
/// When there are no captures.
pub fn frames(ends: &Ends, from_inside: bool) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for frame in captured() {
        let [source, destination] = ends.macs;
        let frame = [&destination[..], &source, &frame[2 * source.len()..]].concat();
        frames.extend(readdressed(ends, &frame, from_inside));
        frames.push(frame);
    }
    frames
}

/// With an end's address; none if it is not an IP packet of the family.
fn readdressed(ends: &Ends, frame: &[u8], from_inside: bool) -> Option<Vec<u8>> {
    let mut frame = frame.to_vec();
    let packet = frame.get_mut(ethernet::LEN..)?;
    let version = packet.first()? >> 4;
    let address = |address: std::net::IpAddr| match address {
        std::net::IpAddr::V4(address) => address.octets().to_vec(),
        std::net::IpAddr::V6(address) => address.octets().to_vec(),
    };
    let address = address(if from_inside { ends.from.ip() } else { ends.to.first()?.ip() });
    let (at, l4, proto) = match (version, address.len()) {
        (4, 4) => (ipv4::ADDRESSES, usize::from(packet[0] & 0xf) * 4, *packet.get(PROTO_V4)?),
        (6, 16) => (ipv6::ADDRESSES, ipv6::LEN, *packet.get(ipv6::LENGTH_WORD + 2)?),
        _ => return None,
    };
    let at = if from_inside { at } else { at + address.len() };
    packet.get_mut(at..at + address.len())?.copy_from_slice(&address);
    if !from_inside && matches!(proto, tcp::PROTO | udp::PROTO) {
        packet.get_mut(l4 + 2..l4 + 4)?.copy_from_slice(&ends.to.first()?.port().to_be_bytes());
    }
    right_header(packet);
    Some(frame)
}

/// Every Ethernet frame of every capture, as far as it can be read: some captures are odd themselves.
fn captured() -> Vec<Vec<u8>> {
    let directory = directory();
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| {
        panic!("no captures in {}: {error}; run `cargo xtask setup`", directory.display())
    });
    let mut frames = Vec::new();
    for entry in entries {
        let file = File::open(entry.expect("an entry").path()).expect("a capture");
        let Ok(mut reader) = PcapReader::new(file) else { continue };
        if reader.header().datalink != DataLink::ETHERNET {
            continue;
        }
        while let Some(Ok(packet)) = reader.next_packet() {
            if (ethernet::LEN..=LONGEST).contains(&packet.data.len()) {
                frames.push(packet.data.into_owned());
            }
        }
    }
    frames
}

fn directory() -> PathBuf {
    if let Some(path) = env::var_os(CAPTURES) {
        return path.into();
    }
    let test = env::current_exe().expect("the test's own path");
    let target = test.ancestors().find(|path| path.join("captures").is_dir());
    target.unwrap_or(Path::new("target")).join("captures")
}
