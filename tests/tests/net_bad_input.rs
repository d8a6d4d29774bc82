//! Bad input: exit code 2, one line that names the input and the remedy, and nothing is changed (G13).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::netdp::Outcome;
use netdp_tests::netns::Netns;
use netdp_tests::on_every_datapath;
use netdp_tests::process::{Daemon, eventually};
use netdp_tests::seccomp;
use netdp_tests::snapshot::{Snapshot, without_duplicate_detection};
use netdp_tests::socket::tcp_bound;
use netdp_tests::variant::Datapath;
use nix::sys::socket::SockFlag;

on_every_datapath!(
    targets_are_refused,
    names_are_refused,
    networks_are_refused,
    addresses_are_refused,
    specs_are_refused,
    sources_are_refused,
    taken_ports_are_refused,
    modes_are_refused,
    what_the_first_command_fixed_stays,
    a_missing_privilege_is_named,
    a_kernel_without_bpf_is_named,
);

/// A command line, and what the one line of its error must contain: the input as it was given, and the remedy.
/// What is in braces stands for a name of this lab, see [`Crowded`].
type Row = (&'static str, &'static [&'static str]);

/// A host with something of everything that can be in the way.
struct Crowded<'a> {
    lab: &'a Lab,
    containers: Vec<Netns>,
    names: Vec<(&'static str, String)>,
    before: Snapshot,
    _sleeper: Daemon,
    _sockets: Vec<OwnedFd>,
}

impl<'a> Crowded<'a> {
    fn new(lab: &'a Lab) -> Self {
        without_duplicate_detection(&lab.host);
        lab.netdp.ok("network create blue --subnet 10.50.0.0/24 --subnet fd50::/64");
        lab.netdp.ok("network create tiny --subnet 10.51.0.0/30");
        lab.host.sh(&format!("ip route add 10.60.0.0/16 via {WORLD}"));
        let web =
            container(lab, "web", "--mac 02:00:00:00:00:01 -p 8088:80 -p 9000-9009:9000-9009 -p 8089:80/udp");
        let full = container(lab, "full", "--network tiny");
        let other = container(lab, "other", "--network blue --ip 10.50.0.9");
        let dead = container(lab, "dead", "--network blue --ip 10.50.0.10").host_ifname;
        lab.remove_netns("dead");
        eventually("veth of the dead one gone", || !lab.host.sh("ip -o link").contains(&dead));
        let free = lab.netns("free");
        let sleeper = Daemon::start(lab.host.command("sleep").arg("1000"));
        let names = vec![
            ("{free}", free.name().to_owned()),
            ("{web}", web.netns.name().to_owned()),
            ("{host}", lab.host.name().to_owned()),
            ("{id}", lab.id.clone()),
            ("{pid}", sleeper.pid().to_string()),
            ("{gateway}", web.gateway.to_string()),
            ("{ip}", web.address.to_string()),
            ("{me}", std::process::id().to_string()),
        ];
        let containers = vec![web.netns, full.netns, other.netns, free];
        let sockets = sockets(lab);
        let before = Snapshot::of(lab, &containers);
        Self { lab, containers, names, before, _sleeper: sleeper, _sockets: sockets }
    }

    /// Runs every row, and shows all that are not as they must be.
    fn check(&self, rows: &[Row]) {
        let wrong = rows.iter().flat_map(|(line, wanted)| {
            let line = self.named(line);
            self.wrong(&line, &self.lab.netdp.run(&line), wanted)
        });
        let wrong: Vec<String> = wrong.collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// Whether a command was refused as it must be, and nothing has changed.
    #[track_caller]
    fn refused(&self, line: &str, outcome: &Outcome, wanted: &[&str]) {
        let wrong = self.wrong(line, outcome, wanted);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    /// What is wrong with a refusal.
    fn wrong(&self, line: &str, Outcome { code, stdout, stderr }: &Outcome, wanted: &[&str]) -> Vec<String> {
        let mut wrong = Vec::new();
        if *code != 2 || !stdout.is_empty() || stderr.lines().count() != 1 || !stderr.starts_with("error: ") {
            wrong.push(format!("exit code {code}, stdout {stdout:?}, stderr {stderr:?}"));
        }
        let parts = wanted.iter().map(|part| self.named(part));
        wrong.extend(
            parts.filter(|part| !stderr.contains(part)).map(|part| format!("no `{part}` in {stderr}")),
        );
        let after = Snapshot::of(self.lab, &self.containers);
        wrong.extend(self.before.differences(&after).into_iter().map(|change| format!("changed: {change}")));
        wrong.into_iter().map(|what| format!("netdp {line}: {what}")).collect()
    }

    fn named(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (name, meant)| text.replace(name, meant))
    }
}

/// A new, attached namespace.
fn container(lab: &Lab, name: &str, options: &str) -> Container {
    let netns = lab.netns(name);
    without_duplicate_detection(&netns);
    lab.attach(name, &netns, options)
}

/// Sockets of this process on the host, in every way that is in the way of publishing.
fn sockets(lab: &Lab) -> Vec<OwnedFd> {
    lab.host.enter(|| {
        let any = Ipv4Addr::UNSPECIFIED;
        let listening = TcpListener::bind((any, 7001)).expect("listening");
        let bound = tcp_bound(SocketAddrV4::new(any, 7002).into(), SockFlag::empty()).expect("binding");
        let udp = UdpSocket::bind((HOST, 7003)).expect("binding UDP");
        let connected = UdpSocket::bind((HOST, 7004)).expect("binding UDP");
        connected.connect((WORLD, 9)).expect("connecting UDP");
        let local = tcp_bound(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 7005).into(), SockFlag::empty())
            .expect("binding");
        let listening_v6 = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 7006)).expect("listening on IPv6");
        let udp_v6 = UdpSocket::bind((HOST_V6, 7007)).expect("binding UDP on IPv6");
        vec![listening.into(), bound, udp.into(), connected.into(), local, listening_v6.into(), udp_v6.into()]
    })
}

