//! Loading and pinning: all of it appears in one step, or nothing does.

use std::fs;
use std::path::{Path, PathBuf};

use aya::programs::{CgroupAttachMode, CgroupSockAddr, Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf as Object, EbpfLoader, include_bytes_aligned};
use netdp_common::flow::{Config, TimeoutSet, Timeouts};

use super::super::{Error, Firewall, XdpMode};
use super::attachment::{self, Attachment};
use super::{FILTERS, TCX, clsact, damage, doing, release, step, xdp};

/// The layout of maps and keys. A build with another one does not touch what is pinned.
const LAYOUT: &str = "v1";

/// Where netdp pins.
const ROOT: &str = "/sys/fs/bpf/netdp";

/// The object, built by `build.rs`.
static OBJECT: &[u8] = include_bytes_aligned!(concat!(env!("OUT_DIR"), "/netdp-ebpf"));

/// The TC programs that others continue in, in the order of their indices in the map `PROGRAMS`: IPv4's, then IPv6's.
/// The hooks' programs are among them.
const CONTINUATIONS: [&str; 36] = [
    "from_container",
    "open_from_container",
    "from_world",
    "open_from_world",
    "icmp_error",
    "refuse",
    "to_world",
    "fragment",
    "from_host",
    "open_from_host",
    "wait",
    "closing",
    "claim",
    "to_world_bare",
    "from_host_bare",
    "open_from_host_bare",
    "closing_bare",
    "to_container",
    "from_container_v6",
    "open_from_container_v6",
    "from_world_v6",
    "open_from_world_v6",
    "icmp_error_v6",
    "refuse_v6",
    "to_world_v6",
    "fragment_v6",
    "from_host_v6",
    "open_from_host_v6",
    "wait_v6",
    "closing_v6",
    "claim_v6",
    "to_world_bare_v6",
    "from_host_bare_v6",
    "open_from_host_bare_v6",
    "closing_bare_v6",
    "to_container_v6",
];

/// The TC programs that none continues in: a hook's, and those that only user space runs.
const OTHERS: [&str; 3] = ["from_world_bare", "remove_flows", "remove_flows_v6"];

/// All TC programs.
pub(super) fn classifiers() -> impl Iterator<Item = &'static str> {
    CONTINUATIONS.into_iter().chain(OTHERS)
}

/// The hooks of the host's own sockets; each is attached to the root of the cgroup2 tree.
pub(super) const SOCKET_HOOKS: [&str; 10] = [
    "connect4",
    "connect6",
    "sendmsg4",
    "sendmsg6",
    "recvmsg4",
    "recvmsg6",
    "getpeername4",
    "getpeername6",
    "bind4",
    "bind6",
];

/// What an instance's first command decides.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Flows the table can hold; none: from the machine's memory, as `nf_conntrack_max` is.
    pub flows_max: Option<u32>,
    /// Attach as on a kernel without TCX.
    pub without_tcx: bool,
    /// Who decides about translated packets.
    pub firewall: Firewall,
    /// Whether uplinks carry the XDP program; every command says so.
    pub xdp: XdpMode,
}

/// What the kernel said when it did not take the programs: the cause of [`super::Ebpf::open`]'s error in that case.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(String);

fn unsupported(error: Error) -> Error {
    let why = error.to_string();
    let why = why.strip_prefix(&error.doing).map_or(why.as_str(), |why| why.trim_start_matches(": "));
    Error { cause: Unsupported(why.to_owned()).into(), doing: error.doing }
}

/// Where an instance's pins are.
fn instance_dir(instance: &str) -> PathBuf {
    Path::new(ROOT).join(instance)
}

/// Where the instances that there are pin their programs, whatever their layout.
pub(super) fn pinned_programs() -> Vec<PathBuf> {
    let below = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let layouts = below(Path::new(ROOT)).flat_map(|instance| below(&instance));
    layouts.map(|layout| layout.join("programs")).filter(|programs| programs.exists()).collect()
}

