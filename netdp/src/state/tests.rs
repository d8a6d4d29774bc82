use super::*;
use crate::datapath::Proto;
use crate::plan::sources::Sources;

/// An instance with network `default` (10.9.0.0/24) and the given endpoints on it.
pub(crate) fn state(endpoints: &[&str]) -> State {
    let mut state = State::new(NetNsId { dev: 4, inode: 7 }, Kind::Ebpf, None);
    let network = Network {
        bridge: "netdp0".into(),
        ifindex: 3,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        subnets: vec!["10.9.0.0/24".parse().unwrap()],
        gateways: vec!["10.9.0.1".parse().unwrap()],
        snat_to: Vec::new(),
        snat_ports: (1024, 65_535),
        internal: false,
        no_icc: false,
        routed: false,
        timeouts: Some(NetworkTimeouts::default()),
    };
    state.networks.insert("default".into(), network);
    for (n, name) in (2u8..).zip(endpoints) {
        state.endpoints.insert((*name).into(), endpoint(name, n));
    }
    state
}

fn endpoint(name: &str, n: u8) -> Endpoint {
    Endpoint {
        target: name.parse().unwrap(),
        netns: NetNsId { dev: 4, inode: u64::from(n) },
        created: false,
        network: "default".into(),
        ifname: "eth0".into(),
        ifindex: 2,
        host_ifname: format!("nd{n}"),
        host_ifindex: u32::from(n),
        mac: Mac([2, 0, 0, 0, 0, n]),
        addresses: vec![format!("10.9.0.{n}/24").parse().unwrap()],
        published: Vec::new(),
        max_flows: None,
        allowed: Vec::new(),
    }
}

#[test]
fn the_state_survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(State::load(dir.path()).unwrap(), None);
    let mut written = state(&["web", "db"]);
    written.save(dir.path()).unwrap();
    written.save(dir.path()).unwrap();
    assert_eq!(written.revision, 2);
    assert_eq!(State::load(dir.path()).unwrap(), Some(written));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn a_newer_or_damaged_state_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(FILE), r#"{"version": 99, "other": 1}"#).unwrap();
    assert!(matches!(State::load(dir.path()), Err(Error::Newer { found: 99, .. })));
    fs::write(dir.path().join(FILE), "{").unwrap();
    assert!(matches!(State::load(dir.path()), Err(Error::Damaged { .. })));
}

#[test]
fn a_port_is_published_for_the_families_it_applies_to() {
    let state = state(&["web"]);
    let mut endpoint = state.endpoints["web"].clone();
    endpoint.addresses.push("fd00::2/64".parse().unwrap());
    let mut published = Published {
        proto: Proto::Tcp,
        host_addr: None,
        host_port: 80,
        host_port_end: 80,
        port: 80,
        port_end: 80,
        sources: Sources::default(),
    };
    assert_eq!(endpoint.publish_entries([&published]).len(), 2);
    published.host_addr = Some("127.0.0.1".parse().unwrap());
    let entries = endpoint.publish_entries([&published]);
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].endpoint.to_string(), "10.9.0.2");
}
