//! The host's own firewall: which of its rules the programs go around, and that `doctor` says so.

use netdp_tests::lab::{Lab, UPLINK};

netdp_tests::in_variants! {
    /// Not on iptables: netdp's rules are among the host's there.
    doctor_lists_what_is_skipped: ebpf EBPF;
}

/// What `doctor` says about the firewall.
fn said(lab: &Lab) -> String {
    let report = lab.netdp.json("doctor");
    let checks = report["checks"].as_array().expect("checks");
    let row = checks.iter().find(|check| check["name"] == "firewall").expect("a row");
    assert_eq!(row["ok"], true, "{row}");
    row["detail"].as_str().expect("a detail").to_owned()
}

fn doctor_lists_what_is_skipped(lab: &Lab) {
    lab.container("web", "");
    let found = said(lab);
    assert!(found.starts_with("mode bypass: "), "{found}");
    assert!(found.contains("this host has none that decide anything"), "{found}");
    for line in [
        "iptables -w -P FORWARD DROP",
        "iptables -w -N DOCKER-USER",
        "iptables -w -A DOCKER-USER -s 192.0.2.0/24 -j DROP",
        "iptables -w -A FORWARD -j DOCKER-USER",
        "ip6tables -w -A FORWARD -p tcp -j DROP",
        "ip6tables -w -A FORWARD -p udp -j DROP",
        "iptables -w -t raw -A PREROUTING -p udp --dport 9 -j DROP",
        "iptables -w -A INPUT -p udp --dport 9 -j DROP",
        "iptables -w -t nat -A PREROUTING -p udp --dport 9 -j ACCEPT",
        "nft add table netdev early",
        &format!(
            "nft add chain netdev early first {{ type filter hook ingress device {UPLINK} priority 0 ; }}"
        ),
        "nft add rule netdev early first udp dport 9 drop",
        "nft add table inet idle",
        "nft add chain inet idle forward { type filter hook forward priority 0 ; }",
    ] {
        lab.host.sh(line);
    }
    let found = said(lab);
    let (_, listed) = found.split_once("; skipped here: ").expect("a list");
    for chain in [
        "ip filter FORWARD (policy drop, 1 rule)",
        "ip filter DOCKER-USER (1 rule)",
        "ip6 filter FORWARD (2 rules)",
        "ip raw PREROUTING (1 rule)",
        "netdev early first (1 rule)",
    ] {
        assert!(listed.contains(chain), "no {chain}: {found}");
    }
    // What the host itself receives is filtered as ever, translating rules and empty chains decide nothing.
    for other in ["INPUT", " nat ", "idle"] {
        assert!(!listed.contains(other), "{other}: {found}");
    }
}
