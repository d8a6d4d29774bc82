//! Uplinks without Ethernet header (issue 6, line 3), as tun, WireGuard and PPP devices are: here, a tunnel to the world.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_tests::ask::{Transport, answered, ask_from, echo_bulk, seen_port, unanswered};
use netdp_tests::backlog::unless_dropped;
use netdp_tests::capture::Capture;
use netdp_tests::lab::{HOST, Lab, UPLINK, WORLD, WORLD_LINK};
use netdp_tests::packet::{Carries, Packet};
use netdp_tests::server::Server;
use netdp_tests::told::{Fragments, Prober, Told, What, trace};
use netdp_tests::tunnel::Tunnel;
use netdp_tests::uplink::{PORT, PUBLISHED, Site, move_host, move_world};
use netdp_tests::variant::Datapath;

/// The host's and the world's device.
const LINKS: [&str; 2] = ["ext0", "t0"];
/// A port where nobody listens.
const CLOSED: u16 = 33_434;
/// Too big for a tunnel of this MTU, and not for a container's link.
const NARROW: (u32, usize) = (1400, 1410);
/// More than any link carries.
const HUGE: usize = 6000;
const PATIENCE: Duration = Duration::from_secs(3);

netdp_tests::in_variants! {
    everything_works: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
    one_that_comes_later: ebpf EBPF;
    errors_are_told: ebpf EBPF, ebpf_v6 EBPF_V6;
    fragments_find_their_way: ebpf EBPF, ebpf_v6 EBPF_V6;
    /// Not on iptables: netfilter always decides there.
    the_firewall_may_decide: ebpf EBPF, ebpf_v6 EBPF_V6;
    /// Not on iptables: netfilter tracks the host's connections itself.
    sockets_on_the_ports_of_mappings: ebpf EBPF, ebpf_v6 EBPF_V6;
}

/// The addresses are the tunnel's now.
fn tunnel(lab: &Lab) -> Tunnel {
    let [host_end, world_end] = LINKS;
    let tunnel = Tunnel::connect([(&lab.host, host_end), (&lab.world, world_end)]);
    move_world(lab, WORLD_LINK, world_end);
    move_host(lab, UPLINK, host_end);
    tunnel
}

fn everything_works(lab: &Lab) {
    let _tunnel = tunnel(lab);
    let capture = Capture::start(&lab.world, LINKS[1]);
    let site = Site::new(lab);
    site.works();
    // The host itself, with whatever it has to do with the tunnel.
    lab.host.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(WORLD)));
    lab.world.sh(&format!("ping -c 2 -i 0.2 -W 2 {}", lab.at(HOST)));
    let _host = Server::tcp(&lab.host, "host", lab.at(HOST), &[PORT]);
    echo_bulk(&lab.world, (lab.at(HOST), PORT), 1 << 20);
    answered(&lab.host, Transport::Udp, (lab.at(WORLD), PORT), "world");
    let leaked: Vec<_> =
        capture.finish().into_iter().filter(|packet| packet.src.ip() == site.a.address).collect();
    assert!(leaked.is_empty(), "G6: {leaked:?}");
    if lab.variant.datapath == Datapath::Ebpf {
        assert_eq!(lab.netdp.counter("untranslated"), 0, "{}", lab.netdp.json("stats"));
        assert_eq!(lab.netdp.counter("rewrite_failed"), 0, "{}", lab.netdp.json("stats"));
    }
    assert_eq!(checksum_errors(lab), 0);
}

/// Of all who received something.
fn checksum_errors(lab: &Lab) -> u64 {
    let of = |netns: &netdp_tests::netns::Netns| {
        [("snmp", "Tcp", "InCsumErrors"), ("snmp", "Udp", "InCsumErrors"), ("snmp", "Icmp", "InCsumErrors")]
            .map(|(file, protocol, name)| netdp_tests::counters::counter(netns, file, protocol, name))
            .iter()
            .sum::<u64>()
    };
    of(&lab.world) + of(&lab.host)
}

/// Hooked by the next command; nothing leaves by it untranslated until then.
fn one_that_comes_later(lab: &Lab) {
    let site = Site::new(lab);
    let tunnel = tunnel(lab);
    unanswered(&site.a.netns, Transport::Tcp, (lab.at(WORLD), PORT));
    assert!(lab.netdp.counter("uplink_not_attached") > 0, "{}", lab.netdp.json("stats"));
    lab.netdp.ok("repair");
    site.works();
    // One that is gone leaves nothing behind.
    drop(tunnel);
    lab.netdp.ok("repair");
    lab.netdp.ok("doctor");
}

const TOO_BIG: What = What { v4: (3, 4), v6: (2, 0) };

