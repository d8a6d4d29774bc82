//! Sysctls. Those below `net` belong to the calling thread's network namespace.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// Switches IPv4 forwarding of packets that arrive on one interface, and of no other.
pub fn set_forwarding_v4(ifname: &str, on: bool) -> Result<()> {
    set(&["net", "ipv4", "conf", ifname, "forwarding"], if on { "1" } else { "0" })
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
    fs::write(&file, value).map_err(Error::system(|| format!("writing {value:?} to {}", file.display())))
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
