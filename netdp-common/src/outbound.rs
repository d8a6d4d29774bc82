//! A packet from an endpoint that belongs to no flow: where it wants to go, and whether a flow may be made.

use crate::family::{Address, Family};
use crate::flow::{
    Endpoint, FLOW_NEXT_HOP_V6, FLOW_TO_ENDPOINT, Kind, NETWORK_INTERNAL, NETWORK_NO_ICC, NETWORK_ROUTED,
    Network, NextHop, PortSpans, Published, PublishedKey, Tuple,
};
use crate::header::ethernet;
use crate::nat::{self, Context, Known};
use crate::next_hop;
use crate::opening;
use crate::parse::{Fragment, Parsed, Transport, parse_again};
use crate::tables::{Host, Request, Route, Scratch, Way, Work};
use crate::verdict::{DropReason, Verdict};

/// Ports that a connection through a published port may get when its own looks like another's to the endpoint.
pub(crate) const ANY_PORT: PortSpans = PortSpans::new(1024, 65_535, (1, 1));

/// Decides about a packet from an endpoint that the flow table does not know. [`Verdict::CLAIM`]: ask [`opening::open`].
#[inline(always)]
pub fn open<F: Family, C: Context<F>>(c: &mut C, scratch: &mut Scratch<F::Addr>) -> Verdict {
    let Scratch { known: Known { parsed, .. }, work, .. } = scratch;
    if !parse_again::<F, C>(c, parsed) {
        return Verdict::drop(DropReason::Malformed);
    }
    match decide::<F, C>(c, parsed, work) {
        Ok(Decision::Open) => opening::ask::<F, C>(c, parsed, work),
        Ok(Decision::Stack) => Verdict::STACK,
        Ok(Decision::Overtaken) => Verdict::OVERTAKEN,
        Ok(Decision::OvertakenToHost) => Verdict::OVERTAKEN_TO_HOST,
        Ok(Decision::Neighbour { oif, macs }) => nat::deliver(c, oif, macs),
        Err(reason) => Verdict::drop(reason),
    }
}

/// What to do with a packet that no flow knows.
pub(crate) enum Decision {
    /// Claim the flow of [`Work::request`].
    Open,
    /// Leave it to the stack.
    Stack,
    /// A fragment that has to wait for its datagram's first one.
    Overtaken,
    /// The same, unless its datagram is the host's own: the stack gets it, too.
    OvertakenToHost,
    /// Straight to an endpoint of the same network, untranslated.
    Neighbour {
        /// Its host veth.
        oif: u32,
        /// See [`nat::deliver`].
        macs: [u32; 4],
    },
}

