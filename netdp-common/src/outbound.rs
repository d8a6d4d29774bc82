//! A packet from an endpoint that belongs to no flow: where it wants to go, and whether a flow may be made.

use crate::claim::{Request, Ways, claim};
use crate::family::{Address, Family};
use crate::flow::{
    Endpoint, FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Kind, NETWORK_INTERNAL, NETWORK_NO_ICC, NETWORK_ROUTED,
    Network, PortSpans, Published, PublishedKey, Tuple,
};
use crate::header::{ethernet, tcp};
use crate::meta::{self, Meta};
use crate::nat::{self, Context};
use crate::parse::{Fragment, Parsed, Transport};
use crate::tables::Route;
use crate::verdict::{DropReason, Verdict};

/// Ports that a connection through a published port may get when its own looks like another's to the endpoint.
pub(crate) const ANY_PORT: PortSpans = PortSpans::new(1024, 65_535, (1, 1));

/// Decides about a packet from an endpoint that the flow table does not know.
#[inline(never)]
pub fn open<F: Family, C: Context<F>>(c: &mut C, parsed: &Parsed<F::Addr>) -> Verdict {
    match decide::<F, C>(c, parsed) {
        Ok(verdict) => verdict,
        Err(reason) => Verdict::Drop(reason),
    }
}

#[inline(always)]
fn decide<F: Family, C: Context<F>>(c: &mut C, parsed: &Parsed<F::Addr>) -> Result<Verdict, DropReason> {
    // A veth that is being taken down: the bridge drops it with the port.
    let Some(sender) = c.sender(c.ifindex()) else { return Ok(Verdict::Stack) };
    let Tuple { src, dst, .. } = parsed.tuple;
    if src == F::Addr::UNSPECIFIED || (src.is_link_local() && src != sender.addr) {
        return Ok(Verdict::Stack);
    }
    if src != sender.addr {
        return Err(DropReason::Spoofed);
    }
    if dst.is_multicast() || dst.is_loopback() {
        return Ok(Verdict::Stack);
    }
    let network = c.network(sender.network).ok_or(DropReason::EndpointGone)?;
    if let Some(neighbour) = c.endpoint(&dst) {
        return to_neighbour(c, &network, &sender, &neighbour);
    }
    let dst_mac: [u32; 2] = c.load(ethernet::MACS).ok_or(DropReason::Malformed)?;
    if !is_mac(dst_mac, sender.bridge_mac) {
        // Bridged to somebody who routes, or to everybody.
        return Ok(Verdict::Stack);
    }
    match c.route(&parsed.tuple, sender.network) {
        Route::Local => to_host::<F, C>(c, parsed, &network, &sender),
        Route::None => Err(DropReason::NoRoute),
        Route::Out { oif, .. } if oif == sender.network => Ok(Verdict::Stack),
        Route::Out { oif, via, via_v6, src } => {
            if network.flags & NETWORK_INTERNAL != 0 {
                return Err(DropReason::Internal);
            }
            if c.network(oif).is_some() {
                return Err(DropReason::Isolated);
            }
            let uplink = c.uplink(oif).ok_or(DropReason::UplinkNotAttached)?;
            if network.flags & NETWORK_ROUTED != 0 && network.snat_to == F::Addr::UNSPECIFIED {
                return Ok(Verdict::Stack);
            }
            let external = first_specified([network.snat_to, src, uplink.addr]).ok_or(DropReason::NoRoute)?;
            let way = Ways {
                forward_iif: sender.ifindex,
                forward_oif: oif,
                forward_via: via,
                forward_flags: if via_v6 { FLOW_NEXT_HOP_V6 } else { 0 },
                reverse_iif: 0,
                reverse_oif: sender.ifindex,
                reverse_via: macs(&sender),
                reverse_flags: FLOW_TO_ENDPOINT,
            };
            let translated = Tuple { src: external, ..parsed.tuple };
            masquerade::<F, C>(c, parsed, translated, network.ports, Kind::Snat, &way)
        }
    }
}

/// Within the network: straight to the neighbour, past bridge and br_netfilter, untranslated.
#[inline(always)]
fn to_neighbour<F: Family, C: Context<F>>(
    c: &mut C,
    network: &Network<F::Addr>,
    sender: &Endpoint<F::Addr>,
    neighbour: &Endpoint<F::Addr>,
) -> Result<Verdict, DropReason> {
    if neighbour.network != sender.network || network.flags & NETWORK_NO_ICC != 0 {
        return Err(DropReason::Isolated);
    }
    if neighbour.ifindex == sender.ifindex {
        return Ok(Verdict::Stack);
    }
    Ok(nat::deliver(c, neighbour.ifindex, macs_from(neighbour, sender.mac)))
}

