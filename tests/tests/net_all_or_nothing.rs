//! All or nothing (G13): every step of every command that changes something is made to fail, or to be the last one before
//! a `kill -9`, by turns. A step is whatever netdp calls a fail point; the test asks which ones a command passes.

use std::fs;

use netdp_tests::build::with_feature;
use netdp_tests::consistent::contradictions;
use netdp_tests::lab::Lab;
use netdp_tests::netdp::Outcome;
use netdp_tests::netns::Netns;
use netdp_tests::process::eventually;
use netdp_tests::snapshot::{self, Snapshot, without_duplicate_detection};
use netdp_tests::variant::{Datapath, Variant};
use serde_json::Value;

/// How [`Outcome`] shows a command that a signal ended (`timeout` ends by the same).
const KILLED: i32 = -1;
/// How many steps fewer a command can have the next time: other instances come and go, and only the first one of the
/// machine mounts the BPF file system, only the last one unmounts it.
const STEPS_OF_MOUNT: usize = 2;

/// A command, the state that it is tried in, and the way back there when it was carried out.
struct Case {
    /// `{a}`, `{b}` and `{new}` are names of namespaces; the last one is not there.
    line: &'static str,
    /// How the lab gets to where the command begins.
    prepare: fn(&Lab),
    /// How it gets back there after the command.
    back: fn(&Lab),
    /// What the command does can't be taken back: it goes on when a step fails.
    rolls_forward: bool,
    /// The first step of this name, if not the first one of all: what comes before is tried by other cases.
    from: Option<&'static str>,
}

impl Case {
    const fn new(line: &'static str, prepare: fn(&Lab), back: fn(&Lab)) -> Self {
        Self { line, prepare, back, rolls_forward: false, from: None }
    }
}

macro_rules! cases {
    ($($name:ident: $case:expr;)+) => {$(
        mod $name {
            use super::*;

            #[test]
            #[ignore = "needs root"]
            fn ebpf() {
                Trial::new(Variant::EBPF, $case).run();
            }

            #[test]
            #[ignore = "needs root"]
            fn iptables() {
                Trial::new(Variant::IPTABLES, $case).run();
            }
        }
    )+};
}

cases! {
    first_attach: Case::new("attach {a} --name a -p 8088:80", nothing, |lab| drop(lab.netdp.ok("down")));
    second_attach: Case::new("attach {b} --name b", attached, |lab| drop(lab.netdp.ok("detach b")));
    attach_creating: Case::new("attach {new} --name n --create -p 8090:80 -p 8091:81/udp", attached, |lab| drop(lab.netdp.ok("detach n")));
    publish: Case::new("publish a 8090:80 8091:81/udp --from 198.51.100.0/24,203.0.113.7", attached, |lab| drop(lab.netdp.ok("unpublish a 8090:80 8091:81/udp")));
    replace: Case::new("publish b 8088:81 --replace --from 198.51.100.0/24,203.0.113.7", both_listed, list);
    unpublish: Case::new("unpublish a --all", attached, |lab| drop(lab.netdp.ok("publish a 8088:80")));
    detach: Case::new("detach b", both, attach_b);
    detach_created: Case::new("detach n", created, create_n);
    attach_shared: Case::new("attach {new} --name s --create --network container:a", attached, |lab| drop(lab.netdp.ok("detach s")));
    attach_none: Case::new("attach {b} --name b --network none", attached, |lab| drop(lab.netdp.ok("detach b")));
    detach_shared: Case::new("detach s", shared, share_a);
    network_create: Case::new("network create blue --subnet 10.50.0.0/24", attached, |lab| drop(lab.netdp.ok("network rm blue")));
    network_create_dual: Case::new("network create blue --subnet 10.50.0.0/24 --subnet fd50::/64", attached, |lab| drop(lab.netdp.ok("network rm blue")));
    attach_dual: Case::new("attach {b} --name b --network dual -p 8090:80 -p [fd00:a63::1]:8091:80", dual, |lab| drop(lab.netdp.ok("detach b")));
    network_rm: Case::new("network rm blue", networked, create_blue);
    run: Case { rolls_forward: true, ..Case::new("run --name r -p 8090:80 -- true", attached, nothing) };
    gc: Case::new("gc", gone, lose_g);
    heal: Case::new("gc", unbridged, delete_bridge);
    down: Case { rolls_forward: true, ..Case::new("down", both, both) };
}

/// What is attached behind `clsact` is attached in other steps.
mod clsact {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn attach() {
        let case = Case::new("attach {b} --name b", attached, |lab| drop(lab.netdp.ok("detach b")));
        Trial::new(Variant::CLSACT, case).run();
    }

    #[test]
    #[ignore = "needs root"]
    fn detach() {
        Trial::new(Variant::CLSACT, Case::new("detach b", both, attach_b)).run();
    }
}

/// Where the host's firewall decides, an endpoint has one program more, and the host's sysctls are others.
mod honour {
    use super::*;

    fn honoured(lab: &Lab) {
        lab.netdp.ok("--firewall honour network create n --subnet 10.60.0.0/24");
        attached(lab);
    }

