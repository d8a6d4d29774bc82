//! What `doctor` says about the kernel that it runs on: which datapath, how programs are attached, why not eBPF.

use std::process::Command;

use netdp_tests::netdp::Netdp;
use serde_json::Value;

fn doctor(without: &[&str]) -> Value {
    let mut doctor = Command::new(Netdp::default_binary());
    doctor.args(["--json", "--instance", "kernel-doctor", "doctor"]);
    doctor.args(without.iter().flat_map(|feature| ["--without", *feature]));
    let output = doctor.output().expect("running netdp");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one JSON document")
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().expect("checks");
    checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no {name}: {report}"))
}

/// Whether the running kernel is at least this.
fn at_least(wanted: (u32, u32)) -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("a release");
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse().ok());
    let version: (u32, u32) = (numbers.next().expect("a version"), numbers.next().expect("a version"));
    version >= wanted
}

#[test]
#[ignore = "needs root"]
fn programs_load_and_are_attached_as_the_kernel_can() {
    let report = doctor(&[]);
    assert_eq!(report["datapath"], "ebpf", "{report}");
    let how = if at_least((6, 6)) { "TCX" } else { "clsact" };
    let attachment = check(&report, "attachment");
    assert!(attachment["detail"].as_str().is_some_and(|detail| detail.starts_with(how)), "{attachment}");
    assert_eq!(check(&report, "kernel")["ok"], true);
}

#[test]
#[ignore = "needs root"]
fn without_tcx_it_is_clsact() {
    let report = doctor(&["tcx"]);
    assert_eq!(report["datapath"], "ebpf", "{report}");
    let attachment = check(&report, "attachment");
    assert!(attachment["detail"].as_str().is_some_and(|detail| detail.starts_with("clsact")), "{attachment}");
}

#[test]
#[ignore = "needs root"]
fn without_ebpf_it_is_iptables_and_says_why() {
    let report = doctor(&["ebpf"]);
    assert_eq!(report["datapath"], "iptables", "{report}");
    assert!(report["reason"].as_str().is_some_and(|reason| reason.contains("eBPF")), "{report}");
}
