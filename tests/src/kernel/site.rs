//! A network namespace with the interfaces that the programs' helpers ask the kernel about.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use netdp::net::NetNs;
use netdp_common::family::{V4, V6};

use super::plan::Plan;

/// The bridge's MAC.
pub const BRIDGE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// The uplink's MAC.
pub const UPLINK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The endpoints' MACs, by number.
pub const ENDPOINT_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 1, 0], [2, 0, 0, 0, 1, 1]];
/// The host veths' MACs, by number.
pub const VETH_MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 2, 0], [2, 0, 0, 0, 2, 1]];
/// The default gateway's MAC.
pub const NEXT_HOP_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Of every interface, bytes.
pub const MTU: u16 = 1500;

/// The interfaces' numbers.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// The way out.
    pub uplink: u32,
    /// The network's bridge.
    pub bridge: u32,
    /// The endpoints' host veths.
    pub endpoints: [u32; 2],
}

/// Runs `work` on a thread in a new network namespace with a [`Site`]; both are gone when it returns.
pub fn in_new_site<T: Send>(work: impl FnOnce(&Site) -> T + Send) -> T {
    in_new_netns(|| work(&Site::make()))
}

/// Runs `work` on a thread in a new network namespace, which is gone when it returns.
pub(super) fn in_new_netns<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let ns = NetNs::create_anonymous().expect("a network namespace");
    let outcome = ns.run(|| {
        let here = fs::metadata("/proc/thread-self/ns/net").expect("this thread's namespace").ino();
        let machine = fs::metadata("/proc/self/ns/net").expect("this process's namespace").ino();
        assert!(here == ns.id().inode && here != machine, "this thread is not in the test's own namespace");
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(work))
    });
    match outcome.expect("entering the network namespace") {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

impl Site {
    /// In the calling thread's namespace. Peers stay in it too: nothing travels here.
    fn make() -> Self {
        ip("link set lo up");
        ip(&format!("link add br0 address {} type bridge", text(BRIDGE_MAC)));
        ip(&format!("link add up0 address {} type veth peer name up0p", text(UPLINK_MAC)));
        for (number, mac) in VETH_MACS.iter().enumerate() {
            ip(&format!("link add ep{number} address {} type veth peer name ep{number}p", text(*mac)));
            ip(&format!("link set ep{number} master br0 up"));
            ip(&format!("link set ep{number}p up"));
        }
        for link in ["br0", "up0p", "up0"] {
            ip(&format!("link set {link} up"));
        }
        address::<V4>();
        address::<V6>();
        Self { uplink: index("up0"), bridge: index("br0"), endpoints: [index("ep0"), index("ep1")] }
    }

    /// The MAC of an interface, as it was made.
    pub fn mac(&self, ifindex: u32) -> [u8; 6] {
        if ifindex == self.uplink {
            return UPLINK_MAC;
        }
        let endpoint = self.endpoints.iter().position(|own| *own == ifindex);
        endpoint.map_or(BRIDGE_MAC, |number| VETH_MACS[number])
    }
}

fn address<F: Plan>() {
    for (addr, link) in [(F::GATEWAY, "br0"), (F::HOST, "up0")] {
        ip(&format!("address add {}/{} dev {link} nodad", F::ip(addr), F::PREFIX));
    }
    ip(&format!("route add default via {} dev up0", F::ip(F::NEXT_HOP)));
    let (next_hop, mac) = (F::ip(F::NEXT_HOP), text(NEXT_HOP_MAC));
    ip(&format!("neighbour add {next_hop} lladdr {mac} dev up0 nud permanent"));
    let family = if F::ip(F::HOST).is_ipv4() { "ipv4" } else { "ipv6" };
    fs::write(format!("/proc/sys/net/{family}/conf/br0/forwarding"), "1").expect("forwarding of br0");
}

pub(super) fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("running ip");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {stderr}");
}

fn index(name: &str) -> u32 {
    nix::net::if_::if_nametoindex(name).expect("an interface that was just made")
}

pub(super) fn text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
