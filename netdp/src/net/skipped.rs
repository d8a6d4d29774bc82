//! The host's rules that packets on the fast path don't pass: chains of nf_tables at the hooks in between, in the
//! calling thread's network namespace. (What `iptables-legacy` keeps elsewhere tells its tables' names only.)

use std::collections::HashMap;
use std::fmt;

use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, DevHookNumber, Hook, InetHookNumber, NfTablesMessage, RuleAttribute,
    RuleMessage,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};

use super::error::Result;
use super::forwarding::{DROP, dump, family};

/// Where Docker leaves room for rules of the user's: `FORWARD` begins there.
const FOR_DOCKERS_USERS: &str = "DOCKER-USER";
/// The type of chains that translate and let everything pass.
const TRANSLATES: &str = "nat";

/// A chain that decides about forwarded packets: it has rules, or drops what has no rule.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SkippedChain {
    /// `netdev`, `inet`, `ip` or `ip6`.
    pub family: &'static str,
    /// Its table.
    pub table: String,
    /// Its name.
    pub chain: String,
    /// Whether its policy is to drop.
    pub drops: bool,
    /// How many rules it has.
    pub rules: usize,
}

impl fmt::Display for SkippedChain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { family, table, chain, drops, rules } = self;
        let policy = if *drops { "policy drop, " } else { "" };
        let plural = if *rules == 1 { "" } else { "s" };
        write!(f, "{family} {table} {chain} ({policy}{rules} rule{plural})")
    }
}

/// All of them; none on a kernel without nf_tables.
pub fn chains() -> Result<Vec<SkippedChain>> {
    let rules = rules()?;
    let question = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let answers = dump(question, "listing the chains of nf_tables")?;
    let chains = answers.into_iter().filter_map(|answer| match &answer.inner {
        NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) => {
            skipped(family_of(&answer)?, &chain.attributes, &rules)
        }
        _ => None,
    });
    Ok(chains.collect())
}

/// A chain: family, table and name.
type Place = (&'static str, String, String);

/// How many rules each chain has.
fn rules() -> Result<HashMap<Place, usize>> {
    let question = NfTablesMessage::GetRule(RuleMessage { attributes: Vec::new() });
    let mut counted = HashMap::new();
    for answer in dump(question, "listing the rules of nf_tables")? {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewRule(rule)) = &answer.inner else { continue };
        let (mut table, mut chain) = (None, None);
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Table(name) => table = Some(name.clone()),
                RuleAttribute::Chain(name) => chain = Some(name.clone()),
                _ => {}
            }
        }
        if let (Some(family), Some(table), Some(chain)) = (family_of(&answer), table, chain) {
            *counted.entry((family, table, chain)).or_default() += 1;
        }
    }
    Ok(counted)
}

fn family_of(answer: &NetfilterMessage) -> Option<&'static str> {
    match answer.header.family {
        NetfilterProtoFamily::NetDev => Some("netdev"),
        other => family(other),
    }
}

fn skipped(
    family: &'static str,
    attributes: &[ChainAttribute],
    rules: &HashMap<Place, usize>,
) -> Option<SkippedChain> {
    let (mut table, mut chain, mut is_between, mut drops, mut translates) = (None, None, false, false, false);
    for attribute in attributes {
        match attribute {
            ChainAttribute::Table(name) => table = Some(name.clone()),
            ChainAttribute::Name(name) => chain = Some(name.clone()),
            ChainAttribute::Hook(hook) => is_between = hook.iter().any(|part| is_skipped(family, part)),
            ChainAttribute::Policy(policy) => drops = *policy == DROP,
            ChainAttribute::Type(name) => translates = name == TRANSLATES,
            _ => {}
        }
    }
    let place = (family, table?, chain?);
    let rules = rules.get(&place).copied().unwrap_or(0);
    let (family, table, chain) = place;
    let decides = (is_between && !translates) || chain == FOR_DOCKERS_USERS;
    (decides && (drops || rules > 0)).then_some(SkippedChain { family, table, chain, drops, rules })
}

/// Whether a chain's hook is one that the programs' redirects go around: they take a packet before `ingress`, and put
/// it below `egress`'s routing but not around it.
fn is_skipped(family: &str, part: &Hook) -> bool {
    let Hook::Number(number) = part else { return false };
    let number = u32::from(*number);
    if family == "netdev" {
        return number == u32::from(DevHookNumber::Ingress);
    }
    [
        InetHookNumber::PreRouting,
        InetHookNumber::Forward,
        InetHookNumber::PostRouting,
        InetHookNumber::Ingress,
    ]
    .map(u32::from)
    .contains(&number)
}
