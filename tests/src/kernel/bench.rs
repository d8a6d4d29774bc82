//! What a packet costs in the programs: nanoseconds by BPF_PROG_TEST_RUN.
//!
//! A test run repeats a program on what the last run left of the packet. So the flows here lead into each other: the
//! packet becomes that of the next flow, and a ring of flows may have any number of them. A run ends before the
//! packet's time to live does. The redirect itself, and all that comes after it, is not measured.

use std::time::Duration;

use netdp::bench::load;
use netdp_common::family::{V4, V6};
use netdp_common::flow::{Flow, Tuple};
use netdp_common::meta::Meta;

use super::frames::{Dice, Frame};
use super::plan::Plan;
use super::programs::{Code, Programs};
use super::site::Site;
use super::tables::{FlowEntry, TCP, Tables, UDP, dnat, now, snat, tuple};

/// Packets in one system call: the first has a time to live of 255, the last of 2.
const HOPS: u32 = 254;

/// Packets of each row at least.
const PACKETS: u32 = 1_000_000;

/// One kind of packet, and what it costs.
#[derive(Clone, Debug)]
pub struct Row {
    /// The program it meets.
    pub program: &'static str,
    /// What happens to it.
    pub path: String,
    /// Nanoseconds of each run, sorted.
    samples: Vec<u32>,
    /// Packets that were measured.
    pub packets: u64,
}

impl Row {
    fn new(program: &'static str, path: impl Into<String>, mut samples: Vec<u32>, each: u32) -> Self {
        samples.sort_unstable();
        let packets = samples.len() as u64 * u64::from(each);
        Self { program, path: path.into(), samples, packets }
    }

    /// The median over all runs.
    pub fn median(&self) -> u32 {
        self.samples[self.samples.len() / 2]
    }

    /// What one run in ten stays below: the cost while nobody else disturbs.
    pub fn quiet(&self) -> u32 {
        self.samples[self.samples.len() / 10]
    }
}

/// Rows that are measured together.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Group {
    /// Packets that stay as they are.
    Unchanging,
    /// Established flows, always the same ones.
    Hot,
    /// Many established flows in turn.
    Many,
    /// New flows.
    New,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Unchanging, Self::Hot, Self::Many, Self::New];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unchanging => "unchanging",
            Self::Hot => "hot",
            Self::Many => "many",
            Self::New => "new",
        }
    }
}

/// Measures a group in both families; in the calling thread's network namespace, which has a [`Site`].
pub fn rows(site: &Site, group: Group) -> Vec<Row> {
    load::pin(0).expect("moving to a CPU");
    let mut rows = rows_of::<V4>(site, group);
    rows.extend(
        rows_of::<V6>(site, group).into_iter().map(|row| Row { path: format!("IPv6: {}", row.path), ..row }),
    );
    rows
}

fn rows_of<F: Plan>(site: &Site, group: Group) -> Vec<Row> {
    match group {
        Group::Unchanging => unchanging::<F>(site),
        Group::Hot => {
            vec![
                to_next_hop::<F>(site, TCP, "TCP"),
                to_next_hop::<F>(site, UDP, "UDP"),
                to_endpoint::<F>(site),
            ]
        }
        Group::Many => vec![
            ring::<F>(site, 10_000, When::ThisSecond),
            ring::<F>(site, 1_000_000, When::ThisSecond),
            ring::<F>(site, 100_000, When::LongAgo),
        ],
        Group::New => new_flows::<F>(site),
    }
}

/// Packets that programs leave as they are.
fn unchanging<F: Plan>(site: &Site) -> Vec<Row> {
    const TIMES: u32 = 10_000;
    let mut programs = Programs::load(1024);
    programs.fill::<F>(&Tables::of::<F>(site));
    let mut arp = Frame::<F>::of_endpoint(0, tuple(UDP, (F::ENDPOINTS[0], 1), (F::REMOTE, 1))).bytes();
    (arp[12], arp[13]) = (8, 6);
    let neighbour = Frame::<F>::of_endpoint(0, tuple(TCP, (F::ENDPOINTS[0], 1), (F::ENDPOINTS[1], 1)));
    let own = Frame::<F>::of_world(tuple(TCP, (F::REMOTE, 443), (F::HOST, 40_000)));
    let leaves = Frame::<F>::of_world(tuple(TCP, (F::HOST, 40_000), (F::REMOTE, 443)));
    let (veth, uplink) = (site.endpoints[0], site.uplink);
    let measure = |(program, path, packet, ifindex, action): (&'static str, &str, Vec<u8>, u32, Code)| {
        let samples = (0..PACKETS / TIMES).map(|_| {
            let (time, code) = programs.repeat(program, &packet, ifindex, TIMES);
            assert_eq!(code, action, "{path}");
            nanoseconds(time)
        });
        Row::new(program, path, samples.collect(), TIMES)
    };
    [
        ("from_container", "not IP: stack", arp, veth, Code::Next),
        ("from_container", "direct neighbour", neighbour.bytes(), veth, Code::Redirect),
        ("from_world", "the host's own: stack", own.bytes(), uplink, Code::Next),
        ("to_world", "the host's own: stack", leaves.bytes(), uplink, Code::Next),
    ]
    .map(measure)
    .into()
}

