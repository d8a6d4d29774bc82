//! `--firewall honour`: the host's rules decide about what endpoints and the outside send each other, as they do with
//! `MASQUERADE` and netfilter's published ports; what they let through is translated as ever.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::thread::sleep;
use std::time::Duration;

use netdp_tests::ask::{Transport, answered, ask_from, echo_bulk, unanswered};
use netdp_tests::capture::Capture;
use netdp_tests::lab::{Container, HOST, Lab, UPLINK, WORLD, WORLD_2, WORLD_LINK};
use netdp_tests::netdp::Netdp;
use netdp_tests::netns::Netns;
use netdp_tests::server::Server;
use netdp_tests::sysctl;
use netdp_tests::variant::Family;

#[path = "net_firewall_honoured/fast_path.rs"]
mod fast_path;

const PORT: u16 = 7000;
/// As README says it: a rule that is added later has cut every flow that it drops.
const CUT: Duration = Duration::from_secs(2);

// Not on iptables: netdp's rules accept before the host's there.

netdp_tests::in_variants! {
    forward_decides: ebpf EBPF, ebpf_v6_without_offloads EBPF_V6_PLAIN;
    published_ports_pass_forward: ebpf_without_offloads EBPF_PLAIN, ebpf_v6 EBPF_V6;
    rejections_are_told: ebpf EBPF, ebpf_v6 EBPF_V6;
    nothing_leaves_where_no_program_is: ebpf EBPF;
    the_host_forwards_only_as_long: ebpf EBPF;
    a_rule_added_later_cuts: clsact CLSACT, ebpf_v6 EBPF_V6;
}

/// A container of an instance in that mode, with servers around.
struct Honoured<'a> {
    lab: &'a Lab,
    web: Container,
    /// TCP and UDP in the container, then outside.
    servers: [Server; 4],
}

impl<'a> Honoured<'a> {
    fn new(lab: &'a Lab) -> Self {
        // Its first command fixes the mode.
        let both = lab.subnet("10.88.0.0/24");
        lab.netdp.ok(&format!("--firewall honour network create both {both}"));
        let web = lab.container("web", &format!("-p 8088:{PORT} -p 8088:{PORT}/udp"));
        let any = lab.at(Ipv4Addr::UNSPECIFIED);
        let servers = [
            Server::tcp(&web.netns, "web", any, &[PORT]),
            Server::udp(&web.netns, "web", web.address, &[PORT]),
            Server::tcp(&lab.world, "world", any, &[PORT]),
            Server::udp(&lab.world, "world", lab.at(WORLD), &[PORT]),
        ];
        Self { lab, web, servers }
    }

    fn rule(&self, rule: &str) -> String {
        let program = if self.lab.variant.family == Family::V4 { "iptables" } else { "ip6tables" };
        self.lab.host.sh(&format!("{program} -w {rule}"))
    }

    /// What every firewall with a memory begins with.
    fn stateful(&self) {
        self.rule("-P FORWARD DROP");
        self.rule("-A FORWARD -m conntrack --ctstate INVALID -j DROP");
        self.rule("-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT");
    }

    fn world(&self) -> SocketAddr {
        SocketAddr::new(self.lab.at(WORLD), PORT)
    }

    fn published(&self) -> SocketAddr {
        SocketAddr::new(self.lab.at(HOST), 8088)
    }

    #[track_caller]
    fn gets_out(&self) {
        for transport in Transport::ALL {
            let answer = answered(&self.web.netns, transport, (self.lab.at(WORLD), PORT), "world");
            assert_eq!(answer.peer.ip(), self.lab.at(HOST), "not translated");
        }
        self.web.netns.sh(&format!("ping -c 1 -W 2 -s 3000 {}", self.lab.at(WORLD)));
    }

    #[track_caller]
    fn gets_nowhere(&self) {
        for transport in Transport::ALL {
            unanswered(&self.web.netns, transport, (self.lab.at(WORLD), PORT));
        }
        let ping = self.web.netns.try_sh(&format!("ping -c 1 -W 1 {}", self.lab.at(WORLD)));
        assert!(!ping.status.success(), "{ping:?}");
    }

    /// The client's address is kept.
    #[track_caller]
    fn is_reached(&self, from: Ipv4Addr) {
        for transport in Transport::ALL {
            let to = self.published();
            let answer = ask_from(&self.lab.world, transport, (self.lab.at(from), 0), (to.ip(), to.port()));
            let answer = answer.unwrap_or_else(|error| panic!("{transport:?} from {from}: {error}"));
            assert_eq!((answer.server.as_str(), answer.peer), ("web", answer.local));
        }
    }

