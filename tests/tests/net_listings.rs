//! What scripts read: `--json` of every listing (design section 3).

use netdp_tests::ask::{Transport, answered, ask_from};
use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::on_every_datapath;
use netdp_tests::server::Server;
use serde_json::{Value, json};

const PORT: u16 = 7000;

on_every_datapath!(
    endpoints_have_what_the_contract_says,
    networks_are_listed,
    flows_show_both_sides,
    stats_count,
    doctor_and_completions_work_without_an_instance,
);

fn has_fields(value: &Value, fields: &[&str]) {
    let missing: Vec<_> = fields.iter().filter(|field| value.get(field).is_none()).collect();
    assert!(missing.is_empty(), "no {missing:?} in {value}");
}

fn endpoints_have_what_the_contract_says(lab: &Lab) {
    assert_eq!(lab.netdp.json("ls"), json!([]));
    let a = lab.container("a", "-p 8088:80 -p 127.0.0.1:9000-9002:9000-9002/udp");
    let list = lab.netdp.json("ls");
    let one = lab.netdp.json("inspect a");
    assert_eq!(list[0], one, "ls and inspect tell the same");
    let fields = ["name", "netns", "network", "ifname", "host_ifname", "ifindex", "host_ifindex", "mac"];
    has_fields(&one, &fields);
    has_fields(&one, &["addresses", "gateway", "published"]);
    assert_eq!(
        (&one["name"], &one["network"], &one["ifname"]),
        (&json!("a"), &json!("default"), &json!("eth0"))
    );
    assert!(one["ifindex"].is_u64() && one["host_ifindex"].is_u64());
    let cidr = one["addresses"][0].as_str().expect("a string");
    assert_eq!(cidr, format!("{}/16", a.address), "a CIDR string, IPv4 first");
    let port = |proto: &str, address: Value, host: [u16; 2], inner: [u16; 2]| {
        json!({"proto": proto, "host_addr": address, "host_port": host[0], "host_port_end": host[1],
               "port": inner[0], "port_end": inner[1]})
    };
    let expected = [
        port("tcp", Value::Null, [8088, 8088], [80, 80]),
        port("udp", json!("127.0.0.1"), [9000, 9002], [9000, 9002]),
    ];
    for entry in expected {
        let published = one["published"].as_array().expect("an array");
        assert!(published.contains(&entry), "no {entry} in {published:?}");
    }
}

fn networks_are_listed(lab: &Lab) {
    lab.netdp.ok("network create red --subnet 10.50.0.0/24 --bridge red0 --internal");
    let list = lab.netdp.json("network ls");
    let red = list.as_array().expect("an array").iter().find(|one| one["name"] == "red").expect("red");
    assert_eq!(red["subnets"], json!(["10.50.0.0/24"]), "{red}");
    assert_eq!(red["bridge"], "red0", "{red}");
    let one = lab.netdp.json("network inspect red");
    assert_eq!(one["name"], "red");
    let error = lab.netdp.refused(2, "network create red --subnet 10.51.0.0/24");
    assert!(error.contains("red"), "{error}");
    let error = lab.netdp.refused(2, "network create blue --subnet 10.50.0.0/25");
    assert!(error.contains("10.50.0.0"), "{error}");
}

fn flows_show_both_sides(lab: &Lab) {
    let a = lab.container("a", &format!("-p 8088:{PORT}/udp"));
    let b = lab.container("b", "");
    let _world = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    let _a = Server::udp(&a.netns, "a", a.address, &[PORT]);
    let out = ask_from(&a.netns, Transport::Udp, (a.address, 5000), (WORLD, PORT)).expect("an answer");
    let inward = ask_from(&lab.world, Transport::Udp, (WORLD, 5001), (HOST, 8088)).expect("an answer");
    ask_from(&b.netns, Transport::Udp, (b.address, 5002), (HOST, 8088)).expect("an answer");
    let flows = lab.netdp.json("flows");
    let flows = flows.as_array().expect("an array");
    let of_kind =
        |kind: &str| flows.iter().find(|flow| flow["kind"] == kind).unwrap_or_else(|| panic!("{flows:?}"));
    for flow in flows {
        has_fields(flow, &["kind", "proto", "endpoint", "src", "dst", "ext_src", "ext_dst", "state"]);
        has_fields(flow, &["packets", "bytes", "idle_s", "expires_s"]);
        assert_eq!(flow["proto"], "udp");
    }
    let snat = of_kind("snat");
    assert_eq!((&snat["endpoint"], &snat["src"]), (&json!("a"), &json!(format!("{}:5000", a.address))));
    assert_eq!(snat["dst"], format!("{WORLD}:{PORT}"));
    assert_eq!((&snat["ext_src"], &snat["ext_dst"]), (&json!(out.peer.to_string()), &snat["dst"]));
    let dnat = of_kind("dnat");
    assert_eq!(dnat["endpoint"], "a");
    assert_eq!(dnat["ext_dst"], format!("{HOST}:8088"));
    assert_eq!(
        (&dnat["ext_src"], &dnat["src"]),
        (&json!(inward.local.to_string()), &json!("10.99.0.2:5001"))
    );
    assert_eq!(dnat["dst"], format!("{}:{PORT}", a.address));
    assert_eq!(of_kind("hairpin")["endpoint"], "b");
    assert_eq!(flows.len(), 3, "{flows:?}");
}

fn stats_count(lab: &Lab) {
    let a = lab.container("a", "");
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    answered(&a.netns, Transport::Udp, (WORLD, PORT), "world");
    let stats = lab.netdp.json("stats");
    has_fields(&stats, &["datapath", "flows", "flows_max", "snat_allocated", "packets", "bytes", "drops"]);
    for counter in ["snat_collisions", "snat_exhausted", "flows_expired", "flows_recycled"] {
        let counts = lab.variant.datapath.counts(counter);
        assert_eq!(stats.get(counter).is_some(), counts, "{counter} in {stats}");
    }
    assert_eq!(stats["datapath"], lab.netdp.datapath);
    assert_eq!((&stats["flows"], &stats["snat_allocated"]), (&json!(1), &json!(1)));
    assert!(stats["drops"].as_object().is_some_and(|drops| drops.contains_key("not_published")), "{stats}");
    let other = if lab.netdp.datapath == "ebpf" { "iptables" } else { "ebpf" };
    let changed = netdp_tests::netdp::Netdp { datapath: other, ..lab.netdp.clone() };
    changed.refused(2, "ls");
}

fn doctor_and_completions_work_without_an_instance(lab: &Lab) {
    let doctor = lab.netdp.run("doctor");
    assert_eq!(doctor.code, 0, "{doctor:?}");
    let datapath = format!("datapath: {} (", lab.netdp.datapath);
    assert!(doctor.stdout.contains(&datapath), "{}", doctor.stdout);
    lab.netdp.json("doctor");
    for shell in ["bash", "zsh", "fish"] {
        assert!(lab.netdp.ok(&format!("completions {shell}")).contains("netdp"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    lab.netdp.ok(&format!("man {}", directory.path().display()));
    assert!(directory.path().join("netdp.1").is_file());
    assert!(!lab.netdp.state().exists() && !lab.netdp.pins().exists(), "looking made an instance");
}
