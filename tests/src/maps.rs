//! The raw content of pinned BPF maps: keys and values as bytes, whatever their types.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use aya::maps::{MapInfo, MapType};

/// `enum bpf_cmd` (`linux/bpf.h`).
const BPF_MAP_LOOKUP_ELEM: libc::c_int = 1;
/// The next key, or the first.
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
/// Opens a pin.
const BPF_OBJ_GET: libc::c_int = 7;

/// `union bpf_attr` for element commands; 64-bit fields are aligned as in the kernel's.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value_or_next: u64,
    flags: u64,
}

/// `union bpf_attr` for `BPF_OBJ_GET`.
#[repr(C)]
struct Open {
    path: u64,
    fd: u32,
    flags: u32,
}

/// Whether commands may fill a map. The programs' own have one value for each CPU, or forget what is old.
pub fn is_of_commands(pin: &Path) -> bool {
    let kind = MapInfo::from_pin(pin).and_then(|info| info.map_type());
    matches!(kind, Ok(MapType::Array | MapType::Hash | MapType::LpmTrie | MapType::ProgramArray))
}

/// Every entry of a map that [`is_of_commands`] and isn't all zero, as `key value` in hex; sorted.
pub fn dump(pin: &Path) -> Vec<String> {
    let info = MapInfo::from_pin(pin).unwrap_or_else(|error| panic!("{}: {error}", pin.display()));
    let map = open(pin).unwrap_or_else(|error| panic!("opening {}: {error}", pin.display()));
    let mut value = vec![0u8; usize::try_from(info.value_size()).expect("small")];
    let mut key = vec![0u8; usize::try_from(info.key_size()).expect("small")];
    let mut previous: Option<Vec<u8>> = None;
    let mut entries = Vec::new();
    while element(BPF_MAP_GET_NEXT_KEY, &map, previous.as_deref(), &mut key) {
        if element(BPF_MAP_LOOKUP_ELEM, &map, Some(&key), &mut value) && value.iter().any(|byte| *byte != 0) {
            entries.push(format!("{} {}", hex(&key), hex(&value)));
        }
        previous = Some(key.clone());
    }
    entries.sort_unstable();
    entries
}

fn open(pin: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(pin.as_os_str().as_bytes())?;
    let attr = Open { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    // SAFETY: the path ends with a zero and lives as long as the call; the size is the structure's.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attr, size_of::<Open>()) };
    let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Looks up a value or the next key; false if there is none.
fn element(command: libc::c_int, map: &OwnedFd, key: Option<&[u8]>, out: &mut [u8]) -> bool {
    let attr = Element {
        map: map.as_raw_fd().cast_unsigned(),
        pad: 0,
        key: key.map_or(0, |key| key.as_ptr() as u64),
        value_or_next: out.as_mut_ptr() as u64,
        flags: 0,
    };
    // SAFETY: key and out are as long as the map's keys and values; the size is the structure's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attr, size_of::<Element>()) };
    result == 0
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
