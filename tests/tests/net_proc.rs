//! The parts of `netdp::net` that read or mount files, in namespaces (network and mount) of the test's own thread.

use std::fs;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::thread;

use netdp::net::{Error, Mac, Net, NetNs, bpffs, cgroup, ports, sockets, sysctl};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use isolation::{in_new_netns, new_netns};

mod isolation;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// Runs `test` on a thread with a mount namespace of its own, with a file system of `kind` at `dir`.
fn with_own_mount(kind: &str, dir: &str, test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let body = || {
            unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>).expect("private mounts");
            mount(Some(kind), dir, Some(kind), MsFlags::empty(), None::<&str>).expect("a file system");
            test();
        };
        if let Err(panic) = scope.spawn(body).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Runs `test` in a network namespace of its own with `lo` up.
fn with_lo(test: impl FnOnce() + Send) {
    in_new_netns(|ns| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let net = Net::open(ns).expect("netlink");
            let lo = net.link("lo").await.expect("a link").expect("lo");
            net.set_up(lo.index).await.expect("lo up");
        });
        test();
    });
}

/// The mount at `dir` as this thread sees it: its line in mountinfo.
fn mountinfo(dir: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/thread-self/mountinfo").expect("mountinfo");
    text.lines().rfind(|line| line.split(' ').nth(4) == Some(dir)).map(str::to_owned)
}

#[test]
#[ignore = "needs root"]
fn named_namespaces_are_those_of_iproute2() {
    with_own_mount("tmpfs", "/run", || {
        let name = format!("ndt-{}", Mac::random_local().to_string().replace(':', ""));
        let ns = NetNs::create_named(&name).expect("a named namespace");
        let line = mountinfo("/run/netns").expect("/run/netns is a mount point");
        assert!(line.contains(" shared:"), "{line}");
        assert_eq!(NetNs::named(&name).expect("the namespace").id(), ns.id());
        assert_ne!(ns.id(), NetNs::current().expect("this one").id());
        assert!(matches!(NetNs::create_named(&name), Err(Error::NamespaceExists { .. })));
        let second = NetNs::create_named(&format!("{name}-2")).expect("another one");
        assert_ne!(second.id(), ns.id());

        let output =
            Command::new("ip").args(["netns", "exec", &name, "readlink", "/proc/self/ns/net"]).output();
        let output = output.expect("iproute2");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim_end(), ns.id().to_string());

        let theirs = format!("{name}-3");
        assert!(Command::new("ip").args(["netns", "add", &theirs]).status().expect("iproute2").success());
        NetNs::named(&theirs).expect("a namespace of iproute2's");
        NetNs::delete_named(&theirs).expect("deleting it");

        NetNs::delete_named(&name).expect("deleting a namespace");
        assert!(!Path::new("/run/netns").join(&name).exists());
        let error = NetNs::named(&name).expect_err("it is gone");
        assert!(matches!(error, Error::NoNamespace { .. }), "{error}");
        assert_eq!(error.to_string(), format!("no network namespace {name:?} in /run/netns"));
        assert!(matches!(NetNs::delete_named(&name), Err(Error::NoNamespace { .. })));

        // What a creation that was killed half-way leaves: a file without a mount.
        fs::write(Path::new("/run/netns").join(&name), "").expect("a file");
        assert!(matches!(NetNs::named(&name), Err(Error::NotANamespace(_))));
        NetNs::delete_named(&name).expect("deleting a left-over");
    });
}

#[test]
#[ignore = "needs root"]
fn the_bpf_file_system_is_mounted_and_released() {
    with_own_mount("tmpfs", "/sys", || {
        let error = bpffs::ensure_bpffs().expect_err("there is no place for it");
        assert!(error.to_string().contains("is sysfs mounted"), "{error}");
        fs::create_dir_all(bpffs::DIR).expect("a place for it");

        assert!(bpffs::ensure_bpffs().expect("mounting"), "it was not mounted");
        assert!(!bpffs::ensure_bpffs().expect("looking"), "it is mounted now");
        let pin = Path::new(bpffs::DIR).join("ndt");
        fs::create_dir(&pin).expect("a directory for pins");
        assert!(!bpffs::release_bpffs().expect("looking"), "somebody's pins are there");
        fs::remove_dir(&pin).expect("removing it");
        assert!(bpffs::release_bpffs().expect("unmounting"));
        assert!(!bpffs::is_mounted().expect("looking"));
        assert!(!bpffs::release_bpffs().expect("looking"), "nothing to release");
    });
}

