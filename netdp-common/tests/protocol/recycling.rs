//! A closed connection's port goes to the next one, while others use it, want it, or remove it.

use loom::thread::JoinHandle;
use netdp_common::family::{Ipv4Addr, V4};
use netdp_common::header::tcp;
use netdp_common::meta::Meta;
use netdp_common::verdict::DropReason;
use netdp_model::TIMEOUTS;
use netdp_model::frame::{Carries, Segment, Sent};
use netdp_model::hook::Hook;
use netdp_model::ifindex::{VETH_A, VETH_B};
use netdp_model::plan::{Place, Plan};

use crate::model::{Model, Outcome, PORT, explore, key, ports};
use crate::table::Copied;

const FIN: u8 = tcp::FIN | tcp::ACK;
const SYN_ACK: u8 = tcp::SYN | tcp::ACK;

/// A's sequence number when it has closed.
const END: u32 = 1002;

/// When a port may be given away at the first tries, too.
const RESTED: u32 = 1;

fn segment(flags: u8, sequence: u32, acknowledgement: u32) -> Carries {
    Carries::Segment(Segment { flags, sequence, acknowledgement, ..Segment::default() })
}

/// A segment of an endpoint to the first remote.
fn out(from: Place, sport: u16, carries: Carries) -> Sent<Ipv4Addr> {
    Sent { src: V4::at(from), dst: V4::at(Place::Remote(9)), sport, dport: 443, carries, ttl: 64 }
}

/// A segment of the remote to a port.
fn back_to(port: u16, carries: Carries) -> Sent<Ipv4Addr> {
    out(Place::Host, port, carries).answered(carries)
}

/// A segment of the remote to the first port.
fn back(carries: Carries) -> Sent<Ipv4Addr> {
    back_to(PORT, carries)
}

/// A SYN that the remote takes in its TIME_WAIT.
fn syn(from: Place, sport: u16) -> Sent<Ipv4Addr> {
    out(from, sport, segment(tcp::SYN, END + 1, 0))
}

/// The same as the remote sees it.
fn seen(port: u16) -> Outcome {
    Outcome::Sent(V4::at(Place::Host), V4::at(Place::Remote(9)), port, 443)
}

const REFUSED: Outcome = Outcome::Dropped(DropReason::PortsExhausted);

/// A model with the first port closed: A has had a connection, which the remote closed first.
fn closed() -> Model {
    closed_of(1).0
}

/// The same of so many ports, and which one it is.
fn closed_of(ports: u16) -> (Model, u16) {
    let model = Model::new(ports, 8, Copied::Upwards);
    let a = Hook::FromContainer(VETH_A);
    model.packet_here(1, 0, a, out(Place::A, 1000, segment(tcp::SYN, 1000, 0)));
    let port = model.flows()[0].1.sport.get();
    for (hook, sent) in [
        (Hook::FromWorld, back_to(port, segment(SYN_ACK, 9000, 1001))),
        (a, out(Place::A, 1000, segment(tcp::ACK, 1001, 9001))),
        (Hook::FromWorld, back_to(port, segment(FIN, 9001, 1001))),
        (a, out(Place::A, 1000, segment(FIN, 1001, 9002))),
        (Hook::FromWorld, back_to(port, segment(tcp::ACK, 9002, END))),
    ] {
        let outcome = model.packet_here(1, 0, hook, sent);
        assert!(matches!(outcome, Outcome::Sent(..)), "{outcome:?} of {sent:?}");
    }
    (model, port)
}

fn of_a(model: &Model, cpu: u64, sent: Sent<Ipv4Addr>) -> JoinHandle<Outcome> {
    model.packet(cpu, RESTED, Hook::FromContainer(VETH_A), sent)
}

fn of_b(model: &Model, cpu: u64, sent: Sent<Ipv4Addr>) -> JoinHandle<Outcome> {
    model.packet(cpu, RESTED, Hook::FromContainer(VETH_B), sent)
}

/// Two SYNs want one tombstone, A's from that port: one gets it.
fn one_gets_it(name: &str, port: u16) {
    explore(name, Some(2), move || {
        let model = closed();
        let a = of_a(&model, 2, syn(Place::A, port));
        let b = of_b(&model, 3, syn(Place::B, 2000));
        let outcomes = [a.join().unwrap(), b.join().unwrap()];
        assert_eq!(ports(&outcomes), [PORT], "{outcomes:?}");
        assert!(outcomes.contains(&REFUSED), "{outcomes:?}");
        assert_eq!(model.flows().len(), 1);
    });
}

#[test]
fn two_for_one() {
    one_gets_it("two SYNs, one tombstone", 2000);
}

/// The old tuple's next connection, and another's.
#[test]
fn again_or_another() {
    one_gets_it("the same tuple again, or another", 1000);
}