/// [`HOST`] in IPv6.
const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x0a63, 0, 0, 0, 0, 0, 1);

/// Unknown, dead, the host's own, and what is no namespace at all.
fn targets_are_refused(lab: &Lab) {
    Crowded::new(lab).check(&[
        ("attach {id}-missing", &["{id}-missing", "--create", "ip netns add"]),
        ("attach pid:4194305", &["pid:4194305", "no process", "give"]),
        ("attach pid:0", &["`pid:0`", "pid:N"]),
        ("attach pid:x", &["`pid:x`", "pid:N"]),
        ("attach /run/netns/{id}-missing", &["/run/netns/{id}-missing", "give"]),
        ("attach /dev/null", &["/dev/null", "not a network namespace", "give"]),
        ("attach {host}", &["{host}", "host's own network namespace", "give a container's"]),
        ("attach /run/netns/{host} --name x", &["/run/netns/{host}", "host's own"]),
        ("attach pid:{pid}", &["pid:{pid}", "host's own"]),
        ("attach .", &["`.`", "pid:N"]),
        ("attach pid:{me} --create", &["pid:{me}", "--create"]),
        ("attach {web}", &["{web}", "default", "--network"]),
        ("attach {free} --ifname lo", &["{free}", "lo", "--ifname"]),
        ("attach {web} --name x --network blue", &["{web}", "eth0", "--ifname"]),
        ("attach {free} --network nowhere", &["nowhere", "network create nowhere", "blue"]),
        ("detach nobody", &["nobody", "netdp ls", "web"]),
        ("inspect nobody", &["nobody", "netdp ls"]),
        ("publish nobody 80:80", &["nobody", "netdp ls"]),
        ("unpublish nobody --all", &["nobody", "netdp ls"]),
        ("publish dead 8111:80", &["dead", "gone", "netdp gc"]),
        ("flows --endpoint nobody", &["nobody", "netdp ls"]),
    ]);
}

