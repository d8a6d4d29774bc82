//! What the host's rules have let through goes around the stack for the rest of a tick (1.07 s), and nothing else does.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};

use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::process::{eventually, within};

use super::{CUT, Conversation, Honoured};

netdp_tests::in_variants! {
    /// Whoever opened the flow, and in each direction for itself.
    datagrams: clsact CLSACT, ebpf_v6_without_offloads EBPF_V6_PLAIN;
    connections: ebpf EBPF, ebpf_v6 EBPF_V6;
    what_was_never_allowed: ebpf_v6 EBPF_V6;
}

/// For what is on its way, in a socket's buffer, or in the hands of a thread that does not get on.
const LATE: Duration = Duration::from_millis(500);
/// More than two ticks.
const A_WHILE: Duration = Duration::from_millis(2500);

/// However slow the machine is.
const PATIENCE: Duration = Duration::from_secs(20);

/// Outward and inward.
const DIRECTIONS: [&str; 2] = ["-s", "-d"];

/// Packets that `FORWARD` has seen in each direction since [`watch`].
fn asked(lab: &Honoured<'_>) -> [u64; 2] {
    [1, 2].map(|number| {
        let rule = lab.rule(&format!("-nvxL FORWARD {number}"));
        let packets = rule.split_whitespace().next().and_then(|count| count.parse().ok());
        packets.unwrap_or_else(|| panic!("rule {number}: {rule}"))
    })
}

/// Rules without a target, which count.
fn watch(lab: &Honoured<'_>) {
    for direction in DIRECTIONS.iter().rev() {
        lab.rule(&format!("-I FORWARD {direction} {}", lab.web.address));
    }
}

/// Lets everything begin, and what has begun go on.
fn allow(lab: &Honoured<'_>) {
    lab.stateful();
    lab.rule("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT");
    watch(lab);
}

/// Traffic that counts what arrives.
struct Traffic {
    stop: Arc<AtomicBool>,
    arrived: [Arc<AtomicU64>; 2],
    threads: Vec<JoinHandle<()>>,
}

impl Traffic {
    fn new() -> Self {
        Self { stop: Arc::default(), arrived: [Arc::default(), Arc::default()], threads: Vec::new() }
    }

    /// What has arrived of what was sent outward, and inward.
    fn arrived(&self) -> [u64; 2] {
        [&self.arrived[0], &self.arrived[1]].map(|count| count.load(Ordering::Relaxed))
    }

    /// What arrives from now on, for a moment.
    fn arriving(&self) -> [u64; 2] {
        let before = self.arrived();
        sleep(LATE);
        let after = self.arrived();
        [after[0] - before[0], after[1] - before[1]]
    }