    /// What the outside has seen of the container: nothing untranslated.
    #[track_caller]
    fn unseen(&self, seen: Capture) {
        let seen = seen.finish();
        assert!(seen.iter().any(|packet| packet.incoming), "nothing was captured");
        let leaked = seen.iter().find(|packet| packet.src.ip() == self.web.address);
        assert!(leaked.is_none(), "{leaked:?}");
    }
}

/// `FORWARD` sees what the container sends and what is answered, both with the container's address.
fn forward_decides(lab: &Lab) {
    let honoured = Honoured::new(lab);
    let seen = Capture::start(&lab.world, WORLD_LINK);
    honoured.gets_out();
    honoured.rule("-P FORWARD DROP");
    honoured.gets_nowhere();
    honoured.rule("-P FORWARD ACCEPT");
    honoured.stateful();
    honoured.gets_nowhere();
    let web = honoured.web.address;
    honoured.rule(&format!("-A FORWARD -s {web} -o {UPLINK} -m conntrack --ctstate NEW -j ACCEPT"));
    honoured.gets_out();
    echo_bulk(&honoured.web.netns, (lab.at(WORLD), PORT), 1 << 20);
    for transport in Transport::ALL {
        unanswered(&lab.world, transport, (lab.at(HOST), 8088));
    }
    // Neighbours, and who reaches a published port from within, stay within the host.
    let other = lab.container("other", "");
    for transport in Transport::ALL {
        answered(&other.netns, transport, (web, PORT), "web");
        answered(&other.netns, transport, (lab.at(HOST), 8088), "web");
        answered(&honoured.web.netns, transport, (lab.at(HOST), 8088), "web");
    }
    answered(&lab.host, Transport::Tcp, (lab.at(HOST), 8088), "web");
    honoured.unseen(seen);
    assert_eq!(lab.netdp.counter("untranslated"), 0);
    assert!(lab.netdp.counter("packets") > 0);
}

/// As rules in `DOCKER-USER` are written: the container's address and port, the client's own address.
fn published_ports_pass_forward(lab: &Lab) {
    let honoured = Honoured::new(lab);
    let seen = Capture::start(&lab.world, WORLD_LINK);
    honoured.is_reached(WORLD);
    echo_bulk(&lab.world, (lab.at(HOST), 8088), 1 << 20);
    honoured.stateful();
    let web = honoured.web.address;
    for transport in Transport::ALL {
        unanswered(&lab.world, transport, (lab.at(HOST), 8088));
    }
    let from = lab.at(WORLD_2);
    honoured.rule("-N DOCKER-USER");
    honoured.rule("-A FORWARD -j DOCKER-USER");
    for proto in ["tcp", "udp"] {
        let to = format!("-d {web} -p {proto} --dport {PORT}");
        honoured.rule(&format!("-A DOCKER-USER -i {UPLINK} -s {from} {to} -j ACCEPT"));
    }
    honoured.is_reached(WORLD_2);
    for transport in Transport::ALL {
        let to = honoured.published();
        let answer = ask_from(&lab.world, transport, (lab.at(WORLD), 0), (to.ip(), to.port()));
        assert!(answer.is_err(), "{transport:?}: {answer:?}");
    }
    honoured.gets_nowhere();
    honoured.unseen(seen);
    assert_eq!(lab.netdp.counter("untranslated"), 0);
}

/// A connection that says something and waits for the echo.
struct Conversation(TcpStream);

impl Conversation {
    fn new(lab: &Honoured<'_>, from_world: bool) -> Self {
        let (netns, to) =
            if from_world { (&lab.lab.world, lab.published()) } else { (&lab.web.netns, lab.world()) };
        let stream = netns.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(3)));
        let mut stream = stream.unwrap_or_else(|error| panic!("connecting to {to}: {error}"));
        stream.set_read_timeout(Some(Duration::from_secs(3))).expect("a timeout");
        BufReader::with_capacity(1, &mut stream).read_line(&mut String::new()).expect("a greeting");
        Self(stream)
    }

    /// Whether there is an echo within this time.
    fn goes_on(&mut self, within: Duration) -> bool {
        self.0.write_all(b"word").expect("room to send");
        self.0.set_read_timeout(Some(within)).expect("a timeout");
        self.0.read_exact(&mut [0; 4]).is_ok()
    }
}

