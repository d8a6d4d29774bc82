//! The steps of an input.

use netdp_common::header::{ethernet, tcp};
use netdp_model::frame::{Carries, Frame, IcmpError, Sent};
use netdp_model::hook::{Fate, Hook};
use netdp_model::ifindex::{VETH_A, VETH_B, VETH_C};
use netdp_model::plan::{Place, Plan};
use netdp_model::watch::Watched;

use crate::input::Input;

const HOOKS: [Hook; 5] = [
    Hook::FromContainer(VETH_A),
    Hook::FromWorld,
    Hook::FromContainer(VETH_B),
    Hook::FromContainer(VETH_C),
    Hook::ToWorld,
];

const PLACES: [Place; 16] = [
    Place::A,
    Place::B,
    Place::C,
    Place::Host,
    Place::Remote(9),
    Place::Remote(10),
    Place::GatewayAb,
    Place::GatewayC,
    Place::Unhooked,
    Place::Nowhere,
    Place::Unspecified,
    Place::Multicast,
    Place::Broadcast,
    Place::Loopback,
    Place::Extra,
    Place::Remote(0),
];

/// Ports that mean something here.
const PORTS: [u16; 16] =
    [80, 53, 8080, 8081, 8053, 9000, 9009, 7000, 7009, 5000, 5001, 5002, 5003, 1234, 1235, 443];

/// Packets that were sent on and can be answered or reported about.
const REMEMBERED: usize = 16;

/// A host, and what has come to pass so far.
pub(crate) struct Walk<F: Plan> {
    host: Watched<F>,
    now: u32,
    /// Where an answer would come by, and what it would answer.
    sent_on: Vec<(Hook, Vec<u8>)>,
    /// Whether time passes.
    stands_still: bool,
    pub(crate) seen: Vec<Seen>,
}

/// A frame that an input sends, and what becomes of it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Where it is seen.
    pub hook: Hook,
    /// As it is sent.
    pub before: Vec<u8>,
    /// What becomes of it.
    pub fate: Fate,
    /// As it goes on.
    pub after: Vec<u8>,
}

impl<F: Plan> Walk<F> {
    pub(crate) const fn new(host: Watched<F>, stands_still: bool) -> Self {
        Self { host, now: 0, sent_on: Vec::new(), stands_still, seen: Vec::new() }
    }

    /// One step.
    pub(crate) fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        let spoiled = what & 0x80 != 0;
        let (hook, mut frame) = match what & 7 {
            0..=2 => packet::<F>(input),
            3 => {
                let Some(answer) = self.answer(input) else { return };
                answer
            }
            4 => {
                let Some(error) = self.error(input) else { return };
                error
            }
            5 => {
                let ticks = u32::from(input.byte());
                self.now += if self.stands_still { 0 } else { ticks };
                return;
            }
            6 => behind_ethernet::<F>(input),
            _ => {
                let len = input.byte().into();
                (input.one_of(&HOOKS), input.bytes(len).to_vec())
            }
        };
        if spoiled {
            spoil(&mut frame, input);
        }
        self.run(hook, &frame);
    }

    fn run(&mut self, hook: Hook, frame: &[u8]) {
        let (fate, after) = self.host.run(self.now, hook, frame).unwrap_or_else(|what| panic!("{what}"));
        self.seen.push(Seen { hook, before: frame.to_vec(), fate, after: after.clone() });
        let back = match fate {
            Fate::ToNextHop(_) | Fate::Leaves => Hook::FromWorld,
            Fate::ToEndpoint(veth) => Hook::FromContainer(veth),
            // It and what waited for it, in their order.
            Fate::Waits => {
                let again = std::mem::take(&mut self.host.again);
                return again.iter().for_each(|(hook, frame)| self.run(*hook, frame));
            }
            Fate::Stack | Fate::Dropped(_) | Fate::Answered(_) => return,
        };
        if self.sent_on.len() == REMEMBERED {
            self.sent_on.remove(0);
        }
        self.sent_on.push((back, after));
    }

    fn remembered(&self, input: &mut Input<'_>) -> Option<&(Hook, Vec<u8>)> {
        let which = usize::from(input.byte());
        self.sent_on.iter().rev().cycle().nth(which % self.sent_on.len().max(1))
    }

    /// The answer to a packet that was sent on.
    fn answer(&self, input: &mut Input<'_>) -> Option<(Hook, Vec<u8>)> {
        let (hook, to) = self.remembered(input)?;
        let to = Sent::<F::Addr>::read::<F>(to)?;
        let carries = match to.carries {
            Carries::Tcp(_) => Carries::Tcp(flags(input)),
            Carries::EchoRequest => Carries::EchoReply,
            other => other,
        };
        Some((*hook, to.answered(carries).at(*hook).bytes::<F>()))
    }

    /// An ICMP error about a packet that was sent on.
    fn error(&self, input: &mut Input<'_>) -> Option<(Hook, Vec<u8>)> {
        let (hook, about) = self.remembered(input)?;
        let to = Sent::<F::Addr>::read::<F>(about)?;
        let reporter = match input.byte() {
            0..128 => to.dst,
            other => F::at(PLACES[usize::from(other) % PLACES.len()]),
        };
        let quoted = F::HEADER_LEN + usize::from(input.byte() & 0x3f);
        Some((*hook, IcmpError::at(*hook, reporter, to.src, about, quoted).bytes::<F>()))
    }
}

