//! The kernel's connection tracking, in the calling thread's network namespace: list and delete by ctnetlink.
//! `/proc/net/nf_conntrack` can't delete, and may be configured out.

use std::net::IpAddr;

use netlink_packet_core::DefaultNla;
use netlink_packet_core::Nla as _;
use netlink_packet_netfilter::NetfilterMessageInner;
use netlink_packet_netfilter::NetfilterProtoFamily;
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoInfo, ProtoInfoTCP, ProtoTuple, Status, Tuple,
};

use super::error::{Error, Result};
use super::netfilter::Netfilter;
use crate::failpoint;

/// Attributes that the crate doesn't name (`linux/netfilter/nfnetlink_conntrack.h`).
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_PROTO_ICMP_ID: u16 = 4;
const CTA_PROTO_ICMPV6_ID: u16 = 7;

/// One direction: addresses with ports; an ICMP identifier is both ports.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Direction {
    /// Source.
    pub src: (IpAddr, u16),
    /// Destination.
    pub dst: (IpAddr, u16),
}

/// A tracked connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// IP protocol number.
    pub proto: u8,
    /// As its first packet came.
    pub original: Direction,
    /// As answers to it come.
    pub reply: Direction,
    /// Whether an answer came.
    pub answered: bool,
    /// Whether it is more than a question with an answer.
    pub assured: bool,
    /// TCP's state (`enum tcp_conntrack`), for TCP.
    pub tcp_state: Option<u8>,
    /// Seconds until it is forgotten.
    pub expires_s: u32,
    /// What names it, and no later one with the same addresses.
    key: Vec<ConntrackAttribute>,
}

impl Connection {
    /// What names it, as bytes for [`delete`].
    pub fn name(&self) -> Vec<u8> {
        let mut bytes = vec![0; netlink_packet_core::Emitable::buffer_len(&self.key.as_slice())];
        netlink_packet_core::Emitable::emit(&self.key.as_slice(), &mut bytes);
        bytes.insert(0, u8::from(self.original.src.0.is_ipv6()));
        bytes
    }
}

/// Every connection.
pub fn list() -> Result<Vec<Connection>> {
    let doing = || "listing the tracked connections".to_owned();
    let ask = NetfilterMessageInner::from(ConntrackMessage::Get(Vec::new()));
    let answers = Netfilter::open()?.dump(ask).map_err(Error::system(doing))?;
    let connections = answers.into_iter().filter_map(|answer| match answer.inner {
        NetfilterMessageInner::Conntrack(ConntrackMessage::New(attributes)) => connection(attributes),
        _ => None,
    });
    Ok(connections.collect())
}

/// Deletes those very connections; returns how many were still there.
pub fn delete<'a>(names: impl IntoIterator<Item = &'a [u8]>) -> Result<usize> {
    let netfilter = Netfilter::open()?;
    let mut deleted = 0;
    for name in names {
        let Some((ipv6, key)) = name.split_first() else { continue };
        let family = if *ipv6 == 0 { NetfilterProtoFamily::IPv4 } else { NetfilterProtoFamily::IPv6 };
        let delete = || netfilter.change(family, ConntrackMessage::Delete(parse_key(key)).into());
        match failpoint::pass("delete a connection").and_then(|()| delete()) {
            Ok(()) => deleted += 1,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => {
                return Err(Error::system(|| "deleting a tracked connection".to_owned())(error));
            }
        }
    }
    Ok(deleted)
}

/// Deletes every IPv4 connection.
pub fn delete_all() -> Result<()> {
    // A request that names none is for all.
    let delete = ConntrackMessage::Delete(Vec::new()).into();
    let deleted = Netfilter::open()?.change(NetfilterProtoFamily::IPv4, delete);
    deleted.map_err(Error::system(|| "deleting the tracked connections".to_owned()))
}

fn parse_key(bytes: &[u8]) -> Vec<ConntrackAttribute> {
    use netlink_packet_core::{NlasIterator, Parseable as _};
    let attributes = NlasIterator::new(bytes).flatten();
    attributes.filter_map(|attribute| ConntrackAttribute::parse(&attribute).ok()).collect()
}

fn connection(attributes: Vec<ConntrackAttribute>) -> Option<Connection> {
    let (mut original, mut reply, mut status) = (None, None, Status::empty());
    let (mut tcp_state, mut expires_s) = (None, 0);
    for attribute in &attributes {
        match attribute {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = direction(tuple),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = direction(tuple),
            ConntrackAttribute::CtaStatus(bits) => status = *bits,
            ConntrackAttribute::CtaTimeout(seconds) => expires_s = *seconds,
            ConntrackAttribute::CtaProtoInfo(infos) => tcp_state = infos.iter().find_map(state_of_tcp),
            _ => {}
        }
    }
    let ((proto, original), (_, reply)) = (original?, reply?);
    let names_it = |attribute: &ConntrackAttribute| match attribute {
        ConntrackAttribute::CtaTupleOrig(_) => true,
        ConntrackAttribute::Other(other) => matches!(other.kind(), CTA_ID | CTA_ZONE),
        _ => false,
    };
    Some(Connection {
        proto,
        original,
        reply,
        answered: status.contains(Status::SeenReply),
        assured: status.contains(Status::Assured),
        tcp_state,
        expires_s,
        key: attributes.into_iter().filter(names_it).collect(),
    })
}

fn direction(parts: &[Tuple]) -> Option<(u8, Direction)> {
    let (mut src, mut dst, mut proto, mut ports) = (None, None, 0, (0, 0));
    for part in parts {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(addr) => src = Some(*addr),
                        IPTuple::DestinationAddress(addr) => dst = Some(*addr),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(values) => {
                for value in values {
                    match value {
                        ProtoTuple::Protocol(number) => proto = u8::from(*number),
                        ProtoTuple::SourcePort(port) => ports.0 = *port,
                        ProtoTuple::DestinationPort(port) => ports.1 = *port,
                        ProtoTuple::Other(other) => ports = icmp_id(other).map_or(ports, |id| (id, id)),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some((proto, Direction { src: (src?, ports.0), dst: (dst?, ports.1) }))
}

fn icmp_id(attribute: &DefaultNla) -> Option<u16> {
    if !matches!(attribute.kind(), CTA_PROTO_ICMP_ID | CTA_PROTO_ICMPV6_ID) {
        return None;
    }
    let mut value = vec![0; attribute.value_len()];
    attribute.emit_value(&mut value);
    Some(u16::from_be_bytes(value.try_into().ok()?))
}

fn state_of_tcp(info: &ProtoInfo) -> Option<u8> {
    let ProtoInfo::TCP(parts) = info else { return None };
    parts.iter().find_map(|part| match part {
        ProtoInfoTCP::State(state) => Some(*state),
        _ => None,
    })
}