/// A late segment of the old flow says that more has been sent: it leaves and the SYN is refused, or the SYN leaves and
/// it does not.
#[test]
#[cfg_attr(any(feature = "mutant-judge-once", feature = "mutant-no-owner"), should_panic)]
fn late_segment() {
    explore("take over, late segment", Some(2), || {
        let model = closed();
        let late = of_a(&model, 2, out(Place::A, 1000, segment(FIN, END + 10, 9002)));
        let b = of_b(&model, 3, syn(Place::B, 2000));
        let outcomes = (late.join().unwrap(), b.join().unwrap());
        let no_flow = Outcome::Dropped(DropReason::NoFlow);
        assert!([(seen(PORT), REFUSED), (no_flow, seen(PORT))].contains(&outcomes), "{outcomes:?}");
        assert_eq!(model.flows().len(), 1);
    });
}

/// A late segment of the remote reaches who has the port at that moment, or nobody.
#[test]
fn late_answer() {
    explore("take over, late answer", Some(2), || {
        let model = closed();
        let late = model.packet(2, RESTED, Hook::FromWorld, back(segment(FIN, 9001, 1001)));
        let b = of_b(&model, 3, syn(Place::B, 2000));
        let (late, b) = (late.join().unwrap(), b.join().unwrap());
        let delivered = |to, port| Outcome::Sent(V4::at(Place::Remote(9)), V4::at(to), 443, port);
        let expected = [delivered(Place::A, 1000), delivered(Place::B, 2000), Outcome::Stack];
        assert!(expected.contains(&late), "{late:?}");
        assert_eq!(b, seen(PORT));
        assert_eq!(model.flows().len(), 1);
    });
}

/// The tombstone expires while it is taken over: the port is the new flow's in any case.
#[test]
fn take_over_or_expire() {
    explore("take over or expire", Some(2), || {
        let model = closed();
        let remover = model.remover(2, TIMEOUTS.tcp_closed, key(&back(segment(FIN, 0, 0))));
        let b = of_b(&model, 3, syn(Place::B, 2000));
        let (b, _removed) = (b.join().unwrap(), remover.join().unwrap());
        assert_eq!(b, seen(PORT));
        let flows = model.flows();
        assert_eq!(flows.len(), 1);
        assert_eq!(flows[0].0.src, V4::at(Place::B));
    });
}

/// A connection's first SYN on two CPUs: one takes the tombstone over, and both leave with it.
#[test]
fn one_flow_twice() {
    explore("one flow twice, one tombstone", Some(2), || {
        let model = closed();
        let first = of_b(&model, 2, syn(Place::B, 2000));
        let second = of_b(&model, 3, syn(Place::B, 2000));
        assert_eq!([first.join().unwrap(), second.join().unwrap()], [seen(PORT); 2]);
        assert_eq!(model.flows().len(), 1);
    });
}

/// The same with a free port beside the tombstone: who has taken that over and comes too late gives it back as it was.
#[test]
fn one_flow_twice_and_a_free_port() {
    explore("one flow twice, a tombstone and a free port", Some(2), || {
        let (model, port) = closed_of(2);
        let first = of_b(&model, 2, syn(Place::B, 2000));
        let second = of_b(&model, 3, syn(Place::B, 2000));
        let outcomes = [first.join().unwrap(), second.join().unwrap()];
        let of_b: Vec<_> = model.flows().into_iter().filter(|(key, _)| key.src == V4::at(Place::B)).collect();
        assert_eq!(of_b.len(), 1);
        let own = of_b[0].1.sport.get();
        assert_eq!(outcomes, [seen(own); 2]);
        let tombstone = key(&back_to(port, segment(0, 0, 0)));
        let entries = model.table.entries();
        let (_, answer) = entries.iter().find(|(key, _)| *key == tombstone).expect("the port's entry");
        let closed = Meta(answer.meta).bits() & Meta::CLOSED != 0;
        assert_eq!((closed, answer.next), if own == port { (false, END + 2) } else { (true, END) });
    });
}

/// Both sides' last segments at the same time: the connection has closed, and its port serves again.
#[test]
fn closed_by_both() {
    explore("closed by both", Some(2), || {
        let model = Model::new(1, 8, Copied::Upwards);
        let a = Hook::FromContainer(VETH_A);
        for (hook, sent) in [
            (a, out(Place::A, 1000, segment(tcp::SYN, 1000, 0))),
            (Hook::FromWorld, back(segment(SYN_ACK, 9000, 1001))),
            (a, out(Place::A, 1000, segment(tcp::ACK, 1001, 9001))),
        ] {
            model.packet_here(1, 0, hook, sent);
        }
        let fin = of_a(&model, 2, out(Place::A, 1000, segment(FIN, 1001, 9001)));
        let answer = model.packet(3, RESTED, Hook::FromWorld, back(segment(FIN, 9001, 1001)));
        let outcomes = [fin.join().unwrap(), answer.join().unwrap()];
        assert!(outcomes.iter().all(|outcome| matches!(outcome, Outcome::Sent(..))), "{outcomes:?}");
        model.packet_here(2, RESTED, a, out(Place::A, 1000, segment(tcp::ACK, END, 9002)));
        model.packet_here(2, RESTED, Hook::FromWorld, back(segment(tcp::ACK, 9002, END)));
        let b = model.packet_here(2, RESTED + 1, Hook::FromContainer(VETH_B), syn(Place::B, 2000));
        assert_eq!(b, seen(PORT));
    });
}
