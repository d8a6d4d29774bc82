//! What was measured on.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// A machine and what runs on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Seconds since 1970.
    pub time: u64,
    /// The CPU's name.
    pub cpu: String,
    /// How many of them.
    pub cpus: usize,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// The kernel's release.
    pub kernel: String,
    /// netdp's version.
    pub netdp: String,
    /// Whether this netdp is built with optimisations: its own load is slower without.
    pub optimised: bool,
    /// Which iptables, if any.
    pub iptables: Option<String>,
    /// Which nft, if any.
    pub nft: Option<String>,
    /// `net.core.bpf_jit_enable`.
    pub bpf_jit: String,
    /// `net.netfilter.nf_conntrack_max`, if netfilter tracks at all.
    pub conntrack_max: Option<u64>,
    /// What the interfaces do for the CPU.
    pub offloads: String,
    /// Processes that were runnable for the last minute on average, before the run.
    pub load_average: String,
}

impl Machine {
    /// This one.
    pub(super) fn this() -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Self {
            time,
            cpu: field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            memory_mib: memory_mib(),
            kernel: read("/proc/sys/kernel/osrelease").unwrap_or_default(),
            netdp: env!("CARGO_PKG_VERSION").into(),
            optimised: !cfg!(debug_assertions),
            iptables: version("iptables"),
            nft: version("nft"),
            bpf_jit: read("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default(),
            conntrack_max: conntrack_max(),
            offloads: "the kernel's defaults for veth: checksums and segmentation left to the receiver"
                .into(),
            load_average: first_word("/proc/loadavg"),
        }
    }

    /// Whether little else ran before: what does takes the CPU from load and competitors alike.
    fn was_idle(&self) -> bool {
        /// A build leaves more than this for minutes.
        const IDLE: f64 = 0.5;
        self.load_average.parse().is_ok_and(|load: f64| load < IDLE)
    }

    /// What a table says about it.
    pub fn lines(&self) -> Vec<String> {
        let tool = |name: &str, version: &Option<String>| match version {
            Some(version) => version.clone(),
            None => format!("no {name}"),
        };
        let build = if self.optimised { "" } else { " (a debug build: its own load is slow)" };
        vec![
            format!("{} x {}, {} MiB, kernel {}", self.cpus, self.cpu, self.memory_mib, self.kernel),
            format!(
                "netdp {}{build}, {}, {}, BPF JIT {}, conntrack max {}, load average {}{}",
                self.netdp,
                tool("iptables", &self.iptables),
                tool("nft", &self.nft),
                if self.bpf_jit == "0" { "off" } else { "on" },
                self.conntrack_max.map_or_else(|| "-".into(), |max| max.to_string()),
                self.load_average,
                if self.was_idle() {
                    ""
                } else {
                    " (SOMETHING ELSE WAS RUNNING: measure again on a quiet machine)"
                },
            ),
            format!("offloads: {}", self.offloads),
        ]
    }
}

/// How many connections netfilter tracks at most, in all namespaces together.
pub(super) fn conntrack_max() -> Option<u64> {
    read("/proc/sys/net/netfilter/nf_conntrack_max")?.parse().ok()
}

fn memory_mib() -> u64 {
    let total = field("/proc/meminfo", "MemTotal");
    let kib = total.and_then(|total| total.trim_end_matches(" kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next()?.trim().to_owned())
}

fn read(path: &str) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

fn first_word(path: &str) -> String {
    read(path).and_then(|text| text.split_whitespace().next().map(ToOwned::to_owned)).unwrap_or_default()
}

/// `NAME: VALUE` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read(path)?;
    let (_, value) =
        text.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))?;
    Some(value.trim().to_owned())
}
