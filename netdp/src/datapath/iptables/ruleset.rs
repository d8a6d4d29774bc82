//! Rules of one family as data: chains of ours with their rules, and the jumps from the kernel's chains into them.

use std::collections::BTreeMap;

/// A table of iptables.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Table {
    Raw,
    Mangle,
    Nat,
    Filter,
}

impl Table {
    pub(super) const ALL: [Self; 4] = [Self::Raw, Self::Mangle, Self::Nat, Self::Filter];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Filter => "filter",
        }
    }

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// Where a jump stands in a chain of the kernel's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// Before everybody's rules: Docker's, firewalld's and the user's end with verdicts of their own.
    First,
    /// Behind what is there: their verdicts count.
    Last,
}

/// A jump from a chain of the kernel's into one of ours.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Jump {
    pub(super) from: &'static str,
    pub(super) place: Place,
    /// Which packets; empty: all.
    pub(super) matches: String,
    pub(super) to: String,
}

/// What one table has of ours.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Chains {
    /// Chains with their rules, each as it stands behind `-A CHAIN`. Written anew with every change.
    pub(super) rules: BTreeMap<String, Vec<String>>,
    /// Chains of one rule, the target, whose counters are netdp's: left alone while they are as they should be.
    pub(super) counters: BTreeMap<String, &'static str>,
    pub(super) jumps: Vec<Jump>,
}

/// All of one family's.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct Ruleset {
    pub(super) tables: BTreeMap<Table, Chains>,
}

impl Ruleset {
    pub(super) fn table(&mut self, table: Table) -> &mut Chains {
        self.tables.entry(table).or_default()
    }
}

impl Chains {
    /// Appends a rule to a chain.
    pub(super) fn rule(&mut self, chain: &str, rule: impl Into<String>) {
        self.chain(chain).push(rule.into());
    }

    /// A chain, empty if it wasn't there.
    pub(super) fn chain(&mut self, chain: &str) -> &mut Vec<String> {
        self.rules.entry(chain.to_owned()).or_default()
    }

    pub(super) fn jump(&mut self, from: &'static str, place: Place, matches: impl Into<String>, to: String) {
        self.jumps.push(Jump { from, place, matches: matches.into(), to });
    }
}
