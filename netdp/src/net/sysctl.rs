//! Sysctls. Those below `net` belong to the calling thread's network namespace.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use crate::failpoint;

/// Whether links that are created from now on forward IPv6.
const DEFAULT_FORWARDING_V6: [&str; 5] = ["net", "ipv6", "conf", "default", "forwarding"];
/// What switches something on.
const ON: &str = "1";
/// What switches it off.
const OFF: &str = "0";

/// Switches IPv4 forwarding of packets that arrive on one interface, and of no other.
pub fn set_forwarding_v4(ifname: &str, on: bool) -> Result<()> {
    set(&["net", "ipv4", "conf", ifname, "forwarding"], if on { ON } else { OFF })
}

/// Whether one interface (or `all`, or `default`) forwards IPv6.
pub fn forwards_v6(ifname: &str) -> Result<bool> {
    Ok(get(&["net", "ipv6", "conf", ifname, "forwarding"])? != OFF)
}

/// Sets whether links that are created from now on forward IPv6. Unlike with `all`, and with a link that is there
/// already, the kernel doesn't purge the default routes that routers advertise, as it does when a host turns router.
pub fn set_default_forwarding_v6(on: bool) -> Result<()> {
    set(&DEFAULT_FORWARDING_V6, if on { ON } else { OFF })
}

/// Whether the kernel has IPv6 (it was not booted with `ipv6.disable=1`, nor built without).
pub fn has_v6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// The sysctl that keeps links that are created from now on without IPv6 addresses; none: they get some.
pub fn v6_disabled_by() -> Result<Option<&'static str>> {
    const DISABLED: [&str; 5] = ["net", "ipv6", "conf", "default", "disable_ipv6"];
    Ok((get(&DISABLED)? != OFF).then_some("net.ipv6.conf.default.disable_ipv6"))
}

/// Makes a link's IPv6 addresses usable at once, and the link deaf to routers: whoever sent advertisements on it could
/// give it addresses and routes (CVE-2020-13401). Before the link comes up, for its link-local address.
pub fn settle_v6(ifname: &str) -> Result<()> {
    if !has_v6() {
        return Ok(());
    }
    ["accept_ra", "accept_dad"].iter().try_for_each(|knob| set(&["net", "ipv6", "conf", ifname, knob], OFF))
}

/// Reads a sysctl, without the line's end. The path is in components, because an interface's name may have dots.
pub fn get(path: &[&str]) -> Result<String> {
    let file = file(path)?;
    let value = fs::read_to_string(&file).map_err(Error::system(|| format!("reading {}", file.display())))?;
    Ok(value.trim_end().to_owned())
}

/// Writes a sysctl.
pub fn set(path: &[&str], value: &str) -> Result<()> {
    let file = file(path)?;
    let written = failpoint::pass("sysctl").and_then(|()| fs::write(&file, value));
    written.map_err(Error::system(|| format!("writing {value:?} to {}", file.display())))
}

fn file(path: &[&str]) -> Result<PathBuf> {
    let bad = |part: &&str| part.is_empty() || *part == "." || *part == ".." || part.contains(['/', '\0']);
    if path.is_empty() || path.iter().any(bad) {
        return Err(Error::BadSysctl(path.iter().map(|&part| part.to_owned()).collect()));
    }
    Ok(path.iter().fold(Path::new("/proc/sys").to_owned(), |file, part| file.join(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_stay_components() {
        let path = file(&["net", "ipv4", "conf", "eth0.7", "forwarding"]).expect("a good path");
        assert_eq!(path, Path::new("/proc/sys/net/ipv4/conf/eth0.7/forwarding"));
        for bad in [&[][..], &["net", ".."], &["net", ""], &["net/ipv4"]] {
            assert!(matches!(file(bad), Err(Error::BadSysctl(_))), "{bad:?}");
        }
    }
}