/// A packet that may be somebody's.
fn packet<F: Plan>(input: &mut Input<'_>) -> (Hook, Vec<u8>) {
    let hook = input.one_of(&HOOKS);
    let (src, dst) = (F::at(input.one_of(&PLACES)), F::at(input.one_of(&PLACES)));
    let (sport, dport) = (port(input), port(input));
    let carries = match input.byte() % 6 {
        0 | 1 => Carries::Udp,
        2 | 3 => Carries::Tcp(flags(input)),
        4 => Carries::EchoRequest,
        _ => Carries::Other(input.one_of(&[F::ICMP, 1, 58, 132, 47, 50, 2, 255])),
    };
    let sent = Sent { src, dst, sport, dport, carries, ttl: 64 };
    let peculiar = input.byte();
    let mut frame = Frame { options: usize::from(peculiar & 3) * 4, ..sent.at(hook) };
    if peculiar & 0x04 != 0 {
        frame.no_checksum = carries == Carries::Udp;
    }
    if peculiar & 0x08 != 0 {
        frame.fragment = Some((u16::from(input.byte()), input.byte() & 1 != 0));
    }
    if peculiar & 0x10 != 0 {
        frame.sent.ttl = input.byte();
    }
    if peculiar & 0x20 != 0 {
        let len = input.byte().into();
        frame.payload = input.bytes(len).to_vec();
    }
    if peculiar & 0x40 != 0 {
        frame.macs[usize::from(input.byte() & 1)][5] = input.byte();
    }
    (hook, frame.bytes::<F>())
}

/// Anything behind an Ethernet header as it should be.
fn behind_ethernet<F: Plan>(input: &mut Input<'_>) -> (Hook, Vec<u8>) {
    let hook = input.one_of(&HOOKS);
    let [from, to] = hook.macs();
    let len = usize::from(input.byte());
    let mut frame = [to, from].concat();
    frame.extend(F::ETHERTYPE.to_be_bytes());
    frame.extend(input.bytes(len));
    (hook, frame)
}

/// Changes a few bytes, and the length.
fn spoil(frame: &mut Vec<u8>, input: &mut Input<'_>) {
    let changes = input.byte();
    for _ in 0..changes & 7 {
        let (at, value) = (usize::from(input.byte()), input.byte());
        if let Some(byte) = frame.get_mut(at) {
            *byte = value;
        }
    }
    match changes >> 6 {
        1 => frame.truncate(ethernet::LEN + usize::from(input.byte())),
        2 => frame.resize(frame.len() + usize::from(input.byte()), 0),
        _ => {}
    }
}

fn port(input: &mut Input<'_>) -> u16 {
    match input.byte() {
        known @ 0..128 => PORTS[usize::from(known) % PORTS.len()],
        _ => input.word(),
    }
}

fn flags(input: &mut Input<'_>) -> u8 {
    input.one_of(&[
        tcp::SYN,
        tcp::ACK,
        tcp::SYN | tcp::ACK,
        tcp::FIN | tcp::ACK,
        tcp::RST,
        tcp::RST | tcp::ACK,
        0,
        tcp::SYN | tcp::FIN,
    ])
}