/// Where this layout's pins of an instance are.
pub(super) fn layout_dir(instance: &str) -> PathBuf {
    instance_dir(instance).join(LAYOUT)
}

/// Opens or creates; returns the directory of the pins and whether it was created.
pub(super) fn open(instance: &str, options: &OpenOptions) -> Result<(PathBuf, bool), Error> {
    let instance_dir = instance_dir(instance);
    let dir = instance_dir.join(LAYOUT);
    if dir.exists() {
        if damage::missing_pins(&dir)?.is_empty() {
            return Ok((dir, false));
        }
        // Half a datapath is none: what is left of it goes first.
        remove(&dir)?;
    }
    refuse_other_layouts(&instance_dir)?;
    let mut object = load(options).map_err(unsupported)?;
    let attachment = find_attachment(&mut object, options.without_tcx).map_err(unsupported)?;
    // Pinned under another name first: the rename is the moment when the datapath exists.
    let draft = instance_dir.join(format!("draft-{}", std::process::id()));
    let result = pin_all(&mut object, attachment, &draft).and_then(|()| {
        step("rename the draft")?;
        fs::rename(&draft, &dir).map_err(|e| doing(format!("renaming {} to {LAYOUT}", draft.display()), e))
    });
    if let Err(error) = result {
        let cleaned = remove_tree(&draft).and_then(|()| remove_if_empty(&instance_dir));
        return Err(cleaned.err().unwrap_or(error));
    }
    Ok((dir, true))
}

/// Loads all programs into the kernel without attaching or pinning them.
pub(super) fn load(options: &OpenOptions) -> Result<Object, Error> {
    if OBJECT.is_empty() {
        return Err(doing(
            "loading the eBPF programs",
            std::io::Error::other("this binary was built without them (AYA_BUILD_SKIP)"),
        ));
    }
    let flows = options.flows_max.unwrap_or_else(default_flows_max);
    let entries = flows.saturating_mul(2);
    let ring_slots = entries.checked_next_power_of_two().unwrap_or(1 << 31);
    let mut object = EbpfLoader::new()
        .map_max_entries("FLOWS_V4", entries)
        .map_max_entries("RING_V4", ring_slots)
        .map_max_entries("FLOWS_V6", entries)
        .map_max_entries("RING_V6", ring_slots)
        .load(OBJECT)
        .map_err(|e| doing("loading the eBPF object", e))?;
    configure(&mut object, flows, ring_slots, options.firewall)?;
    for name in classifiers() {
        let program: &mut SchedClassifier = program(&mut object, name)?;
        program.load().map_err(|e| doing(format!("loading the program {name}"), e))?;
    }
    link_continuations(&mut object)?;
    for name in xdp::PROGRAMS {
        let program: &mut Xdp = program(&mut object, name)?;
        program.load().map_err(|e| doing(format!("loading the program {name}"), e))?;
    }
    for name in SOCKET_HOOKS {
        let program: &mut CgroupSockAddr = program(&mut object, name)?;
        program.load().map_err(|e| doing(format!("loading the program {name}"), e))?;
    }
    Ok(object)
}

fn program<'a, P>(object: &'a mut Object, name: &str) -> Result<&'a mut P, Error>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let missing =
        || doing(format!("finding the program {name}"), std::io::Error::other("it is not in the object"));
    let program = object.program_mut(name).ok_or_else(missing)?;
    program.try_into().map_err(|e| doing(format!("finding the program {name}"), e))
}

fn configure(object: &mut Object, flows: u32, ring_slots: u32, firewall: Firewall) -> Result<(), Error> {
    let mut secret = [0u8; 16];
    fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut secret))
        .map_err(|e| doing("reading the kernel's random pool", e))?;
    let config = Config {
        secret: bytemuck::cast(secret),
        host_netns_cookie: netns_cookie().map_err(|e| doing("reading the network namespace's cookie", e))?,
        ring_slots,
        trace: 0,
        flows_max: flows,
        honours_firewall: u32::from(firewall == Firewall::Honour),
    };
    set_all(object, "CONFIG", config)?;
    // Also those that no network has: a flow that outlives its network for a moment lives by them.
    set_all(object, "TIMEOUTS", TimeoutSet::of(&Timeouts::DEFAULT))
}

