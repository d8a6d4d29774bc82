//! Two CPUs open flows at the same time.

use netdp_common::verdict::DropReason;

use crate::model::{Model, Outcome, PORT, datagram, explore, ports, seen};
use crate::table::Copied;
use netdp_model::hook::Hook;
use netdp_model::ifindex::{VETH_A, VETH_B};
use netdp_model::plan::Place;

/// Two flows race for two ports: each gets one.
#[test]
fn two_flows_and_two_ports() {
    explore("two flows, two ports", None, || {
        let model = Model::new(2, 8, Copied::Upwards);
        let a = model.packet(1, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let b = model.packet(2, 0, Hook::FromContainer(VETH_B), datagram(Place::B, 1000));
        let outcomes = [a.join().unwrap(), b.join().unwrap()];
        assert_eq!(ports(&outcomes), [PORT, PORT + 1], "{outcomes:?}");
        assert_eq!(model.flows().len(), 2);
    });
}

/// Two flows race for one port: one gets it, the other is told that there is none.
#[test]
#[cfg_attr(feature = "mutant-check-then-insert", should_panic)]
fn two_flows_and_one_port() {
    explore("two flows, one port", None, || {
        let model = Model::new(1, 8, Copied::Upwards);
        let a = model.packet(1, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let b = model.packet(2, 0, Hook::FromContainer(VETH_B), datagram(Place::B, 1000));
        let outcomes = [a.join().unwrap(), b.join().unwrap()];
        assert_eq!(ports(&outcomes), [PORT], "{outcomes:?}");
        assert!(outcomes.contains(&Outcome::Dropped(DropReason::PortsExhausted)), "{outcomes:?}");
        assert_eq!(model.flows().len(), 1);
    });
}

/// The first two packets of one flow: one mapping, and both leave with it.
#[test]
fn one_flow_twice() {
    explore("one flow twice", Some(3), || {
        let model = Model::new(2, 8, Copied::Upwards);
        let a = model.packet(1, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let b = model.packet(2, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let outcomes = [a.join().unwrap(), b.join().unwrap()];
        let flows = model.flows();
        assert_eq!(flows.len(), 1);
        assert_eq!(outcomes, [seen(flows[0].1.sport.get()); 2]);
    });
}

/// The same with a single port left: neither packet is refused.
#[test]
fn one_flow_twice_and_one_port() {
    explore("one flow twice, one port", Some(3), || {
        let model = Model::new(1, 8, Copied::Upwards);
        let a = model.packet(1, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let b = model.packet(2, 0, Hook::FromContainer(VETH_A), datagram(Place::A, 1000));
        let outcomes = [a.join().unwrap(), b.join().unwrap()];
        assert_eq!(outcomes, [seen(PORT); 2]);
        assert_eq!(model.flows().len(), 1);
    });
}
