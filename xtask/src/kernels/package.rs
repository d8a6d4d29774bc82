//! Debian's packages of kernels for virtual machines: found, downloaded, unpacked; not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::apt;
use crate::command::{output, run};

/// An unpacked kernel.
pub(crate) struct Kernel {
    /// As `uname -r` says.
    pub(crate) release: String,
    /// What boots.
    pub(crate) image: PathBuf,
    /// Its modules.
    pub(crate) modules: PathBuf,
}

/// The newest package of a series, `6.1` for instance.
pub(crate) fn newest(series: &str) -> Result<String> {
    let prefix = format!("linux-image-{series}.");
    if let Some(package) = listed(&prefix)? {
        return Ok(package);
    }
    apt::update()?;
    let Some(package) = listed(&prefix)? else {
        bail!(
            "apt knows no package {prefix}…{SUFFIX}: add Debian 12's `bookworm` and `bookworm-security`, which have \
             Linux 6.1 and 6.12, to the package sources; without these kernels nothing is tested on them"
        );
    };
    Ok(package)
}

/// Of kernels without drivers for real machines.
const SUFFIX: &str = "-cloud-amd64";

fn listed(prefix: &str) -> Result<Option<String>> {
    let names = output(Command::new("apt-cache").args(["pkgnames", prefix]))?;
    let packages = names.lines().filter(|name| name.ends_with(SUFFIX));
    // Names that only other packages mention have no candidate.
    let mut packages: Vec<&str> = packages.collect();
    packages.sort_by_key(|name| numbers(name));
    for package in packages.into_iter().rev() {
        let policy = output(Command::new("apt-cache").args(["policy", package]))?;
        let candidate = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
        if candidate.is_some_and(|candidate| candidate != "(none)") {
            return Ok(Some(package.to_owned()));
        }
    }
    Ok(None)
}

/// `linux-image-6.1.0-56-cloud-amd64` is newer than `linux-image-6.1.0-9-cloud-amd64`.
fn numbers(package: &str) -> Vec<u32> {
    package.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect()
}

/// Downloads and unpacks a package below `directory`, unless that was done before.
pub(crate) fn unpacked(directory: &Path, package: &str) -> Result<Kernel> {
    let release = package.trim_start_matches("linux-image-").to_owned();
    let root = directory.join(package);
    if !root.exists() {
        let download = directory.join(format!("{package}.download"));
        let _ = fs::remove_dir_all(&download);
        fs::create_dir_all(&download)?;
        run(Command::new("apt-get").args(["-q", "download", package]).current_dir(&download))?;
        let archive = fs::read_dir(&download)?.flatten().map(|entry| entry.path());
        let archive = archive.into_iter().find(|path| path.extension().is_some_and(|it| it == "deb"));
        let archive = archive.with_context(|| format!("apt-get downloaded no archive of {package}"))?;
        run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(download.join("root")))?;
        // The rename is the moment when it is complete.
        fs::rename(download.join("root"), &root)?;
        fs::remove_dir_all(&download)?;
    }
    // Debian 13 has /usr/lib only.
    let modules = ["lib/modules", "usr/lib/modules"].map(|path| root.join(path).join(&release));
    let modules = modules.into_iter().find(|path| path.is_dir());
    Ok(Kernel {
        image: root.join("boot").join(format!("vmlinuz-{release}")),
        modules: modules.with_context(|| format!("{package} has no modules of {release}"))?,
        release,
    })
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn the_newest_has_the_greatest_number() {
        assert!(numbers("linux-image-6.1.0-56-cloud-amd64") > numbers("linux-image-6.1.0-9-cloud-amd64"));
        assert!(
            numbers("linux-image-6.12.117+deb12-cloud-amd64") > numbers("linux-image-6.12.9-cloud-amd64")
        );
    }
}