fn a_rule_added_later_cuts(lab: &Lab) {
    const SOON: Duration = Duration::from_secs(10);
    let honoured = Honoured::new(lab);
    honoured.stateful();
    honoured.rule("-A FORWARD -m conntrack --ctstate NEW -j ACCEPT");
    for from_world in [false, true] {
        let mut conversation = Conversation::new(&honoured, from_world);
        assert!(conversation.goes_on(SOON));
        honoured.rule(&format!("-I FORWARD -d {} -j DROP", honoured.web.address));
        sleep(CUT);
        assert!(!conversation.goes_on(Duration::from_millis(700)), "from_world: {from_world}");
        // What was said meanwhile is said again.
        honoured.rule(&format!("-D FORWARD -d {} -j DROP", honoured.web.address));
        assert!(conversation.goes_on(SOON), "from_world: {from_world}");
    }
}

/// A reset has the container's address until it is outside.
fn rejections_are_told(lab: &Lab) {
    let honoured = Honoured::new(lab);
    let seen = Capture::start(&lab.world, WORLD_LINK);
    honoured.rule("-A FORWARD -p tcp --syn -j REJECT --reject-with tcp-reset");
    honoured.rule("-A FORWARD -p udp -j REJECT");
    let refused = |from: IpAddr, netns: &Netns, to: SocketAddr| {
        for transport in Transport::ALL {
            let answer = ask_from(netns, transport, (from, 0), (to.ip(), to.port()));
            let error = answer.expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{transport:?} to {to}: {error}");
        }
    };
    refused(honoured.web.address, &honoured.web.netns, honoured.world());
    refused(lab.at(WORLD), &lab.world, honoured.published());
    honoured.unseen(seen);
}

/// The stack would send packets of a flow out of an interface that appeared since, as soon as there is a route.
fn nothing_leaves_where_no_program_is(lab: &Lab) {
    let honoured = Honoured::new(lab);
    let socket = honoured.web.netns.enter(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a socket"));
    socket.connect(honoured.world()).expect("a remote");
    let say = || socket.send(b"word");
    for line in [
        "ip link add late0 type veth peer name late1",
        "ip link set late1 up",
        "ip link set late0 up",
        &format!("ip neigh add {WORLD} lladdr 02:00:00:00:00:99 dev late0"),
    ] {
        lab.host.sh(line);
    }
    let seen = Capture::start(&lab.host, "late1");
    say().expect("a way out");
    lab.host.sh(&format!("ip route add {WORLD}/32 dev late0"));
    // What was let through goes the old way for the rest of the tick. Told of one, the next call says so.
    sleep(CUT);
    let told = (0..20).filter(|_| say().is_err()).count();
    let leaked: Vec<_> =
        seen.finish().into_iter().filter(|packet| packet.src.ip() == honoured.web.address).collect();
    assert!(leaked.is_empty(), "{leaked:?}");
    assert!(told > 0 && lab.netdp.counter("uplink_not_attached") > 0, "told {told} times");
}

fn the_host_forwards_only_as_long(lab: &Lab) {
    let before = sysctl::read_all(&lab.host);
    {
        let honoured = Honoured::new(lab);
        honoured.gets_out();
        let report = lab.netdp.json("doctor").to_string();
        assert!(report.contains("mode honour: "), "{report}");
        lab.host.set_sysctl(&format!("net/ipv4/conf/{UPLINK}/forwarding"), "0");
        let report = lab.netdp.json("doctor").to_string();
        assert!(report.contains("forwarding was set back"), "{report}");
        lab.netdp.ok("repair");
        honoured.gets_out();
    }
    lab.netdp.ok("detach web");
    let why = lab.netdp.refused(2, "--firewall bypass network ls");
    assert!(why.contains("in mode honour since its first command"), "{why}");
    lab.netdp.ok("down");
    let changed = sysctl::changed(&before, &sysctl::read_all(&lab.host));
    assert!(changed.is_empty(), "{changed:?}");
    let by_rules = Netdp { datapath: "iptables", ..lab.netdp.clone() };
    let why = by_rules.refused(2, "--firewall honour network create n --subnet 10.5.0.0/24");
    assert!(why.contains("--datapath ebpf"), "{why}");
}
