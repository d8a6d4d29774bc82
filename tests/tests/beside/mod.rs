//! A TC program of somebody else's: it lets every packet go on, and the kernel counts how often it ran.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::tc::TcAttachOptions;
use aya::programs::{LinkOrder, ProgramInfo, SchedClassifier, TcAttachType};
use netdp_tests::lab::{Lab, UPLINK};

/// `enum bpf_cmd` (`linux/bpf.h`).
const BPF_PROG_LOAD: libc::c_int = 5;
/// Pins.
const BPF_OBJ_PIN: libc::c_int = 6;
/// `BPF_PROG_TYPE_SCHED_CLS`.
const SCHED_CLS: u32 = 3;

/// `r0 = -1` (TCX_NEXT, TC_ACT_UNSPEC), `exit`, as `struct bpf_insn`.
const LET_PASS: [u64; 2] = [0xffff_ffff_0000_00b7, 0x95];

/// The start of `union bpf_attr` for `BPF_PROG_LOAD`.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log: [u64; 2],
    version: u32,
    flags: u32,
    name: [u8; 16],
}

/// `union bpf_attr` for `BPF_OBJ_PIN`.
#[repr(C)]
struct Pin {
    path: u64,
    fd: u32,
    flags: u32,
}

/// A program, pinned; dropping it unpins.
pub(crate) struct Foreign {
    pin: PathBuf,
    id: u32,
    _fd: OwnedFd,
}

impl Foreign {
    /// Loads and pins it.
    pub(crate) fn load(lab: &Lab, name: &str) -> Self {
        let mut attr = Load {
            kind: SCHED_CLS,
            count: 2,
            instructions: LET_PASS.as_ptr() as u64,
            license: c"GPL".as_ptr() as u64,
            log: [0; 2],
            version: 0,
            flags: 0,
            name: [0; 16],
        };
        attr.name[..name.len()].copy_from_slice(name.as_bytes());
        let fd = bpf(BPF_PROG_LOAD, &attr).expect("loading the foreign program");
        // SAFETY: the kernel has just made this descriptor for us.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let pin = Path::new("/sys/fs/bpf").join(format!("{}-{name}", lab.id));
        let path = CString::new(pin.as_os_str().as_bytes()).expect("a path");
        let number = fd.as_raw_fd().cast_unsigned();
        bpf(BPF_OBJ_PIN, &Pin { path: path.as_ptr() as u64, fd: number, flags: 0 }).expect("pinning it");
        let id = ProgramInfo::from_pin(&pin).expect("its information").id();
        Self { pin, id, _fd: fd }
    }

    /// Its pin.
    pub(crate) fn pin(&self) -> &Path {
        &self.pin
    }

    /// Its identifier.
    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    /// Attaches it to the uplink by TCX, at the end; it stays as long as the result.
    pub(crate) fn attach(&self, lab: &Lab, side: TcAttachType) -> FdLink {
        lab.host.enter(|| {
            let mut program = SchedClassifier::from_pin(&self.pin).expect("opening the foreign program");
            let order = TcAttachOptions::TcxOrder(LinkOrder::default());
            let id = program.attach_with_options(UPLINK, side, order).expect("attaching it");
            program.take_link(id).expect("its link").try_into().expect("a TCX link")
        })
    }

    /// How often it ran since statistics were switched on.
    pub(crate) fn runs(&self) -> u64 {
        ProgramInfo::from_pin(&self.pin).expect("its information").run_count()
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        // It may be gone with its file system.
        let _ = fs::remove_file(&self.pin);
    }
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<RawFd> {
    // SAFETY: what the attributes point to lives as long as the call; the size is the structure's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    RawFd::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
}
