//! What is in `/etc/hosts` and `/etc/resolv.conf` of an endpoint.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::plan::names::HOST_NAME;
use crate::state::State;

/// What every hosts file has. A name of these keeps a line of the host's out.
const LOCAL: [&str; 2] = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback"];
/// How a resolver's line begins.
const NAMESERVER: &str = "nameserver";

/// The lines of a network: the host, and every endpoint.
pub(super) fn network(state: &State, name: &str) -> Vec<String> {
    let gateways = state.networks.get(name).into_iter().flat_map(|network| &network.gateways);
    let host = gateways.map(|addr| format!("{addr}\t{HOST_NAME}"));
    let on_it = state.endpoints.iter().filter(|(_, endpoint)| endpoint.network == name);
    let addresses = on_it.flat_map(|(name, endpoint)| endpoint.addresses.iter().map(move |net| (net, name)));
    host.chain(addresses.map(|(net, name)| format!("{}\t{name}", net.addr()))).collect()
}

/// All lines of a namespace: localhost, those of its networks, and what the host's own file (`base`) says about other
/// names.
pub(super) fn hosts(networks: Vec<String>, base: &str) -> Vec<String> {
    let mut lines = LOCAL.map(str::to_owned).to_vec();
    lines.extend(networks);
    let taken: BTreeSet<String> = lines.iter().flat_map(|line| names(line)).collect();
    let others = meaningful(base).filter(|line| names(line).all(|name| !taken.contains(&name)));
    lines.extend(others.map(str::to_owned));
    lines
}

/// The host's resolv.conf with resolvers on loopback, which no container reaches, replaced by `upstream`'s; left out
/// if that has none either.
pub(super) fn resolv(host: &str, upstream: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut replaced = false;
    for line in meaningful(host) {
        if !is_loopback(line) {
            lines.push(line.to_owned());
        } else if !std::mem::replace(&mut replaced, true) {
            let real = meaningful(upstream).filter(|line| resolver(line).is_some() && !is_loopback(line));
            lines.extend(real.map(str::to_owned));
        }
    }
    lines
}

/// The lines without comments, and without those that are empty then.
fn meaningful(text: &str) -> impl Iterator<Item = &str> {
    let uncommented = text.lines().map(|line| line.split(['#', ';']).next().unwrap_or_default().trim());
    uncommented.filter(|line| !line.is_empty())
}

/// The names in a line of a hosts file; they are compared without case.
fn names(line: &str) -> impl Iterator<Item = String> {
    line.split_whitespace().skip(1).map(str::to_lowercase)
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
    use crate::state::tests::state;

    #[test]
    fn hosts_has_the_networks_endpoints_the_host_and_what_the_host_knows() {
        let mut state = state(&["web", "db"]);
        state.endpoints.get_mut("web").unwrap().addresses.push("fd09::2/64".parse().unwrap());
        state.networks.get_mut("default").unwrap().gateways.push("fd09::1".parse().unwrap());
        let base = "# comment\n127.0.0.1 localhost\n\n192.0.2.7  nas NAS.lan # mine\n192.0.2.8 DB old-db\n";
        let lines = hosts(network(&state, "default"), base);
        let wanted = [
            LOCAL[0],
            LOCAL[1],
            "10.9.0.1\thost.netdp.internal",
            "fd09::1\thost.netdp.internal",
            "10.9.0.3\tdb",
            "10.9.0.2\tweb",
            "fd09::2\tweb",
            "192.0.2.7  nas NAS.lan",
        ];
        assert_eq!(lines, wanted);
        assert_eq!(hosts(Vec::new(), base).len(), 4);
        assert_eq!(
            network(&state, "other"),
            Vec::<String>::new(),
            "another network's endpoints are not in it"
        );
    }

    #[test]
    fn loopback_resolvers_are_replaced_once() {
        let stub = "# stub\nnameserver 127.0.0.53\nnameserver ::1\noptions edns0\nsearch lan\n";
        let upstream = "nameserver 192.0.2.53\nnameserver 127.0.0.1\nnameserver fe80::1%eth0\n";
        let wanted = ["nameserver 192.0.2.53", "nameserver fe80::1%eth0", "options edns0", "search lan"];
        assert_eq!(resolv(stub, upstream), wanted);
        assert_eq!(resolv(stub, ""), wanted[2..]);
        assert_eq!(resolv("nameserver 192.0.2.53\n", upstream), wanted[..1]);
    }
}
