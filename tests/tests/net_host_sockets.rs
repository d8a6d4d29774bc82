//! The host's own sockets and published ports: TCP and UDP, IPv4 and IPv6 sockets, connected or not (G8, G9).

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use netdp_tests::ask::{Transport, answered};
use netdp_tests::lab::{Container, HOST, Lab, WORLD};
use netdp_tests::netns::Netns;
use netdp_tests::server::Server;
use netdp_tests::{on_ebpf_only, on_every_datapath};

const INNER: u16 = 8000;
const PUBLISHED: u16 = 8088;
const PATIENCE: Duration = Duration::from_secs(3);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LOCALHOST_V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

on_every_datapath!(one_udp_socket_tells_two_servers_apart, other_namespaces_are_left_alone);
on_ebpf_only!(
    every_socket_reaches_it_and_is_told_what_it_dialled: "it translates nothing to [::1]",
    a_socket_bound_to_loopback_fails_at_once: "route_localnet lets its packets out",
    a_published_port_is_held: "it sees no bind",
);

fn published(lab: &Lab) -> (Container, [Server; 2]) {
    let web = lab.container("web", &format!("-p {PUBLISHED}:{INNER} -p {PUBLISHED}:{INNER}/udp"));
    let servers = [
        Server::tcp(&web.netns, "web", web.address, &[INNER]),
        Server::udp(&web.netns, "web", web.address, &[INNER]),
    ];
    (web, servers)
}

/// `::ffff:a.b.c.d`.
fn mapped(address: Ipv4Addr) -> IpAddr {
    IpAddr::V6(address.to_ipv6_mapped())
}

fn unspecified(like: IpAddr) -> SocketAddr {
    let any = if like.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    SocketAddr::new(any, 0)
}

/// Connects, and returns what the socket believes to be connected to, and what it was greeted with.
fn tcp(netns: &Netns, to: SocketAddr) -> io::Result<(SocketAddr, String)> {
    netns.enter(move || {
        let mut stream = TcpStream::connect(to)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut greeting = [0; 3];
        stream.read_exact(&mut greeting)?;
        Ok((stream.peer_addr()?, String::from_utf8_lossy(&greeting).into_owned()))
    })
}

/// Asks by a connected socket; the same answer.
fn udp_connected(netns: &Netns, to: SocketAddr) -> io::Result<(SocketAddr, String)> {
    netns.enter(move || {
        let socket = UdpSocket::bind(unspecified(to.ip()))?;
        socket.connect(to)?;
        socket.send(b"who")?;
        let (from, text) = receive(&socket)?;
        assert_eq!(from, socket.peer_addr()?, "the reply comes from the peer");
        Ok((from, text))
    })
}

/// Asks by a socket that is not connected; returns where the reply came from.
fn udp_unconnected(netns: &Netns, to: SocketAddr) -> io::Result<(SocketAddr, String)> {
    netns.enter(move || {
        let socket = UdpSocket::bind(unspecified(to.ip()))?;
        socket.send_to(b"who", to)?;
        receive(&socket)
    })
}

fn receive(socket: &UdpSocket) -> io::Result<(SocketAddr, String)> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    Ok((from, text.split_whitespace().next().unwrap_or_default().into()))
}

/// Asks one way.
type Ask = fn(&Netns, SocketAddr) -> io::Result<(SocketAddr, String)>;

fn every_socket_reaches_it_and_is_told_what_it_dialled(lab: &Lab) {
    let (web, _servers) = published(lab);
    let ways: [(&str, Ask); 3] =
        [("tcp", tcp), ("connected udp", udp_connected), ("unconnected udp", udp_unconnected)];
    let addresses =
        [HOST.into(), LOCALHOST, web.gateway, mapped(HOST), mapped(Ipv4Addr::LOCALHOST), LOCALHOST_V6];
    for address in addresses {
        let to = SocketAddr::new(address, PUBLISHED);
        for (way, ask) in ways {
            // On a network without IPv6 the kernel refuses to send an IPv6 datagram to an IPv4 address.
            if (way, address) == ("unconnected udp", LOCALHOST_V6) {
                continue;
            }
            let (peer, server) = ask(&lab.host, to).unwrap_or_else(|error| panic!("{way} to {to}: {error}"));
            assert_eq!((peer, server.as_str()), (to, "web"), "{way} to {to}");
        }
    }
}

