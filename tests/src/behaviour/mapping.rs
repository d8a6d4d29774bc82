//! Which external port a flow gets (RFC 4787 section 4, RFC 5382 section 4, RFC 5508 REQ-1).

use std::collections::BTreeSet;
use std::net::SocketAddr;

use netdp_common::header::tcp;

use super::Finding;
use super::side::{INNER, Node, PORT, PUBLISHED, Side};
use crate::packet::{Carries, Packet};

/// Opens a connection.
pub(super) const SYN: Carries = Carries::Tcp { flags: tcp::SYN, seq: 1000, ack: 0 };

/// On what the external port of an endpoint's port depends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mapping {
    Endpoint,
    Address,
    AddressAndPort,
}

impl Mapping {
    const fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint-independent",
            Self::Address => "address-dependent",
            Self::AddressAndPort => "address- and port-dependent",
        }
    }
}

/// Three ports of one remote, and one of another: that random ports look alike is not to be feared.
const REMOTES: [(usize, u16); 4] = [(0, PORT), (0, PORT + 1), (0, PORT + 2), (1, PORT)];

fn external_ports(side: &Side<'_>, from: &Node, port: u16, carries: Carries) -> [u16; 4] {
    REMOTES.map(|remote| side.must_open(from, port, remote, carries).src.port())
}

fn mapping(side: &Side<'_>, from: &Node, port: u16, carries: Carries) -> Mapping {
    let ports = external_ports(side, from, port, carries);
    match ports {
        [a, b, c, d] if a == b && b == c && c == d => Mapping::Endpoint,
        [a, b, c, _] if a == b && b == c => Mapping::Address,
        _ => Mapping::AddressAndPort,
    }
}

/// Of an endpoint, and of another one that has the same port.
fn mappings(side: &Side<'_>, carries: Carries) -> [Mapping; 2] {
    let port = side.fresh_port();
    [&side.a, &side.b].map(|node| mapping(side, node, port, carries))
}

fn described([alone, second]: [Mapping; 2]) -> Finding {
    let independent = alone == Mapping::Endpoint && second == Mapping::Endpoint;
    let text = match (alone, second) {
        (Mapping::Endpoint, Mapping::Endpoint) => alone.name().to_owned(),
        (Mapping::Endpoint, second) => {
            format!("the endpoint's own port; if another endpoint has it, {}", second.name())
        }
        (alone, second) if alone == second => format!("{}, at random", alone.name()),
        (alone, second) => format!("{}; if another endpoint has it, {}", alone.name(), second.name()),
    };
    Finding::of(independent, text)
}

pub(super) fn of_udp(side: &Side<'_>) -> Finding {
    described(mappings(side, Carries::Udp))
}

pub(super) fn of_tcp(side: &Side<'_>) -> Finding {
    described(mappings(side, SYN))
}

pub(super) fn of_echo(side: &Side<'_>) -> Finding {
    let port = side.fresh_port();
    let ids = |node| {
        [0, 1, 2].map(|remote| side.must_open(node, port, (remote, 0), Carries::EchoRequest).src.port())
    };
    let independent = [&side.a, &side.b].map(|node| BTreeSet::from(ids(node)).len() == 1);
    Finding::of(
        independent == [true; 2],
        match independent {
            [true, true] => "one identifier for every remote",
            [true, false] => "the endpoint's own; if another endpoint has it, one per remote",
            _ => "one per remote, at random",
        },
    )
}

pub(super) fn is_deterministic(side: &Side<'_>) -> Finding {
    let [alone, second] = mappings(side, Carries::Udp);
    let text = if alone == second {
        "the same with and without a clash of ports"
    } else {
        "changes when ports clash"
    };
    Finding::of(alone == second, text)
}

pub(super) fn is_paired(side: &Side<'_>) -> Finding {
    let addresses: BTreeSet<_> = side.with_second_address(|| {
        let flows = (0..12).map(|n| (side.fresh_port(), (n % 3, PORT)));
        let sources = flows.map(|(port, (remote, to))| {
            let remote = SocketAddr::new(side.remote(remote), to);
            let packet = Packet::new(SocketAddr::new(side.a.address, port), remote, Carries::Udp, &[]);
            side.carry(&side.a, &side.world, packet).expect("a flow").src.ip()
        });
        sources.collect()
    });
    let paired = addresses.len() == 1;
    Finding::of(
        paired,
        if paired { "one external address for all of an endpoint's flows" } else { "several" },
    )
}