/// Too long, taken, odd characters.
fn names_are_refused(lab: &Lab) {
    Crowded::new(lab).check(&[
        ("attach {free} --name web", &["web", "--name", "netdp detach web"]),
        (
            "attach {free} --name x234567890123456789012345678901234567890123456789012345678901234",
            &["x23456", "64 bytes", "63"],
        ),
        ("attach {free} --name a/b", &["`a/b`", "'/'", "letters"]),
        ("attach {free} --name -b", &["-b"]),
        ("attach {free} --name .b", &["`.b`", "the first one a letter or digit"]),
        ("attach {free} --name wéb", &["`wéb`", "'é'"]),
        ("attach {free} --ifname sixteen-bytes-xx", &["sixteen-bytes-xx", "16 bytes", "15"]),
        ("attach {free} --ifname a:b", &["`a:b`", "letters"]),
        ("attach {free} --ifname e%d", &["`e%d`", "letters"]),
        ("attach {id}/x --create", &["{id}/x"]),
        ("network create blue --subnet 10.70.0.0/24", &["blue", "another name", "network rm blue"]),
        ("network create host --subnet 10.70.0.0/24", &["`host`", "another name"]),
        ("network create none --subnet 10.70.0.0/24", &["`none`", "another name"]),
        ("network create a+b --subnet 10.70.0.0/24", &["`a+b`", "'+'"]),
        ("network create x --subnet 10.70.0.0/24 --bridge up0", &["up0", "exists", "--bridge"]),
        ("network create x --subnet 10.70.0.0/24 --bridge sixteen-bytes-xx", &["sixteen-bytes-xx", "15"]),
        ("network rm nowhere", &["nowhere", "blue"]),
        ("network inspect nowhere", &["nowhere", "blue"]),
        ("network rm blue", &["blue", "other", "detach"]),
        ("frobnicate", &["frobnicate", "--help"]),
        ("attach", &["TARGET", "--help"]),
        ("attach {free} --frobnicate", &["--frobnicate", "--help"]),
    ]);
}

/// Subnets, gateways, MTUs.
fn networks_are_refused(lab: &Lab) {
    Crowded::new(lab).check(&[
        ("network create x --subnet 10.70.0.0", &["`10.70.0.0`", "ADDRESS/LENGTH"]),
        ("network create x --subnet 10.70.0.0/33", &["`10.70.0.0/33`", "ADDRESS/LENGTH"]),
        ("network create x --subnet 10.70.0.5/24", &["`10.70.0.5/24`", "write 10.70.0.0/24"]),
        ("network create x --subnet 10.70.0.0/31", &["`10.70.0.0/31`", "from 8 to 30"]),
        ("network create x --subnet 224.0.0.0/8", &["`224.0.0.0/8`", "private"]),
        ("network create x --subnet 127.1.0.0/16", &["`127.1.0.0/16`", "private"]),
        ("network create x --subnet 10.70.0.0/24 --subnet 10.71.0.0/24", &["10.70.0.0/24", "10.71.0.0/24"]),
        ("network create x --subnet 10.50.0.128/25", &["10.50.0.128/25", "network blue", "another --subnet"]),
        ("network create x --subnet 10.48.0.0/12", &["10.48.0.0/12", "another --subnet"]),
        (
            "network create x --subnet 10.60.7.0/24",
            &["10.60.7.0/24", "10.60.0.0/16", "route of this host", "another --subnet"],
        ),
        ("network create x --subnet 10.99.0.0/24", &["10.99.0.0/24", "another --subnet"]),
        ("network create x --subnet 10.70.0.0/24 --timeout udp", &["`udp`", "KEY=DURATION"]),
        (
            "network create x --subnet 10.70.0.0/24 --timeout tcp=1s",
            &["tcp=1s", "tcp-half-open, tcp-established"],
        ),
        ("network create x --subnet 10.70.0.0/24 --timeout udp=30", &["udp=30", "30s, 2h or 5d"]),
        ("network create x --subnet 10.70.0.0/24 --timeout udp=0s", &["udp=0s", "from 1s to"]),
        ("network create x --subnet 10.70.0.0/24 --timeout udp=2years", &["udp=2years", "from 1s to"]),
        (
            "network create x --subnet 10.70.0.0/24 --timeout icmp=1m --timeout icmp=2m",
            &["--timeout icmp", "leave one of them out"],
        ),
        (
            "network create x --subnet 10.70.0.0/24 --gateway 10.71.0.1",
            &["10.71.0.1", "10.70.0.1 to 10.70.0.254"],
        ),
        (
            "network create x --subnet 10.70.0.0/24 --gateway 10.70.0.0",
            &["10.70.0.0", "10.70.0.1 to 10.70.0.254"],
        ),
        ("network create x --subnet 10.70.0.0/24 --gateway ten", &["'ten'", "--gateway"]),
        ("network create x --subnet 10.70.0.0/24 --mtu 67", &["--mtu 67", "from 68 to 65535"]),
        ("network create x --subnet 10.70.0.0/24 --mtu 65536", &["--mtu 65536", "from 68 to 65535"]),
        ("network create x --subnet 10.70.0.0/24 --snat-to 192.0.2.1", &["192.0.2.1", "one of its own"]),
        (
            "network create x --subnet 10.70.0.0/24 --snat-to 192.0.2.1 --snat-to 192.0.2.1",
            &["192.0.2.1", "twice", "leave one"],
        ),
        (
            "network create x --subnet 10.70.0.0/24 --subnet fd70::/64 --snat-to fe80::1",
            &["fe80::1", "link-local", "use another"],
        ),
        (
            "network create x --subnet 10.70.0.0/24 --snat-to 192.0.2.1 --snat-to 192.0.2.2 --snat-to 192.0.2.3 \
             --snat-to 192.0.2.4 --snat-to 192.0.2.5 --snat-to 192.0.2.6 --snat-to 192.0.2.7 --snat-to 192.0.2.8 \
             --snat-to 192.0.2.9 --snat-to 192.0.2.10 --snat-to 192.0.2.11 --snat-to 192.0.2.12 \
             --snat-to 192.0.2.13 --snat-to 192.0.2.14 --snat-to 192.0.2.15 --snat-to 192.0.2.16 \
             --snat-to 192.0.2.17",
            &["192.0.2.17", "at most 16", "leave some out"],
        ),
        ("network create x --subnet 10.70.0.0/24 --snat-ports 2000-1000", &["2000-1000", "like 1024-65535"]),
        ("network create x --subnet 10.70.0.0/24 --snat-ports 0-65536", &["0-65536", "like 1024-65535"]),
    ]);
}