/// A resolver's socket: it sends to several servers, and knows them by the reply's address.
fn one_udp_socket_tells_two_servers_apart(lab: &Lab) {
    let names = ["one", "two"];
    let containers = names.map(|name| lab.container(name, ""));
    let published = [(LOCALHOST, 5301), (HOST.into(), 5302)].map(|(host, port)| SocketAddr::new(host, port));
    let _servers = [0, 1].map(|n| {
        lab.netdp.ok(&format!("publish {} {}:{INNER}/udp", names[n], published[n]));
        Server::udp(&containers[n].netns, names[n], containers[n].address, &[INNER])
    });
    let _world = Server::udp(&lab.world, "world", WORLD, &[INNER]);
    lab.host.enter(|| {
        let socket = UdpSocket::bind(unspecified(LOCALHOST)).expect("bind");
        let world = (SocketAddr::from((WORLD, INNER)), "world");
        let asked = [(published[0], names[0]), (published[1], names[1]), world];
        for (to, _) in asked {
            socket.send_to(b"who", to).expect("send");
        }
        let mut told: Vec<_> = asked.iter().map(|_| receive(&socket).expect("a reply")).collect();
        told.sort();
        let mut expected = asked.map(|(to, name)| (to, name.to_owned()));
        expected.sort();
        assert_eq!(told, expected);
    });
}

/// Its packets could not leave with such a source; it must not hang.
fn a_socket_bound_to_loopback_fails_at_once(lab: &Lab) {
    let (_web, _servers) = published(lab);
    for source in [LOCALHOST, LOCALHOST_V6] {
        let error = lab.host.enter(move || {
            let socket = UdpSocket::bind((source, 0)).expect("bind");
            socket.connect((source, PUBLISHED)).expect("connect");
            assert_eq!(socket.peer_addr().expect("peer"), SocketAddr::new(source, PUBLISHED), "left alone");
            socket.send(b"who").expect("send");
            receive(&socket).expect_err("nobody listens there")
        });
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{source}: {error}");
    }
}

fn a_published_port_is_held(lab: &Lab) {
    let (web, _servers) = published(lab);
    lab.netdp.ok(&format!("publish web 127.0.0.1:8089:{INNER}"));
    let bind = |address: IpAddr, port| lab.host.enter(move || TcpListener::bind((address, port)).map(drop));
    let (any, any_v6) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    for address in [any, any_v6, HOST.into(), LOCALHOST, LOCALHOST_V6, web.gateway] {
        let error = bind(address, PUBLISHED).expect_err("published at every address");
        assert_eq!(error.kind(), ErrorKind::AddrInUse, "{address}: {error}");
    }
    let udp = lab.host.enter(|| UdpSocket::bind((HOST, PUBLISHED)).map(drop)).expect_err("published as well");
    assert_eq!(udp.kind(), ErrorKind::AddrInUse, "{udp}");
    for address in [any, any_v6, LOCALHOST] {
        assert_eq!(bind(address, 8089).expect_err("published there").kind(), ErrorKind::AddrInUse);
    }
    bind(HOST.into(), 8089).expect("published at 127.0.0.1 only");
    bind(any, PUBLISHED + 100).expect("not published");
    // The owner may be replaced, and the port is free again when nobody has it.
    lab.container("next", "");
    lab.netdp.ok(&format!("publish next {PUBLISHED}:{INNER} --replace"));
    lab.netdp.ok(&format!("unpublish next {PUBLISHED}:{INNER}"));
    bind(any, PUBLISHED).expect("not published any more");
}

/// Their 127.0.0.1 is their own, and so are their ports.
fn other_namespaces_are_left_alone(lab: &Lab) {
    let (web, _servers) = published(lab);
    for netns in [&web.netns, &lab.world] {
        let to = SocketAddr::new(LOCALHOST, PUBLISHED);
        assert_eq!(tcp(netns, to).expect_err("its own loopback").kind(), ErrorKind::ConnectionRefused);
        netns
            .enter(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PUBLISHED)).map(drop))
            .expect("its own port");
    }
    answered(&lab.world, Transport::Tcp, (HOST, PUBLISHED), "web");
}
