//! What netdp does where the RFCs on NAT behaviour ask for something, beside what netfilter does.
//!
//! One script of packets goes through both, in twin labs; what comes out at the other end makes a row of
//! `tests/BEHAVIOUR.md`. Nothing in the table is from memory: a row that can't be measured says so.

use std::fmt::Write as _;

use nix::sched::{CpuSet, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use crate::lab::Lab;
use crate::variant::Family;

mod errors;
mod filtering;
mod fragments;
mod lifetimes;
mod mapping;

mod rows;
mod side;
mod tcp;

pub use side::Side;

/// What was measured, against what is required.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Finding {
    /// Whether it is what the RFC asks for; none: the RFC leaves it open, or it was not measured.
    met: Option<bool>,
    text: String,
}

impl Finding {
    /// As required, or not.
    fn of(met: bool, text: impl Into<String>) -> Self {
        Self { met: Some(met), text: text.into() }
    }

    /// What the RFC allows, and does not ask for; or what was not measured.
    fn open(text: impl Into<String>) -> Self {
        Self { met: None, text: text.into() }
    }

    fn cell(&self) -> String {
        let mark = match self.met {
            Some(true) => "✓ ",
            Some(false) => "✗ ",
            None => "– ",
        };
        format!("{mark}{}", self.text)
    }
}

/// A requirement.
#[derive(Debug)]
struct Row {
    /// Its number in its RFC.
    id: &'static str,
    /// What it asks for.
    asks: &'static str,
    measure: fn(&Side<'_>) -> Finding,
    /// Why netdp does not do it.
    why: &'static str,
}

/// What one side does in one family, row by row.
pub type Findings = Vec<Finding>;

/// Runs the script through netdp.
pub fn of_netdp(family: Family) -> Findings {
    let lab = Lab::new(Side::variant(family));
    measure(&Side::netdp(&lab))
}

/// Runs the script through netfilter.
pub fn of_netfilter(family: Family) -> Findings {
    let lab = Lab::new(Side::variant(family));
    measure(&Side::netfilter(&lab))
}

/// On one CPU, so that packets come in the order in which they were sent.
fn measure(side: &Side<'_>) -> Findings {
    let cpu = sched_getcpu().expect("this CPU");
    let mut only = CpuSet::new();
    only.set(cpu).expect("a CPU's number");
    sched_setaffinity(Pid::from_raw(0), &only).expect("staying on a CPU");
    rows::all().map(|row| (row.measure)(side)).collect()
}

/// The table, for each side with its findings in IPv4 and IPv6; and the rows where netdp does not do what is required and
/// nothing says why, or the other way round.
pub fn table(netdp: &[Findings; 2], netfilter: &[Findings; 2]) -> (String, Vec<String>) {
    let (mut table, mut unexplained) = (include_str!("behaviour/head.md").to_owned(), Vec::new());
    let mut at = 0;
    for (section, rows) in rows::SECTIONS {
        let _ = write!(
            table,
            "\n## {section}\n\n| | asks for | netdp | netfilter | why netdp differs |\n|---|---|---|---|---|\n"
        );
        for Row { id, asks, why, .. } in *rows {
            let cells = [netdp, netfilter].map(|[v4, v6]| cell(&v4[at], &v6[at]));
            let deviates = netdp.iter().any(|findings| findings[at].met == Some(false));
            if deviates == why.is_empty() {
                unexplained.push(format!("{section}, {id}: {}, why: {why:?}", cells[0]));
            }
            let _ = writeln!(table, "| {id} | {asks} | {} | {} | {why} |", cells[0], cells[1]);
            at += 1;
        }
    }
    (table, unexplained)
}

fn cell(v4: &Finding, v6: &Finding) -> String {
    if v4 == v6 { v4.cell() } else { format!("IPv4: {}; IPv6: {}", v4.cell(), v6.cell()) }
}
