//! `cargo xtask bench-churn`: connection after connection from four containers to one destination, through netdp,
//! plain routing and `MASQUERADE --random-fully`.
#![expect(clippy::print_stdout, reason = "it shows something to people")]

use std::process::ExitCode;
use std::time::Duration;

use netdp_tests::churn::{AT_ONCE, ChurnServer, ClosesFirst, Until, churn};
use netdp_tests::lab::{Container, Lab, WORLD};
use netdp_tests::masquerade::Masquerade;
use netdp_tests::variant::Variant;

const CLIENTS: [&str; 4] = ["a", "b", "c", "d"];

/// The port ranges: few enough to come back to within seconds, and what is there by default.
const RANGES: [(u16, u16); 3] = [(20_000, 20_127), (20_000, 21_999), (1024, 65_535)];

/// Through what the containers reach the world.
enum Means {
    Routing,
    Netdp,
    Masquerade,
}

struct Case {
    first: ClosesFirst,
    timestamps: bool,
    ports: (u16, u16),
}

fn main() -> ExitCode {
    let seconds = std::env::args().nth(1).unwrap_or_else(|| "10".into());
    let Ok(seconds) = seconds.parse() else {
        println!("error: `{seconds}` is no number of seconds: give one, or none for ten");
        return ExitCode::from(2);
    };
    println!(
        "{} containers, {AT_ONCE} connections of each at a time, one destination, {seconds} s each\n",
        CLIENTS.len()
    );
    println!("closes  stamps  ports  through                       rate    opened  failed  SYN again");
    for first in [ClosesFirst::Server, ClosesFirst::Client] {
        for timestamps in [true, false] {
            for ports in RANGES {
                let case = Case { first, timestamps, ports };
                for means in [Means::Routing, Means::Netdp, Means::Masquerade] {
                    case.run(&means, Duration::from_secs(seconds));
                }
            }
        }
    }
    ExitCode::SUCCESS
}

impl Case {
    fn run(&self, means: &Means, time: Duration) {
        let lab = Lab::new(Variant::EBPF);
        let (name, clients) = self.clients(means, &lab);
        for client in &clients {
            let timestamps = if self.timestamps { "1" } else { "0" };
            client.netns.set_sysctl("net/ipv4/tcp_timestamps", timestamps);
            // Their own TIME_WAIT shall not run them out of ports.
            client.netns.set_sysctl("net/ipv4/tcp_tw_reuse", "1");
        }
        let server = ChurnServer::new(&lab.world, (WORLD.into(), 80), self.first);
        let report = churn(&clients, &server, self.first, Until::Elapsed(time));
        let (lo, hi) = self.ports;
        let stamps = if self.timestamps { "on" } else { "off" };
        let first = format!("{:?}", self.first).to_lowercase();
        let count = u32::from(hi - lo) + 1;
        print!("{first:<7} {stamps:<6} {count:>6}  {name:<25} {report}");
        if let Means::Netdp = means {
            let counter = |name| lab.netdp.counter(name);
            print!(
                "   recycled {}, without timestamp {}, tries {:.1}",
                counter("flows_recycled"),
                counter("recycled_without_ts"),
                1.0 + counter("snat_collisions") as f64 / counter("snat_allocated").max(1) as f64
            );
        }
        println!();
    }

    fn clients(&self, means: &Means, lab: &Lab) -> (&'static str, Vec<Container>) {
        let (lo, hi) = self.ports;
        let masqueraded =
            |masquerade: &Masquerade<'_>| CLIENTS.iter().map(|name| masquerade.container(name)).collect();
        match means {
            Means::Routing => ("routing, no NAT", masqueraded(&Masquerade::none(lab))),
            Means::Masquerade => {
                let options = format!("--random-fully -p tcp --to-ports {lo}-{hi}");
                ("MASQUERADE --random-fully", masqueraded(&Masquerade::new(lab, &options)))
            }
            Means::Netdp => {
                lab.netdp.ok(&format!("network create churn --subnet 10.77.0.0/24 --snat-ports {lo}-{hi}"));
                let attach = |name: &&str| lab.container(name, "--network churn");
                ("netdp", CLIENTS.iter().map(attach).collect())
            }
        }
    }
}
