//! A change takes effect at once and exactly: unpublish, move, detach, a dead endpoint (G11).

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_tests::ask::{Transport, answered, ask_from, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::server::Server;
use netdp_tests::variant::Datapath;
use netdp_tests::{maps, on_every_datapath};

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;

on_every_datapath!(
    unpublishing_cuts_its_flows_and_no_others,
    draining_lets_connections_finish,
    replacing_moves_a_port_in_one_step,
    replacing_says_what_the_new_endpoint_can_not_serve,
    a_port_published_elsewhere_is_answered_from_there,
    a_detached_endpoint_is_gone,
    a_dead_endpoint_is_replaced,
    flushing_removes_what_the_filter_says,
);

netdp_tests::in_variants! {
    replacing_touches_no_other_flow: ebpf EBPF, ebpf_v6 EBPF_V6;
}

/// A container with both servers, published or not.
fn served(lab: &Lab, name: &str, options: &str) -> (Container, [Server; 2]) {
    let container = lab.container(name, options);
    let tcp = Server::tcp(&container.netns, name, Ipv4Addr::UNSPECIFIED, &[PORT]);
    let udp = Server::udp(&container.netns, name, container.address, &[PORT]);
    (container, [tcp, udp])
}

/// Both protocols of [`PUBLISHED`].
fn specs() -> String {
    format!("{PUBLISHED}:{PORT} {PUBLISHED}:{PORT}/udp")
}

/// A connection that has greeted.
struct Open(TcpStream);

impl Open {
    fn from_world(lab: &Lab, port: u16) -> Self {
        let to = SocketAddr::from((HOST, port));
        let stream = lab.world.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)));
        let mut stream = stream.unwrap_or_else(|error| panic!("connecting to {to}: {error}"));
        stream.set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
        while read_byte(&mut stream) != Some(b'\n') {}
        Self(stream)
    }

    /// Whether a byte comes back.
    fn echoes(&mut self) -> bool {
        self.0.write_all(b"x").is_ok() && read_byte(&mut self.0) == Some(b'x')
    }
}

fn read_byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok().map(|()| byte[0])
}

fn unpublishing_cuts_its_flows_and_no_others(lab: &Lab) {
    let (web, _servers) = served(lab, "web", "");
    lab.netdp.ok(&format!("publish web {} 8090:{PORT}", specs()));
    let _world = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    let mut cut = Open::from_world(lab, PUBLISHED);
    let mut kept = Open::from_world(lab, 8090);
    let before = ask_from(&web.netns, Transport::Udp, (web.address, 5000), (WORLD, PORT)).expect("an answer");
    assert!(cut.echoes() && kept.echoes());
    lab.netdp.ok(&format!("unpublish web {PUBLISHED}:{PORT}"));
    assert!(!cut.echoes(), "an open connection to the unpublished port still works");
    unanswered(&lab.world, Transport::Tcp, (HOST, PUBLISHED));
    unanswered(&lab.host, Transport::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED));
    assert!(kept.echoes(), "a connection to another published port was cut");
    answered(&lab.world, Transport::Udp, (HOST, PUBLISHED), "web");
    let after = ask_from(&web.netns, Transport::Udp, (web.address, 5000), (WORLD, PORT)).expect("an answer");
    assert_eq!(before.peer, after.peer, "an outgoing flow lost its mapping");
    lab.netdp.ok("unpublish web --all");
    assert!(!kept.echoes());
    unanswered(&lab.world, Transport::Udp, (HOST, PUBLISHED));
}

fn draining_lets_connections_finish(lab: &Lab) {
    let (_web, _servers) = served(lab, "web", "");
    lab.netdp.ok(&format!("publish web {}", specs()));
    let mut open = Open::from_world(lab, PUBLISHED);
    assert!(open.echoes());
    lab.netdp.ok(&format!("unpublish web {} --drain", specs()));
    assert!(open.echoes(), "an open connection was cut");
    for transport in Transport::ALL {
        unanswered(&lab.world, transport, (HOST, PUBLISHED));
    }
    // Whoever has the port next: what is open stays where it is. (With iptables, it ends then.)
    let (_next, _next_servers) = served(lab, "next", "");
    lab.netdp.ok(&format!("publish next {}", specs()));
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "next");
    assert!(lab.variant.datapath == Datapath::Iptables || open.echoes());
}

fn replacing_moves_a_port_in_one_step(lab: &Lab) {
    let (_a, _a_servers) = served(lab, "a", "");
    let (_b, _b_servers) = served(lab, "b", "");
    lab.netdp.ok(&format!("publish a {}", specs()));
    lab.netdp.refused(2, &format!("publish b {}", specs()));
    let mut open = Open::from_world(lab, PUBLISHED);
    let client = FixedClient::new(lab);
    assert_eq!(client.ask().as_deref(), Some("a"));
    lab.netdp.ok(&format!("publish b {} --replace", specs()));
    assert_eq!(
        client.ask().as_deref(),
        Some("b"),
        "a UDP client that keeps its port reaches the new one at once"
    );
    assert!(!open.echoes(), "the old endpoint still answers an old connection");
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "b");
    answered(&lab.host, Transport::Tcp, (Ipv4Addr::LOCALHOST, PUBLISHED), "b");
    let list = |name: &str| lab.netdp.json(&format!("inspect {name}"))["published"].as_array().map(Vec::len);
    assert_eq!((list("a"), list("b")), (Some(0), Some(2)));
}