/// Addresses and MACs of endpoints.
fn addresses_are_refused(lab: &Lab) {
    Crowded::new(lab).check(&[
        ("attach {free} --network blue --ip 10.51.0.5", &["10.51.0.5", "10.50.0.0/24", "choose"]),
        ("attach {free} --network blue --ip 10.50.0.9", &["10.50.0.9", "endpoint other", "another --ip"]),
        ("attach {free} --network blue --ip 10.50.0.1", &["10.50.0.1", "the gateway", "another --ip"]),
        (
            "attach {free} --network blue --ip 10.50.0.0",
            &["10.50.0.0", "reserved", "10.50.0.1 to 10.50.0.254"],
        ),
        ("attach {free} --network blue --ip 10.50.0.255", &["10.50.0.255", "reserved"]),
        (
            "attach {free} --network blue --ip 10.50.0.7 --ip 10.50.0.8",
            &["10.50.0.8", "one address of each family"],
        ),
        ("attach {free} --network blue --ip 10.50.0", &["'10.50.0'", "--ip"]),
        ("attach {free} --network tiny", &["tiny", "10.51.0.0/30", "taken", "larger network"]),
        ("attach {free} --mac 01:00:5e:00:00:01", &["01:00:5e:00:00:01", "multicast", "even"]),
        ("attach {free} --mac ff:ff:ff:ff:ff:ff", &["ff:ff:ff:ff:ff:ff", "multicast"]),
        ("attach {free} --mac 00:00:00:00:00:00", &["00:00:00:00:00:00", "another"]),
        ("attach {free} --mac 02:00:00:00:00", &["`02:00:00:00:00`", "six pairs"]),
        ("attach {free} --mac 02:00:00:00:00:01", &["02:00:00:00:00:01", "endpoint web", "another --mac"]),
    ]);
}

/// Port 0, 65536, ranges, protocols, addresses of others.
fn specs_are_refused(lab: &Lab) {
    Crowded::new(lab).check(&[
        ("publish web 0:80", &["`0:80`", "from 1 to 65535"]),
        ("publish web 8111:0", &["`8111:0`", "from 1 to 65535"]),
        ("publish web 65536:80", &["`65536:80`", "from 1 to 65535"]),
        ("publish web 8111-8110:80-81", &["8111-8110", "write 8110-8111"]),
        ("publish web 8110-8111:80-82", &["`8110-8111:80-82`", "equally long"]),
        ("publish web 8111:80/icmp", &["`8111:80/icmp`", "tcp, udp or sctp"]),
        ("publish web 8111:80/sctp", &["`8111:80/sctp`", "same host and container port"]),
        ("publish web 80:80:80:80", &["80:80:80:80", "192.0.2.1:8080:80"]),
        ("publish web localhost:8111:80", &["`localhost`", "192.0.2.1:8080:80"]),
        ("publish web 192.0.2.1:8111:80", &["192.0.2.1", "one of its own"]),
        ("publish web 8111:80 8111:81", &["8111:81", "0.0.0.0:8111", "once"]),
        ("publish web", &["SPEC", "--help"]),
        ("unpublish web 8111:80", &["8111:80", "8088"]),
        ("unpublish web", &["SPEC", "--help"]),
        ("publish web 8111:80 --replace", &["8111:80", "leave --replace out"]),
        ("attach {free} -p 0:80", &["`0:80`", "from 1 to 65535"]),
        ("attach {free} -p 192.0.2.1:8111:80", &["192.0.2.1", "one of its own"]),
    ]);
}

