//! What has no ports, or none that can change: SCTP, GRE, ESP, translated by addresses only.

use std::net::IpAddr;

use netdp_tests::lab::{Container, HOST, Lab, WORLD, WORLD_2};
use netdp_tests::netns::Netns;
use netdp_tests::raw::{Raw, SCTP, any, sctp_init, sctp_init_ack};
use netdp_tests::{on_ebpf_only_in_both_families, on_every_datapath_in_both_families};

const GRE: u8 = 47;
const ESP: u8 = 50;
const UDP_LITE: u8 = 136;
/// Diameter's (RFC 6733).
const PORT: u16 = 3868;

on_every_datapath_in_both_families!(sctp_and_tunnels_leave_and_are_answered, sctp_is_published);
on_ebpf_only_in_both_families!(
    one_mapping_for_each_remote: "netfilter lets both through and loses one (G2)",
);

/// Sends, and checks what arrives and from whom; returns it.
#[track_caller]
fn carried(from: &Raw, (to, at): (IpAddr, &Raw), payload: &[u8], seen: IpAddr) -> Vec<u8> {
    from.send(payload, to).expect("sent");
    let (received, sender) = at.receive().expect("received");
    assert_eq!(sender, seen, "the sender");
    // SCTP's ports and checksum are netfilter's to change.
    assert_eq!(received.len(), payload.len());
    assert_eq!(received[12.min(payload.len())..], payload[12.min(payload.len())..]);
    received
}

fn socket(netns: &Netns, proto: u8, address: IpAddr) -> Raw {
    Raw::open(netns, proto, address)
}

fn sctp_and_tunnels_leave_and_are_answered(lab: &Lab) {
    let inner = lab.container("inner", "");
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    for (proto, question, answer) in [
        (GRE, vec![0, 0, 0x08, 0, 0x45, 1, 2, 3], vec![0, 0, 0x08, 0, 0x45, 4, 5, 6, 7, 8]),
        (ESP, vec![0, 0, 1, 0, 0, 0, 0, 1, 7, 7, 7], vec![0, 0, 2, 0, 0, 0, 0, 1, 8, 8, 8, 8]),
        (SCTP, sctp_init((2905, PORT)), Vec::new()),
    ] {
        let (client, server) = (socket(&inner.netns, proto, any(world)), socket(&lab.world, proto, world));
        let received = carried(&client, (world, &server), &question, host);
        if proto == SCTP {
            // Back to the port that it came from, which netfilter may have changed.
            let source = u16::from_be_bytes([received[0], received[1]]);
            server.send(&sctp_init_ack((PORT, source)), host).expect("sent");
            let (answer, sender) = client.receive().expect("an answer");
            assert_eq!((sender, &answer[..4]), (world, &sctp_init_ack((PORT, 2905))[..4]));
        } else {
            carried(&server, (host, &client), &answer, world);
        }
    }
}

fn sctp_is_published(lab: &Lab) {
    let inner = lab.container("inner", &format!("-p {PORT}/sctp"));
    let (world, host) = (lab.at(WORLD), lab.at(HOST));
    let server = socket(&inner.netns, SCTP, any(world));
    let client = socket(&lab.world, SCTP, world);
    carried(&client, (host, &server), &sctp_init((2905, PORT)), world);
    carried(&server, (world, &client), &sctp_init_ack((PORT, 2905)), host);
    let shown = lab.netdp.json("inspect inner");
    assert_eq!(shown["published"][0]["host_port"], PORT, "{shown}");
    lab.netdp.ok(&format!("unpublish inner {PORT}:{PORT}/sctp"));
    client.send(&sctp_init((2906, PORT)), host).expect("sent");
    assert!(server.receive().is_err(), "unpublished");
}

fn one_mapping_for_each_remote(lab: &Lab) {
    let [first, second] = ["first", "second"].map(|name| lab.container(name, ""));
    let (world, world_2, host) = (lab.at(WORLD), lab.at(WORLD_2), lab.at(HOST));
    let at = |container: &Container, proto| socket(&container.netns, proto, any(world));
    for (proto, payload) in [(GRE, vec![0, 0, 0x08, 0, 1, 2, 3, 4]), (SCTP, sctp_init((2905, PORT)))] {
        let (server, other_server) = (socket(&lab.world, proto, world), socket(&lab.world, proto, world_2));
        carried(&at(&first, proto), (world, &server), &payload, host);
        let before = lab.netdp.counter("ports_exhausted");
        let refused = at(&second, proto);
        refused.connect(world).expect("connected");
        refused.send(&payload, world).expect("sent");
        let told = refused.receive().expect_err("it is told");
        let code = told.raw_os_error();
        assert!([Some(libc::EHOSTUNREACH), Some(libc::EACCES)].contains(&code), "{told}");
        assert_eq!(lab.netdp.counter("ports_exhausted"), before + 1);
        carried(&at(&second, proto), (world_2, &other_server), &payload, host);
        lab.netdp.ok("flows flush --endpoint first");
        carried(&at(&second, proto), (world, &server), &payload, host);
    }
    let before = lab.netdp.counter("unsupported_protocol");
    at(&first, UDP_LITE).send(&[0, 1, 0, 2, 0, 8, 0, 0], world).expect("sent");
    assert_eq!(lab.netdp.counter("unsupported_protocol"), before + 1);
}
