//! `/etc/hosts` and `/etc/resolv.conf` of what `netdp run` starts.

use std::net::IpAddr;

use ipnet::IpNet;

/// The name by which an endpoint reaches its host.
const HOST_NAME: &str = "host.netdp.internal";
/// Where the host's resolver is.
pub const RESOLV: &str = "/etc/resolv.conf";
/// Where managers of a local resolver write the real ones.
pub const UPSTREAM: [&str; 2] =
    ["/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// How a resolver's line begins.
const NAMESERVER: &str = "nameserver";

/// Own name, the host's name, localhost.
pub fn hosts(name: &str, addresses: &[IpNet], gateways: &[IpAddr]) -> String {
    let own = addresses.iter().map(|net| format!("{}\t{name}\n", net.addr()));
    let host = gateways.iter().map(|addr| format!("{addr}\t{HOST_NAME}\n"));
    let local = ["127.0.0.1\tlocalhost\n", "::1\tlocalhost ip6-localhost ip6-loopback\n"].map(str::to_owned);
    local.into_iter().chain(own).chain(host).collect()
}

/// The host's resolv.conf with resolvers on loopback, which no container reaches, replaced by `upstream`'s; left out
/// if that has none either.
pub fn resolv(host: &str, upstream: &str) -> String {
    let mut out = String::new();
    let mut replaced = false;
    for line in host.lines() {
        if !is_loopback(line) {
            out.extend([line, "\n"]);
        } else if !std::mem::replace(&mut replaced, true) {
            let real = upstream.lines().filter(|line| resolver(line).is_some() && !is_loopback(line));
            out.extend(real.flat_map(|line| [line, "\n"]));
        }
    }
    out
}

fn is_loopback(line: &str) -> bool {
    resolver(line).is_some_and(|addr| addr.is_loopback() || addr.is_unspecified())
}

fn resolver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    let addr = words.next().filter(|word| *word == NAMESERVER).and(words.next())?;
    // A link-local address has its interface behind a percent sign.
    addr.split('%').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_has_the_own_name_and_the_hosts() {
        let text = hosts("web", &["10.9.0.2/24".parse().unwrap()], &["10.9.0.1".parse().unwrap()]);
        assert!(
            text.contains("10.9.0.2\tweb\n") && text.contains("10.9.0.1\thost.netdp.internal\n"),
            "{text}"
        );
        assert!(text.contains("127.0.0.1\tlocalhost\n"));
    }

    #[test]
    fn loopback_resolvers_are_replaced_once() {
        let stub = "# stub\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\nsearch lan\n";
        let upstream = "nameserver 192.0.2.53\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n";
        let wanted = "# stub\nnameserver 192.0.2.53\nnameserver fe80::1%eth0\noptions edns0\nsearch lan\n";
        assert_eq!(resolv(stub, upstream), wanted);
        assert_eq!(resolv(stub, ""), "# stub\noptions edns0\nsearch lan\n");
        assert_eq!(resolv("nameserver 192.0.2.53\n", upstream), "nameserver 192.0.2.53\n");
    }
}
