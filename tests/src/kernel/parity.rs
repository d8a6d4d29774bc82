//! The kernel and the host side by side, and the established flows that both know.

use netdp_common::family::Address;
use netdp_common::flow::{Flow, Tuple};
use netdp_common::meta::Meta;

use super::frames::Frame;
use super::model::{Hook, Model};
use super::plan::Plan;
use super::programs::{Linear, Outcome, Programs};
use super::site::{Site, UPLINK_MAC};
use super::tables::{FlowEntry, PUBLISHED, TCP, Tables, UDP, dnat, snat, tuple};

/// The endpoint's port and the remote's.
pub const PORTS: (u16, u16) = (33_000, 443);
/// The port of the established mappings.
pub const MAPPED: u16 = 40_000;

/// The kernel's side and the host's.
pub struct Sides<'a, F: Plan> {
    site: &'a Site,
    /// The kernel's.
    pub programs: Programs,
    /// The host's.
    pub model: Model<F>,
}

impl<'a, F: Plan> Sides<'a, F> {
    /// Both with these tables.
    pub fn new(site: &'a Site, tables: Tables<F::Addr>) -> Self {
        let mut programs = Programs::load(1024);
        programs.fill::<F>(&tables);
        programs.set_wire(UPLINK_MAC);
        Self { site, programs, model: Model::new(site, tables) }
    }

    /// Runs a packet on both sides, which must say the same, and returns that.
    #[track_caller]
    pub fn run(&self, hook: Hook, packet: &[u8]) -> Outcome {
        self.run_from(hook, packet, Linear::All)
    }

    /// The same with only a part of the packet in its linear part.
    #[track_caller]
    pub fn run_from(&self, hook: Hook, packet: &[u8], linear: Linear) -> Outcome {
        let ifindex = match hook {
            Hook::FromContainer => self.site.endpoints[0],
            Hook::FromWorld | Hook::ToWorld => self.site.uplink,
        };
        let kernel = self.programs.run(hook.program(), packet, ifindex, linear);
        let host = self.model.run(hook, packet, ifindex);
        assert_eq!(kernel, host, "left: kernel, right: host; {hook:?} of {packet:02x?}, linear: {linear:?}");
        kernel
    }

    /// Both flow tables, without what depends on time and chance.
    #[track_caller]
    pub fn assert_same_flows(&self) {
        assert_eq!(comparable(self.programs.flows::<F>()), comparable(self.model.flows()), "kernel, host");
    }
}

fn comparable<A: Address>(flows: Vec<FlowEntry<A>>) -> Vec<FlowEntry<A>> {
    let mut flows: Vec<FlowEntry<A>> = flows
        .into_iter()
        // A tick may have gone by on one side.
        .map(|(key, flow)| {
            (key, Flow { meta: u64::from(Meta(flow.meta).bits() & !Meta::STREAM), tag: 0, ..flow })
        })
        .collect();
    flows.sort_by_key(|(key, _)| bytemuck::bytes_of(key).to_vec());
    flows
}

/// From endpoint 0 to the remote, before and after translation.
pub fn outward<F: Plan>(proto: u8) -> (Tuple<F::Addr>, Tuple<F::Addr>) {
    let remote_port = if proto == F::ICMP { 0 } else { PORTS.1 };
    let to = (F::REMOTE, remote_port);
    (tuple(proto, (F::ENDPOINTS[0], PORTS.0), to), tuple(proto, (F::HOST, MAPPED), to))
}

/// From a remote to the published port, before and after translation.
pub fn inward<F: Plan>(proto: u8) -> (Tuple<F::Addr>, Tuple<F::Addr>) {
    let from = (F::REMOTE, PORTS.0);
    (tuple(proto, from, (F::HOST, PUBLISHED.0)), tuple(proto, from, (F::ENDPOINTS[0], PUBLISHED.1)))
}

/// With established flows of every protocol both ways.
pub fn established<F: Plan>(site: &Site) -> Tables<F::Addr> {
    let mut tables = Tables::of::<F>(site);
    for proto in [TCP, UDP, F::ICMP] {
        let (first, translated) = outward::<F>(proto);
        tables.flows.extend(snat::<F>(site, 0, first, translated));
    }
    for proto in [TCP, UDP] {
        let (first, translated) = inward::<F>(proto);
        tables.flows.extend(dnat::<F>(site, 0, first, translated));
    }
    tables
}

/// The frames of those flows: hook, frame, the tuple that it must have afterwards.
pub fn frames<F: Plan>() -> Vec<(Hook, Frame<F>, Tuple<F::Addr>)> {
    let mut frames = Vec::new();
    for proto in [TCP, UDP, F::ICMP] {
        let (first, translated) = outward::<F>(proto);
        frames.push((Hook::FromContainer, Frame::of_endpoint(0, first), translated));
        frames.push((Hook::FromWorld, Frame::of_world(translated.reversed()), first.reversed()));
    }
    for proto in [TCP, UDP] {
        let (first, translated) = inward::<F>(proto);
        frames.push((Hook::FromWorld, Frame::of_world(first), translated));
        frames.push((Hook::FromContainer, Frame::of_endpoint(0, translated.reversed()), first.reversed()));
    }
    frames
}
