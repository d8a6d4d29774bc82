//! Ports that are published for some sources only (`publish --from`): who is let in, and what becomes of the others.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::Duration;

use netdp_tests::ask::{Transport, answered, ask_from, unanswered};
use netdp_tests::lab::{Container, HOST, Lab, WORLD, WORLD_2};
use netdp_tests::server::Server;
use netdp_tests::variant::Datapath;
use netdp_tests::{maps, on_every_datapath_in_both_families, socket};
use nix::sys::socket::SockFlag;
use serde_json::json;

const PORT: u16 = 7000;
const PUBLISHED: u16 = 8088;
/// How long to wait for an answer that must not come.
const IMPATIENCE: Duration = Duration::from_millis(700);
/// Of a long list.
const PREFIXES: u32 = 3000;

on_every_datapath_in_both_families!(
    only_sources_are_let_in,
    a_change_counts_at_once,
    a_long_list_is_heeded_and_leaves_nothing,
);

/// A container with both servers.
fn served(lab: &Lab) -> (Container, [Server; 2]) {
    let web = lab.container("web", "");
    let tcp = Server::tcp(&web.netns, "web", lab.at(Ipv4Addr::UNSPECIFIED), &[PORT]);
    let udp = Server::udp(&web.netns, "web", web.address, &[PORT]);
    (web, [tcp, udp])
}

/// Both protocols of [`PUBLISHED`].
fn specs() -> String {
    format!("{PUBLISHED}:{PORT} {PUBLISHED}:{PORT}/udp")
}

#[track_caller]
fn is_answered_at(lab: &Lab, from: Ipv4Addr) {
    for transport in Transport::ALL {
        let answer = ask_from(&lab.world, transport, (lab.at(from), 0), (lab.at(HOST), PUBLISHED));
        let answer = answer.unwrap_or_else(|error| panic!("{transport:?} from {from}: {error}"));
        assert_eq!((answer.server.as_str(), answer.peer), ("web", answer.local));
    }
}

fn only_sources_are_let_in(lab: &Lab) {
    let (web, _servers) = served(lab);
    let [client, other] = ["client", "other"].map(|name| lab.container(name, ""));
    lab.netdp.ok(&format!("publish web {} --from {},{}", specs(), lab.at(WORLD_2), client.address));
    lab.netdp.ok(&format!("publish web 8090:{PORT}"));
    is_answered_at(lab, WORLD_2);
    let to = (lab.at(HOST), PUBLISHED);
    for transport in Transport::ALL {
        // By its first address.
        unanswered(&lab.world, transport, to);
        // Endpoints of this host are no exception, the one behind the port included.
        answered(&client.netns, transport, to, "web");
        unanswered(&other.netns, transport, to);
        unanswered(&web.netns, transport, to);
    }
    assert!(lab.netdp.counter("not_allowed") >= 6, "{}", lab.netdp.json("stats"));
    // The host itself is.
    let loopback = lab.variant.serves_loopback().then_some(lab.at(Ipv4Addr::LOCALHOST));
    for address in [lab.at(HOST)].into_iter().chain(loopback) {
        answered(&lab.host, Transport::Tcp, (address, PUBLISHED), "web");
    }
    // A port without a list is open.
    answered(&lab.world, Transport::Tcp, (lab.at(HOST), 8090), "web");

    let length = if lab.at(WORLD).is_ipv4() { 32 } else { 128 };
    let listed = [client.address, lab.at(WORLD_2)].map(|addr| format!("{addr}/{length}"));
    let mut listed: Vec<String> = listed.to_vec();
    listed.sort_unstable();
    let mut shown: Vec<String> = lab.netdp.json("inspect web")["published"][0]["sources"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|net| net.as_str().expect("a prefix").to_owned())
        .collect();
    shown.sort_unstable();
    assert_eq!(shown, listed);
    let text = lab.netdp.ok("inspect web");
    assert!(listed.iter().all(|net| text.contains(net)), "{text}");
    assert!(lab.netdp.ok("ls").contains("0.0.0.0:8088 from 2 prefixes"), "{}", lab.netdp.ok("ls"));
    let reached = lab.netdp.json("doctor --reachability");
    let from = |port: u16| {
        let all = reached["published"].as_array().expect("an array");
        all.iter().find(|one| one["host_port"] == port).expect("the port")["from"].clone()
    };
    assert_eq!((from(PUBLISHED), from(8090)), (json!("listed"), json!("networks")));
}

