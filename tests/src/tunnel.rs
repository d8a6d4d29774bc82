//! A tunnel: tun devices in two namespaces, and a thread that carries packets from each to the other. What they send
//! and receive begins with its IP header.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::netns::Netns;

/// Longer than any packet here.
const LONGEST: usize = 1 << 16;

nix::ioctl_write_ptr_bad!(
    /// Makes a tun device, which is there for as long as its file is open.
    tun_set_interface,
    libc::TUNSETIFF,
    libc::ifreq
);

/// Two connected devices. Dropping it removes them.
#[derive(Debug)]
pub struct Tunnel {
    devices: Arc<[File; 2]>,
    stop: Arc<EventFd>,
    carrier: Option<JoinHandle<()>>,
}

impl Tunnel {
    /// Makes a device of that name in each of the namespaces; both are up.
    #[track_caller]
    pub fn connect(ends: [(&Netns, &str); 2]) -> Self {
        let devices = ends.map(|(netns, name)| {
            let device = netns.enter(|| open(name));
            let device =
                device.unwrap_or_else(|error| panic!("a tun device {name} in {}: {error}", netns.name()));
            netns.sh(&format!("ip link set {name} up"));
            device
        });
        let stop = EventFd::from_flags(EfdFlags::EFD_CLOEXEC).expect("an eventfd");
        let (devices, stop) = (Arc::new(devices), Arc::new(stop));
        let (carried, stopped) = (Arc::clone(&devices), Arc::clone(&stop));
        let carrier = std::thread::spawn(move || carry(&carried, &stopped).expect("carrying packets"));
        Self { devices, stop, carrier: Some(carrier) }
    }

    /// Lets the first device receive a packet, as if the second one had sent it.
    #[track_caller]
    pub fn deliver(&self, packet: &[u8]) {
        let [mut device, _] = self.devices.each_ref();
        assert_eq!(device.write(packet).expect("a device that is up"), packet.len());
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.stop.write(1).expect("stopping the tunnel");
        let ended = self.carrier.take().map(JoinHandle::join);
        assert!(!matches!(ended, Some(Err(_))) || std::thread::panicking(), "the tunnel failed");
    }
}

fn open(name: &str) -> io::Result<File> {
    let device =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    // SAFETY: plain data, for which zeros are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    let flags = libc::IFF_TUN | libc::IFF_NO_PI;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: a request that lives, with a name that ends within it.
    unsafe { tun_set_interface(device.as_raw_fd(), &raw const request) }?;
    Ok(device)
}

/// Until it is told to stop.
fn carry(devices: &[File; 2], stop: &EventFd) -> io::Result<()> {
    let mut packet = vec![0; LONGEST];
    loop {
        let [a, b] = devices.each_ref().map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN));
        let mut ready = [a, b, PollFd::new(stop.as_fd(), PollFlags::POLLIN)];
        match poll(&mut ready, PollTimeout::NONE) {
            Err(nix::errno::Errno::EINTR) => continue,
            polled => polled?,
        };
        let [a, b, stopped] = ready.map(|fd| fd.any().unwrap_or(false));
        if stopped {
            return Ok(());
        }
        for (is_ready, [from, to]) in [(a, [0, 1]), (b, [1, 0])] {
            if is_ready {
                carry_all(&devices[from], &devices[to], &mut packet)?;
            }
        }
    }
}

/// Whatever one of them has sent.
fn carry_all(mut from: &File, mut to: &File, packet: &mut [u8]) -> io::Result<()> {
    loop {
        let length = match from.read(packet) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            read => read?,
        };
        match to.write(&packet[..length]) {
            // A device that is down takes nothing, as a cable that nobody has plugged in.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
            written => assert_eq!(written?, length, "packets are whole"),
        }
    }
}
