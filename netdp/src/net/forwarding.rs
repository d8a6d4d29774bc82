//! Who else decides what the host forwards: chains of nf_tables at the forward hook, in the calling thread's network
//! namespace. A packet has to be let through by all of them: accepted in one table is not accepted in the next.

use std::io;

use netlink_packet_core::Emitable as _;
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, Hook, HookNumber, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::error::{Error, Result};
use super::netfilter::Netfilter;

/// `NF_DROP` (`linux/netfilter.h`).
pub(super) const DROP: u32 = 0;
/// What iptables calls its tables with a `FORWARD` chain.
const OF_IPTABLES: [&str; 3] = ["filter", "mangle", "security"];

/// A chain at the forward hook that decides something: it has rules, or drops what has no rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ForwardChain {
    /// `inet`, `ip` or `ip6`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
}

impl ForwardChain {
    /// Whether it is one that iptables makes.
    pub fn is_of_iptables(&self) -> bool {
        self.family != "inet" && OF_IPTABLES.contains(&self.table.as_str())
    }
}

impl std::fmt::Display for ForwardChain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.family, self.table, self.chain)
    }
}

/// All of them; none on a kernel without nf_tables.
pub fn chains() -> Result<Vec<ForwardChain>> {
    let question = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let answers = dump(question, "listing the chains of nf_tables")?;
    let chains = answers.into_iter().filter_map(|answer| match answer.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => {
            forward_chain(family(answer.header.family)?, &chain.attributes)
        }
        _ => None,
    });
    Ok(chains.collect())
}

/// Tables, as family and name, of which a rule names an interface.
pub fn tables_naming(ifname: &str) -> Result<Vec<(&'static str, String)>> {
    let question = NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() });
    let answers = dump(question, "listing the rules of nf_tables")?;
    let tables = answers.into_iter().filter_map(|answer| match answer.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) => {
            let table = rule.attributes.iter().find_map(|attribute| match attribute {
                RuleAttribute::Table(table) => Some(table.clone()),
                _ => None,
            })?;
            names(&rule.attributes, ifname).then_some((family(answer.header.family)?, table))
        }
        _ => None,
    });
    Ok(tables.collect())
}

pub(super) fn dump(question: NfTablesMessage, doing: &str) -> Result<Vec<NetfilterMessage>> {
    match Netfilter::open()?.dump(NetfilterMessageInner::from(question)) {
        // What `nfnetlink_rcv_msg` says of a subsystem that isn't there.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(Vec::new()),
        other => other.map_err(|error: io::Error| Error::system(|| doing.to_owned())(error)),
    }
}

pub(super) const fn family(family: NetfilterProtoFamily) -> Option<&'static str> {
    match family {
        NetfilterProtoFamily::Inet => Some("inet"),
        NetfilterProtoFamily::IPv4 => Some("ip"),
        NetfilterProtoFamily::IPv6 => Some("ip6"),
        _ => None,
    }
}

fn forward_chain(family: &'static str, attributes: &[ChainAttribute]) -> Option<ForwardChain> {
    let (mut table, mut chain, mut hooked, mut decides) = (None, None, false, false);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(name) => table = Some(name.clone()),
            ChainAttribute::Name(name) => chain = Some(name.clone()),
            ChainAttribute::Hook(hook) => {
                hooked = hook.contains(&Hook::Number(HookNumber::Inet(InetHookNumber::Forward)));
            }
            ChainAttribute::Policy(policy) => decides |= *policy == DROP,
            // Nothing jumps to a chain with a hook: these are its rules.
            ChainAttribute::Use(rules) => decides |= *rules > 0,
            _ => {}
        }
    }
    (hooked && decides).then_some(ForwardChain { family, table: table?, chain: chain? })
}

/// Whether a rule compares with that name: it is kept as the bytes that it is compared with, zero and all.
fn names(rule: &[RuleAttribute], ifname: &str) -> bool {
    let mut bytes = vec![0; rule.buffer_len()];
    rule.emit(&mut bytes);
    let name = [ifname.as_bytes(), &[0]].concat();
    bytes.windows(name.len()).any(|window| window == name)
}
