//! `cargo xtask demo`: the main job in namespaces of its own, and the race beside `MASQUERADE`.
#![expect(clippy::print_stdout, reason = "it shows something to people")]

use std::net::Ipv4Addr;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::counters::conntrack_insert_failed;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::masquerade::Masquerade;
use netdp_tests::netns::Netns;
use netdp_tests::race::{Arena, ClashReport};
use netdp_tests::server::Server;
use netdp_tests::variant::Variant;

const HTTP: u16 = 80;
const PUBLISHED: u16 = 8080;
/// Per container and round; four containers.
const RACE_FLOWS: u16 = 2_000;
const RACE_ROUNDS: u16 = 10;

fn main() {
    main_job();
    if !std::env::args().any(|argument| argument == "--quick") {
        race();
    }
    println!("\nEverything is removed: namespaces, bridge, programs, maps.");
}

fn main_job() {
    let lab = Lab::new(Variant::EBPF);
    head("A world, a host and three containers");
    println!("world     {WORLD}  namespace {}", lab.world.name());
    println!("host      {HOST}  namespace {}", lab.host.name());
    let web = attach(&lab, "web", &format!("-p {PUBLISHED}:{HTTP}"));
    let client = attach(&lab, "client", "");
    let batch = attach(&lab, "batch", "");
    let _http = Server::http(&web.netns, "web", Ipv4Addr::UNSPECIFIED, HTTP);
    let _world = Server::udp(&lab.world, "world", WORLD, &[53]);

    head("HTTP to the published port, and whom the server in `web` saw");
    let localhost = Ipv4Addr::LOCALHOST;
    for (who, netns, to) in [
        ("the world", &lab.world, HOST),
        ("the host", &lab.host, HOST),
        ("the host", &lab.host, localhost),
        ("container client", &client.netns, HOST),
        ("container web itself", &web.netns, HOST),
    ] {
        request(who, netns, to);
    }

    head("The other way: containers to the world, and whom it saw");
    for container in [&client, &batch] {
        let answer = answered(&container.netns, Transport::Udp, (WORLD, 53), "world");
        println!("{:<21} {} -> {WORLD}:53   seen as {}", container.name, answer.local, answer.peer);
    }
    for line in ["ls", "flows", "stats"] {
        head(&format!("netdp {line}"));
        print!("{}", lab.netdp.ok(line));
    }
}

fn attach(lab: &Lab, name: &str, options: &str) -> Container {
    println!("$ netdp attach {}-{name} --name {name} {options}", lab.id);
    lab.container(name, options)
}

fn request(who: &str, netns: &Netns, to: Ipv4Addr) {
    let to = format!("{to}:{PUBLISHED}");
    let body = netns.sh(&format!("curl -sS -m 5 http://{to}/"));
    println!("{who:<21} curl http://{to:<16} {}", body.trim().replace(' ', " saw "));
}

fn race() {
    let flows = 4 * usize::from(RACE_FLOWS) * usize::from(RACE_ROUNDS);
    head("The race: four containers, the same source ports, one destination, the same instant");
    println!("{flows} flows each, in {RACE_ROUNDS} rounds");
    for transport in Transport::ALL {
        println!("\n{}", transport.name().to_uppercase());
        let lab = Lab::new(Variant::EBPF);
        let report = Arena::new(&lab, "").clash(transport, RACE_FLOWS, RACE_ROUNDS);
        row("netdp", &report, "snat_collisions", lab.netdp.counter("snat_collisions"));
        for options in ["", "--random-fully"] {
            let lab = Lab::new(Variant::EBPF);
            let masquerade = Masquerade::new(&lab, options);
            let clients = ["a", "b", "c", "d"].map(|name| masquerade.container(name));
            let report = Arena::of(&lab, clients.into()).clash(transport, RACE_FLOWS, RACE_ROUNDS);
            let failed = conntrack_insert_failed(&lab.host);
            row(&format!("MASQUERADE {options}"), &report, "insert_failed", failed);
        }
    }
    println!("\nONE NEW UDP FLOW FROM FOUR THREADS AT ONCE (3 200 times)");
    let lab = Lab::new(Variant::EBPF);
    println!("{:<26} {}", "netdp", Arena::new(&lab, "").one_flow(400, 8, 4));
    for options in ["", "--random-fully"] {
        let lab = Lab::new(Variant::EBPF);
        let client = Masquerade::new(&lab, options).container("a");
        println!(
            "{:<26} {}",
            format!("MASQUERADE {options}"),
            Arena::of(&lab, vec![client]).one_flow(400, 8, 4)
        );
    }
}

fn row(name: &str, report: &ClashReport, counter: &str, value: u64) {
    println!(
        "{name:<26} lost {:>4}   SYN sent again {:>4}   slowest {:>7.1} ms   {counter} {value}",
        report.lost() + report.refused,
        report.syn_retransmitted,
        report.slowest().as_secs_f64() * 1e3,
    );
}

fn head(text: &str) {
    println!("\n== {text}");
}