/// Sets all elements of an array.
fn set_all<V: aya::Pod>(object: &mut Object, name: &str, value: V) -> Result<(), Error> {
    let missing =
        || doing(format!("finding the map {name}"), std::io::Error::other("it is not in the object"));
    let map = object.map_mut(name).ok_or_else(missing)?;
    let set = || {
        let mut array = aya::maps::Array::<_, V>::try_from(map)?;
        (0..array.len()).try_for_each(|index| array.set(index, value, 0))
    };
    set().map_err(|e| doing("configuring the programs", e))
}

/// Enters the programs that continue others; the pinned map keeps them.
fn link_continuations(object: &mut Object) -> Result<(), Error> {
    let what = "linking the programs";
    for (index, name) in (0u32..).zip(CONTINUATIONS) {
        let program: &mut SchedClassifier = program(object, name)?;
        let fd = program.fd().map_err(|e| doing(what, e))?.try_clone().map_err(|e| doing(what, e))?;
        let map = object
            .map_mut("PROGRAMS")
            .ok_or_else(|| doing(what, std::io::Error::other("the object has no map PROGRAMS")))?;
        aya::maps::ProgramArray::try_from(map)
            .and_then(|mut programs| programs.set(index, &fd, 0))
            .map_err(|e| doing(what, e))?;
    }
    Ok(())
}

/// How the programs can be attached here.
pub(super) fn find_attachment(object: &mut Object, without_tcx: bool) -> Result<Attachment, Error> {
    attachment::find(program(object, CONTINUATIONS[0])?, without_tcx)
}

fn pin_all(object: &mut Object, attachment: Attachment, dir: &Path) -> Result<(), Error> {
    let hooks = if attachment == Attachment::Tcx { TCX } else { FILTERS };
    for sub in ["maps", "programs", "links", hooks, xdp::LINKS] {
        let path = dir.join(sub);
        step("create a directory of pins")?;
        fs::create_dir_all(&path).map_err(|e| doing(format!("creating {}", path.display()), e))?;
    }
    for (name, map) in object.maps() {
        // The compiler's own sections (.rodata, .bss) live as long as the programs that use them.
        if !name.starts_with('.') {
            step("pin a map")?;
            map.pin(dir.join("maps").join(name)).map_err(|e| doing(format!("pinning the map {name}"), e))?;
        }
    }
    for (name, program) in object.programs_mut() {
        step("pin a program")?;
        program
            .pin(dir.join("programs").join(name))
            .map_err(|e| doing(format!("pinning the program {name}"), e))?;
    }
    hook_sockets(object, &dir.join("links"))
}

/// What does not work without them.
pub(super) const WITHOUT_SOCKET_HOOKS: &str = "the host itself does not reach published ports, and its processes can bind them: the socket programs are attached to no \
     cgroup2 tree (netdp doctor)";

/// Whether an instance has them: there may have been no cgroup2 tree when it began.
pub(super) fn has_socket_hooks(dir: &Path) -> bool {
    SOCKET_HOOKS.iter().any(|name| dir.join("links").join(name).exists())
}

