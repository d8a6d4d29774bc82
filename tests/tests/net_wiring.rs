//! `netdp::net` in namespaces that each test makes for itself: nothing is done in the machine's own, and everything
//! is gone with the test's last descriptor. iproute2 is the independent witness.

use std::net::{IpAddr, UdpSocket};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use ipnet::IpNet;
use netdp::net::{BridgeSpec, Error, Framing, Link, Mac, Net, NetNs, PortFlags, VethSpec};
use nix::errno::Errno;
use serde_json::Value;

use isolation::{in_new_netns, new_netns};

#[path = "net_wiring/addresses.rs"]
mod addresses;
mod isolation;

const GATEWAYS: [&str; 2] = ["10.77.0.1", "fd77::1"];
const MTU: u32 = 1400;
const QUEUES: u32 = 2;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Runs `test` in a namespace that stands for the host, under a runtime as the command line has it.
fn on_a_host(test: impl AsyncFnOnce(Net) + Send) {
    in_new_netns(|host| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { test(Net::open(host).expect("netlink")).await });
    });
}

async fn bridge(host: &Net) -> Link {
    let spec =
        BridgeSpec { name: "br0".to_owned(), mac: Mac([2, 0, 0, 0, 0, 1]), mtu: MTU, forwards_v6: true };
    let bridge = host.create_bridge(&spec).await.expect("a bridge");
    for gateway in GATEWAYS {
        host.add_address(bridge.index, subnet(gateway)).await.expect("the bridge's address");
    }
    bridge
}

fn subnet(addr: &str) -> IpNet {
    IpNet::new(ip(addr), if ip(addr).is_ipv4() { 24 } else { 64 }).expect("a prefix")
}

/// A namespace on the bridge, its veth pair and its addresses.
struct Container {
    ns: NetNs,
    host_end: Link,
    eth0: Link,
    addresses: [IpAddr; 2],
}

fn spec<'a>(bridge: u32, host_name: &'a str, ns: &'a NetNs) -> VethSpec<'a> {
    VethSpec {
        host_name,
        host_mac: Mac::random_local(),
        bridge,
        peer_ns: ns,
        peer_name: "eth0",
        peer_mac: Mac::random_local(),
        mtu: MTU,
        queues: QUEUES,
    }
}

impl Container {
    async fn attach(host: &Net, bridge: &Link, number: u8) -> Self {
        let ns = new_netns();
        let name = format!("v{number}");
        let (host_end, eth0) = host.create_veth(&spec(bridge.index, &name, &ns)).await.expect("a veth pair");
        let net = Net::open(&ns).expect("netlink in the container");
        let lo = net.link("lo").await.expect("a link").expect("lo");
        net.set_up(lo.index).await.expect("lo up");
        let addresses = [ip(&format!("10.77.0.{number}")), ip(&format!("fd77::{number}"))];
        for (addr, gateway) in addresses.iter().zip(GATEWAYS) {
            net.add_address(eth0.index, subnet(&addr.to_string())).await.expect("eth0's address");
            net.add_default_route(ip(gateway), eth0.index).await.expect("a default route");
        }
        Self { ns, host_end, eth0, addresses }
    }

    async fn pin(&self, host: &Net, bridge: &Link) {
        let mac = self.eth0.mac.expect("eth0's MAC");
        for addr in self.addresses {
            host.replace_neighbour(bridge.index, addr, mac).await.expect("a neighbour");
        }
        host.replace_fdb(self.host_end.index, mac).await.expect("an FDB entry");
        host.set_bridge_port(self.host_end.index, PortFlags::default()).await.expect("port flags");
    }
}

/// Sends a datagram from `from` to a socket on `addr` in `to`, and an answer back; checks who it came from.
fn exchange(from: &NetNs, source: IpAddr, to: &NetNs, addr: IpAddr) {
    let bind = |ns: &NetNs, addr: IpAddr| {
        let socket = ns.run(|| UdpSocket::bind((addr, 0))).expect("entering").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        socket
    };
    let any = if addr.is_ipv4() { ip("0.0.0.0") } else { ip("::") };
    let (client, server) = (bind(from, any), bind(to, addr));
    let mut buffer = [0; 16];
    client.send_to(b"ping", server.local_addr().expect("an address")).expect("sending");
    let (_, sender) =
        server.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{source} to {addr}: {error}"));
    assert_eq!(sender.ip(), source);
    server.send_to(b"pong", sender).expect("answering");
    let (_, answerer) =
        client.recv_from(&mut buffer).unwrap_or_else(|error| panic!("{addr} to {source}: {error}"));
    assert_eq!(answerer, server.local_addr().expect("an address"));
}

