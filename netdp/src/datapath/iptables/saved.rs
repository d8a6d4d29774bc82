//! What iptables-save shows: which of it is ours, and what has to be written so that it is what it should be.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{self, Names};
use super::ruleset::{Chains, Jump, Place, Ruleset, Table};

/// A rule as it was saved.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Rule {
    chain: String,
    /// What stands behind `-A CHAIN`.
    text: String,
    packets: u64,
    bytes: u64,
}

impl Rule {
    /// The chain that it ends in.
    fn target(&self) -> Option<&str> {
        let mut words = self.text.split_whitespace();
        words.find(|word| matches!(*word, "-j" | "-g"))?;
        words.next()
    }
}

/// One table.
#[derive(Clone, Debug, Default)]
struct SavedTable {
    chains: BTreeSet<String>,
    rules: Vec<Rule>,
}

/// All tables of a family.
#[derive(Clone, Debug, Default)]
pub(super) struct Saved {
    tables: BTreeMap<Table, SavedTable>,
}

impl Saved {
    /// Reads the output of `iptables-save --counters`.
    pub(super) fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut at = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                at = Table::named(name);
                at.map(|table| saved.tables.entry(table).or_default());
            }
            let Some(table) = at.and_then(|table| saved.tables.get_mut(&table)) else { continue };
            if let Some(chain) = line.strip_prefix(':') {
                table.chains.extend(chain.split_whitespace().next().map(ToOwned::to_owned));
            } else if let Some(rule) = parse_rule(line) {
                table.rules.push(rule);
            }
        }
        saved
    }

    /// Tables that are there.
    pub(super) fn has(&self, table: Table) -> bool {
        self.tables.contains_key(&table)
    }

    /// Ours, in a form that can be compared and kept: chains, their rules, and the jumps to them.
    pub(super) fn own(&self, names: &Names) -> Vec<String> {
        let mut lines = Vec::new();
        for (table, saved) in &self.tables {
            let chains = saved.chains.iter().filter(|chain| names.is_own(chain));
            lines.extend(chains.map(|chain| format!("{} :{chain}", table.name())));
            let mut rules: Vec<&Rule> = saved.rules.iter().filter(|rule| is_own(rule, names)).collect();
            // Chains are shown in the order in which they were made.
            rules.sort_by_key(|rule| &rule.chain);
            let rules = rules.into_iter();
            lines.extend(rules.map(|rule| format!("{} -A {} {}", table.name(), rule.chain, rule.text)));
        }
        lines
    }

    /// Jumps that somebody's rules have come before, as `TABLE CHAIN`.
    pub(super) fn overtaken(&self, want: &Ruleset) -> Vec<String> {
        let of_table = |(table, chains): (&Table, &Chains)| {
            let saved = self.tables.get(table);
            let late = chains.jumps.iter().filter(|jump| {
                jump.place == Place::First && !saved.is_some_and(|saved| saved.is_first(jump))
            });
            late.map(|jump| format!("{} {}", table.name(), jump.from)).collect::<Vec<_>>()
        };
        want.tables.iter().flat_map(of_table).collect()
    }

    /// Packets and bytes of a chain of counters, summed over the tables.
    pub(super) fn counted(&self, chain: &str) -> (u64, u64) {
        let rules = self.tables.values().flat_map(|table| &table.rules).filter(|rule| rule.chain == chain);
        rules.fold((0, 0), |(packets, bytes), rule| (packets + rule.packets, bytes + rule.bytes))
    }

    /// What iptables-restore has to be told, so that ours is as wanted. Chains that nobody wants any more go.
    pub(super) fn change(&self, names: &Names, want: &Ruleset) -> String {
        let none = Chains::default();
        let nothing = SavedTable::default();
        let mut input = String::new();
        for table in Table::ALL {
            let wanted = want.tables.get(&table).unwrap_or(&none);
            let saved = self.tables.get(&table).unwrap_or(&nothing);
            let lines = saved.change(names, wanted);
            if !lines.is_empty() {
                input.push_str(&format!("*{}\n{}\nCOMMIT\n", table.name(), lines.join("\n")));
            }
        }
        input
    }
}

