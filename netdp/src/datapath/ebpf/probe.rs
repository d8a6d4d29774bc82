//! What this kernel and host offer the datapath, found out by trying.

use std::fs;
use std::path::Path;

use aya::programs::ProgramInfo;

use super::super::select::Feature;
use super::super::{Error, Firewall, XdpMode};
use super::attachment::Attachment;
use super::object::{self, OpenOptions};
use super::{Ebpf, TCX};
use crate::output;

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

/// Tries everything that the kernel is not said to be without; changes nothing. What an instance has loaded need not be
/// tried: that takes seconds.
pub fn probe(instance: &str, without: &[Feature]) -> Vec<Probe> {
    let mut probes = if without.contains(&Feature::Ebpf) {
        vec![Probe { name: "programs", ok: false, detail: "not tried (--without ebpf)".to_owned() }]
    } else if Ebpf::exists(instance) {
        in_use(&object::layout_dir(instance))
    } else {
        programs(without.contains(&Feature::Tcx))
    };
    probes.extend([bpffs(), cgroup2(), jit()]);
    probes
}

/// Whether the kernel takes the programs, and how they can be attached.
fn programs(without_tcx: bool) -> Vec<Probe> {
    const SMALL: OpenOptions = OpenOptions {
        flows_max: Some(1024),
        without_tcx: false,
        firewall: Firewall::Bypass,
        xdp: XdpMode::Off,
    };
    match object::load(&SMALL) {
        Ok(mut object) => {
            let instructions =
                object.programs_mut().map(|(name, program)| verified(name, program.info().ok()));
            let detail = format!("load; verified instructions: {}", output::joined(instructions));
            let found = object::find_attachment(&mut object, without_tcx);
            vec![Probe { name: "programs", ok: true, detail }, attachment(&found)]
        }
        Err(error) => vec![Probe { name: "programs", ok: false, detail: error.to_string() }],
    }
}

/// The same of an instance's datapath that is there, by its pins.
fn in_use(dir: &Path) -> Vec<Probe> {
    let programs = fs::read_dir(dir.join("programs")).into_iter().flatten().flatten();
    let instructions = programs.map(|program| {
        verified(&program.file_name().to_string_lossy(), ProgramInfo::from_pin(program.path()).ok())
    });
    let detail = format!("in use; verified instructions: {}", output::joined(instructions));
    let found = if dir.join(TCX).exists() { Attachment::Tcx } else { Attachment::Clsact };
    vec![Probe { name: "programs", ok: true, detail }, attachment(&Ok(found))]
}

/// A program, and what the verifier had to look at, where the kernel says so.
fn verified(name: &str, info: Option<ProgramInfo>) -> String {
    let count = info.and_then(|info| info.verified_instruction_count());
    count.map_or_else(|| name.to_owned(), |count| format!("{name} {count}"))
}

fn attachment(found: &Result<Attachment, Error>) -> Probe {
    let detail = match found {
        Ok(Attachment::Tcx) => "TCX".to_owned(),
        Ok(Attachment::Clsact) => "clsact: this kernel has no TCX (Linux 6.6)".to_owned(),
        Err(error) => error.to_string(),
    };
    Probe { name: "attachment", ok: found.is_ok(), detail }
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
    let value = fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").unwrap_or_default();
    match value.trim() {
        "0" => Probe { name: "jit", ok: false, detail: "off: packets cost several times more".to_owned() },
        "" => Probe { name: "jit", ok: true, detail: "always on".to_owned() },
        _ => Probe { name: "jit", ok: true, detail: "on".to_owned() },
    }
}