/// What iproute2 prints in the calling thread's namespaces.
fn json(program: &str, arguments: &[&str]) -> Value {
    let output = Command::new(program).args(arguments).output().expect("iproute2");
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[test]
#[ignore = "needs root"]
fn two_containers_and_the_host_reach_each_other() {
    on_a_host(async |host| {
        let bridge = bridge(&host).await;
        let host_ns = NetNs::current().expect("the host's namespace");
        let c1 = Container::attach(&host, &bridge, 11).await;
        let c2 = Container::attach(&host, &bridge, 12).await;
        for pinned in [false, true] {
            if pinned {
                c1.pin(&host, &bridge).await;
                c2.pin(&host, &bridge).await;
            }
            for (gateway, (one, two)) in
                GATEWAYS.map(ip).into_iter().zip(c1.addresses.into_iter().zip(c2.addresses))
            {
                exchange(&host_ns, gateway, &c1.ns, one);
                exchange(&c2.ns, two, &host_ns, gateway);
                exchange(&c1.ns, one, &c2.ns, two);
            }
        }
    });
}

#[test]
#[ignore = "needs root"]
fn links_are_as_asked_for() {
    on_a_host(async |host| {
        let bridge = bridge(&host).await;
        assert_eq!((bridge.mac, bridge.mtu, bridge.up), (Some(Mac([2, 0, 0, 0, 0, 1])), MTU, true));
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));
        let Container { ns, host_end, eth0, .. } = Container::attach(&host, &bridge, 11).await;
        assert_eq!(host_end.name, "v11");
        assert_eq!(host_end.master, Some(bridge.index));
        assert_eq!(host_end.peer_index, Some(eth0.index));
        assert!(host_end.peer_netnsid.is_some());
        assert_eq!((eth0.name.as_str(), eth0.peer_index), ("eth0", Some(host_end.index)));
        for end in [&host_end, &eth0] {
            let found = (end.kind.as_deref(), end.mtu, end.up, end.framing);
            assert_eq!(found, (Some("veth"), MTU, true, Framing::Ethernet));
        }

        host.set_alias(bridge.index, "made by a test").await.expect("an alias");
        let links = host.links().await.expect("links");
        let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
        assert_eq!(names, ["lo", "br0", "v11"]);
        assert!(links[0].loopback && links[0].framing == Framing::Other && !links[0].up);
        assert_eq!(links[1].alias.as_deref(), Some("made by a test"));
        assert_eq!(host.link_by_index(host_end.index).await.expect("a link"), Some(links[2].clone()));

        host.set_bridge_port(host_end.index, PortFlags { hairpin: true, ..PortFlags::default() })
            .await
            .expect("flags");
        let shown = &json("ip", &["-d", "-j", "link", "show", "dev", "v11"])[0];
        assert_eq!([&shown["num_tx_queues"], &shown["num_rx_queues"]], [QUEUES, QUEUES]);
        let port = &shown["linkinfo"]["info_slave_data"];
        let flags =
            ["hairpin", "learning", "flood", "bcast_flood", "mcast_flood"].map(|flag| port[flag].as_bool());
        assert_eq!(flags, [true, false, false, true, true].map(Some), "{port}");
        let shown = &json("ip", &["-d", "-j", "link", "show", "dev", "br0"])[0];
        assert_eq!(shown["linkinfo"]["info_data"]["stp_state"], 0);
        let peer = ns.run(|| json("ip", &["-d", "-j", "link", "show", "dev", "eth0"])).expect("entering");
        assert_eq!(peer[0]["num_rx_queues"], QUEUES);
    });
}