/// To an address of this host: a published port (hairpin), or the host itself.
#[inline(always)]
fn to_host<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    network: &Network<F::Addr>,
    sender: &Endpoint<F::Addr>,
) -> Result<Verdict, DropReason> {
    let Some(published) = published(c, &parsed.tuple) else { return Ok(Verdict::Stack) };
    if let Transport::Tcp(_) = parsed.transport
        && !nat::is_syn(parsed)
    {
        // The host's stack answers with a reset.
        return Ok(Verdict::Stack);
    }
    let target = c.endpoint(&published.endpoint).ok_or(DropReason::EndpointGone)?;
    if network.flags & NETWORK_INTERNAL != 0 && target.network != sender.network {
        return Err(DropReason::Internal);
    }
    let mut translated = parsed.tuple;
    translated.dst = target.addr;
    translated.dport = published.endpoint_port(parsed.tuple.dport);
    let way = Ways {
        forward_iif: sender.ifindex,
        forward_oif: target.ifindex,
        forward_via: macs(&target),
        forward_flags: FLOW_TO_ENDPOINT,
        reverse_iif: target.ifindex,
        reverse_oif: sender.ifindex,
        reverse_via: macs(sender),
        reverse_flags: FLOW_TO_ENDPOINT,
    };
    if target.ifindex == sender.ifindex {
        translated.src = network.gateway;
        return masquerade::<F, C>(c, parsed, translated, network.ports, Kind::Hairpin, &way);
    }
    let request = Request {
        first: parsed.tuple,
        translated,
        spans: ANY_PORT,
        keep_port: true,
        host_address: false,
        kind: Kind::Hairpin,
        bits: first_bits(parsed),
    };
    start::<F, C>(c, parsed, &request, &way)
}

/// A new flow whose source becomes an address of this host.
#[inline(always)]
fn masquerade<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    translated: Tuple<F::Addr>,
    spans: PortSpans,
    kind: Kind,
    ways: &Ways,
) -> Result<Verdict, DropReason> {
    match parsed.transport {
        Transport::Tcp(_) if !nat::is_syn(parsed) => return Err(DropReason::NoFlow),
        Transport::Tcp(_) | Transport::Udp | Transport::Echo { request: true } => {}
        Transport::Echo { request: false } => return Err(DropReason::NoFlow),
        Transport::IcmpError | Transport::IcmpOther => return Err(DropReason::IcmpUnsupported),
        Transport::Other if parsed.header.fragment == Fragment::Later => return Err(DropReason::Fragment),
        Transport::Other => return Err(DropReason::UnsupportedProtocol),
    }
    let request = Request {
        first: parsed.tuple,
        translated,
        spans,
        keep_port: false,
        host_address: true,
        kind,
        bits: first_bits(parsed),
    };
    start::<F, C>(c, parsed, &request, ways)
}

/// Claims the flow and sends its first packet on its way.
#[inline(always)]
pub(crate) fn start<F: Family, C: Context<F>>(
    c: &mut C,
    parsed: &Parsed<F::Addr>,
    request: &Request<F::Addr>,
    ways: &Ways,
) -> Result<Verdict, DropReason> {
    if parsed.header.fragment != Fragment::Whole {
        return Err(DropReason::Fragment);
    }
    if parsed.header.ttl <= 1 {
        return Err(DropReason::TtlExceeded);
    }
    let flow = {
        let host = &*c;
        let work = host.work().ok_or(DropReason::TableFull)?;
        claim(host, work, request, ways)?
    };
    Ok(nat::leave::<F, C>(c, parsed, &flow))
}

/// The published port that a packet to this host is addressed to. The caller has seen that it is this host's address.
#[inline(always)]
pub(crate) fn published<A: Address, H: crate::tables::Host<A>>(
    host: &H,
    tuple: &Tuple<A>,
) -> Option<Published<A>> {
    if !host.reserved(tuple.proto, tuple.dport.get()) {
        return None;
    }
    let key = PublishedKey { addr: tuple.dst, proto: tuple.proto, pad: 0, port: tuple.dport };
    host.published(&key).or_else(|| host.published(&PublishedKey { addr: A::UNSPECIFIED, ..key }))
}

/// What the first packet of a flow shows.
#[inline(always)]
pub(crate) fn first_bits<A>(parsed: &Parsed<A>) -> u8 {
    match parsed.transport {
        Transport::Tcp(_) => meta::bits_of_tcp(tcp::SYN),
        _ => Meta::ACTIVE,
    }
}

/// Destination and source MAC of a frame that is routed to an endpoint.
#[inline(always)]
pub(crate) fn macs<A: Copy>(endpoint: &Endpoint<A>) -> [u32; 4] {
    macs_from(endpoint, endpoint.bridge_mac)
}

#[inline(always)]
fn macs_from<A: Copy>(endpoint: &Endpoint<A>, source: [u8; 6]) -> [u32; 4] {
    let [a, b, c, d, e, f] = endpoint.mac;
    let [g, h, i, j, k, l] = source;
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l]), 0]
}

#[inline(always)]
fn is_mac(loaded: [u32; 2], mac: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = mac;
    loaded[0] == u32::from_ne_bytes([a, b, c, d]) && loaded[1] as u16 == u16::from_ne_bytes([e, f])
}

#[inline(always)]
fn first_specified<A: Address>(addresses: [A; 3]) -> Option<A> {
    addresses.into_iter().find(|addr| *addr != A::UNSPECIFIED)
}