    fn run(&mut self, mut step: impl FnMut() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                step();
            }
        }));
    }

    /// A datagram each millisecond, both ways, between two sockets that know each other.
    fn of_datagrams(lab: &Honoured<'_>, from_world: bool) -> Self {
        let (world, web) = (lab.lab.at(WORLD), lab.web.address);
        let bind = |netns: &Netns, address, port| {
            netns.enter(|| UdpSocket::bind(SocketAddr::new(address, port)).expect("a port"))
        };
        let (client, server, to) = if from_world {
            lab.lab.netdp.ok("publish web 8090:7100/udp");
            let to = SocketAddr::new(lab.lab.at(HOST), 8090);
            (bind(&lab.lab.world, world, 0), bind(&lab.web.netns, web, 7100), to)
        } else {
            let to = SocketAddr::new(world, 7100);
            (bind(&lab.web.netns, web, 0), bind(&lab.lab.world, world, 7100), to)
        };
        client.connect(to).expect("a route");
        server.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let found = (0..5).find_map(|_| {
            client.send(b"hello").expect("room to send");
            server.recv_from(&mut [0; 16]).ok()
        });
        let (_, peer) = found.expect("a datagram that arrives");
        server.connect(peer).expect("a route back");
        let (inside, outside) = if from_world { (server, client) } else { (client, server) };
        let mut traffic = Self::new();
        let ends = [(&inside, &outside, 0), (&outside, &inside, 1)];
        for (from, to, direction) in ends {
            let [from, to] = [from, to].map(|socket| socket.try_clone().expect("a descriptor"));
            to.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
            let arrived = Arc::clone(&traffic.arrived[direction]);
            traffic.run(move || {
                // Lost or refused: what arrives is what counts.
                let _ = from.send(&[0x5a; 1000]);
                sleep(Duration::from_millis(1));
            });
            traffic.run(move || {
                if to.recv(&mut [0; 2000]).is_ok() {
                    arrived.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        traffic
    }

    /// A connection on which as much is echoed as can be. Both counts are of blocks that are back.
    fn of_a_connection(lab: &Honoured<'_>, from_world: bool) -> (Self, TcpStream) {
        const BLOCK: usize = 1 << 18;
        let Conversation(stream) = Conversation::new(lab, from_world);
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        let mut traffic = Self::new();
        let [mut writes, mut reads] = [(); 2].map(|()| stream.try_clone().expect("a descriptor"));
        let [one, other] = &traffic.arrived;
        let counts = [Arc::clone(one), Arc::clone(other)];
        traffic.run(move || {
            let sent: Vec<u8> = (0..BLOCK).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
            let mut back = vec![0; BLOCK];
            thread::scope(|scope| {
                scope.spawn(|| writes.write_all(&sent).expect("room to send"));
                reads.read_exact(&mut back).expect("an echo");
            });
            assert!(back == sent, "the echo differs");
            for count in &counts {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        (traffic, stream)
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().expect("traffic to its end"));
    }
}

fn datagrams(lab: &Lab) {
    let honoured = Honoured::new(lab);
    allow(&honoured);
    let flows = [false, true].map(|from_world| Traffic::of_datagrams(&honoured, from_world));
    sleep(A_WHILE);
    within(PATIENCE, "datagrams that arrive", || {
        flows.iter().all(|flow| flow.arrived().iter().all(|count| *count > 500))
    });
    let (asked, arrived) = (asked(&honoured), flows.each_ref().map(Traffic::arrived));
    for direction in 0..2 {
        let arrived = arrived[0][direction] + arrived[1][direction];
        assert!(asked[direction] * 8 < arrived, "{asked:?} of {arrived:?} asked about");
        // Twice a flow at least: the first one of each tick.
        assert!(asked[direction] >= 4, "{asked:?}");
    }
    for (cut, direction) in DIRECTIONS.iter().enumerate() {
        let rule = format!("FORWARD {direction} {} -p udp -j DROP", honoured.web.address);
        honoured.rule(&format!("-I {rule}"));
        sleep(CUT + LATE);
        for (flow, from_world) in flows.iter().zip([false, true]) {
            let arriving = flow.arriving();
            assert_eq!(arriving[cut], 0, "{direction}, from_world: {from_world}: not cut");
            assert!(
                arriving[1 - cut] > 0,
                "{direction}, from_world: {from_world}: the other one is cut, too"
            );
        }
        honoured.rule(&format!("-D {rule}"));
        for flow in &flows {
            let before = flow.arrived();
            eventually("it goes on", || flow.arrived()[cut] > before[cut]);
        }
    }
    flows.into_iter().for_each(Traffic::end);
    assert_eq!(lab.netdp.counter("untranslated"), 0);
}

/// conntrack sees a packet a second, and neither takes those for invalid nor keeps the end from coming through.
fn connections(lab: &Lab) {
    let honoured = Honoured::new(lab);
    allow(&honoured);
    let before = lab.netdp.counter("packets");
    let flows = [false, true].map(|from_world| Traffic::of_a_connection(&honoured, from_world));
    sleep(A_WHILE);
    within(PATIENCE, "packets that are carried", || lab.netdp.counter("packets") - before > 4000);
    let carried = lab.netdp.counter("packets") - before;
    let asked: u64 = asked(&honoured).iter().sum();
    assert!(asked * 8 < carried, "{asked} of {carried} asked about");
    let rule = format!("FORWARD -s {} -p tcp -j DROP", honoured.web.address);
    honoured.rule(&format!("-I {rule}"));
    sleep(CUT + LATE);
    for (flow, _) in &flows {
        assert_eq!(flow.arriving(), [0, 0], "not cut");
    }
    honoured.rule(&format!("-D {rule}"));
    for (flow, _) in &flows {
        let before = flow.arrived()[0];
        // What was lost is sent again, the later the longer it was lost.
        within(PATIENCE, "it goes on", || flow.arrived()[0] > before + 20);
    }
    // One ends by a FIN, one by a reset.
    let servers = [&honoured.servers[2], &honoured.servers[0]];
    for ((flow, stream), (server, resets)) in flows.into_iter().zip(servers.into_iter().zip([false, true])) {
        flow.end();
        assert_eq!(server.open(), 1);
        if resets {
            nix::sys::socket::setsockopt(
                &stream,
                nix::sys::socket::sockopt::Linger,
                &libc::linger { l_onoff: 1, l_linger: 0 },
            )
            .expect("a socket");
        }
        drop(stream);
        eventually("the other side knows", || server.open() == 0);
    }
}

fn what_was_never_allowed(lab: &Lab) {
    let honoured = Honoured::new(lab);
    honoured.stateful();
    let pairs: [(&Netns, IpAddr, u16); 2] = [
        (&honoured.web.netns, lab.at(WORLD), honoured.world().port()),
        (&lab.world, lab.at(HOST), honoured.published().port()),
    ];
    let until = Instant::now() + A_WHILE;
    let sockets = pairs.map(|(netns, to, port)| {
        let any = lab.at(Ipv4Addr::UNSPECIFIED);
        let socket = netns.enter(|| UdpSocket::bind(SocketAddr::new(any, 0)).expect("a port"));
        socket.connect(SocketAddr::new(to, port)).expect("a route");
        socket
    });
    while Instant::now() < until {
        for socket in &sockets {
            let _ = socket.send(b"word");
        }
        sleep(Duration::from_millis(1));
    }
    let served = [1, 3].map(|server: usize| honoured.servers[server].served());
    assert_eq!(served, [0, 0]);
}