/// By netdp (there is no hop left, the MTU), by the world, and by the endpoint (nobody listens).
fn errors_are_told(lab: &Lab) {
    let _tunnel = tunnel(lab);
    let a = lab.container("a", &format!("-p {CLOSED}:{CLOSED}/udp -p {CLOSED}:{CLOSED}"));
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    assert_eq!(trace(&a.netns, (world, CLOSED)), [a.gateway, world]);
    assert_eq!(trace(&lab.world, (host, CLOSED)), [host, host]);
    for (netns, to) in [(&a.netns, world), (&lab.world, host)] {
        let refused = netns.enter(|| TcpStream::connect_timeout(&SocketAddr::new(to, CLOSED), PATIENCE));
        assert_eq!(refused.map_err(|error| error.kind()).err(), Some(std::io::ErrorKind::ConnectionRefused));
    }
    let (mtu, large) = NARROW;
    lab.host.sh(&format!("ip link set {} mtu {mtu}", LINKS[0]));
    let prober = Prober::new(&a.netns, (world, PORT), Fragments::Forbidden);
    prober.send(large).expect("it fits the first link");
    let told = Told { by: a.gateway, what: TOO_BIG.of(lab), mtu, errno: libc::EMSGSIZE };
    assert_eq!(prober.told(), Some(told));
    assert_eq!(checksum_errors(lab), 0);
}

/// By the endpoint, the world, and the host's stack; and such as overtake each other.
fn fragments_find_their_way(lab: &Lab) {
    const OPEN: u16 = 5300;
    let tunnel = tunnel(lab);
    let site = Site::new(lab);
    lab.netdp.ok(&format!("publish a {OPEN}:{OPEN}/udp"));
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    let out = Prober::new(&site.a.netns, (world, PORT), Fragments::Allowed);
    let inward = Prober::new(&lab.world, (host, PUBLISHED), Fragments::Allowed);
    for prober in [&out, &inward] {
        assert!(unless_dropped(|| prober.ask(HUGE), Result::is_ok).expect("an answer") > HUGE);
    }
    let (mtu, large) = NARROW;
    lab.host.sh(&format!("ip link set {} mtu {mtu}", LINKS[0]));
    if world.is_ipv4() {
        assert!(unless_dropped(|| out.ask(large), Result::is_ok).expect("an answer") > large);
    }
    let socket = site.a.netns.enter(|| UdpSocket::bind((site.a.address, OPEN))).expect("binding");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let payload: Vec<u8> = (0..HUGE).map(|n| (n * 31 / 7).to_le_bytes()[0]).collect();
    let (from, to) = (SocketAddr::new(world, 20_000), SocketAddr::new(host, OPEN));
    let packet = Packet::new(from, to, Carries::Udp, &payload);
    let received = unless_dropped(
        || {
            for fragment in packet.fragments(1280).iter().rev() {
                tunnel.deliver(fragment);
            }
            let mut buffer = vec![0; 1 << 16];
            socket.recv_from(&mut buffer).map(|(length, from)| (buffer[..length].to_vec(), from))
        },
        Result::is_ok,
    );
    assert_eq!(received.expect("the datagram"), (payload, from));
}

/// What the stack forwards is translated on its way out, and before on its way in.
fn the_firewall_may_decide(lab: &Lab) {
    let _tunnel = tunnel(lab);
    lab.netdp.ok(&format!("--firewall honour network create both {}", lab.subnet("10.88.0.0/24")));
    let site = Site::new(lab);
    site.works();
    let tables = if lab.at(HOST).is_ipv4() { "iptables" } else { "ip6tables" };
    lab.host.sh(&format!("{tables} -P FORWARD DROP"));
    unanswered(&site.a.netns, Transport::Tcp, (lab.at(WORLD), PORT));
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), PUBLISHED));
}

/// The host takes the port of a living mapping, and sends to that mapping's remote: both talk on.
fn sockets_on_the_ports_of_mappings(lab: &Lab) {
    let _tunnel = tunnel(lab);
    let site = Site::new(lab);
    let world = lab.at(WORLD);
    let mapped = answered(&site.a.netns, Transport::Udp, (world, PORT), "world").peer.port();
    let own = ask_from(&lab.host, Transport::Udp, (lab.at(HOST), mapped), (world, PORT)).expect("an answer");
    assert_ne!(own.peer.port(), mapped, "two flows are one");
    let mut connection = greeted(lab, &site, world);
    let mapped = seen_port(&connection.1);
    let own = ask_from(&lab.host, Transport::Tcp, (lab.at(HOST), mapped), (world, PORT)).expect("an answer");
    assert_ne!(own.peer.port(), mapped, "two connections are one");
    std::io::Write::write_all(connection.0.get_mut(), b"still\n").expect("a connection");
    let mut echo = String::new();
    connection.0.read_line(&mut echo).expect("a connection");
    assert_eq!(echo, "still\n");
}

/// A connection of the endpoint's to the world, and what it was greeted with.
fn greeted(lab: &Lab, site: &Site<'_>, world: IpAddr) -> (BufReader<TcpStream>, String) {
    let to = SocketAddr::new(world, PORT);
    let stream = site.a.netns.enter(|| TcpStream::connect_timeout(&to, PATIENCE));
    let stream = stream.unwrap_or_else(|error| panic!("{to}: {error}: {}", lab.netdp.json("stats")));
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let (mut reader, mut greeting) = (BufReader::new(stream), String::new());
    reader.read_line(&mut greeting).expect("a greeting");
    (reader, greeting)
}
