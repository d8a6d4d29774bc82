use std::cell::Cell;
use std::net::SocketAddr;

use super::*;

/// The endpoint's addresses.
const ENDPOINT: [&str; 2] = ["10.9.0.2/24", "fd09::2/64"];

struct Lab {
    published: Vec<(String, Published)>,
    sockets: Vec<(Proto, SocketAddr)>,
}

impl Lab {
    fn new(published: &[(&str, &str)], sockets: &[(Proto, &str)]) -> Self {
        let published_as = |text: &str| {
            let spec: Spec = text.parse().unwrap();
            entry(&spec, spec.host.unwrap())
        };
        Self {
            published: published
                .iter()
                .map(|(name, text)| ((*name).to_owned(), published_as(text)))
                .collect(),
            sockets: sockets.iter().map(|(proto, text)| (*proto, text.parse().unwrap())).collect(),
        }
    }

    fn plan(&self, specs: &[&str], replace: bool) -> Result<Plan, Error> {
        let specs: Vec<Spec> = specs.iter().map(|spec| spec.parse().unwrap()).collect();
        let random = Cell::new(0);
        let busy: BTreeSet<_> = self.sockets.iter().map(|(proto, socket)| (*proto, socket.port())).collect();
        let host = Host {
            addresses: &["192.0.2.1", "2001:db8::1", "fe80::1"].map(|addr| addr.parse().unwrap()),
            busy: &busy,
            holder: &|proto, addr, port| self.holder(proto, addr, port),
            random: &|| random.replace(random.get() + 1),
        };
        plan(&specs, &ENDPOINT.map(|net| net.parse().unwrap()), &self.published, &host, replace)
    }

    fn holder(&self, proto: Proto, addr: Option<IpAddr>, port: u16) -> Option<String> {
        let in_the_way = |(p, socket): &&(Proto, SocketAddr)| {
            *p == proto && socket.port() == port && addr.is_none_or(|addr| addr == socket.ip())
        };
        self.sockets.iter().find(in_the_way).map(|(_, socket)| format!("nginx (pid 7) at {socket}"))
    }

    fn error(&self, spec: &str, replace: bool) -> String {
        self.plan(&[spec], replace).unwrap_err().to_string()
    }
}

#[test]
fn a_free_port_is_published() {
    let plan = Lab::new(&[], &[]).plan(&["8080:80", "127.0.0.1:53:53/udp"], false).unwrap();
    let lines: Vec<String> = plan.add.iter().map(ToString::to_string).collect();
    assert_eq!(lines, ["80/tcp -> 0.0.0.0:8080", "53/udp -> 127.0.0.1:53"]);
}

#[test]
fn a_taken_port_names_its_owner() {
    let lab = Lab::new(&[("web", "8080-8089:80-89")], &[(Proto::Tcp, "0.0.0.0:22"), (Proto::Udp, "[::]:53")]);
    assert!(lab.error("8085:80", false).contains("endpoint web publishes 80-89/tcp -> 0.0.0.0:8080-8089"));
    assert!(lab.error("192.0.2.1:8085:80", false).contains("endpoint web"));
    assert!(
        lab.error("22:22", false)
            .contains("tcp port 22 of the host is in use by nginx (pid 7) at 0.0.0.0:22")
    );
    assert!(lab.error("50-60:50-60/udp", false).contains("[::]:53"));
    assert!(lab.plan(&["8085:80/udp", "22:22/udp"], false).is_ok());
}

#[test]
fn addresses_tell_sockets_and_ports_apart() {
    let lab = Lab::new(&[("web", "127.0.0.1:8080:80")], &[(Proto::Tcp, "127.0.0.1:22")]);
    assert!(lab.plan(&["192.0.2.1:8080:80", "192.0.2.1:22:22"], false).is_ok());
    assert!(lab.error("8080:80", false).contains("endpoint web"));
    assert!(lab.error("22:22", false).contains("127.0.0.1:22"));
    assert!(lab.error("192.0.2.9:80:80", false).contains("no address 192.0.2.9"));
    assert!(lab.error("[2001:db8::9]:80:80", false).contains("no address 2001:db8::9"));
    assert!(lab.error("[fe80::1]:80:80", false).contains("link-local"));
    assert!(lab.plan(&["[2001:db8::1]:80:80", "192.0.2.1:80:80", "[::1]:80:80"], false).is_ok());
}

#[test]
fn a_host_address_needs_its_family_in_the_endpoint() {
    let host = Host { addresses: &[], busy: &BTreeSet::new(), holder: &|_, _, _| None, random: &|| 0 };
    for (endpoint, spec, family) in
        [(ENDPOINT[0], "[::1]:80:80", "no IPv6 address"), (ENDPOINT[1], "127.0.0.1:80:80", "no IPv4 address")]
    {
        let endpoint = [endpoint.parse().unwrap()];
        let error = plan(&[spec.parse().unwrap()], &endpoint, &[], &host, false).unwrap_err().to_string();
        assert!(error.contains(family), "{error}");
        assert!(plan(&["80:80".parse().unwrap()], &endpoint, &[], &host, false).is_ok());
    }
}

#[test]
fn replace_moves_exactly_what_is_published() {
    let lab = Lab::new(&[("web", "8080:80")], &[(Proto::Tcp, "0.0.0.0:8080")]);
    let plan = lab.plan(&["8080:8000"], true).unwrap();
    assert_eq!(plan.replaced, lab.published);
    assert_eq!(plan.add[0].to_string(), "8000/tcp -> 0.0.0.0:8080");
    assert!(lab.error("8079-8080:1-2", true).contains("not the same range"));
    assert!(lab.error("9000:80", true).contains("nothing to replace"));
}

#[test]
fn one_command_publishes_a_port_once() {
    let error = Lab::new(&[], &[]).plan(&["8080:80", "127.0.0.1:8080:81"], false).unwrap_err();
    assert!(matches!(error, Error::Twice { .. }));
}

#[test]
fn a_free_port_is_chosen() {
    let lab = Lab::new(&[("web", "32768-32770:1-3")], &[(Proto::Tcp, "0.0.0.0:32771")]);
    let plan = lab.plan(&["80", "81", "90-91"], false).unwrap();
    let lines: Vec<String> = plan.add.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        ["80/tcp -> 0.0.0.0:32772", "81/tcp -> 0.0.0.0:32773", "90-91/tcp -> 0.0.0.0:32774-32775"]
    );
    let full = Lab::new(&[("web", "32768-60999:32768-60999")], &[]);
    assert!(full.error("80", false).contains("no 1 free host ports"));
    assert!(full.error("1-60000", false).contains("no 60000 free host ports"));
}

#[test]
fn unpublish_finds_what_is_meant() {
    let lab = Lab::new(&[("web", "127.0.0.1:8080:80")], &[]);
    let meant = |text: &str| lab.published[0].1.is_meant_by(&text.parse().unwrap());
    assert!(meant("127.0.0.1:8080:80") && meant("80") && meant("127.0.0.1::80"));
    assert!(!meant("8080:80") && !meant("80/udp") && !meant("127.0.0.1:8080:81"));
}
