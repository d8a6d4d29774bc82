//! The rules as text, for both families.

use std::net::IpAddr;

use super::super::super::{EndpointEntry, NetworkEntry, Proto, PublishEntry};
use super::super::family::Family;
use super::super::model::{Model, Network};
use super::super::program::Backend;
use super::super::ruleset::Table;
use super::{Names, ruleset};
use crate::plan::sources::Sources;
use crate::plan::timeouts::NetworkTimeouts;

/// A dual-stack network with one endpoint.
fn model() -> Model {
    let mut model = Model::new(Backend::Default);
    let entry = NetworkEntry {
        bridge: 4,
        bridge_ifname: "netdp0".into(),
        subnets: vec!["10.9.0.0/24".parse().unwrap(), "fd00:9::/64".parse().unwrap()],
        gateways: vec!["10.9.0.1".parse().unwrap(), "fd00:9::1".parse().unwrap()],
        snat_to: Vec::new(),
        snat_ports: (1024, 65_535),
        internal: false,
        no_icc: false,
        routed: false,
        timeouts: NetworkTimeouts::default(),
    };
    model.networks.insert(4, Network { filtered: true, entry });
    let endpoint = EndpointEntry {
        host_ifindex: 5,
        host_ifname: "nd1".into(),
        bridge: 4,
        addresses: vec!["10.9.0.2".parse().unwrap(), "fd00:9::2".parse().unwrap()],
        mac: [2, 0, 0, 0, 0, 1],
        bridge_mac: [2, 0, 0, 0, 0, 2],
        max_flows: None,
        allowed: Vec::new(),
    };
    model.endpoints.insert(5, endpoint);
    model
}

fn network(model: &mut Model) -> &mut NetworkEntry {
    &mut model.networks.get_mut(&4).unwrap().entry
}

/// The rules of one chain, by its name without the instance's part.
fn chain(model: &Model, family: Family, table: Table, chain: &str) -> Vec<String> {
    let set = ruleset(model, "test", family);
    set.tables[&table].rules.get(&Names::of("test").chain(chain)).cloned().unwrap_or_default()
}

fn publish(model: &mut Model, host: (Option<&str>, u16, u16), endpoint: &str, port: u16) {
    model.publish(&[PublishEntry {
        proto: Proto::Tcp,
        host_addr: host.0.map(|addr| addr.parse().unwrap()),
        host_port: host.1,
        host_port_end: host.2,
        endpoint: endpoint.parse().unwrap(),
        port,
        sources: Sources::default(),
    }]);
}

#[test]
fn a_range_is_one_rule() {
    let mut model = model();
    publish(&mut model, (None, 8080, 8080), "10.9.0.2", 80);
    publish(&mut model, (None, 9000, 9009), "10.9.0.2", 8000);
    publish(&mut model, (Some("192.0.2.1"), 20_000, 29_999), "10.9.0.2", 20_000);
    publish(&mut model, (None, 9000, 9009), "fd00:9::2", 8000);
    publish(&mut model, (None, 8080, 8080), "fd00:9::2", 80);
    let rule = |dport: &str, to: &str| format!("-p tcp -m tcp --dport {dport} -j DNAT --to-destination {to}");
    assert_eq!(
        chain(&model, Family::V4, Table::Nat, "PORTS"),
        [
            format!("-d 192.0.2.1 {}", rule("20000:29999", "10.9.0.2")),
            rule("8080", "10.9.0.2:80"),
            rule("9000:9009", "10.9.0.2:8000-8009/9000"),
        ],
        "one address before all of them"
    );
    assert_eq!(
        chain(&model, Family::V6, Table::Nat, "PORTS"),
        [rule("8080", "[fd00:9::2]:80"), rule("9000:9009", "[fd00:9::2]:8000-8009/9000")]
    );
}