/// It costs the same with a full table: nobody looks for the flows of the port. Each ends with its next packet.
fn replacing_touches_no_other_flow(lab: &Lab) {
    const CLIENTS: u16 = 200;
    /// Another address of the host.
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 5);
    let prefix = if lab.at(OTHER).is_ipv4() { 24 } else { 64 };
    lab.host.sh(&format!("ip addr add {}/{prefix} dev up0 nodad", lab.at(OTHER)));
    let [(a, _a_servers), (_b, _b_servers)] = ["a", "b"].map(|name| served(lab, name, ""));
    let spec = |host| format!("{}:{PUBLISHED}:{PORT}/udp", lab.in_spec(host));
    lab.netdp.ok(&format!("publish a {} {} 8090:{PORT}/udp", spec(HOST), spec(OTHER)));
    let _world = Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    let clients: Vec<FixedClient> =
        (0..CLIENTS).map(|n| FixedClient::at(lab, 20_000 + n, (HOST, PUBLISHED))).collect();
    let others = [(OTHER, 5555, PUBLISHED), (HOST, 5556, 8090)]
        .map(|(to, source, port)| FixedClient::at(lab, source, (to, port)));
    let mapping = || {
        ask_from(&a.netns, Transport::Udp, (a.address, 5000), (lab.at(WORLD), PORT)).expect("an answer").peer
    };
    let mapped = mapping();
    assert!(clients.iter().chain(&others).all(|client| client.answerer() == "a"));
    let flows_of =
        |name: &str| lab.netdp.json(&format!("flows ls --endpoint {name}")).as_array().map_or(0, Vec::len);
    let kept = others.len() + 1;
    assert_eq!((flows_of("a"), flows_of("b")), (usize::from(CLIENTS) + kept, 0));
    let table = if lab.at(HOST).is_ipv4() { "FLOWS_V4" } else { "FLOWS_V6" };
    let entries = || maps::dump(&lab.netdp.pins().join("v1/maps").join(table));
    let before = entries();
    lab.netdp.ok(&format!("publish b {} --replace", spec(HOST)));
    assert_eq!(entries(), before, "the command has touched flows");
    assert_eq!((flows_of("a"), flows_of("b")), (kept, 0), "and still they have ended");
    for client in &clients {
        assert_eq!(client.answerer(), "b", "at once");
    }
    assert_eq!((flows_of("a"), flows_of("b")), (kept, usize::from(CLIENTS)));
    assert_eq!(entries().len(), before.len(), "nothing is left of the old ones");
    for other in &others {
        assert_eq!(other.answerer(), "a", "somebody else's flow");
    }
    assert_eq!(mapping(), mapped, "an outgoing flow lost its mapping");
    // What has ended does not come back when the port goes.
    lab.netdp.ok(&format!("publish a {} --replace", spec(HOST)));
    lab.netdp.ok(&format!("unpublish a {} --drain", spec(HOST)));
    assert_eq!(flows_of("b"), 0);
    assert!(entries().len() < before.len(), "flows that have ended are in the table");
}

/// The port is in one place, also where that has an address of one family only.
fn replacing_says_what_the_new_endpoint_can_not_serve(lab: &Lab) {
    const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xa63, 0, 0, 0, 0, 0, 1);
    lab.netdp.ok("network create dual --subnet 10.57.0.0/24 --subnet fd57::/64");
    let [both, only] = ["--network dual", ""].map(|options| {
        let name = if options.is_empty() { "only" } else { "both" };
        let container = lab.container(name, options);
        let server = Server::tcp(&container.netns, name, Ipv6Addr::UNSPECIFIED, &[PORT]);
        (container, server)
    });
    let spec = format!("{PUBLISHED}:{PORT}");
    lab.netdp.ok(&format!("publish both {spec}"));
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "both");
    answered(&lab.world, Transport::Tcp, (HOST_V6, PUBLISHED), "both");
    let replaced = lab.netdp.run(&format!("publish only {spec} --replace"));
    assert_eq!(replaced.code, 0, "{replaced:?}");
    let warning = "only has no IPv6 address, so this port, which led to both, reaches nobody by IPv6";
    assert!(replaced.stderr.starts_with("warning: ") && replaced.stderr.contains(warning), "{replaced:?}");
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "only");
    unanswered(&lab.world, Transport::Tcp, (HOST_V6, PUBLISHED));
    let back = lab.netdp.run(&format!("publish both {spec} --replace"));
    assert_eq!((back.code, back.stderr.as_str()), (0, ""), "{back:?}");
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "both");
    answered(&lab.world, Transport::Tcp, (HOST_V6, PUBLISHED), "both");
    drop((both, only));
}