fn overloads(side: &Side<'_>, carries: Carries) -> Finding {
    let mut seen = BTreeSet::new();
    let shared = (0..32).any(|_| {
        let port = side.fresh_port();
        [&side.a, &side.b]
            .iter()
            .any(|node| !seen.insert(side.must_open(node, port, (0, PORT), carries).src.port()))
    });
    let text =
        if shared { "two flows share a port" } else { "never: two flows to one remote never share a port" };
    Finding::of(!shared, text)
}

pub(super) fn overloads_udp(side: &Side<'_>) -> Finding {
    overloads(side, Carries::Udp)
}

pub(super) fn overloads_tcp(side: &Side<'_>) -> Finding {
    overloads(side, SYN)
}

pub(super) fn keeps_ranges(side: &Side<'_>) -> Finding {
    let external = |port| side.must_open(&side.a, port, (0, PORT), Carries::Udp).src.port();
    let (low, high) = (
        (600..608).map(external).all(|port| port < 1024),
        (40_000..40_008).map(external).all(|port| port > 1023),
    );
    let text = match (low, high) {
        (true, true) => "kept",
        (false, true) => "always from 1024 on",
        _ => "not kept",
    };
    Finding::of(low && high, text)
}

pub(super) fn keeps_parity(side: &Side<'_>) -> Finding {
    let kept =
        |node: &Node, port| side.must_open(node, port, (0, PORT), Carries::Udp).src.port() % 2 == port % 2;
    let (mut alone, mut second) = (true, true);
    for _ in 0..16 {
        let port = side.fresh_port();
        alone &= kept(&side.a, port);
        second &= kept(&side.b, port);
    }
    let text = match (alone, second) {
        (true, true) => "yes",
        (true, false) => "only while no other endpoint has the port",
        _ => "no",
    };
    Finding::of(alone && second, text)
}

/// Who A's neighbour is to A, when it comes by the published port; and A to itself.
fn hairpin(side: &Side<'_>, carries: Carries) -> [Option<SocketAddr>; 2] {
    [&side.b, &side.a].map(|from| {
        let src = SocketAddr::new(from.address, side.fresh_port());
        let packet = Packet::new(src, SocketAddr::new(side.host(), PUBLISHED), carries, &[]);
        let seen = side.carry(from, &side.a, packet)?;
        assert_eq!(seen.dst, SocketAddr::new(side.a.address, INNER));
        // The answer finds its way back.
        let answer = match carries {
            Carries::Tcp { .. } => Carries::Tcp { flags: tcp::SYN | tcp::ACK, seq: 5000, ack: 1001 },
            other => other,
        };
        let back = side.carry(&side.a, from, Packet::new(seen.dst, seen.src, answer, &[]))?;
        assert_eq!((back.src, back.dst), (SocketAddr::new(side.host(), PUBLISHED), src));
        Some(seen.src)
    })
}

fn hairpins(side: &Side<'_>, carries: Carries) -> Finding {
    let seen = hairpin(side, carries).map(|seen| seen.is_some());
    let text = match seen {
        [true, true] => "to published ports, another endpoint's and its own",
        [true, false] => "to another endpoint's published port only",
        _ => "no",
    };
    Finding::of(seen == [true; 2], text)
}

fn hairpin_source(side: &Side<'_>, carries: Carries) -> Finding {
    let [other, own] = hairpin(side, carries).map(|seen| seen.expect("a hairpin").ip());
    let who = |address| match address {
        address if address == side.host() => "the external address",
        address if address == side.a.address || address == side.b.address => "the client's own address",
        _ => "the gateway's address",
    };
    let met = [other, own] == [side.host(); 2];
    Finding::of(met, format!("{}; to itself, {}", who(other), who(own)))
}

pub(super) fn hairpins_udp(side: &Side<'_>) -> Finding {
    hairpins(side, Carries::Udp)
}

pub(super) fn hairpins_tcp(side: &Side<'_>) -> Finding {
    hairpins(side, SYN)
}

pub(super) fn hairpin_source_udp(side: &Side<'_>) -> Finding {
    hairpin_source(side, Carries::Udp)
}

pub(super) fn hairpin_source_tcp(side: &Side<'_>) -> Finding {
    hairpin_source(side, SYN)
}
