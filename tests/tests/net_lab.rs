//! The lab itself: its tools measure what they say, shown on plain netfilter NAT without netdp.

use netdp_tests::ask::{Transport, answered, unanswered};
use netdp_tests::capture::Capture;
use netdp_tests::counters::{self, Retransmissions};
use netdp_tests::lab::{HOST, Lab, WORLD, WORLD_2, WORLD_LINK};
use netdp_tests::masquerade::Masquerade;
use netdp_tests::netns;
use netdp_tests::process::Daemon;
use netdp_tests::race::{Clash, OneFlow};
use netdp_tests::server::Server;
use netdp_tests::variant::Variant;

const PORT: u16 = 7000;

#[test]
#[ignore = "needs root"]
fn servers_see_what_masquerade_made_of_the_source() {
    for variant in [Variant::EBPF, Variant::EBPF_PLAIN] {
        let lab = Lab::new(variant);
        let masquerade = Masquerade::new(&lab, "");
        let client = masquerade.container("a");
        let _tcp = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
        let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
        for transport in Transport::ALL {
            let answer = answered(&client.netns, transport, (WORLD, PORT), "world");
            assert_eq!(answer.peer.ip(), HOST);
            assert_eq!(answer.local.ip(), client.address);
            unanswered(&client.netns, transport, (WORLD_2, PORT));
        }
    }
}

#[test]
#[ignore = "needs root"]
fn a_clash_reports_every_flow() {
    let lab = Lab::new(Variant::EBPF);
    let masquerade = Masquerade::new(&lab, "--random-fully");
    let clients = ["a", "b", "c", "d"].map(|name| masquerade.container(name));
    let tcp = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    let udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    for (transport, server) in [(Transport::Tcp, &tcp), (Transport::Udp, &udp)] {
        let clash =
            Clash { clients: &clients, source_ports: 20_000..21_000, to: (lab.at(WORLD), PORT), transport };
        let report = clash.run(&lab.world);
        eprintln!("{transport:?}: {report}");
        assert_eq!(report.offered, 4_000);
        assert!(report.answered > 3_900, "{report}");
        assert_eq!((report.duplicates, report.strayed), (0, 0), "{report}");
        assert!(server.served() >= report.answered as u64);
    }
}

#[test]
#[ignore = "needs root"]
fn a_clash_sees_what_is_lost() {
    let lab = Lab::new(Variant::EBPF);
    let masquerade = Masquerade::new(&lab, "");
    let clients = [masquerade.container("a")];
    let _tcp = Server::tcp(&lab.world, "world", WORLD, &[PORT]);
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    lab.host.sh("iptables -w -t raw -A PREROUTING -p tcp --sport 20007 -j DROP");
    lab.host.sh("iptables -w -t raw -A PREROUTING -p udp --sport 20007 -j DROP");
    for transport in Transport::ALL {
        let clash =
            Clash { clients: &clients, source_ports: 20_000..20_010, to: (lab.at(WORLD), PORT), transport };
        let report = clash.run(&lab.world);
        assert_eq!((report.answered, report.lost()), (9, 1), "{report}");
        assert_eq!(report.syn_retransmitted > 0, transport == Transport::Tcp, "{report}");
        assert!(!report.is_clean());
    }
}

#[test]
#[ignore = "needs root"]
fn one_flow_from_many_threads_is_one_flow() {
    let lab = Lab::new(Variant::EBPF);
    let masquerade = Masquerade::new(&lab, "");
    let client = masquerade.container("a");
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    let flows =
        OneFlow { client: &client, source_ports: 20_000..20_500, to: (lab.at(WORLD), PORT), threads: 3 };
    let report = flows.run();
    eprintln!("{report}, insert_failed {}", counters::conntrack_insert_failed(&lab.host));
    assert_eq!((report.flows, report.sent), (500, 1_500));
    assert!(report.answered > 1_400, "{report}");
}

#[test]
#[ignore = "needs root"]
fn a_capture_sees_both_directions() {
    let lab = Lab::new(Variant::EBPF);
    let masquerade = Masquerade::new(&lab, "");
    let client = masquerade.container("a");
    let _udp = Server::udp(&lab.world, "world", WORLD, &[PORT]);
    let capture = Capture::start(&lab.world, WORLD_LINK);
    let answer = answered(&client.netns, Transport::Udp, (WORLD, PORT), "world");
    let packets = capture.finish();
    assert!(
        packets.iter().any(|p| p.incoming && p.src == answer.peer && p.dst.port() == PORT),
        "{packets:?}"
    );
    assert!(packets.iter().any(|p| !p.incoming && p.dst == answer.peer), "{packets:?}");
}

#[test]
#[ignore = "needs root"]
fn a_lab_takes_everything_with_it() {
    let lab = Lab::new(Variant::EBPF);
    let id = lab.id.clone();
    let sleeper = Daemon::start(lab.netns("a").command("sleep").arg("1000"));
    assert_eq!(lab.world.processes(), Vec::<u32>::new());
    let before = Retransmissions::of([&lab.world]);
    assert_eq!(before.since(before), Retransmissions::default());
    let pid = sleeper.pid();
    drop(lab);
    assert!(netns::names().iter().all(|name| !name.starts_with(&id)));
    drop(sleeper);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}