#[test]
fn sources_are_looked_at_before_a_port_is_translated() {
    let mut model = model();
    let jumps = |model: &Model| {
        let set = ruleset(model, "test", Family::V4);
        let jumps = set.tables[&Table::Mangle].jumps.clone();
        jumps.into_iter().filter(|jump| jump.to.ends_with("CLIENTS")).count()
    };
    publish(&mut model, (None, 8080, 8080), "10.9.0.2", 80);
    assert_eq!(jumps(&model), 0);
    publish(&mut model, (None, 9000, 9009), "10.9.0.2", 8000);
    publish(&mut model, (Some("192.0.2.1"), 443, 443), "10.9.0.2", 443);
    publish(&mut model, (None, 443, 443), "fd00:9::2", 443);
    for entry in model.published.iter_mut().filter(|entry| entry.host_port != 8080) {
        entry.sources = vec!["198.51.100.7/32".parse().unwrap(), "2001:db8::/32".parse().unwrap()].into();
    }
    let names = Names::of("test");
    let (list, dropped) = (names.chain("L0"), names.chain("not_allowed"));
    assert_eq!(jumps(&model), 1);
    assert_eq!(
        chain(&model, Family::V4, Table::Mangle, "CLIENTS"),
        [
            format!("-d 192.0.2.1 -p tcp -m tcp --dport 443 -g {list}"),
            format!("-p tcp -m tcp --dport 9000:9009 -g {list}")
        ]
    );
    let rules = |family| chain(&model, family, Table::Mangle, "L0");
    assert_eq!(rules(Family::V4), ["-s 198.51.100.7 -j RETURN".to_owned(), format!("-j {dropped}")]);
    assert_eq!(rules(Family::V6), ["-s 2001:db8::/32 -j RETURN".to_owned(), format!("-j {dropped}")]);
}

#[test]
fn loopback_is_the_hosts_own() {
    let mut model = model();
    publish(&mut model, (Some("127.0.0.1"), 8080, 8080), "10.9.0.2", 80);
    assert_eq!(chain(&model, Family::V4, Table::Nat, "PORTS"), Vec::<String>::new());
    assert_eq!(chain(&model, Family::V4, Table::Nat, "LOCAL").len(), 2);
    let set = ruleset(&model, "test", Family::V4);
    let jump = set.tables[&Table::Nat].jumps.iter().find(|jump| jump.from == "PREROUTING").unwrap();
    assert!(jump.matches.starts_with("! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL"), "{}", jump.matches);
    let first = &chain(&model, Family::V4, Table::Raw, "IN4")[0];
    assert!(first.starts_with("-d 127.0.0.0/8 -j "), "{first}");
}

#[test]
fn senders_are_known_by_port_mac_and_address() {
    let mut model = model();
    let own = "-m physdev --physdev-in nd1 -m mac --mac-source 02:00:00:00:00:01 -j RETURN";
    assert_eq!(chain(&model, Family::V4, Table::Raw, "IN4")[1], format!("-s 10.9.0.2 {own}"));
    assert_eq!(chain(&model, Family::V6, Table::Raw, "IN4")[1], format!("-s fd00:9::2 {own}"));
    model.networks.get_mut(&4).unwrap().filtered = false;
    let own = "-m mac --mac-source 02:00:00:00:00:01 -j RETURN";
    assert_eq!(chain(&model, Family::V4, Table::Raw, "IN4")[1], format!("-s 10.9.0.2 {own}"));
}

#[test]
fn an_endpoint_may_use_what_it_was_allowed() {
    let mut model = model();
    let allowed = ["10.7.0.0/16", "10.9.0.50/32", "fd07::/64"].map(|net| net.parse().unwrap());
    model.endpoints.get_mut(&5).unwrap().allowed = allowed.to_vec();
    let own = "-m physdev --physdev-in nd1 -m mac --mac-source 02:00:00:00:00:01 -j RETURN";
    let senders = chain(&model, Family::V4, Table::Raw, "IN4");
    assert_eq!(senders[2..4], [format!("-s 10.7.0.0/16 {own}"), format!("-s 10.9.0.50 {own}")]);
    assert!(chain(&model, Family::V6, Table::Raw, "IN4").contains(&format!("-s fd07::/64 {own}")));
    let snat = format!("-s fd07::/64 -g {}", Names::of("test").of_network("SNAT", 4));
    assert!(chain(&model, Family::V6, Table::Nat, "POST").contains(&snat));
    let denied = Names::of("test").chain("DENIED");
    let direct = chain(&model, Family::V4, Table::Mangle, "DIRECT");
    assert!(direct.contains(&format!("! -i netdp0 -d 10.7.0.0/16 -j {denied}")), "{direct:?}");
}