    #[test]
    #[ignore = "needs root"]
    fn attach() {
        let case = Case::new("attach {b} --name b", honoured, |lab| drop(lab.netdp.ok("detach b")));
        Trial::new(Variant::EBPF, Case { from: Some("attach a program"), ..case }).run();
    }
}

/// Rules have no XDP programs.
#[test]
#[ignore = "needs root"]
fn xdp() {
    let back: fn(&Lab) = |lab| drop(lab.netdp.ok("repair --xdp off"));
    let case = Case::new("repair --xdp generic", untagged, back);
    Trial::new(Variant::EBPF, Case { from: Some("write a document"), ..case }).run();
}

/// The iptables datapath has none.
mod own_timeouts {
    use super::*;

    #[test]
    #[ignore = "needs root"]
    fn network_create() {
        let line = "network create blue --subnet 10.50.0.0/24 --timeout udp=3m";
        Trial::new(Variant::EBPF, Case::new(line, attached, |lab| drop(lab.netdp.ok("network rm blue"))))
            .run();
    }
}

fn nothing(_: &Lab) {}

fn attached(lab: &Lab) {
    lab.netdp.ok(&format!("attach {}-a --name a -p 8088:80", lab.id));
}

/// XDP programs may see the uplink's frames as they come.
fn untagged(lab: &Lab) {
    attached(lab);
    lab.host.sh("ethtool -K up0 rxvlan off");
}

fn attach_b(lab: &Lab) {
    lab.netdp.ok(&format!("attach {}-b --name b", lab.id));
}

fn both(lab: &Lab) {
    attached(lab);
    attach_b(lab);
}

/// The port of A has a list of sources.
fn list(lab: &Lab) {
    lab.netdp.ok("publish a 8088:80 --replace --from 10.0.0.0/8,198.51.100.0/24");
}

fn both_listed(lab: &Lab) {
    both(lab);
    list(lab);
}

fn create_n(lab: &Lab) {
    lab.netdp.ok(&format!("attach {}-new --name n --create", lab.id));
}

fn created(lab: &Lab) {
    attached(lab);
    create_n(lab);
}

fn share_a(lab: &Lab) {
    lab.netdp.ok(&format!("attach {}-new --name s --create --network container:a", lab.id));
}

fn shared(lab: &Lab) {
    attached(lab);
    share_a(lab);
}

/// With timeouts of its own, where a network has some.
fn create_blue(lab: &Lab) {
    let timeouts = if lab.variant.datapath == Datapath::Ebpf { "--timeout udp=3m" } else { "" };
    lab.netdp.ok(&format!("network create blue --subnet 10.50.0.0/24 {timeouts}"));
}

fn dual(lab: &Lab) {
    attached(lab);
    lab.netdp.ok("network create dual --subnet 10.51.0.0/24 --subnet fd51::/64");
}

fn networked(lab: &Lab) {
    attached(lab);
    create_blue(lab);
}

/// An endpoint whose namespace goes.
fn lose_g(lab: &Lab) {
    let g = lab.container("g", "-p 8089:80").host_ifname;
    lab.remove_netns("g");
    eventually("veth of the dead one gone", || !lab.host.sh("ip -o link").contains(&g));
}

fn gone(lab: &Lab) {
    attached(lab);
    lose_g(lab);
}

fn delete_bridge(lab: &Lab) {
    lab.host.sh("ip link del netdp0");
    // Any change tells the programs which addresses are gone.
    lab.netdp.ok("flows flush");
}

fn unbridged(lab: &Lab) {
    both(lab);
    delete_bridge(lab);
}

/// How a step ends.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum How {
    Error,
    Kill,
}

/// One command being tried.
struct Trial {
    case: Case,
    lab: Lab,
    containers: Vec<Netns>,
    /// Without an instance.
    pristine: Snapshot,
    before: Snapshot,
    /// What the instance lists when the command was carried out.
    done: Listed,
}

impl Trial {
    fn new(variant: Variant, case: Case) -> Self {
        let mut lab = Lab::with_binary(variant, with_feature("failpoints"));
        // Loading the programs takes less than half the time with small tables.
        lab.netdp.variables.push(("NETDP_FLOWS_MAX", "1024".to_owned()));
        without_duplicate_detection(&lab.host);
        let containers = vec![lab.netns("a"), lab.netns("b")];
        containers.iter().for_each(without_duplicate_detection);
        let pristine = Snapshot::of(&lab, &containers);
        (case.prepare)(&lab);
        let before = Snapshot::of(&lab, &containers);
        Self { case, lab, containers, pristine, before, done: ([Value::Null, Value::Null], Vec::new()) }
    }

    fn run(mut self) {
        // The first time, a host may be asked what it is not asked again.
        drop(self.trace());
        let steps = self.trace();
        assert!(!steps.is_empty(), "{}: no fail point", self.case.line);
        let first = self.case.from.map_or(0, |from| {
            steps.iter().position(|step| step == from).unwrap_or_else(|| panic!("no step {from}: {steps:#?}"))
        });
        for (number, step) in chosen(&steps).into_iter().filter(|(number, _)| *number > first) {
            let how = self.way(number);
            let wrong = self.try_step(number, how);
            let line = self.case.line;
            assert!(
                wrong.is_empty(),
                "{line}: {how:?} at {number} of {} ({step}):\n{}",
                steps.len(),
                wrong.join("\n")
            );
        }
    }