/// Who may reach a port (`--from`).
fn sources_are_refused(lab: &Lab) {
    let crowded = Crowded::new(lab);
    crowded.check(&[
        ("publish web 8111:80 --from localhost", &["'localhost'", "--from", "198.51.100.7"]),
        ("publish web 8111:80 --from 10.0.0.0/33", &["'10.0.0.0/33'", "--from", "198.51.100.7"]),
        ("publish web 8111:80 --from 10.0.0.0/8,", &["''", "--from"]),
        ("publish web 8111:80 --from", &["--from", "--help"]),
        ("publish web 8111:80 --from 10.0.0.5/8", &["--from 10.0.0.5/8", "write 10.0.0.0/8"]),
        ("publish web 8111:80 --from 127.0.0.1", &["--from 127.0.0.1/32", "leave it out"]),
        ("publish web 8111:80 --from 10.0.0.0/8 --from ff02::/16", &["--from ff02::/16", "leave it out"]),
        ("publish web 8111:80 --from 2001:db8::/32", &["--from 2001:db8::/32", "IPv4 only", "add"]),
        ("publish web 127.0.0.1:8111:80 --from 10.0.0.0/8", &["127.0.0.1:8111", "leave --from out"]),
        ("publish web 8111:80 --replace --from 10.0.0.0/8", &["8111:80", "leave --replace out"]),
        ("publish web 8088:80 --from 10.0.0.0/8", &["8088:80", "--replace"]),
    ]);
}

/// By an endpoint, which is named, or by a socket, whose process is.
fn taken_ports_are_refused(lab: &Lab) {
    let process = std::fs::read_to_string("/proc/self/comm").expect("this process's name");
    let crowded = Crowded::new(lab);
    crowded.check(&[
        ("publish other 8088:80", &["8088:80", "endpoint web", "--replace"]),
        ("publish other 9005-9015:80-90", &["9005-9015", "endpoint web", "another host port"]),
        ("publish other 127.0.0.1:8088:80", &["127.0.0.1:8088:80", "endpoint web"]),
        ("publish web 8088:81", &["8088:81", "endpoint web"]),
        ("publish other 9005-9015:80-90 --replace", &["9005-9015", "endpoint web", "unpublish it first"]),
        ("attach {free} -p 8088:80", &["8088:80", "endpoint web", "--replace"]),
        ("publish other 7001:80", &["7001:80", "(pid {me})", "0.0.0.0:7001", "another host port"]),
        ("publish other 7000-7009:80-89", &["port 7001", "(pid {me})"]),
        ("publish other 7002:80", &["7002:80", "(pid {me})", "0.0.0.0:7002", "another host port"]),
        ("publish other 7003:80/udp", &["7003:80/udp", "(pid {me})", "10.99.0.1:7003"]),
        ("publish other 7004:80/udp", &["7004:80/udp", "(pid {me})", "10.99.0.1:7004"]),
        ("publish other 7005:80", &["7005:80", "(pid {me})", "127.0.0.1:7005"]),
        ("publish other 127.0.0.1:7005:80", &["127.0.0.1:7005:80", "(pid {me})"]),
        ("attach {free} -p 7002:80", &["7002:80", "(pid {me})"]),
        ("publish other 7006:80", &["7006:80", "(pid {me})", "[::]:7006", "another host port"]),
        ("publish other [fd00:a63::1]:7006:80", &["7006:80", "(pid {me})", "[::]:7006"]),
        ("publish other 7007:80/udp", &["7007:80/udp", "(pid {me})", "[fd00:a63::1]:7007"]),
        ("publish other [fd00:a63::1]:8088:80", &["8088:80", "endpoint web", "--replace"]),
        ("publish other [fd00:a63::9]:8111:80", &["fd00:a63::9", "one of its own"]),
        ("publish other [fd00:a63::1]:8111:80/sctp", &["8111:80/sctp", "same host and container port"]),
    ]);
    let line = "publish other 7001:80";
    crowded.refused(line, &lab.netdp.run(line), &[process.trim()]);
}