#[test]
fn sources_become_the_hosts() {
    let mut model = model();
    let snat = |model: &Model, family| chain(model, family, Table::Nat, "SNAT4");
    let rules = snat(&model, Family::V6);
    assert_eq!(rules[1], "-p tcp -j MASQUERADE --to-ports 1024-65535 --random-fully");
    assert_eq!(rules.last().unwrap(), "-j MASQUERADE --random-fully");
    network(&mut model).snat_to = vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
    network(&mut model).snat_ports = (40_000, 40_015);
    assert_eq!(
        snat(&model, Family::V4)[2],
        "-p udp -j SNAT --to-source 192.0.2.1:40000-40015 --random-fully"
    );
    assert_eq!(
        snat(&model, Family::V6)[2],
        "-p udp -j SNAT --to-source [2001:db8::1]:40000-40015 --random-fully"
    );
    let more = ["192.0.2.3", "192.0.2.5", "192.0.2.7"].map(|addr| addr.parse::<IpAddr>().unwrap());
    network(&mut model).snat_to.extend(more);
    let (names, own) = (Names::of("test"), |name| chain(&model, Family::V4, Table::Nat, name));
    assert_eq!(own("SNAT4")[1], format!("-s 10.9.0.2 -g {}", names.of_external(2, 4)));
    assert_eq!(own("SNAT4").last().unwrap(), "-j SNAT --to-source 192.0.2.1 --random-fully");
    assert_eq!(own("SN24")[1], "-p udp -j SNAT --to-source 192.0.2.5:40000-40015 --random-fully");
    assert_eq!(own("SN34").last().unwrap(), "-j SNAT --to-source 192.0.2.7 --random-fully");
    network(&mut model).internal = true;
    assert!(snat(&model, Family::V4).is_empty() && snat(&model, Family::V6).is_empty());
}

#[test]
fn a_routed_network_is_open_and_keeps_its_addresses() {
    let mut model = model();
    let names = Names::of("test");
    let last = |model: &Model| chain(model, Family::V4, Table::Filter, "TO4").last().cloned();
    assert_eq!(last(&model), Some(format!("-g {}", names.chain("DENIED"))));
    network(&mut model).routed = true;
    assert_eq!(last(&model).as_deref(), Some("-j ACCEPT"));
    assert!(chain(&model, Family::V4, Table::Nat, "SNAT4").is_empty());
}

#[test]
fn an_endpoint_sees_the_gateway_when_it_dials_itself() {
    let back = |family| chain(&model(), family, Table::Nat, "BACK4");
    assert!(back(Family::V4).contains(&"-s 10.9.0.2 -d 10.9.0.2 -j SNAT --to-source 10.9.0.1".to_owned()));
    assert!(back(Family::V6).contains(&"-s fd00:9::2 -d fd00:9::2 -j SNAT --to-source fd00:9::1".to_owned()));
}

#[test]
fn isolated_neighbours_still_find_each_other() {
    let mut model = model();
    network(&mut model).no_icc = true;
    let lan = |family| chain(&model, family, Table::Filter, "LAN4");
    assert_eq!(lan(Family::V4).len(), 3);
    assert_eq!(
        lan(Family::V6)[2..4],
        ["135", "136"].map(|kind| format!("-p ipv6-icmp -m icmp6 --icmpv6-type {kind} -j ACCEPT"))
    );
}
