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

/// The newest kernel of a series, `6.1` for instance: downloaded and unpacked below `directory`, unless it is there.
pub(crate) fn unpacked(directory: &Path, series: &str) -> Result<Kernel> {
    if let Some(package) = listed(series)?
        && directory.join(&package).exists()
    {
        return kernel(directory, &package);
    }
    // What the lists had yesterday may be superseded, and gone from the mirror.
    apt::update()?;
    let Some(package) = listed(series)? else {
        bail!(
            "apt knows no package linux-image-{series}.…{SUFFIX}: add Debian 12's `bookworm` and `bookworm-security`, \
             which have Linux 6.1 and 6.12, to the package sources; without these kernels nothing is tested on them"
        );
    };
    if !directory.join(&package).exists() {
        download(directory, &package)?;
    }
    kernel(directory, &package)
}

/// Of kernels without drivers for real machines.
const SUFFIX: &str = "-cloud-amd64";

fn listed(series: &str) -> Result<Option<String>> {
    let prefix = format!("linux-image-{series}.");
    let names = output(Command::new("apt-cache").args(["pkgnames", &prefix]))?;
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

fn download(directory: &Path, package: &str) -> Result<()> {
    let draft = directory.join(format!("{package}.download"));
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    fs::create_dir_all(&draft)?;
    run(Command::new("apt-get").args(["-q", "download", package]).current_dir(&draft))?;
    let archive = fs::read_dir(&draft)?.flatten().map(|entry| entry.path());
    let archive = archive.into_iter().find(|path| path.extension().is_some_and(|it| it == "deb"));
    let archive = archive.with_context(|| format!("apt-get downloaded no archive of {package}"))?;
    run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(draft.join("root")))?;
    // The rename is the moment when it is complete.
    fs::rename(draft.join("root"), directory.join(package))?;
    Ok(fs::remove_dir_all(&draft)?)
}

fn kernel(directory: &Path, package: &str) -> Result<Kernel> {
    let release = package.trim_start_matches("linux-image-").to_owned();
    let root = directory.join(package);
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
