//! Who is apart stays apart (G12, G16): addresses claimed on the link, and networks by way of the host.

use std::net::{IpAddr, Ipv6Addr};

use netdp_tests::ask::{Transport, answered, unanswered};
use netdp_tests::frame;
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::process::eventually;
use netdp_tests::server::Server;
use netdp_tests::{on_ebpf_only_in_both_families, on_every_datapath_in_both_families};

const PORT: u16 = 7000;

on_ebpf_only_in_both_families!(
    nobody_claims_anothers_address: "the bridge looks at no ARP and no neighbour discovery (G12)",
);
on_every_datapath_in_both_families!(networks_meet_at_published_ports_only);

fn mac_text(lab: &Lab, container: &Container) -> String {
    let endpoint = lab.netdp.json(&format!("inspect {}", container.name));
    endpoint["mac"].as_str().expect("a MAC").to_owned()
}

fn mac(lab: &Lab, container: &Container) -> [u8; 6] {
    let text = mac_text(lab, container);
    let bytes: Vec<u8> = text.split(':').map(|b| u8::from_str_radix(b, 16).expect("a byte")).collect();
    bytes.try_into().expect("six bytes")
}

fn nobody_claims_anothers_address(lab: &Lab) {
    let [liar, victim, believer] = ["liar", "victim", "believer"].map(|name| lab.container(name, ""));
    let _victim = Server::tcp(&victim.netns, "victim", victim.address, &[PORT]);
    answered(&believer.netns, Transport::Tcp, (victim.address, PORT), "victim");
    let (own, theirs) = (mac(lab, &liar), mac(lab, &victim));
    let send = |frame: &[u8]| frame::send(&liar.netns, "eth0", frame);
    let spoofed = || lab.netdp.counter("spoofed");

    let before = spoofed();
    send(&frame::announcement(own, own, liar.address));
    assert_eq!(spoofed(), before, "its own address");
    let mut forged = vec![
        frame::announcement(own, own, victim.address),
        frame::announcement(own, own, liar.gateway),
        frame::announcement(theirs, own, liar.address),
    ];
    if liar.address.is_ipv6() {
        let [a, b, c, d, e, f] = own;
        let half = |high, low| u16::from_be_bytes([high, low]);
        let link_local =
            Ipv6Addr::new(0xfe80, 0, 0, 0, half(a ^ 2, b), half(c, 0xff), half(0xfe, d), half(e, f));
        forged.push(frame::router_advertisement(own, link_local));
        send(&frame::announcement(own, own, link_local.into()));
        assert_eq!(spoofed(), before, "its own link-local address");
    } else {
        forged.push(frame::announcement(own, theirs, liar.address));
    }
    for (n, frame) in forged.iter().enumerate() {
        send(frame);
        eventually(&format!("frame {n} is counted"), || spoofed() == before + n as u64 + 1);
    }
    answered(&believer.netns, Transport::Tcp, (victim.address, PORT), "victim");
    let neighbours = believer.netns.sh(&format!("ip neigh show {}", victim.address));
    assert!(!neighbours.contains(&mac_text(lab, &liar)), "{neighbours}");
}

fn networks_meet_at_published_ports_only(lab: &Lab) {
    for (name, subnet, options) in [
        ("red", "10.58.1.0/24", ""),
        ("blue", "10.58.2.0/24", ""),
        ("inner", "10.58.3.0/24", "--internal"),
        ("quiet", "10.58.4.0/24", "--no-icc"),
    ] {
        lab.netdp.ok(&format!("network create {name} {} {options}", lab.subnet(subnet)));
    }
    let red = lab.container("red", &format!("--network red -p 8081:{PORT}"));
    let blue = lab.container("blue", "--network blue");
    let inner = lab.container("inner", &format!("--network inner -p 8083:{PORT}"));
    let [quiet, other] = [("quiet", "8084"), ("other", "8085")]
        .map(|(name, port)| lab.container(name, &format!("--network quiet -p {port}:{PORT}")));
    let _servers: Vec<_> = [&red, &blue, &inner, &quiet, &other]
        .map(|one| Server::tcp(&one.netns, &one.name, one.address, &[PORT]))
        .into();
    let reaches = |from: &Container, to: (IpAddr, u16), name| answered(&from.netns, Transport::Tcp, to, name);
    let misses = |from: &Container, to| unanswered(&from.netns, Transport::Tcp, to);

    // By address: nobody of another network, nor of one whose endpoints are apart.
    misses(&blue, (red.address, PORT));
    misses(&red, (inner.address, PORT));
    misses(&inner, (red.address, PORT));
    misses(&quiet, (other.address, PORT));
    // With a route by way of the gateway neither: it is the host that keeps them apart.
    blue.netns.sh(&format!("ip route add {} via {}", red.address, blue.gateway));
    quiet.netns.sh(&format!("ip route add {} via {}", other.address, quiet.gateway));
    inner.netns.sh(&format!("ip route add default via {}", inner.gateway));
    lab.set_forwarding("1");
    misses(&blue, (red.address, PORT));
    misses(&quiet, (other.address, PORT));
    misses(&inner, (red.address, PORT));
    misses(&inner, (lab.at(WORLD), PORT));

    // What is published is for everybody who has a way out, at every address of the host.
    for host in [lab.at(HOST), blue.gateway, red.gateway] {
        reaches(&blue, (host, 8081), "red");
    }
    reaches(&quiet, (lab.at(HOST), 8085), "other");
    answered(&lab.world, Transport::Tcp, (lab.at(HOST), 8084), "quiet");
    // An internal network publishes to nobody outside, and reaches nothing that others publish.
    unanswered(&lab.world, Transport::Tcp, (lab.at(HOST), 8083));
    misses(&inner, (lab.at(HOST), 8081));
    misses(&inner, (inner.gateway, 8081));
}