/// A connection that has greeted.
fn open(lab: &Lab, from: Ipv4Addr) -> TcpStream {
    let (to, source) = ((lab.at(HOST), PUBLISHED).into(), (lab.at(from), 0).into());
    let stream = lab.world.enter(|| {
        let socket = socket::tcp_bound(source, SockFlag::empty()).expect("binding TCP");
        socket::tcp_connect(socket, to)
    });
    let mut stream = stream.unwrap_or_else(|error| panic!("connecting from {from}: {error}"));
    stream.set_read_timeout(Some(IMPATIENCE)).expect("a timeout");
    while read_byte(&mut stream).expect("the greeting") != b'\n' {}
    stream
}

fn echoes(stream: &mut TcpStream) -> bool {
    stream.write_all(b"x").is_ok() && read_byte(stream) == Some(b'x')
}

fn read_byte(stream: &mut TcpStream) -> Option<u8> {
    let mut byte = [0];
    stream.read_exact(&mut byte).ok().map(|()| byte[0])
}

fn a_change_counts_at_once(lab: &Lab) {
    let (_web, _servers) = served(lab);
    lab.netdp.ok(&format!("publish web {} --from {} --from {}", specs(), lab.at(WORLD), lab.at(WORLD_2)));
    let [mut cut, mut kept] = [WORLD, WORLD_2].map(|from| open(lab, from));
    assert!(echoes(&mut cut) && echoes(&mut kept));
    let datagram = |from: Ipv4Addr| {
        ask_from(&lab.world, Transport::Udp, (lab.at(from), 5555), (lab.at(HOST), PUBLISHED)).is_ok()
    };
    assert!(datagram(WORLD) && datagram(WORLD_2));
    lab.netdp.ok(&format!("publish web {} --from {} --replace", specs(), lab.at(WORLD_2)));
    assert!(echoes(&mut kept), "a connection of who is still listed was cut");
    assert!(!echoes(&mut cut), "a connection of who is not listed any more goes on");
    assert!(!datagram(WORLD), "a flow of who is not listed any more goes on");
    assert!(datagram(WORLD_2));
    let flows = lab.netdp.json("flows --proto udp");
    assert_eq!(flows.as_array().map(Vec::len), Some(1), "{flows}");

    // A list is not lost by an oversight, and not by a failure either.
    let error = lab.netdp.refused(2, &format!("publish web {} --replace", specs()));
    assert!(error.contains("--from 0.0.0.0/0,::/0"), "{error}");
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), PUBLISHED));
    lab.netdp.ok(&format!("publish web {} --replace --from 0.0.0.0/0,::/0", specs()));
    is_answered_at(lab, WORLD);
    assert!(echoes(&mut kept));
    assert_eq!(lab.netdp.json("inspect web")["published"][0]["sources"], json!(null));
}

fn a_long_list_is_heeded_and_leaves_nothing(lab: &Lab) {
    let (_web, _servers) = served(lab);
    let before = left(lab);
    // Every second /24 or /64 of what nobody here has, and one address.
    let prefix = |n: u32| match lab.at(Ipv4Addr::from(0x0b00_0000 + (n << 9))) {
        IpAddr::V4(addr) => format!("{addr}/24"),
        IpAddr::V6(_) => format!("2001:db8:{:x}::/48", n << 1),
    };
    let mut list: Vec<String> = (0..PREFIXES).map(prefix).collect();
    list.push(lab.at(WORLD_2).to_string());
    lab.netdp.ok(&format!("publish web {} --from {}", specs(), list.join(",")));
    is_answered_at(lab, WORLD_2);
    unanswered(&lab.world, Transport::Udp, (lab.at(HOST), PUBLISHED));
    let published = lab.netdp.json("inspect web")["published"].clone();
    assert_eq!(published[1]["sources"].as_array().map(Vec::len), Some(list.len()));
    lab.netdp.ok(&format!("publish web {} --from {} --replace", specs(), lab.at(WORLD)));
    is_answered_at(lab, WORLD);
    lab.netdp.ok("unpublish web --all");
    assert_eq!(left(lab), before);
}

/// What there is of lists.
fn left(lab: &Lab) -> Vec<String> {
    if lab.variant.datapath == Datapath::Ebpf {
        let table = if lab.at(HOST).is_ipv4() { "SOURCES_V4" } else { "SOURCES_V6" };
        return maps::dump(&lab.netdp.pins().join("v1/maps").join(table));
    }
    let program = if lab.at(HOST).is_ipv4() { "iptables-save" } else { "ip6tables-save" };
    let rules = lab.host.sh(&format!("{program} -t mangle"));
    // The chain that counts what was dropped goes with the last list.
    rules.lines().filter(|line| line.contains("NETDP-")).map(str::to_owned).collect()
}