/// Where there is nothing to translate or to borrow.
fn modes_are_refused(lab: &Lab) {
    Crowded::new(lab).check(&[
        ("attach {free} --network host", &["--network host"]),
        ("attach {free} --network none -p 8111:80", &["--publish", "--network none", "leave --publish out"]),
        ("attach {free} --network container:web", &["--network container:web"]),
        ("run --network container:nobody -- true", &["nobody", "netdp ls"]),
        ("run --network container:dead -- true", &["dead", "gone"]),
        (
            "run --network container:web -p 8111:80 -- true",
            &["--publish", "container:web", "leave --publish out"],
        ),
        ("run --network host -p 8111:80 -- true", &["--publish", "--network host", "leave --publish out"]),
        ("run --network none --ip 10.50.0.7 -- true", &["--ip", "--network none", "leave --ip out"]),
        ("run --network nowhere -- true", &["nowhere", "network create nowhere"]),
        ("run --network blue -- /no/such/command", &["/no/such/command", "No such file"]),
    ]);
}

fn what_the_first_command_fixed_stays(lab: &Lab) {
    let crowded = Crowded::new(lab);
    // The last of two options of one name counts: the lab gives its own before.
    let other = if lab.variant.datapath.name() == "ebpf" { "iptables" } else { "ebpf" };
    let netdp = netdp_tests::netdp::Netdp { datapath: other, ..lab.netdp.clone() };
    for line in ["publish web 8111:80", "network create x --subnet 10.70.0.0/24", "ls"] {
        crowded.refused(
            line,
            &netdp.run(line),
            &["--datapath", other, lab.variant.datapath.name(), "netdp down"],
        );
    }
    crowded.check(&[
        ("--flows-max 77 publish web 8111:80", &["--flows-max 77", "netdp down"]),
        ("--flows-max 77 ls", &["--flows-max 77", "netdp down"]),
    ]);
    let elsewhere = netdp_tests::netdp::Netdp { host: lab.world.name().into(), ..lab.netdp.clone() };
    crowded.refused("ls", &elsewhere.run("ls"), &[&lab.id, "--host-netns", "--instance"]);
    let nowhere = netdp_tests::netdp::Netdp { host: format!("{}-missing", lab.id), ..lab.netdp.clone() };
    crowded.refused("ls", &nowhere.run("ls"), &["--host-netns {id}-missing", "/run/netns"]);
    let odd = netdp_tests::netdp::Netdp { instance: "a/b".into(), ..lab.netdp.clone() };
    crowded.refused("ls", &odd.run("ls"), &["`a/b`", "letters"]);
}

/// As nobody, and as a root without the capabilities that count.
fn a_missing_privilege_is_named(lab: &Lab) {
    let crowded = Crowded::new(lab);
    let nobody = ["--reuid=65534", "--regid=65534", "--clear-groups"];
    let confined = ["--bounding-set=-bpf,-net_admin"];
    // Rules need no BPF.
    let ebpf = lab.variant.datapath == Datapath::Ebpf;
    let of_confined = if ebpf { "CAP_BPF" } else { "CAP_NET_ADMIN" };
    for (how, missing) in [(&nobody[..], "CAP_NET_ADMIN"), (&confined[..], of_confined)] {
        for line in ["publish web 8111:80", "attach x --create", "network rm blue", "down"] {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(how).arg(&lab.netdp.binary).args(lab.netdp.options()).args(line.split(' '));
            crowded.refused(line, &outcome(&mut setpriv), &[missing, "root", "sudo"]);
        }
    }
}

/// A kernel built without `bpf(2)`, as a seccomp filter makes one. Another instance's first command must say so, and
/// must not leave anything of that instance either.
fn a_kernel_without_bpf_is_named(lab: &Lab) {
    let crowded = Crowded::new(lab);
    let other = netdp_tests::netdp::Netdp {
        instance: format!("{}-b", lab.id),
        datapath: "ebpf",
        ..lab.netdp.clone()
    };
    let line = "network create green --subnet 10.70.0.0/24";
    let mut command = Command::new(&other.binary);
    command.args(other.options()).args(line.split(' '));
    // SAFETY: between fork and exec there is one system call; nothing is allocated.
    unsafe { command.pre_exec(seccomp::forbid_bpf) };
    crowded.refused(
        line,
        &outcome(&mut command),
        &["--datapath ebpf", "netdp doctor", "--datapath iptables"],
    );
    assert!(!other.state().exists() && !other.pins().exists());
}

fn outcome(command: &mut Command) -> Outcome {
    Outcome::of(&command.output().unwrap_or_else(|error: io::Error| panic!("running {command:?}: {error}")))
}
