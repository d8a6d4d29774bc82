//! Two hundred commands at once end in a consistent state (G13).

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::thread;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::consistent::contradictions;
use netdp_tests::lab::{HOST, Lab, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::on_every_datapath;
use netdp_tests::server::Server;

const PORT: u16 = 7000;
/// Containers that are attached and detached, or publish; each gets a fifth of the commands.
const CONTAINERS: usize = 20;
/// Commands at a time.
const WORKERS: usize = 25;

on_every_datapath!(two_hundred_commands_at_once);

/// Mixed so that they are in each other's way: all want the same few ports.
fn commands(netns: &[Netns]) -> Vec<String> {
    let mut lines = Vec::new();
    for round in 0..2 {
        for (number, netns) in netns.iter().enumerate() {
            let port = 8000 + number % 5;
            lines.push(format!("attach {} --name c{number}", netns.name()));
            lines.push(format!("publish c{number} {port}:{PORT}"));
            lines.push("ls".to_owned());
            lines.push(format!("unpublish c{number} --all"));
            let replace = format!("publish c{} {port}:{PORT} --replace", (number + 1) % CONTAINERS);
            lines.push(if round == 0 { format!("detach c{number}") } else { replace });
        }
    }
    lines
}

fn two_hundred_commands_at_once(lab: &Lab) {
    let netns: Vec<Netns> = (0..CONTAINERS).map(|number| lab.netns(&format!("c{number}"))).collect();
    let lines = commands(&netns);
    assert_eq!(lines.len(), 200);
    let queue = Mutex::new(lines.into_iter());
    let netdp = &lab.netdp;
    let worker = || {
        loop {
            let next = queue.lock().expect("the queue").next();
            let Some(line) = next else { break };
            let outcome = netdp.run(&line);
            // Refused is fine: the port is taken, the endpoint is not there yet. Failing is not.
            assert!(matches!(outcome.code, 0 | 2), "netdp {line}: {outcome:?}");
            assert!(outcome.code != 2 || outcome.stderr.starts_with("error: "), "netdp {line}: {outcome:?}");
        }
    };
    thread::scope(|scope| (0..WORKERS).for_each(|_| drop(scope.spawn(worker))));
    assert_eq!(contradictions(lab), Vec::<String>::new());

    // What is there works.
    let _world = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    for endpoint in lab.netdp.json("ls").as_array().expect("endpoints") {
        let name = endpoint["name"].as_str().expect("a name");
        let number: usize = name.trim_start_matches('c').parse().expect("its number");
        answered(&netns[number], Transport::Udp, (WORLD, PORT), "world");
        let _server = Server::tcp(&netns[number], name, Ipv4Addr::UNSPECIFIED, &[PORT]);
        for published in endpoint["published"].as_array().expect("ports") {
            let port =
                published["host_port"].as_u64().and_then(|port| u16::try_from(port).ok()).expect("a port");
            answered(&lab.world, Transport::Tcp, (HOST, port), name);
        }
    }
}