impl SavedTable {
    fn change(&self, names: &Names, wanted: &Chains) -> Vec<String> {
        let mut lines = Vec::new();
        let renewed: Vec<(&String, &&str)> =
            wanted.counters.iter().filter(|(chain, target)| !self.counts(chain, target)).collect();
        // Naming a chain makes it, or empties it.
        let stale: Vec<&String> = self.chains.iter().filter(|chain| is_stale(chain, names, wanted)).collect();
        let made = wanted.rules.keys().chain(renewed.iter().map(|(chain, _)| *chain));
        lines.extend(made.chain(stale.iter().copied()).map(|chain| format!(":{chain} - [0:0]")));
        lines.extend(renewed.iter().map(|(chain, target)| format!("-A {chain} -j {target}")));
        for (chain, rules) in &wanted.rules {
            lines.extend(rules.iter().map(|rule| format!("-A {chain} {rule}")));
        }
        let misplaced: Vec<&Jump> = wanted.jumps.iter().filter(|jump| !self.is_in_place(jump)).collect();
        let kept = |rule: &Rule| wanted.jumps.iter().any(|jump| jump.is(rule) && !misplaced.contains(&jump));
        let outside = self.rules.iter().filter(|rule| is_own(rule, names) && !names.is_own(&rule.chain));
        lines.extend(
            outside.filter(|rule| !kept(rule)).map(|rule| format!("-D {} {}", rule.chain, rule.text)),
        );
        lines.extend(misplaced.iter().map(|jump| jump.insertion()));
        lines.extend(stale.iter().map(|chain| format!("-X {chain}")));
        lines
    }

    /// Whether a chain of counters is as it should be.
    fn counts(&self, chain: &str, target: &str) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.chain == chain);
        rules.next().is_some_and(|rule| rule.text == format!("-j {target}")) && rules.next().is_none()
    }

    /// Whether a jump is there once, and nobody's rule but another instance's comes before one that goes first.
    fn is_in_place(&self, jump: &Jump) -> bool {
        let count = self.rules.iter().filter(|rule| jump.is(rule)).count();
        count == 1 && (jump.place == Place::Last || self.is_first(jump))
    }

    fn is_first(&self, jump: &Jump) -> bool {
        let mut rules = self.rules.iter().filter(|rule| rule.chain == jump.from);
        let is_ours = |rule: &&Rule| rule.target().is_some_and(|target| target.starts_with(names::ALL));
        rules.by_ref().take_while(is_ours).any(|rule| jump.is(rule))
    }
}

impl Jump {
    /// Whether a saved rule is this jump.
    fn is(&self, rule: &Rule) -> bool {
        rule.chain == self.from && rule.target() == Some(&self.to)
    }

    fn insertion(&self) -> String {
        let space = if self.matches.is_empty() { "" } else { " " };
        match self.place {
            Place::First => format!("-I {} 1 {}{space}-j {}", self.from, self.matches, self.to),
            Place::Last => format!("-A {} {}{space}-j {}", self.from, self.matches, self.to),
        }
    }
}

fn is_own(rule: &Rule, names: &Names) -> bool {
    names.is_own(&rule.chain) || rule.target().is_some_and(|target| names.is_own(target))
}

fn is_stale(chain: &str, names: &Names, wanted: &Chains) -> bool {
    names.is_own(chain) && !wanted.rules.contains_key(chain) && !wanted.counters.contains_key(chain)
}

/// Reads `[PACKETS:BYTES] -A CHAIN RULE`.
fn parse_rule(line: &str) -> Option<Rule> {
    let (counts, rule) = line.strip_prefix('[')?.split_once("] -A ")?;
    let (packets, bytes) = counts.split_once(':')?;
    let (chain, text) = rule.split_once(' ').unwrap_or((rule, ""));
    Some(Rule {
        chain: chain.into(),
        text: text.into(),
        packets: packets.parse().ok()?,
        bytes: bytes.parse().ok()?,
    })
}
