//! Somebody's queueing disciplines on the host still limit what goes through them (G17).

use std::net::IpAddr;
use std::time::{Duration, Instant};

use netdp_tests::ask::echo_bulk;
use netdp_tests::lab::{Lab, UPLINK, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::server::Server;
use netdp_tests::variant::Datapath;
use serde_json::Value;

const PORT: u16 = 7000;
const BULK: usize = 3 << 20;
/// 16 Mbit/s: a second and a half for what is sent.
const LIMIT: &str = "tbf rate 16mbit burst 64kb latency 100ms";
/// Without what the bucket holds at the beginning, and then some.
const AT_LEAST: Duration = Duration::from_secs(1);

netdp_tests::in_variants! {
    an_uplink_limits_what_leaves: ebpf EBPF, ebpf_v6 EBPF_V6;
    a_host_veth_limits_what_arrives: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
    a_host_veth_limits_neighbours: ebpf EBPF;
}

fn limit(lab: &Lab, link: &str) {
    lab.host.sh(&format!("tc qdisc add dev {link} root {LIMIT}"));
}

/// Bytes that a link's queueing discipline has let through.
fn sent(lab: &Lab, link: &str) -> u64 {
    let shown = lab.host.sh(&format!("tc -s -j qdisc show dev {link} root"));
    let list: Value = serde_json::from_str(&shown).expect("JSON");
    list[0]["bytes"].as_u64().unwrap_or_else(|| panic!("no bytes in {shown}"))
}

/// Sends much and gets it back, as slowly as `link` lets it through.
#[track_caller]
fn is_limited(lab: &Lab, link: &str, client: &Netns, server: IpAddr) {
    let (before, start) = (sent(lab, link), Instant::now());
    echo_bulk(client, (server, PORT), BULK);
    let (took, sent) = (start.elapsed(), sent(lab, link) - before);
    assert!(sent >= BULK as u64, "only {sent} bytes went through the queue of {link}");
    assert!(took >= AT_LEAST, "{BULK} bytes in {took:?} through {link}");
}

fn an_uplink_limits_what_leaves(lab: &Lab) {
    let a = lab.container("a", "");
    let _world = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    limit(lab, UPLINK);
    is_limited(lab, UPLINK, &a.netns, lab.at(WORLD));
}

fn a_host_veth_limits_what_arrives(lab: &Lab) {
    let a = lab.container("a", "");
    let _world = Server::tcp(&lab.world, "world", lab.at(WORLD), &[PORT]);
    limit(lab, &a.host_ifname);
    is_heeded(lab, &a.host_ifname);
    is_limited(lab, &a.host_ifname, &a.netns, lab.at(WORLD));
}

fn a_host_veth_limits_neighbours(lab: &Lab) {
    let (a, b) = (lab.container("a", ""), lab.container("b", ""));
    let _b = Server::tcp(&b.netns, "b", b.address, &[PORT]);
    limit(lab, &b.host_ifname);
    lab.netdp.ok("repair");
    is_limited(lab, &b.host_ifname, &a.netns, b.address);
    // Taken away again: nothing has to queue any more.
    lab.host.sh(&format!("tc qdisc del dev {} root", b.host_ifname));
    lab.netdp.ok("repair");
    echo_bulk(&a.netns, (b.address, PORT), BULK);
}

/// The eBPF datapath knows it from the next command on, and `doctor` says so before.
fn is_heeded(lab: &Lab, link: &str) {
    if lab.variant.datapath == Datapath::Ebpf {
        let found = lab.netdp.run("doctor").stdout;
        assert!(found.contains(&format!("packets to {link} go past its qdisc")), "{found}");
    }
    lab.netdp.ok("repair");
}