    /// How a step is made to end: by turns, and where one datapath's fails, the other's is killed. (Both for each takes CI
    /// more than twenty minutes.)
    fn way(&self, number: usize) -> How {
        let turn = number + usize::from(self.lab.variant.datapath == Datapath::Iptables);
        if turn.is_multiple_of(2) { How::Error } else { How::Kill }
    }

    /// Carries the command out once; returns the names of the fail points that it passes.
    fn trace(&mut self) -> Vec<String> {
        let (outcome, steps) = self.call(&[]);
        assert_eq!(outcome.code, 0, "{}: {outcome:?}", self.case.line);
        self.done = listed(&self.lab);
        self.go_back();
        steps
    }

    /// Runs the command; returns the names of the fail points that it passed, too.
    fn call(&self, variables: &[(&str, &str)]) -> (Outcome, Vec<String>) {
        let [a, b, new] = ["a", "b", "new"].map(|role| format!("{}-{role}", self.lab.id));
        let line = self.case.line.replace("{a}", &a).replace("{b}", &b).replace("{new}", &new);
        let trace = std::env::temp_dir().join(format!("{}-trace", self.lab.id));
        let mut command = self.lab.netdp.command(&line);
        command.envs(variables.iter().copied()).env("NETDP_FAIL_TRACE", &trace);
        let outcome = Outcome::of(&command.output().expect("running netdp"));
        let text = fs::read_to_string(&trace).unwrap_or_default();
        // Only there if a fail point was passed.
        let _ = fs::remove_file(&trace);
        (outcome, text.lines().map(str::to_owned).collect())
    }

    fn go_back(&mut self) {
        (self.case.back)(&self.lab);
        self.before = Snapshot::of(&self.lab, &self.containers);
    }

    /// What is wrong after the step has failed.
    fn try_step(&mut self, number: usize, how: How) -> Vec<String> {
        let mode = if how == How::Kill { "kill" } else { "error" };
        let (outcome, steps) = self.call(&[("NETDP_FAIL_AT", &number.to_string()), ("NETDP_FAIL_HOW", mode)]);
        if steps.len() < number {
            assert!(outcome.code == 0 && steps.len() + STEPS_OF_MOUNT >= number, "{steps:#?}\n{outcome:?}");
            self.go_back();
            return Vec::new();
        }
        let expected: &[i32] = if how == How::Kill { &[KILLED] } else { &[0, 1] };
        if !expected.contains(&outcome.code) {
            return vec![format!("{outcome:?}")];
        }
        if how == How::Error && outcome.code == 1 && !self.case.rolls_forward {
            return self.unlike_before();
        }
        // Any next command repairs: this one does it and nothing else.
        let next =
            self.lab.netdp.run(if self.case.line == "down" && how == How::Error { "down" } else { "gc" });
        if next.code != 0 {
            return vec![format!("after {outcome:?}: {next:?}")];
        }
        let unlike_before = self.unlike_before();
        if unlike_before.is_empty() {
            return Vec::new();
        }
        let mut wrong = Vec::new();
        if listed(&self.lab) != self.done {
            wrong.push(format!("neither as before nor as after: {unlike_before:#?}"));
        } else if self.lab.netdp.state().exists() {
            wrong.extend(contradictions(&self.lab));
        } else {
            wrong.extend(self.pristine.differences(&Snapshot::of(&self.lab, &self.containers)));
        }
        if wrong.is_empty() {
            self.go_back();
        }
        wrong
    }

    fn unlike_before(&self) -> Vec<String> {
        self.before.differences(&Snapshot::of(&self.lab, &self.containers))
    }
}

/// The steps to try, numbered as netdp does. Of a loop (one step many times in a row) only the first two and the last.
fn chosen(steps: &[String]) -> Vec<(usize, &String)> {
    let same =
        |n: usize, m: Option<usize>| m.and_then(|m| steps.get(m)).is_some_and(|other| *other == steps[n]);
    let numbered = steps.iter().enumerate();
    let inner = |n: usize| same(n, n.checked_sub(2)) && same(n, n.checked_sub(1)) && same(n, Some(n + 1));
    numbered.filter(|(n, _)| !inner(*n)).map(|(n, step)| (n + 1, step)).collect()
}

/// Networks and endpoints, and what these are called in each other's files.
type Listed = ([Value; 2], Vec<String>);

/// Without what is another one each time.
fn listed(lab: &Lab) -> Listed {
    let lists = ["network ls", "ls"].map(|line| {
        let mut list = lab.netdp.json(line);
        for one in list.as_array_mut().into_iter().flatten().filter_map(Value::as_object_mut) {
            for random in ["ifindex", "host_ifindex", "host_ifname", "mac", "flows", "bytes", "netns"] {
                one.remove(random);
            }
        }
        list
    });
    (lists, snapshot::names(lab))
}