#[inline(never)]
fn decide<F: Family, C: Context<F>>(
    c: &C,
    parsed: &Parsed<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Result<Decision, DropReason> {
    let Tuple { src, dst, .. } = parsed.tuple;
    // A veth that is being taken down: the bridge drops it with the port.
    let Some(sender) = c.sender(c.ifindex()) else { return Ok(Decision::Stack) };
    let [to, from]: [[u16; 3]; 2] = c.load(ethernet::MACS).ok_or(DropReason::Malformed)?;
    if !is_mac(from, sender.mac) {
        return Err(DropReason::Spoofed);
    }
    let may_use = |addr: &F::Addr| c.allowed(sender.ifindex, addr);
    if parsed.transport == Transport::IcmpOther
        && F::forges(c, parsed.header.transport(c.l3()), sender, may_use)
    {
        return Err(DropReason::Spoofed);
    }
    if src.is_link_local() && Some(src) == F::link_local(sender.bridge_mac) {
        return Err(DropReason::Spoofed);
    }
    if src == F::Addr::UNSPECIFIED || (src.is_link_local() && src != sender.addr) {
        return Ok(Decision::Stack);
    }
    if src != sender.addr && !may_use(&src) {
        return Err(DropReason::Spoofed);
    }
    let discovered = match parsed.transport {
        Transport::IcmpOther => F::discovered(c, parsed.header.transport(c.l3())),
        _ => None,
    };
    if let Some(target) = discovered
        && dst.is_multicast()
        && let Some(neighbour) = c.endpoint(&target)
        && neighbour.network == sender.network
        && neighbour.ifindex != sender.ifindex
    {
        // Straight to who is asked for: the bridge would ask a host's firewall, which lets ARP alone but not this.
        return Ok(Decision::Neighbour { oif: neighbour.ifindex, macs: macs_from(neighbour, sender.mac) });
    }
    // Nor does anybody route to no address at all (RFC 1122 3.2.1.3).
    if dst.is_multicast() || dst.is_loopback() || dst == F::Addr::UNSPECIFIED {
        return Ok(Decision::Stack);
    }
    let network = c.network(sender.network).ok_or(DropReason::EndpointGone)?;
    if let Some(neighbour) = c.endpoint(&dst) {
        let is_apart = network.flags & NETWORK_NO_ICC != 0 && discovered.is_none();
        return to_neighbour(sender, neighbour, is_apart);
    }
    if !is_mac(to, sender.bridge_mac) {
        // Bridged to somebody who routes, or to everybody.
        let isolated = network.flags & NETWORK_NO_ICC != 0;
        return if isolated { Err(DropReason::Isolated) } else { Ok(Decision::Stack) };
    }
    match c.route(&parsed.tuple, sender.network) {
        Route::Local => to_host::<F, C>(c, parsed, network, sender, work),
        Route::None => Err(DropReason::NoRoute),
        Route::Out { oif, .. } if oif == sender.network => Ok(Decision::Stack),
        Route::Out { oif, via, via_v6, src, resolved, mtu } => {
            if network.flags & NETWORK_INTERNAL != 0 {
                return Err(DropReason::Internal);
            }
            if c.network(oif).is_some() {
                return Err(DropReason::Isolated);
            }
            let uplink = c.uplink(oif).ok_or(DropReason::UplinkNotAttached)?;
            if network.flags & NETWORK_ROUTED != 0 && network.snat_addresses == 0 {
                return Ok(Decision::Stack);
            }
            if !resolved && !next_hop::is_tried(c, &NextHop { via, oif }) {
                return Err(DropReason::HostUnreachable);
            }
            let request = &mut work.request;
            request.spent_addresses = 0;
            request.has_others = network.snat_addresses > 1;
            request.is_given = network.snat_addresses != 0;
            let given = network.external(&sender.addr, 0);
            let external = first_specified([given, src, uplink.addr]).ok_or(DropReason::NoRoute)?;
            request.translated = Tuple { src: external, ..parsed.tuple };
            request.spans = network.ports;
            request.kind = Kind::Snat as u8;
            request.timeouts = network.timeouts as u16;
            request.forward =
                Way { iif: sender.ifindex, oif, via, mtu, flags: if via_v6 { FLOW_NEXT_HOP_V6 } else { 0 } };
            request.reverse = to_endpoint(c, 0, sender);
            masquerade(parsed, request)
        }
    }
}

/// Within the network: straight to the neighbour, past bridge and br_netfilter, untranslated.
#[inline(always)]
fn to_neighbour<A: Address>(
    sender: &Endpoint<A>,
    neighbour: &Endpoint<A>,
    is_apart: bool,
) -> Result<Decision, DropReason> {
    if neighbour.network != sender.network || is_apart {
        return Err(DropReason::Isolated);
    }
    if neighbour.ifindex == sender.ifindex {
        return Ok(Decision::Stack);
    }
    Ok(Decision::Neighbour { oif: neighbour.ifindex, macs: macs_from(neighbour, sender.mac) })
}

/// To an address of this host: a published port (hairpin), or the host itself.
#[inline(always)]
fn to_host<F: Family, C: Context<F>>(
    c: &C,
    parsed: &Parsed<F::Addr>,
    network: &Network<F::Addr>,
    sender: &Endpoint<F::Addr>,
    work: &mut Work<F::Addr>,
) -> Result<Decision, DropReason> {
    if parsed.header.fragment == Fragment::Later {
        return Ok(Decision::OvertakenToHost);
    }
    let Some(published) = published(c, &PublishedKey::of(&parsed.tuple)) else { return Ok(Decision::Stack) };
    if parsed.transport == Transport::Tcp && !nat::is_syn(parsed) {
        // The host's stack answers with a reset.
        return Ok(Decision::Stack);
    }
    let target = c.endpoint(&published.endpoint).ok_or(DropReason::EndpointGone)?;
    if network.flags & NETWORK_INTERNAL != 0 && target.network != sender.network {
        return Err(DropReason::Internal);
    }
    if !published.admits(&parsed.tuple.src, |list, addr| c.is_source(list, addr)) {
        return Err(DropReason::NotAllowed);
    }
    let request = &mut work.request;
    request.translated = parsed.tuple;
    request.translated.dst = target.addr;
    request.translated.dport = published.endpoint_port(parsed.tuple.dport);
    request.kind = Kind::Hairpin as u8;
    request.timeouts = network.timeouts as u16;
    request.forward = to_endpoint(c, sender.ifindex, target);
    request.reverse = to_endpoint(c, target.ifindex, sender);
    if target.ifindex == sender.ifindex {
        request.translated.src = network.gateway;
        request.spans = network.ports;
        request.has_others = false;
        return masquerade(parsed, request);
    }
    keep_source(parsed, request);
    Ok(Decision::Open)
}

/// A new flow whose source becomes an address of this host.
#[inline(always)]
fn masquerade<A: Address>(parsed: &Parsed<A>, request: &mut Request<A>) -> Result<Decision, DropReason> {
    match parsed.transport {
        Transport::Tcp if !nat::is_syn(parsed) => return Err(DropReason::NoFlow),
        Transport::Tcp | Transport::Udp | Transport::EchoRequest | Transport::Sctp | Transport::Portless => {}
        Transport::EchoReply => return Err(DropReason::NoFlow),
        Transport::IcmpError | Transport::IcmpOther => return Err(DropReason::IcmpUnsupported),
        Transport::Other if parsed.header.fragment == Fragment::Later => return Ok(Decision::Overtaken),
        Transport::Other => return Err(DropReason::UnsupportedProtocol),
    }
    request.first = parsed.tuple;
    // One mapping for each remote; for SCTP, and each pair of ports.
    request.only_port = parsed.has_fixed_ports();
    request.keep_port = request.only_port;
    request.host_address = true;
    Ok(Decision::Open)
}

/// A new flow whose source stays what it is, if nobody else looks the same to the endpoint.
#[inline(always)]
pub(crate) fn keep_source<A: Address>(parsed: &Parsed<A>, request: &mut Request<A>) {
    request.first = parsed.tuple;
    request.spans = ANY_PORT;
    request.only_port = parsed.has_fixed_ports();
    request.keep_port = true;
    request.has_others = false;
    request.host_address = false;
}

/// The way of packets to an endpoint that come by `iif`.
#[inline(always)]
pub(crate) fn to_endpoint<A: Address, H: Host<A>>(host: &H, iif: u32, endpoint: &Endpoint<A>) -> Way {
    Way {
        iif,
        oif: endpoint.ifindex,
        via: macs_from(endpoint, endpoint.bridge_mac),
        mtu: host.link_mtu(endpoint.ifindex),
        flags: FLOW_TO_ENDPOINT,
    }
}

/// The published port at an address and port. The caller has seen that it is this host's address.
#[inline(always)]
pub(crate) fn published<'a, A: Address, H: Host<A>>(
    host: &'a H,
    key: &PublishedKey<A>,
) -> Option<&'a Published<A>> {
    if !host.reserved(key.proto, key.port.get()) {
        return None;
    }
    host.published(key).or_else(|| host.published(&PublishedKey { addr: A::UNSPECIFIED, ..*key }))
}

/// Destination and source MAC of a frame to an endpoint.
#[inline(always)]
fn macs_from<A: Copy>(endpoint: &Endpoint<A>, source: [u8; 6]) -> [u32; 4] {
    let [a, b, c, d, e, f] = endpoint.mac;
    let [g, h, i, j, k, l] = source;
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l]), 0]
}

/// Whether six bytes of a frame are this MAC.
#[inline(always)]
pub(crate) fn is_mac(loaded: [u16; 3], mac: [u8; 6]) -> bool {
    let [a, b, c, d, e, f] = mac;
    loaded == [[a, b], [c, d], [e, f]].map(u16::from_ne_bytes)
}

#[inline(always)]
fn first_specified<A: Address>(addresses: [A; 3]) -> Option<A> {
    addresses.into_iter().find(|addr| *addr != A::UNSPECIFIED)
}