#[test]
#[ignore = "needs root"]
fn failures_leave_nothing_behind() {
    on_a_host(async |host| {
        let too_big = BridgeSpec {
            name: "br0".to_owned(),
            mac: Mac::random_local(),
            mtu: 1_000_000,
            forwards_v6: false,
        };
        let error = host.create_bridge(&too_big).await.expect_err("no bridge has that MTU");
        assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");
        assert_eq!(host.link("br0").await.expect("a look"), None);

        let bridge = bridge(&host).await;
        let error = host.create_bridge(&BridgeSpec { mtu: MTU, ..too_big }).await.expect_err("it exists");
        assert_eq!(error.errno(), Some(Errno::EEXIST));
        assert!(host.link("br0").await.expect("a look").is_some(), "somebody else's bridge stays");

        let ns = new_netns();
        let mut no_bridge = spec(9999, "v1", &ns);
        assert_eq!(host.create_veth(&no_bridge).await.expect_err("no bridge").errno(), Some(Errno::EINVAL));
        no_bridge.bridge = bridge.index;
        host.create_veth(&no_bridge).await.expect("a veth pair");
        let error = host.create_veth(&spec(bridge.index, "v2", &ns)).await.expect_err("eth0 is taken");
        assert_eq!(error.errno(), Some(Errno::EEXIST), "{error}");
        assert!(error.to_string().contains("v2"), "{error}");
        assert_eq!(host.link("v2").await.expect("a look"), None);

        // The kernel makes up a number, so that the end is not there under its name when it is to be brought up.
        let elsewhere = new_netns();
        let pattern = VethSpec { peer_name: "eth%d", ..spec(bridge.index, "v3", &elsewhere) };
        let error = host.create_veth(&pattern).await.expect_err("it has another name");
        assert!(matches!(error, Error::LinkVanished { .. }), "{error}");
        let pattern = spec(bridge.index, "v%d", &elsewhere);
        assert!(matches!(host.create_veth(&pattern).await, Err(Error::BadLinkName(_))));
        assert_eq!(host.links().await.expect("links").len(), 3);
    });
}

#[test]
#[ignore = "needs root"]
fn a_static_fdb_entry_replaces_the_learnt_one() {
    on_a_host(async |host| {
        let bridge = bridge(&host).await;
        let host_ns = NetNs::current().expect("the host's namespace");
        let c1 = Container::attach(&host, &bridge, 11).await;
        let (port, mac) = (c1.host_end.index, c1.eth0.mac.expect("eth0's MAC"));
        exchange(&c1.ns, c1.addresses[0], &host_ns, ip(GATEWAYS[0]));
        let entry =
            async || host.fdb(port).await.expect("the FDB").into_iter().find(|entry| entry.mac == mac);
        assert!(!entry().await.expect("the bridge learns").fixed);

        for _ in 0..2 {
            host.replace_fdb(port, mac).await.expect("an FDB entry");
            assert!(entry().await.expect("the entry").fixed);
        }
        host.set_bridge_port(port, PortFlags::default()).await.expect("port flags");
        let shown = json("bridge", &["-j", "fdb", "show", "dev", "v11"]);
        let is_ours = |entry: &&Value| entry["mac"] == mac.to_string().as_str();
        let ours = shown.as_array().expect("a list").iter().find(is_ours).expect("the entry");
        assert_eq!([&ours["state"], &ours["master"]], ["static", "br0"]);
        exchange(&host_ns, ip(GATEWAYS[0]), &c1.ns, c1.addresses[0]);
    });
}

/// Nothing of ours keeps a container's namespace alive: neither a thread nor a netlink socket.
#[test]
#[ignore = "needs root"]
fn dropping_the_container_removes_the_pair() {
    on_a_host(async |host| {
        let bridge = bridge(&host).await;
        let c1 = Container::attach(&host, &bridge, 11).await;
        let index = c1.host_end.index;
        drop(c1);
        let deadline = Instant::now() + Duration::from_secs(5);
        while host.link_by_index(index).await.expect("a look").is_some() {
            assert!(Instant::now() < deadline, "the pair outlives its namespace");
            sleep(Duration::from_millis(10));
        }
    });
}
