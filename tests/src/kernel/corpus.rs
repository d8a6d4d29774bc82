//! The host of the fuzzer's inputs in the kernel: the same interfaces, addresses, routes and tables as in the model.

use std::fs;
use std::net::TcpListener;

use netdp_common::flow::{Endpoint, PublishedKey, TimeoutSet, Timeouts};
use netdp_common::header::ethernet;
use netdp_fuzz::{Record, Seen};
use netdp_model::frame::ethertype;
use netdp_model::hook::{Fate, Hook};
use netdp_model::plan::{Place, Plan as Model};
use netdp_model::{World, ifindex, mac};

use super::plan::Plan;
use super::programs::{Code, Linear, Outcome, Programs};
use super::site::{in_new_netns, ip, text};
use super::tables::{Publication, Tables};

/// More flows than an input opens.
const FLOWS: u32 = 4096;

/// The kernel's number of an interface of the model: a new namespace has some of its own.
const fn here(number: u32) -> u32 {
    number + 100
}

/// The kernel as the host of inputs.
pub struct Host<F: Plan> {
    programs: Programs,
    world: World<F::Addr>,
}

/// Runs `work` with such a host, in a network namespace of its own.
pub fn with_host<F: Plan + Model, T: Send>(work: impl FnOnce(&mut Host<F>) -> T + Send) -> T {
    in_new_netns(|| {
        links::<F>();
        let any = <F as Model>::ip(F::at(Place::Unspecified));
        // The host's own, see `netdp_fuzz`.
        let _socket = TcpListener::bind((any, 5000)).expect("a socket of the host");
        work(&mut Host::new())
    })
}

impl<F: Plan + Model> Host<F> {
    fn new() -> Self {
        let world = netdp_fuzz::still_host::<F>(0);
        let mut programs = Programs::load(FLOWS);
        for tables in tables::<F>(&world) {
            programs.fill::<F>(&tables);
        }
        programs.set_wire(mac(ifindex::UPLINK));
        Self { programs, world }
    }

    /// Runs an input's frames, each of which must come to the same as in the model; returns how many there were.
    pub fn replay(&mut self, record: &Record) -> usize {
        self.programs.forget::<F>();
        let mut network = self.world.networks[&ifindex::BRIDGE_AB];
        network.flags = record.network_flags;
        self.programs.set_network::<F>(here(ifindex::BRIDGE_AB), &network);
        // Frames of the other family belong to other tables.
        let ours = record.frames.iter().filter(|seen| is_runnable::<F>(&seen.before));
        ours.map(|seen| self.compare(seen)).count()
    }

    fn compare(&self, seen: &Seen) {
        let program = match seen.hook {
            Hook::FromContainer(_) => "from_container",
            Hook::FromWorld => "from_world",
            Hook::ToWorld => "to_world",
            Hook::ToContainer(_) => "to_container",
        };
        let early = match seen.hook {
            Hook::FromWorld => self.programs.refused_early(&seen.before, Linear::All),
            Hook::FromContainer(_) | Hook::ToWorld | Hook::ToContainer(_) => None,
        };
        let kernel = self.programs.run(program, &seen.before, here(seen.hook.interface()), Linear::All);
        let (action, reason) = match seen.fate {
            Fate::Stack | Fate::Leaves => (Code::Next, None),
            Fate::Waits => (Code::Shot, None),
            Fate::Dropped(reason) => (Code::Shot, Some(reason)),
            Fate::Answered(reason) => (Code::Redirect, Some(reason)),
            Fate::ToEndpoint(_) | Fate::ToNextHop(_) => (Code::Redirect, None),
        };
        let model = Outcome { action, reason, packet: seen.after.clone() };
        assert_eq!(kernel, model, "left: kernel, right: model; {:?} of {:02x?}", seen.hook, seen.before);
        let is_dropped = |reason| (kernel.action, kernel.reason) == (Code::Shot, Some(reason));
        assert!(early.is_none_or(is_dropped), "early: {early:?}; {kernel:?} of {:02x?}", seen.before);
    }
}

/// BPF_PROG_TEST_RUN takes no frame without a whole Ethernet header, nor an IP packet without a whole header.
fn is_runnable<F: Plan>(frame: &[u8]) -> bool {
    frame.len() >= ethernet::LEN + F::HEADER_LEN && ethertype(frame) == F::ETHERTYPE
}