/// Attaches the socket hooks to the root of the cgroup2 tree. Where there is none, or none that takes programs, the
/// instance does without: `doctor` says so, and every publish.
fn hook_sockets(object: &mut Object, links: &Path) -> Result<(), Error> {
    let Some(root) = crate::net::cgroup::find_cgroup2() else { return Ok(()) };
    let cgroup = fs::File::open(&root).map_err(|e| doing(format!("opening {}", root.display()), e))?;
    for name in SOCKET_HOOKS {
        let what = || format!("attaching {name} to {}", root.display());
        let program: &mut CgroupSockAddr = program(object, name)?;
        // No flags: a link always leaves room for others' programs, and link_create knows no such flag.
        step("attach a socket hook")?;
        let link = match program.attach(&cgroup, CgroupAttachMode::Single) {
            // A tree that belongs to somebody else.
            Err(ProgramError::SyscallError(error)) if name == SOCKET_HOOKS[0] => {
                tracing::warn!("{}: {}", what(), error.io_error);
                return Ok(());
            }
            attached => attached.map_err(|e| doing(what(), e))?,
        };
        let link = program.take_link(link).map_err(|e| doing(what(), e))?;
        let link: aya::programs::links::FdLink = link.try_into().map_err(|e| doing(what(), e))?;
        link.pin(links.join(name)).map_err(|e| doing(what(), e))?;
    }
    Ok(())
}

/// Removes an instance's pins, and with them programs, maps and links.
pub(super) fn remove(dir: &Path) -> Result<(), Error> {
    // What is attached first: no packet meets a program whose maps are half gone.
    for sub in ["links", TCX, FILTERS, xdp::LINKS] {
        for hook in fs::read_dir(dir.join(sub)).into_iter().flatten().flatten() {
            release(&hook.path())?;
        }
    }
    if !dir.join(TCX).exists() {
        clsact::sweep_all(&dir.join("programs"))?;
    }
    remove_tree(dir)?;
    if let Some(instance) = dir.parent() {
        remove_if_empty(instance)?;
    }
    Ok(())
}

fn remove_tree(dir: &Path) -> Result<(), Error> {
    step("remove pins")?;
    match fs::remove_dir_all(dir) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(doing(format!("removing {}", dir.display()), e)),
    }
}

fn remove_if_empty(dir: &Path) -> Result<(), Error> {
    match fs::remove_dir(dir) {
        Ok(()) => Ok(()),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOTEMPTY | libc::ENOENT)) => Ok(()),
        Err(e) => Err(doing(format!("removing {}", dir.display()), e)),
    }
}

fn refuse_other_layouts(instance_dir: &Path) -> Result<(), Error> {
    let Ok(entries) = fs::read_dir(instance_dir) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Some(pid) = name.strip_prefix("draft-") {
            // Of a command that was killed while it loaded.
            if !Path::new("/proc").join(pid).exists() {
                remove_tree(&entry.path())?;
            }
        } else {
            return Err(doing(
                format!("opening {}", instance_dir.display()),
                std::io::Error::other(format!(
                    "another version of netdp pinned layout {name} there, this one has {LAYOUT}: \
                     run that version's `netdp down` first"
                )),
            ));
        }
    }
    Ok(())
}

/// As the kernel sizes nf_conntrack (Documentation/networking/nf_conntrack-sysctl.rst): one flow for each 16 KiB
/// and pointer size, 65 536 above 1 GiB, 262 144 above 4 GiB.
fn default_flows_max() -> u32 {
    const GIB: u64 = 1 << 30;
    let memory = nix::sys::sysinfo::sysinfo().map_or(GIB, |info| info.ram_total());
    match memory {
        m if m > 4 * GIB => 262_144,
        m if m > GIB => 65_536,
        m => u32::try_from(m / 16_384 / 8).unwrap_or(65_536).max(1024),
    }
}

/// The cookie of the calling thread's network namespace (SO_NETNS_COOKIE, Linux 5.14).
fn netns_cookie() -> std::io::Result<u64> {
    use std::os::fd::AsRawFd as _;
    let socket =
        std::net::UdpSocket::bind(("127.0.0.1", 0)).or_else(|_| std::net::UdpSocket::bind(("0.0.0.0", 0)))?;
    let mut cookie = 0u64;
    let mut len = libc::socklen_t::try_from(size_of::<u64>()).unwrap_or(8);
    // SAFETY: the pointers are to a u64 and its length, as the option wants.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result == 0 { Ok(cookie) } else { Err(std::io::Error::last_os_error()) }
}