/// Two flows out of one endpoint that lead into each other: addresses and both ports change, TTL, checksums.
fn to_next_hop<F: Plan>(site: &Site, proto: u8, name: &str) -> Row {
    let first = tuple(proto, (F::ENDPOINTS[0], 33_000), (F::REMOTE, 443));
    let second = tuple(proto, (F::HOST, 40_000), (F::REMOTE, 443));
    let entries = [snat::<F>(site, 0, first, second)[0], snat::<F>(site, 0, second, first)[0]];
    let path = format!("established {name} to the next hop");
    hot::<F>(site, "from_container", &path, &entries, &Frame::<F>::of_endpoint(0, first))
}

fn to_endpoint<F: Plan>(site: &Site) -> Row {
    let first = tuple(TCP, (F::REMOTE, 443), (F::HOST, 40_000));
    let second = tuple(TCP, (F::REMOTE, 443), (F::ENDPOINTS[0], 33_000));
    let entries = [dnat::<F>(site, 0, first, second)[0], dnat::<F>(site, 0, second, first)[0]];
    hot::<F>(site, "from_world", "established TCP to an endpoint", &entries, &Frame::<F>::of_world(first))
}

fn hot<F: Plan>(
    site: &Site,
    program: &'static str,
    path: &str,
    entries: &[FlowEntry<F::Addr>],
    frame: &Frame<F>,
) -> Row {
    let mut programs = Programs::load(1024);
    programs.fill::<F>(&Tables::of::<F>(site));
    programs.add_flows::<F>(entries);
    let ifindex = if program == "from_world" { site.uplink } else { site.endpoints[0] };
    let packet = Frame { ttl: 255, ..frame.clone() }.bytes();
    let samples = (0..PACKETS.div_ceil(HOPS)).map(|_| {
        let (time, code) = programs.repeat(program, &packet, ifindex, HOPS);
        assert_eq!(code, Code::Redirect, "{path}");
        nanoseconds(time)
    });
    Row::new(program, path, samples.collect(), HOPS)
}

/// When the flows of a ring had their last packet.
#[derive(Clone, Copy, Eq, PartialEq)]
enum When {
    /// In the tick in which they are measured: as in a busy flow.
    ThisSecond,
    /// Earlier: each packet refreshes its flow and asks the routing table again.
    LongAgo,
}

/// So many flows, one packet of each in turn: what the caches hold no longer counts.
fn ring<F: Plan>(site: &Site, flows: u32, when: When) -> Row {
    // Ticks until the flows are entered.
    const PREPARATION: u32 = 8;
    let tick = match when {
        When::ThisSecond => now() + PREPARATION,
        When::LongAgo => now() - 2,
    };
    let mut programs = Programs::load(flows);
    programs.fill::<F>(&Tables::of::<F>(site));
    for number in 0..flows {
        programs.add_flows::<F>(&[link::<F>(
            site,
            member::<F>(number),
            member::<F>((number + 1) % flows),
            tick,
        )]);
    }
    while now() < tick {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(when == When::LongAgo || now() == tick, "entering {flows} flows took too long");
    let mut dice = Dice::new(1);
    let mut samples = Vec::new();
    // Each flow once if its packets are to be the first in a while; else until the tick is over.
    let calls = if when == When::LongAgo { flows / HOPS } else { PACKETS.div_ceil(HOPS) };
    for call in 0..calls {
        let number = if when == When::LongAgo { call * HOPS } else { dice.below(flows as usize) as u32 };
        let packet = Frame { ttl: 255, ..Frame::<F>::of_endpoint(0, member::<F>(number)) }.bytes();
        let (time, code) = programs.repeat("from_container", &packet, site.endpoints[0], HOPS);
        if when == When::ThisSecond && now() != tick {
            break;
        }
        assert_eq!(code, Code::Redirect, "flow {number}");
        samples.push(nanoseconds(time));
    }
    let what = if when == When::LongAgo { ", first packet in a second" } else { "" };
    Row::new("from_container", format!("the same, {flows} flows in turn{what}"), samples, HOPS)
}

/// The tuple of a ring's flow with this number.
fn member<F: Plan>(number: u32) -> Tuple<F::Addr> {
    let remote = F::numbered(number);
    tuple(TCP, (F::ENDPOINTS[0], 1024 + (number % 50_000) as u16), (remote, 443))
}

fn link<F: Plan>(site: &Site, from: Tuple<F::Addr>, to: Tuple<F::Addr>, tick: u32) -> FlowEntry<F::Addr> {
    let (key, flow) = snat::<F>(site, 0, from, to)[0];
    (key, Flow { meta: Meta(flow.meta).with_seen(tick).0, ..flow })
}

/// Packets that open a flow can't lead into each other: one system call each, whose cold start is in the figure, so
/// the second row tells what a packet of an established flow costs in the same way.
fn new_flows<F: Plan>(site: &Site) -> Vec<Row> {
    const FLOWS: u16 = 20_000;
    let mut programs = Programs::load(u32::from(FLOWS) * 2);
    programs.fill::<F>(&Tables::of::<F>(site).with_all_ports());
    let pass = |path: &str| {
        let samples = (0..FLOWS).map(|number| {
            let first = tuple(UDP, (F::ENDPOINTS[0], 1024 + number), (F::REMOTE, 53));
            let packet = Frame::<F>::of_endpoint(0, first).bytes();
            let (time, code) = programs.repeat("from_container", &packet, site.endpoints[0], 1);
            assert_eq!(code, Code::Redirect, "{path}");
            nanoseconds(time)
        });
        Row::new("from_container", path, samples.collect(), 1)
    };
    vec![pass("new UDP flow, one run each"), pass("the same flow again, one run each")]
}

fn nanoseconds(time: Duration) -> u32 {
    u32::try_from(time.as_nanos()).unwrap_or(u32::MAX)
}
