//! `doctor --reachability` says from where published ports are reached, and so it is.

use netdp_tests::ask::{Transport, answered, unanswered};
use netdp_tests::lab::{HOST, Lab, UPLINK};
use netdp_tests::on_every_datapath;
use netdp_tests::server::Server;
use serde_json::{Value, json};
use std::net::Ipv4Addr;

/// An address of the host that is not private (RFC 5737).
const PUBLIC: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const PORT: u16 = 80;

on_every_datapath!(what_is_said_is_so);

/// From where it is reached and at which addresses, by host port.
fn said(lab: &Lab, host_port: u16) -> (Value, Vec<Value>) {
    let answer = lab.netdp.json("doctor --reachability");
    let published = answer["published"].as_array().expect("an array");
    let one = published.iter().find(|one| one["host_port"] == host_port).expect("the published port");
    let at = one["at"].as_array().expect("an array").iter().map(|at| at["addr"].clone());
    (one["from"].clone(), at.collect())
}

fn what_is_said_is_so(lab: &Lab) {
    lab.host.sh(&format!("ip addr add {PUBLIC}/32 dev {UPLINK}"));
    lab.world.sh(&format!("ip route add {PUBLIC} via {HOST}"));
    lab.netdp.ok("network create inner --subnet 10.58.3.0/24 --internal");
    let open = lab.container("open", &format!("-p 8080:{PORT}"));
    let part = lab.container("part", &format!("-p {HOST}:8081:{PORT}"));
    let shut = lab.container("shut", &format!("-p 127.0.0.1:8082:{PORT}"));
    let listed = lab.container("listed", "");
    lab.netdp.ok(&format!("publish listed 8084:{PORT} --from {}", listed.address));
    let inner = lab.container("inner", &format!("--network inner -p 8083:{PORT}"));
    let names = ["open", "part", "shut", "inner", "listed"];
    let _servers: Vec<Server> = [&open, &part, &shut, &inner, &listed]
        .iter()
        .zip(names)
        .map(|(container, name)| Server::tcp(&container.netns, name, container.address, &[PORT]))
        .collect();
    let gateway = json!(open.gateway);

    let (from, at) = said(lab, 8080);
    assert_eq!(from, "internet");
    for addr in [json!(HOST), json!(PUBLIC), gateway] {
        assert!(at.contains(&addr), "{addr}: {at:?}");
    }
    assert_eq!(said(lab, 8081), (json!("networks"), vec![json!(HOST)]));
    assert_eq!(said(lab, 8082), (json!("host"), Vec::new()));
    assert_eq!(said(lab, 8084).0, "listed");
    assert_eq!(said(lab, 8083), (json!("networks"), vec![json!(inner.gateway)]));
    let text = lab.netdp.ok("doctor --reachability");
    let verdict = text.lines().last().unwrap_or_default();
    assert!(
        verdict.starts_with("reached from the internet") && verdict.contains(": open 80/tcp; "),
        "{text}"
    );
    assert!(verdict.ends_with("only from what its --from lists: listed 80/tcp"), "{text}");

    let asked =
        [(&lab.world, HOST), (&lab.world, PUBLIC), (&part.netns, HOST), (&lab.host, Ipv4Addr::LOCALHOST)];
    for (port, name, [world, public, endpoint, host]) in [
        (8080, "open", [true, true, true, true]),
        (8081, "part", [true, false, true, false]),
        (8082, "shut", [false, false, false, true]),
        (8083, "inner", [false, false, false, true]),
        (8084, "listed", [false, false, false, true]),
    ] {
        for ((netns, addr), expected) in asked.into_iter().zip([world, public, endpoint, host]) {
            match expected {
                true => drop(answered(netns, Transport::Tcp, (addr, port), name)),
                false => unanswered(netns, Transport::Tcp, (addr, port)),
            }
        }
    }

    lab.host.sh(&format!("ip addr del {PUBLIC}/32 dev {UPLINK}"));
    assert_eq!(said(lab, 8080).0, "networks");
    lab.remove_netns("open");
    assert_eq!(said(lab, 8080), (json!("nobody"), Vec::new()));
    assert!(
        lab.netdp
            .ok("doctor --reachability")
            .ends_with("no published port has a public address of this host\n")
    );
}
