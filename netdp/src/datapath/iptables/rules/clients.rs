//! Who may open connections by a published port (`--from`).
//!
//! Thousands of prefixes are a tree of chains, each of which looks at the next four bits of the source: a new
//! connection passes a few dozen rules, and an established one none of them.

use std::collections::HashMap;

use ipnet::IpNet;

use super::super::super::PublishEntry;
use super::{Chains, Place, Rules, counter, shown};
use crate::plan::sources::Sources;

/// Prefixes that a chain looks at one by one, and, as a power of two, the branches of one that doesn't.
const MOST: usize = 16;
/// How many bits tell those branches apart.
const BITS: u8 = 4;

impl Rules<'_> {
    /// Before NAT, where nothing can be dropped. What the host itself sends does not come by.
    pub(super) fn clients(&self, chains: &mut Chains) {
        let mut entries = self.entries().filter(|entry| !entry.sources.is_everybody()).peekable();
        if entries.peek().is_none() {
            return;
        }
        let new = "! -i lo -m addrtype --dst-type LOCAL -m conntrack --ctstate NEW";
        self.jump(chains, "PREROUTING", Place::First, new, "CLIENTS");
        let clients = self.chain("CLIENTS");
        let mut lists: HashMap<&Sources, String> = HashMap::new();
        for entry in entries {
            let number = lists.len();
            let list =
                lists.entry(&entry.sources).or_insert_with(|| self.list(chains, number, &entry.sources));
            chains.rule(&clients, rule(entry, list));
        }
    }

    /// Makes the chain that returns for the sources of this family and drops the others.
    fn list(&self, chains: &mut Chains, number: usize, sources: &Sources) -> String {
        let nets: Vec<IpNet> =
            sources.nets().iter().filter(|net| self.family.has_net(net)).copied().collect();
        // Without those that others cover, and in their order.
        let nets = IpNet::aggregate(&nets);
        let mut tree = Tree {
            name: self.chain(&format!("L{number}")),
            branches: 0,
            last: format!("-j {}", self.drop(chains, counter::NOT_ALLOWED)),
        };
        let name = tree.name.clone();
        tree.fill(chains, &name, &nets);
        name
    }
}

/// The chains of one list.
struct Tree {
    name: String,
    /// How many there are besides the first.
    branches: usize,
    /// For who is in none of them.
    last: String,
}

impl Tree {
    /// Makes a chain for prefixes that are sorted and don't overlap.
    fn fill(&mut self, chains: &mut Chains, chain: &str, nets: &[IpNet]) {
        for group in groups(nets) {
            match group {
                [net] => chains.rule(chain, format!("-s {} -j RETURN", shown(net))),
                _ if nets.len() <= MOST => {
                    group.iter().for_each(|net| chains.rule(chain, format!("-s {} -j RETURN", shown(net))));
                }
                _ => {
                    self.branches += 1;
                    let branch = format!("{}-{}", self.name, self.branches);
                    chains.rule(chain, format!("-s {} -g {branch}", shown(&common(group))));
                    self.fill(chains, &branch, group);
                }
            }
        }
        chains.rule(chain, self.last.clone());
    }
}

/// Those that begin alike: by the bits that follow what all of them begin with.
fn groups(nets: &[IpNet]) -> impl Iterator<Item = &[IpNet]> {
    let bits = if nets.is_empty() { 0 } else { common(nets).prefix_len().saturating_add(BITS) };
    nets.chunk_by(move |a, b| a.prefix_len().min(b.prefix_len()) >= bits && begin(a, bits) == begin(b, bits))
}

/// The first bits of a prefix that has as many.
fn begin(net: &IpNet, bits: u8) -> IpNet {
    IpNet::new(net.addr(), bits).map_or(*net, |net| net.trunc())
}

/// The longest prefix that covers all of these, of which there is one at least.
fn common(nets: &[IpNet]) -> IpNet {
    let (first, last) = (nets[0], nets[nets.len() - 1]);
    let mut common = first;
    while !common.contains(&last) {
        // The shortest covers every one of its family.
        let Some(shorter) = common.supernet() else { break };
        common = shorter;
    }
    common
}