#[test]
#[ignore = "needs root"]
fn cgroup2_is_found_where_it_is_mounted() {
    with_own_mount("tmpfs", "/sys/fs/cgroup", || {
        mount(Some("cgroup2"), "/sys/fs/cgroup", Some("cgroup2"), MsFlags::empty(), None::<&str>)
            .expect("cgroup2");
        let found = cgroup::find_cgroup2().expect("it is mounted");
        assert_eq!(found, Path::new("/sys/fs/cgroup"));
        umount2("/sys/fs/cgroup", MntFlags::empty()).expect("unmounting");
        assert_ne!(cgroup::find_cgroup2().as_deref(), Some(found.as_path()));
    });
}

#[test]
#[ignore = "needs root"]
fn the_holder_of_a_port_is_named() {
    with_lo(|| {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let (addr, port) =
            (tcp.local_addr().expect("an address"), tcp.local_addr().expect("an address").port());
        let holder = |proto, addr: Option<&str>, port| {
            let addr = addr.map(|text| text.parse::<IpAddr>().expect("an address"));
            sockets::holder(proto, addr, port).expect("reading the tables")
        };
        let found = holder(TCP, None, port).expect("the listener");
        assert_eq!((found.addr, found.pid), (addr, Some(std::process::id())));
        let name = fs::read_to_string("/proc/self/comm").expect("a name");
        assert_eq!(found.process.as_deref(), Some(name.trim_end()));
        assert_eq!(holder(TCP, Some("192.0.2.1"), port), None);
        assert_eq!(holder(UDP, None, port), None);
        assert_eq!(sockets::listening_ports(TCP).expect("ports"), [port]);

        let udp = UdpSocket::bind("[::]:0").expect("a socket").local_addr().expect("an address").port();
        assert_eq!(holder(UDP, None, udp), None, "closed again");
        let udp = UdpSocket::bind("[::]:0").expect("a socket");
        let port = udp.local_addr().expect("an address").port();
        assert_eq!(holder(UDP, Some("192.0.2.1"), port).map(|found| found.addr), udp.local_addr().ok());
        assert_eq!(sockets::listening_ports(UDP).expect("ports"), [port]);
        assert_eq!(sockets::listening_ports(132).expect("SCTP may be missing"), Vec::<u16>::new());
    });
}

#[test]
#[ignore = "needs root"]
fn sysctls_and_ports_are_the_namespaces_own() {
    let outside = ports::local_range().expect("a range");
    with_lo(|| {
        sysctl::set(&["net", "ipv4", "ip_local_port_range"], "41000 41999").expect("a range");
        sysctl::set(&["net", "ipv4", "ip_local_reserved_ports"], "41010,41100-41102").expect("a list");
        assert_eq!(ports::local_range().expect("a range"), (41000, 41999));
        assert_eq!(ports::reserved().expect("a list"), [41010..=41010, 41100..=41102]);
        for on in [true, false] {
            sysctl::set_forwarding_v4("lo", on).expect("forwarding");
            let value = sysctl::get(&["net", "ipv4", "conf", "lo", "forwarding"]).expect("forwarding");
            assert_eq!(value, if on { "1" } else { "0" });
        }
        let error = sysctl::set_forwarding_v4("none0", true).expect_err("no such link");
        assert!(error.to_string().contains("none0"), "{error}");
    });
    assert_eq!(ports::local_range().expect("a range"), outside);
}

#[test]
#[ignore = "needs root"]
fn namespaces_are_told_apart() {
    let (one, two) = (new_netns(), new_netns());
    let here = NetNs::current().expect("this one");
    assert!(one.id() != two.id() && one.id() != here.id());
    assert_eq!(one.run(|| NetNs::current().expect("inside").id()).expect("entering"), one.id());
    assert_eq!(NetNs::current().expect("this one").id(), here.id(), "run() doesn't move the caller");
    assert_eq!(NetNs::of_pid(std::process::id()).expect("this process").id(), here.id());
    assert!(matches!(NetNs::of_pid(u32::MAX), Err(Error::NoProcess(u32::MAX))));
    assert!(matches!(NetNs::open("/proc/self/ns/uts".as_ref()), Err(Error::NotANamespace(_))));
    assert!(matches!(NetNs::open("/etc/hostname".as_ref()), Err(Error::NotANamespace(_))));
}
