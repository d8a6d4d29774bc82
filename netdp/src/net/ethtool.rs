//! What a driver does with frames (`ethtool -k`), in the calling thread's network namespace.

use std::io;
use std::os::fd::AsRawFd as _;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::error::{Error, Result};
use super::link::check_name;

/// `ETHTOOL_GFLAGS` (`linux/ethtool.h`).
const GET_FLAGS: u32 = 0x25;
/// `ETH_FLAG_RXVLAN`.
const RX_VLAN: u32 = 1 << 8;
/// `ETH_FLAG_LRO`.
const LRO: u32 = 1 << 15;

/// Features of a driver that an XDP program meets.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Features {
    /// VLAN tags are taken off received frames.
    pub strips_vlan: bool,
    /// Received segments are put together by the device.
    pub lro: bool,
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// The features of an interface; a driver that does not tell has none.
pub fn features(ifname: &str) -> Result<Features> {
    check_name(ifname)?;
    let flags = flags(ifname)
        .or_else(|error| if error.raw_os_error() == Some(libc::EOPNOTSUPP) { Ok(0) } else { Err(error) })
        .map_err(Error::system(|| format!("asking for the features of {ifname}")))?;
    Ok(Features { strips_vlan: flags & RX_VLAN != 0, lro: flags & LRO != 0 })
}

/// The name's length has been checked.
fn flags(ifname: &str) -> io::Result<u32> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let mut value = Value { command: GET_FLAGS, data: 0 };
    // SAFETY: plain data, for which zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(ifname.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_data = (&raw mut value).cast();
    // SAFETY: SIOCETHTOOL takes a struct ifreq that points to what the command wants: a struct ethtool_value.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL, &raw mut request) };
    if result == 0 { Ok(value.data) } else { Err(io::Error::last_os_error()) }
}