fn a_port_published_elsewhere_is_answered_from_there(lab: &Lab) {
    let (_a, _a_servers) = served(lab, "a", "");
    let (_b, _b_servers) = served(lab, "b", "");
    let client = FixedClient::new(lab);
    for (old, new) in [("b", "a"), ("a", "b"), ("b", "a")] {
        lab.netdp.run(&format!("unpublish {old} --all"));
        assert_eq!(client.ask(), None, "nobody has the port");
        lab.netdp.ok(&format!("publish {new} {}", specs()));
        assert_eq!(client.ask().as_deref(), Some(new));
        answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), new);
    }
}

/// A UDP client in the world that keeps its source port, and whom it asks.
struct FixedClient(UdpSocket, SocketAddr);

impl FixedClient {
    fn new(lab: &Lab) -> Self {
        Self::at(lab, 5555, (HOST, PUBLISHED))
    }

    fn at(lab: &Lab, source: u16, (host, port): (Ipv4Addr, u16)) -> Self {
        let (from, to) = (SocketAddr::new(lab.at(WORLD), source), SocketAddr::new(lab.at(host), port));
        let socket = lab.world.enter(|| UdpSocket::bind(from)).expect("binding UDP");
        socket.set_read_timeout(Some(Duration::from_millis(700))).expect("a timeout");
        Self(socket, to)
    }

    /// Who answers.
    fn ask(&self) -> Option<String> {
        let mut buffer = [0; 256];
        self.0.send_to(b"who", self.1).expect("sending UDP");
        let (length, _) = self.0.recv_from(&mut buffer).ok()?;
        String::from_utf8_lossy(&buffer[..length]).split(' ').next().map(str::to_owned)
    }

    /// The same where there is somebody; a machine that floods its queues may lose a packet.
    fn answerer(&self) -> String {
        (0..3).find_map(|_| self.ask()).unwrap_or_else(|| panic!("nobody answers at {}", self.1))
    }
}

fn a_detached_endpoint_is_gone(lab: &Lab) {
    let (web, _servers) = served(lab, "web", &format!("-p {PUBLISHED}:{PORT}"));
    let (other, _others) = served(lab, "other", "");
    let mut open = Open::from_world(lab, PUBLISHED);
    assert!(open.echoes());
    lab.netdp.ok("detach web");
    assert!(!open.echoes());
    unanswered(&lab.world, Transport::Tcp, (HOST, PUBLISHED));
    unanswered(&other.netns, Transport::Tcp, (web.address, PORT));
    assert!(!web.netns.try_sh("ip link show eth0").status.success(), "eth0 is still there");
    assert!(!lab.host.try_sh(&format!("ip link show {}", web.host_ifname)).status.success());
    let names: Vec<String> = endpoint_names(lab);
    assert_eq!(names, ["other"]);
    assert!(lab.netdp.json("flows").as_array().is_some_and(Vec::is_empty), "flows are left");
    lab.netdp.refused(2, "detach web");
    // The port and the name are free again.
    let again = lab.attach("web", &web.netns, &format!("-p {PUBLISHED}:{PORT}"));
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "web");
    drop(again);
}

fn endpoint_names(lab: &Lab) -> Vec<String> {
    let list = lab.netdp.json("ls");
    list.as_array()
        .expect("an array")
        .iter()
        .map(|one| one["name"].as_str().expect("a name").to_owned())
        .collect()
}

/// A container that died without `detach` is replaced by one of the same name.
fn a_dead_endpoint_is_replaced(lab: &Lab) {
    let options = format!("-p {PUBLISHED}:{PORT}");
    drop(served(lab, "web", &options));
    lab.remove_netns("web");
    let (web, _servers) = served(lab, "web", &options);
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "web");
    assert_eq!(endpoint_names(lab), ["web"]);
    // A living one of that name is not replaced.
    let second = lab.netns("second");
    let error = lab.netdp.refused(2, &format!("attach {} --name web", second.name()));
    assert!(error.contains("web"), "{error}");
    let _world = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    answered(&web.netns, Transport::Udp, (WORLD, PORT), "world");
}

fn flushing_removes_what_the_filter_says(lab: &Lab) {
    let (a, b) = (lab.container("a", ""), lab.container("b", ""));
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT, PORT + 1]);
    for container in [&a, &b] {
        for port in [PORT, PORT + 1] {
            ask_from(&container.netns, Transport::Udp, (container.address, 5000), (WORLD, port))
                .expect("an answer");
        }
    }
    let count = |filter: &str| lab.netdp.json(&format!("flows ls {filter}")).as_array().map(Vec::len);
    assert_eq!(count("--proto udp"), Some(4));
    assert_eq!(count("--endpoint a"), Some(2));
    assert_eq!(count(&format!("--dst {WORLD}:{PORT}")), Some(2));
    lab.netdp.ok(&format!("flows flush --endpoint a --dst {WORLD}:{PORT}"));
    assert_eq!((count("--endpoint a"), count("--endpoint b")), (Some(1), Some(2)));
    lab.netdp.ok("flows flush");
    assert_eq!(count(""), Some(0));
    answered(&a.netns, Transport::Udp, (WORLD, PORT), "world");
}