/// Looks whether a packet for a port or range comes from one of its sources.
fn rule(entry: &PublishEntry, list: &str) -> String {
    let to_addr = entry.host_addr.map(|addr| format!("-d {addr} ")).unwrap_or_default();
    let (proto, first, last) = (entry.proto.name(), entry.host_port, entry.host_port_end);
    let ports = if first == last { first.to_string() } else { format!("{first}:{last}") };
    format!("{to_addr}-p {proto} -m {proto} --dport {ports} -g {list}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(nets: &[&str]) -> Chains {
        let mut nets: Vec<IpNet> = nets.iter().map(|net| net.parse().unwrap()).collect();
        nets.sort_unstable();
        let mut chains = Chains::default();
        let mut tree = Tree { name: "L".into(), branches: 0, last: "-j DROP".into() };
        tree.fill(&mut chains, "L", &nets);
        chains
    }

    /// As netfilter goes through the chains: whether an address is let in, and how many rules it passes.
    fn walk(chains: &Chains, addr: &str) -> (bool, usize) {
        let addr: std::net::IpAddr = addr.parse().unwrap();
        let (mut chain, mut passed) = ("L", 0);
        loop {
            let rules = &chains.rules[chain];
            let hit = rules.iter().find_map(|rule| {
                passed += 1;
                let Some(rule) = rule.strip_prefix("-s ") else { return Some(rule.as_str()) };
                let (net, target) = rule.split_once(' ').unwrap();
                crate::plan::sources::parse(net).unwrap().contains(&addr).then_some(target)
            });
            match hit.unwrap() {
                "-j RETURN" => return (true, passed),
                "-j DROP" => return (false, passed),
                branch => chain = branch.strip_prefix("-g ").unwrap(),
            }
        }
    }

    #[test]
    fn a_few_prefixes_are_one_chain() {
        let chains = tree(&["10.0.0.0/8", "192.0.2.7/32"]);
        assert_eq!(chains.rules.len(), 1);
        assert_eq!(chains.rules["L"], ["-s 10.0.0.0/8 -j RETURN", "-s 192.0.2.7 -j RETURN", "-j DROP"]);
        assert_eq!(tree(&[]).rules["L"], ["-j DROP"]);
        assert_eq!(walk(&tree(&["0.0.0.0/0"]), "192.0.2.1"), (true, 1));
    }

    #[test]
    fn thousands_of_prefixes_are_passed_in_dozens_of_rules() {
        let v4: Vec<String> = (0..5000).map(|n| format!("10.{}.{}.0/24", n / 128, n % 128 * 2)).collect();
        let v6: Vec<String> = (0..5000).map(|n| format!("2001:db8:{n:x}::/{}", 48 + n % 80)).collect();
        for nets in [v4, v6] {
            let chains = tree(&nets.iter().map(String::as_str).collect::<Vec<_>>());
            for net in nets.iter().step_by(37) {
                let addr = net.split_once('/').unwrap().0;
                let (found, passed) = walk(&chains, addr);
                assert!(found && passed <= 80, "{addr}: {found} after {passed}");
            }
            for addr in ["10.0.1.1", "10.255.0.1", "9.0.0.0", "2001:db8:ffff::", "2001:db9::"] {
                let same_family = addr.contains(':') == nets[0].contains(':');
                assert!(!same_family || !walk(&chains, addr).0, "{addr}");
            }
        }
    }

    #[test]
    fn prefixes_of_different_lengths_keep_apart() {
        let mut nets: Vec<String> = (0..40).map(|n| format!("10.0.{n}.0/24")).collect();
        nets.extend(["11.0.0.0/8", "12.0.0.0/6", "128.0.0.0/1"].map(str::to_owned));
        let chains = tree(&nets.iter().map(String::as_str).collect::<Vec<_>>());
        for (addr, is_in) in [
            ("10.0.39.9", true),
            ("10.0.40.9", false),
            ("11.255.0.1", true),
            ("15.0.0.1", true),
            ("16.0.0.1", false),
            ("255.0.0.1", true),
        ] {
            assert_eq!(walk(&chains, addr).0, is_in, "{addr}");
        }
    }
}
