//! A CPU removes a flow while others use it, or want its port.

use netdp_common::verdict::DropReason;

use crate::model::{
    EXPIRED, Flushed, IDLE, Model, Outcome, PORT, answer, answered, datagram, explore, key, ports, seen,
};
use crate::table::Copied;
use netdp_model::hook::Hook;
use netdp_model::ifindex::{VETH_A, VETH_B};
use netdp_model::plan::Place;

/// A model with one flow of A, at tick 0.
fn with_flow(ports: u16, copied: Copied) -> Model {
    let model = Model::new(ports, 8, copied);
    let sent = model.packet_here(1, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
    assert!(matches!(sent, Outcome::Sent(..)), "{sent:?}");
    model
}

/// The initiator refreshes its idle flow while somebody reclaims it: it leaves with the mapping that is there
/// afterwards, the old or a new one.
#[test]
#[cfg_attr(feature = "mutant-no-generation", should_panic)]
fn refresh_or_expire() {
    explore("refresh or expire", Some(3), || {
        let model = with_flow(2, Copied::Upwards);
        let sent = datagram(Place::A, 1000);
        let before = model.flows()[0].1;
        let remover = model.remover(2, EXPIRED, key(&answer(before.sport.get())));
        let packet = model.packet(3, IDLE, Hook::FromContainer(VETH_A), sent);
        let outcome = packet.join().unwrap();
        let removed = remover.join().unwrap();
        let flows = model.flows();
        assert_eq!(flows.len(), 1);
        assert_eq!(outcome, seen(flows[0].1.sport.get()));
        assert_eq!(removed, flows[0].1.meta >> 40 != before.meta >> 40, "removed, or still the same flow");
    });
}

/// The responder does: either it is delivered and the flow is there, or it is not and the flow is gone.
#[test]
fn answer_or_expire() {
    explore("answer or expire", None, || {
        let model = with_flow(2, Copied::Upwards);
        let sent = answer(model.flows()[0].1.sport.get());
        let remover = model.remover(2, EXPIRED, key(&sent));
        let packet = model.packet(3, IDLE, Hook::FromWorld, sent);
        let outcome = packet.join().unwrap();
        let removed = remover.join().unwrap();
        if removed {
            assert_eq!((outcome, model.flows().len()), (Outcome::Stack, 0));
        } else {
            assert_eq!((outcome, model.flows().len()), (answered(Place::A, 1000), 1));
        }
    });
}

/// Two reclaim the same flow at the same time, from either end: one of them does.
#[test]
fn expire_twice() {
    explore("expire twice", None, || {
        let model = with_flow(2, Copied::Upwards);
        let (first, flow) = model.flows()[0];
        let a = model.remover(2, EXPIRED, first);
        let b = model.remover(3, EXPIRED, key(&answer(flow.sport.get())));
        let removed = [a.join().unwrap(), b.join().unwrap()];
        assert_eq!(removed.iter().filter(|removed| **removed).count(), 1, "{removed:?}");
        assert_eq!(model.flows().len(), 0);
    });
}

/// The only port expires, its flow's next packet comes, and so does another flow's first: one of the two has it.
#[test]
fn expire_or_refresh_or_claim() {
    explore("expire, refresh, claim", Some(2), || {
        let model = with_flow(1, Copied::Upwards);
        let remover = model.remover(2, EXPIRED, key(&answer(PORT)));
        let other = model.packet(3, EXPIRED, Hook::FromContainer(VETH_B), datagram(Place::B, 1000));
        let own = model.packet(4, IDLE, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let outcomes = [own.join().unwrap(), other.join().unwrap()];
        remover.join().unwrap();
        let flows = model.flows();
        assert_eq!(flows.len(), 1);
        let owner = flows[0].0.src;
        let [a, b] = if owner == datagram(Place::A, 0).src { outcomes } else { [outcomes[1], outcomes[0]] };
        assert_eq!((a, b), (seen(PORT), Outcome::Dropped(DropReason::PortsExhausted)));
    });
}

/// A flow is flushed, its elements are recycled by another flow, and a packet of the first is on its way: it never
/// leaves with what is the other's.
fn recycled(copied: Copied) {
    explore("flush, packet, claim", Some(2), move || {
        let model = with_flow(2, copied);
        let (first, flow) = model.flows()[0];
        let flush = model.flush(2, 0, first);
        let other = model.packet(3, 0, Hook::FromContainer(VETH_B), datagram(Place::B, 2000));
        let inbound = model.packet(4, 0, Hook::FromWorld, answer(flow.sport.get()));
        let (inbound, other) = (inbound.join().unwrap(), other.join().unwrap());
        let flushed = flush.join().unwrap();
        assert_eq!(ports(&[other]).len(), 1, "{other:?}");
        let own = answered(Place::A, 1000);
        let others = other == seen(flow.sport.get()) && inbound == answered(Place::B, 2000);
        assert!(inbound == own || inbound == Outcome::Stack || others, "{inbound:?} with {other:?}");
        assert!(matches!(flushed, Flushed::Removed(_)), "{flushed:?}");
        assert_eq!(model.flows().len(), 1);
    });
}

#[test]
fn recycled_upwards() {
    recycled(Copied::Upwards);
}

#[test]
fn recycled_downwards() {
    recycled(Copied::Downwards);
}

/// The only port is freed while somebody looks for one: whatever that one finds, the next attempt succeeds.
#[test]
fn a_freed_port_works_for_the_next_attempt() {
    explore("freed port, next attempt", Some(3), || {
        let model = with_flow(1, Copied::Upwards);
        let remover = model.remover(2, EXPIRED, key(&answer(PORT)));
        let early = model.packet(3, IDLE, Hook::FromContainer(VETH_B), datagram(Place::B, 1000));
        let early = early.join().unwrap();
        assert!(remover.join().unwrap());
        let late = model.packet_here(4, IDLE, Hook::FromContainer(VETH_B), datagram(Place::B, 2000));
        let expected = Outcome::Dropped(DropReason::PortsExhausted);
        let one_has_it = [early, late] == [seen(PORT), expected] || [early, late] == [expected, seen(PORT)];
        assert!(one_has_it, "{early:?}, then {late:?}");
    });
}

/// A packet comes out of the host's stack, whose rules let it through, while its flow is flushed and opened once more in the
/// same tick: it says nothing of another flow than the one that it left by.
#[test]
fn let_through_or_flush_and_open() {
    explore("let through, flush, open", Some(2), || {
        let model = Model::new(2, 8, Copied::Upwards).honouring();
        let sent = datagram(Place::A, 1000);
        let asked = model.packet_here(1, 0, Hook::FromContainer(VETH_A), sent);
        assert_eq!(asked, Outcome::Stack);
        let (first, _) = model.flows()[0];
        let out = model.packet(2, 0, Hook::ToWorld, sent);
        let flush = model.flush(3, 0, first);
        let again = model.packet(4, 0, Hook::FromContainer(VETH_A), sent);
        let (out, flushed, again) = (out.join().unwrap(), flush.join().unwrap(), again.join().unwrap());
        let next = model.packet_here(5, 0, Hook::FromContainer(VETH_A), sent);
        let flow = model.flows()[0].1;
        for later in [again, next] {
            assert!(later == Outcome::Stack || later == out, "{later:?} after {out:?}, {flushed:?}");
        }
        assert!(next == Outcome::Stack || next == seen(flow.sport.get()), "{next:?}");
        if flushed == Flushed::NotThere || matches!(flushed, Flushed::NotRemoved(_)) {
            assert_eq!(next, out, "let through");
        }
    });
}