/// The model's, network by network.
fn tables<F: Plan + Model>(world: &World<F::Addr>) -> [Tables<F::Addr>; 2] {
    let endpoints = |bridge| -> Vec<Endpoint<F::Addr>> {
        let own = world.endpoints.values().filter(|endpoint| endpoint.network == bridge);
        own.map(|own| Endpoint { ifindex: here(own.ifindex), network: here(bridge), ..*own }).collect()
    };
    let published = world.published.iter().flat_map(|(key, last, value)| {
        prefixes(key.port.get(), *last).into_iter().map(|(port, port_bits)| Publication {
            key: PublishedKey { port: netdp_common::family::Be16::new(port), ..*key },
            port_bits,
            value: *value,
        })
    });
    let allowed = world.allowed.iter().map(|(veth, addr, bits)| {
        let veth = if *veth == 0 { 0 } else { here(*veth) };
        (veth, *addr, *bits)
    });
    // No time goes by.
    let timeouts = [TimeoutSet::of(&Timeouts::DEFAULT); 2];
    let first = Tables {
        endpoints: endpoints(ifindex::BRIDGE_AB),
        allowed: allowed.collect(),
        network: (here(ifindex::BRIDGE_AB), world.networks[&ifindex::BRIDGE_AB]),
        uplinks: world.uplinks.iter().map(|(number, uplink)| (here(*number), *uplink)).collect(),
        published: published.collect(),
        sources: world.sources.clone(),
        timeouts,
        flows: Vec::new(),
    };
    let second = Tables {
        endpoints: endpoints(ifindex::BRIDGE_C),
        allowed: Vec::new(),
        network: (here(ifindex::BRIDGE_C), world.networks[&ifindex::BRIDGE_C]),
        uplinks: Vec::new(),
        published: Vec::new(),
        sources: Vec::new(),
        timeouts,
        flows: Vec::new(),
    };
    [first, second]
}

/// A range of ports as prefixes: first port and fixed bits of each.
fn prefixes(first: u16, last: u16) -> Vec<(u16, u32)> {
    let (mut port, mut found) = (u32::from(first), Vec::new());
    while port <= u32::from(last) {
        let fits = |bits: &u32| port.is_multiple_of(1 << bits) && port + (1 << bits) - 1 <= u32::from(last);
        let free = (0..=16u32).rev().find(fits).unwrap_or(0);
        found.push((port as u16, 16 - free));
        port += 1 << free;
    }
    found
}

/// Interfaces with the model's numbers and MACs; addresses alone on their links, so that every other goes out.
fn links<F: Plan + Model>() {
    let add = |number: u32, kind: &str| {
        ip(&format!("link add name l{number} index {} address {} {kind}", here(number), text(mac(number))));
        ip(&format!("link set l{number} addrgenmode none"));
        ip(&format!("link set l{number} up"));
    };
    ip("link set lo up");
    for number in [ifindex::UPLINK, ifindex::UNHOOKED, ifindex::VETH_A, ifindex::VETH_B, ifindex::VETH_C] {
        add(number, &format!("type veth peer name p{number}"));
        ip(&format!("link set p{number} up"));
    }
    for number in [ifindex::BRIDGE_AB, ifindex::BRIDGE_C] {
        add(number, "type bridge");
    }
    let at = |place| <F as Model>::ip(F::at(place));
    for (place, number) in [
        (Place::Host, ifindex::UPLINK),
        (Place::GatewayAb, ifindex::BRIDGE_AB),
        (Place::GatewayC, ifindex::BRIDGE_C),
    ] {
        ip(&format!("address add {} dev l{number} nodad", at(place)));
    }
    for (place, number) in
        [(Place::A, ifindex::BRIDGE_AB), (Place::B, ifindex::BRIDGE_AB), (Place::C, ifindex::BRIDGE_C)]
    {
        ip(&format!("route add {} dev l{number}", at(place)));
    }
    // Some remote's address as good as any.
    let next_hop = at(Place::Remote(250));
    let source = at(Place::Host);
    for (to, number) in
        [("default".to_owned(), ifindex::UPLINK), (at(Place::Unhooked).to_string(), ifindex::UNHOOKED)]
    {
        ip(&format!(
            "neighbour add {next_hop} lladdr {} dev l{number} nud permanent",
            text(mac(ifindex::NEIGHBOUR))
        ));
        ip(&format!("route add {to} via {next_hop} dev l{number} src {source} onlink"));
    }
    ip(&format!("route add unreachable {}", at(Place::Nowhere)));
    let family = if next_hop.is_ipv4() { "ipv4" } else { "ipv6" };
    for number in [ifindex::BRIDGE_AB, ifindex::BRIDGE_C] {
        fs::write(format!("/proc/sys/net/{family}/conf/l{number}/forwarding"), "1").expect("forwarding");
    }
}

#[cfg(test)]
mod tests {
    use super::prefixes;

    #[test]
    fn a_range_is_a_few_prefixes() {
        assert_eq!(prefixes(9000, 9009), [(9000, 13), (9008, 15)]);
        assert_eq!(prefixes(8080, 8080), [(8080, 16)]);
    }
}
