//! G5: ports come back. Connection after connection to one destination, through far fewer ports than there are
//! connections: none is refused, and no SYN is sent twice, since the remote's TIME_WAIT takes each.

use netdp_tests::churn::{AT_ONCE, ChurnServer, ClosesFirst, Until, churn};
use netdp_tests::lab::{Container, Lab, WORLD};
use netdp_tests::variant::Variant;

const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];
/// Each of them comes back to each port several times.
const CONNECTIONS: u64 = 150;

/// Four containers with these ports for their mappings.
fn containers(lab: &Lab, ports: u16) -> Vec<Container> {
    let last = 20_000 + ports - 1;
    lab.netdp.ok(&format!("network create churn --subnet 10.77.0.0/24 --snat-ports 20000-{last}"));
    CLIENTS.iter().map(|name| lab.container(name, "--network churn")).collect()
}

/// `timestamps`: of the containers and of the world, as the sysctl has them.
#[track_caller]
fn comes_back(first: ClosesFirst, ports: u16, timestamps: (&str, &str)) {
    let lab = Lab::new(Variant::EBPF);
    let clients = containers(&lab, ports);
    lab.world.set_sysctl("net/ipv4/tcp_timestamps", timestamps.1);
    for client in &clients {
        client.netns.set_sysctl("net/ipv4/tcp_timestamps", timestamps.0);
        // Their own TIME_WAIT shall not run them out of ports.
        client.netns.set_sysctl("net/ipv4/tcp_tw_reuse", "1");
    }
    let server = ChurnServer::new(&lab.world, (WORLD, 80), first);
    let report = churn(&clients, &server, first, Until::Connections(CONNECTIONS));
    let wanted = CONNECTIONS * (CLIENTS.len() * AT_ONCE) as u64;
    assert_eq!((report.connections, report.failed), (wanted, 0), "{report:?}");
    assert_eq!(report.syn_retransmitted, 0, "{report:?}");
    let recycled = lab.netdp.counter("flows_recycled");
    assert!(recycled >= wanted - u64::from(ports), "{recycled} of {wanted} on recycled ports");
    assert_eq!(lab.netdp.counter("snat_exhausted"), 0);
}

/// Makes each case a test.
macro_rules! cases {
    ($($name:ident: $first:ident, $ports:literal, $containers:literal, $world:literal;)+) => {$(
        #[test]
        #[ignore = "needs root"]
        fn $name() {
            comes_back(ClosesFirst::$first, $ports, ($containers, $world));
        }
    )+};
}

cases! {
    server_first: Server, 2000, "1", "1";
    server_first_few_ports: Server, 128, "1", "1";
    server_first_without_timestamps: Server, 128, "0", "1";
    // Then sequence numbers alone decide there, as on stacks of BSD's line.
    server_first_judged_by_sequence: Server, 128, "1", "0";
    // One clock for all: what starts in one millisecond has the same timestamp.
    server_first_one_clock: Server, 128, "2", "1";
    client_first: Client, 2000, "1", "1";
    client_first_few_ports: Client, 128, "1", "1";
    client_first_without_timestamps: Client, 128, "0", "1";
}
