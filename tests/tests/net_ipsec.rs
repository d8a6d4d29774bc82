//! IPsec policies of the host decide about what endpoints send outside (G17).

use netdp_tests::ask::{Transport, answered, ask_from, unanswered};
use netdp_tests::lab::{HOST, Lab, WORLD, WORLD_2};
use netdp_tests::server::Server;
use netdp_tests::variant::{Datapath, Family};

const PORT: u16 = 7000;

netdp_tests::in_variants! {
    a_policy_blocks: ebpf EBPF, ebpf_v6 EBPF_V6, iptables IPTABLES;
}

fn a_policy_blocks(lab: &Lab) {
    let a = lab.container("a", &format!("-p 8088:{PORT}"));
    let servers = [WORLD, WORLD_2].map(|world| {
        let at = lab.at(world);
        [Server::tcp(&lab.world, "world", at, &[PORT]), Server::udp(&lab.world, "world", at, &[PORT])]
    });
    let _a = Server::tcp(&a.netns, "a", a.address, &[PORT]);
    // A flow that is there already.
    let ask = || ask_from(&a.netns, Transport::Udp, (a.address, 5000), (lab.at(WORLD), PORT));
    ask().expect("an answer");

    let (any, bits) = if lab.variant.family == Family::V4 { ("0.0.0.0/0", 32) } else { ("::/0", 128) };
    let policy = format!("src {any} dst {}/{bits} dir out", lab.at(WORLD));
    lab.host.sh(&format!("ip xfrm policy add {policy} action block"));
    if lab.variant.datapath == Datapath::Ebpf {
        let found = lab.netdp.run("doctor").stdout;
        assert!(found.contains("IPsec policies are not heeded"), "{found}");
    }
    lab.netdp.ok("repair");
    ask().expect_err("the flow that was there, past the policy");
    for transport in Transport::ALL {
        unanswered(&a.netns, transport, (lab.at(WORLD), PORT));
        // Others go by the stack, and are translated all the same.
        let answer = answered(&a.netns, transport, (lab.at(WORLD_2), PORT), "world");
        assert_eq!(answer.peer.ip(), lab.at(HOST), "the outside sees the host");
    }
    // What an endpoint answers leaves, too.
    let client = (lab.at(WORLD), 5002);
    ask_from(&lab.world, Transport::Tcp, client, (lab.at(HOST), 8088))
        .expect_err("an answer past the policy");
    assert_eq!(lab.netdp.counter("untranslated"), 0, "{}", lab.netdp.json("stats"));

    lab.host.sh(&format!("ip xfrm policy del {policy}"));
    lab.netdp.ok("repair");
    for transport in Transport::ALL {
        answered(&a.netns, transport, (lab.at(WORLD), PORT), "world");
    }
    answered(&lab.world, Transport::Tcp, (lab.at(HOST), 8088), "a");
    drop(servers);
}
