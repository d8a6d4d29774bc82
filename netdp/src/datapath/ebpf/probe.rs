//! What this kernel and host offer the datapath, found out by trying.

use aya::util::KernelVersion;

use super::object::{self, OpenOptions};

/// One thing that the datapath needs or uses.
#[derive(Clone, Debug)]
pub struct Probe {
    /// Its name.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found, or what does not work without it.
    pub detail: String,
}

/// Tries everything; changes nothing.
pub fn probe() -> Vec<Probe> {
    vec![programs(), tcx(), bpffs(), cgroup2(), jit()]
}

fn programs() -> Probe {
    const SMALL: OpenOptions = OpenOptions { flows_max: Some(1024) };
    match object::load(&SMALL) {
        Ok(mut object) => {
            let instructions: Vec<String> = object
                .programs_mut()
                .map(|(name, program)| {
                    let count = program.info().ok().and_then(|info| info.verified_instruction_count());
                    count.map_or_else(|| name.to_owned(), |count| format!("{name} {count}"))
                })
                .collect();
            Probe {
                name: "programs",
                ok: true,
                detail: format!("load; verified instructions: {}", instructions.join(", ")),
            }
        }
        Err(error) => Probe { name: "programs", ok: false, detail: error.to_string() },
    }
}

fn tcx() -> Probe {
    let ok = KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(6, 6, 0));
    let detail = if ok { "available" } else { "needs Linux 6.6" };
    Probe { name: "tcx", ok, detail: detail.to_owned() }
}

fn bpffs() -> Probe {
    match crate::net::bpffs::is_mounted() {
        Ok(true) => Probe { name: "bpffs", ok: true, detail: "mounted at /sys/fs/bpf".to_owned() },
        Ok(false) => {
            Probe { name: "bpffs", ok: true, detail: "not mounted; the first command mounts it".to_owned() }
        }
        Err(error) => Probe { name: "bpffs", ok: false, detail: error.to_string() },
    }
}

fn cgroup2() -> Probe {
    match crate::net::cgroup::find_cgroup2() {
        Some(path) => Probe { name: "cgroup2", ok: true, detail: format!("mounted at {}", path.display()) },
        None => Probe {
            name: "cgroup2",
            ok: false,
            detail:
                "not mounted: the host itself does not reach published ports, and its processes can bind them"
                    .to_owned(),
        },
    }
}

fn jit() -> Probe {
    let value = std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    match value.trim() {
        "0" => Probe { name: "jit", ok: false, detail: "off: packets cost several times more".to_owned() },
        "" => Probe { name: "jit", ok: true, detail: "always on".to_owned() },
        _ => Probe { name: "jit", ok: true, detail: "on".to_owned() },
    }
}
