//! G5: ports come back. Connection after connection to one destination, through far fewer ports than there are
//! connections: none is refused, and no SYN is sent twice, since the remote's TIME_WAIT takes each.
//!
//! There are four times as many ports as connections at a time: the next one's SYN may overtake the last segments of
//! the one before, so that each has two ports for a moment.

use std::net::SocketAddr;

use netdp::bench::load::Peer;
use netdp::bench::load::churn::{AT_ONCE, ChurnServer, ClosesFirst, Until, churn};
use netdp_tests::backlog;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::variant::Variant;

const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
/// Each port of a small range serves a dozen of them.
const CONNECTIONS: u64 = 50;
/// One in so many SYNs may be sent again: a CPU that stands still for longer than a port rests lets it overtake the
/// segment that closes the port's last connection. Where the remote's TIME_WAIT takes none, it is every other one.
const RARE: u64 = 1000;

/// Whether there are timestamps: the containers' sysctl, and the world's.
#[derive(Clone, Copy, Debug)]
struct Timestamps(&'static str, &'static str);

const ON: Timestamps = Timestamps("1", "1");
const OFF: Timestamps = Timestamps("0", "1");
/// Then sequence numbers alone decide, as on stacks of BSD's line.
const JUDGED_BY_SEQUENCE: Timestamps = Timestamps("1", "0");
/// What starts in one millisecond has the same timestamp, whoever starts it.
const ONE_CLOCK: Timestamps = Timestamps("2", "1");

/// Four containers with these ports for their mappings.
fn containers(lab: &Lab, ports: u16) -> Vec<Container> {
    let last = 20_000 + ports - 1;
    let subnets = "--subnet 10.77.0.0/24 --subnet fd77::/64";
    lab.netdp.ok(&format!("network create churn {subnets} --snat-ports 20000-{last}"));
    let clients: Vec<Container> = CLIENTS.iter().map(|name| lab.container(name, "--network churn")).collect();
    for client in &clients {
        // Their own TIME_WAIT shall not run them out of ports.
        client.netns.set_sysctl("net/ipv4/tcp_tw_reuse", "1");
    }
    clients
}

/// One kind of churn after the other, each on the tombstones of those before.
#[track_caller]
fn comes_back(variant: Variant, first: ClosesFirst, ports: u16, kinds: &[Timestamps]) {
    let lab = Lab::new(variant);
    let clients = containers(&lab, ports);
    let seen_as = [lab.at(HOST)];
    let server = ChurnServer::new(
        &lab.world,
        SocketAddr::new(lab.at(WORLD), 80),
        first,
        CLIENTS.len() * AT_ONCE,
        &seen_as,
    );
    let server = server.expect("a server");
    let peers: Vec<Peer<'_>> =
        clients.iter().map(|client| Peer { ns: &client.netns, address: client.address }).collect();
    let wanted = CONNECTIONS * (CLIENTS.len() * AT_ONCE) as u64;
    let mut least = 0;
    for timestamps in kinds {
        lab.world.set_sysctl("net/ipv4/tcp_timestamps", timestamps.1);
        for client in &clients {
            client.netns.set_sysctl("net/ipv4/tcp_timestamps", timestamps.0);
        }
        let dropped = backlog::dropped();
        let report = churn(&peers, &server, first, Until::Connections(CONNECTIONS)).expect("churn");
        let (opened, failed, again) = (report.connections, report.failed, report.syn_retransmitted);
        assert_eq!((opened, failed), (wanted, 0), "{timestamps:?}: {again} SYN sent again");
        let dropped = backlog::dropped() - dropped;
        assert!(
            again <= wanted / RARE + dropped,
            "{timestamps:?}: {again} SYN sent again, {dropped} dropped"
        );
        assert_eq!(server.strange(), None, "{timestamps:?}: seen from another address");
        least += wanted;
        let recycled = lab.netdp.counter("flows_recycled");
        assert!(
            recycled >= least - u64::from(ports),
            "{timestamps:?}: {recycled} of {least} on recycled ports"
        );
    }
    assert_eq!(lab.netdp.counter("snat_exhausted"), 0);
    let flows = lab.netdp.counter("flows");
    assert!((1..=u64::from(ports)).contains(&flows), "{flows} flows on {ports} ports");
}

/// Makes each case a test.
macro_rules! cases {
    ($($name:ident: $variant:ident, $first:ident, $ports:literal, $kinds:expr;)+) => {$(
        #[test]
        #[ignore = "needs root"]
        fn $name() {
            comes_back(Variant::$variant, ClosesFirst::$first, $ports, &$kinds);
        }
    )+};
}

cases! {
    server_first: EBPF, Server, 2000, [ON];
    server_first_few_ports: EBPF, Server, 256, [ON, OFF, JUDGED_BY_SEQUENCE, ONE_CLOCK];
    client_first: EBPF, Client, 2000, [ON];
    client_first_few_ports: EBPF, Client, 256, [ON, OFF];
    by_ipv6: EBPF_V6, Server, 256, [ON];
}
