//! What a user tries first: ping, curl, dig, iperf3.

use std::process::Command;

use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::process::{Daemon, eventually};
use netdp_tests::server::Server;
use netdp_tests::with_and_without_offloads;

/// Where iperf3 listens, in the world and in the container.
const IPERF: u16 = 5201;

with_and_without_offloads!(ping_curl_and_dig, iperf3_both_ways);

fn ping_curl_and_dig(lab: &Lab) {
    let a = lab.container("a", "-p 8080:80");
    let b = lab.container("b", "");
    let _world = Server::http(&lab.world, "world", WORLD, 80);
    let _a = Server::http(&a.netns, "a", a.address, 80);
    let ping = a.netns.sh(&format!("ping -c 3 -i 0.2 -W 2 {WORLD}"));
    assert!(ping.contains(" 0% packet loss"), "{ping}");
    let mut dnsmasq = lab.world.command("dnsmasq");
    dnsmasq.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--pid-file=",
    ]);
    dnsmasq.args(["--user=root", "--bind-interfaces", "--address=/web.test/192.0.2.7"]);
    let _dnsmasq = Daemon::start(dnsmasq.arg(format!("--listen-address={WORLD}")));
    eventually("dnsmasq", || lab.world.try_sh(&dig(&["+tries=1", "+time=1"])).status.success());
    for transport in ["+notcp", "+tcp"] {
        let answer = a.netns.sh(&dig(&["+short", "+tries=1", "+time=3", transport]));
        assert_eq!(answer.trim(), "192.0.2.7");
    }
    let curl = |netns: &netdp_tests::netns::Netns, to: &str| netns.sh(&format!("curl -sS -m 5 http://{to}/"));
    assert!(curl(&a.netns, &WORLD.to_string()).starts_with(&format!("world {HOST}:")));
    assert!(curl(&lab.world, &format!("{HOST}:8080")).starts_with(&format!("a {WORLD}:")));
    assert!(curl(&b.netns, &format!("{HOST}:8080")).starts_with(&format!("a {}:", b.address)));
    assert!(curl(&a.netns, &format!("{HOST}:8080")).starts_with(&format!("a {}:", a.gateway)));
    for own in [HOST.to_string(), "127.0.0.1".into(), "localhost".into()] {
        assert!(curl(&lab.host, &format!("{own}:8080")).starts_with("a "));
    }
}

fn dig(options: &[&str]) -> String {
    format!("dig @{WORLD} web.test {}", options.join(" "))
}

fn iperf3_both_ways(lab: &Lab) {
    let a = lab.container("a", &format!("-p {IPERF}:{IPERF} -p {IPERF}:{IPERF}/udp"));
    let server = |command: &mut Command| Daemon::start(command.args(["-s", "-p", &IPERF.to_string()]));
    let _world = server(&mut lab.world.command("iperf3"));
    let _a = server(&mut a.netns.command("iperf3"));
    for (netns, to) in [(&a.netns, WORLD), (&lab.world, HOST), (&lab.host, HOST)] {
        for direction in ["", "-R"] {
            let line = format!("iperf3 -c {to} -p {IPERF} -t 1 -J --connect-timeout 3000 {direction}");
            eventually("an iperf3 server", || netns.try_sh(&line).status.success());
            let report: serde_json::Value = serde_json::from_str(&netns.sh(&line)).expect("JSON");
            let rate = report["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(0.0);
            // A broken checksum or MTU leaves kilobits; a busy machine some tens of megabits.
            assert!(rate > 5e6, "{} to {to} {direction}: {rate} bit/s", netns.name());
        }
    }
    // So slow that the server's socket holds what comes while it waits for a processor.
    let line = format!("iperf3 -c {WORLD} -p {IPERF} -u -b 2M -l 1200 -t 1 -J");
    let report: serde_json::Value = serde_json::from_str(&a.netns.sh(&line)).expect("JSON");
    assert_eq!(report["end"]["sum"]["lost_packets"], 0, "{}", report["end"]["sum"]);
}
