//! Hosts, packets of them, and how properties are checked.

use netdp_common::flow::PortSpans;
use netdp_common::header::{tcp, udp};
use netdp_model::World;
use netdp_model::frame::{Carries, Frame, Sent};
use netdp_model::hook::{Fate, Hook};
use netdp_model::ifindex::{VETH_A, VETH_B, VETH_C};
use netdp_model::plan::{Place, Plan};
use netdp_model::watch::Watched;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Opens a connection.
pub(crate) const SYN: Carries = Carries::Tcp(tcp::SYN);
/// In the middle of one.
pub(crate) const ACK: Carries = Carries::Tcp(tcp::ACK);

/// The default range of Linux's ephemeral ports.
pub(crate) const EPHEMERAL: (u16, u16) = (32_768, 60_999);

/// The endpoints.
pub(crate) const ENDPOINTS: [(Place, u32); 3] = [(Place::A, VETH_A), (Place::B, VETH_B), (Place::C, VETH_C)];

/// A host whose mappings have these ports; published are TCP 8080 and UDP 8053 of A, and UDP 9000–9009 of B.
pub(crate) fn host<F: Plan>(ports: PortSpans, flows: usize) -> Watched<F> {
    let mut world = World::new::<F>(ports);
    world.publish::<F>(tcp::PROTO, 8080..=8080, Place::A, 80);
    world.publish::<F>(udp::PROTO, 8053..=8053, Place::A, 53);
    world.publish::<F>(udp::PROTO, 9000..=9009, Place::B, 7000);
    Watched::new(world, flows)
}

/// Checks a property with `cases` inputs: the same in every run, so that a red test is red again.
#[track_caller]
pub(crate) fn for_all<S: Strategy>(
    cases: u32,
    inputs: &S,
    property: impl Fn(S::Value) -> Result<(), TestCaseError>,
) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    if let Err(error) = runner.run(inputs, property) {
        panic!("{error}");
    }
}

/// Runs a frame; what the watcher finds wrong fails the case.
pub(crate) fn run<F: Plan>(
    host: &mut Watched<F>,
    now: u32,
    hook: Hook,
    frame: &Frame<F::Addr>,
) -> Result<(Fate, Vec<u8>), TestCaseError> {
    host.run(now, hook, &frame.bytes::<F>()).map_err(TestCaseError::fail)
}

/// The same for a packet without anything peculiar, which is to be sent on; how it looks then.
pub(crate) fn translated<F: Plan>(
    host: &mut Watched<F>,
    now: u32,
    hook: Hook,
    packet: Sent<F::Addr>,
) -> Result<Sent<F::Addr>, TestCaseError> {
    let (fate, after) = run(host, now, hook, &packet.at(hook))?;
    prop_assert!(matches!(fate, Fate::ToEndpoint(_) | Fate::ToNextHop(_)), "{fate:?} of {packet:?}");
    Sent::read::<F>(&after).ok_or_else(|| TestCaseError::fail("unreadable"))
}

/// What an endpoint asks a remote, and what carries the answer.
pub(crate) fn questions() -> impl Strategy<Value = (Carries, Carries)> {
    prop_oneof![
        Just((SYN, Carries::Tcp(tcp::SYN | tcp::ACK))),
        Just((Carries::Udp, Carries::Udp)),
        Just((Carries::EchoRequest, Carries::EchoReply)),
    ]
}

/// What is peculiar about a frame, and does not matter.
#[derive(Clone, Debug)]
pub(crate) struct Dress {
    ttl: u8,
    payload: Vec<u8>,
    options: usize,
    no_checksum: bool,
}

/// Every [`Dress`].
pub(crate) fn dresses() -> impl Strategy<Value = Dress> {
    let payload = prop::collection::vec(any::<u8>(), 0..80);
    (2..=255u8, payload, 0..=10usize, any::<bool>()).prop_map(|(ttl, payload, options, no_checksum)| Dress {
        ttl,
        payload,
        options: options * 4,
        no_checksum,
    })
}

impl Dress {
    /// On a packet at a hook.
    pub(crate) fn on<A: Copy>(&self, packet: Sent<A>, hook: Hook) -> Frame<A> {
        Frame {
            payload: self.payload.clone(),
            options: self.options,
            no_checksum: self.no_checksum && packet.carries == Carries::Udp,
            ..Sent { ttl: self.ttl, ..packet }.at(hook)
        }
    }
}
