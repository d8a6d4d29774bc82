//! Captured frames for the tests: those that tcpdump's source package has for its own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::command::{find, output, run, target_directory};

/// The Debian source package.
const PACKAGE: &str = "tcpdump";
/// Where apt has its sources.
const SOURCES: [&str; 2] = ["/etc/apt/sources.list", "/etc/apt/sources.list.d"];

/// The directory of the captures; they are fetched if they are not there.
pub(crate) fn directory() -> Result<PathBuf> {
    let directory = target_directory()?.join("captures");
    if !directory.is_dir() {
        if find("apt-get").is_none() {
            bail!("without apt there is no source package {PACKAGE}");
        }
        fetch(&directory)?;
    }
    Ok(directory)
}

/// Fetches the source package and unpacks its captures. apt's own lists stay as they are.
fn fetch(directory: &Path) -> Result<()> {
    println!("setup: captured frames for the tests: the Debian source package {PACKAGE}");
    let draft = target_directory()?.join("captures-draft");
    if draft.exists() {
        fs::remove_dir_all(&draft)?;
    }
    for part in ["lists/partial", "sources", "unpacked"] {
        fs::create_dir_all(draft.join(part))?;
    }
    write_sources(&draft.join("sources"))?;
    let apt = |verbs: &[&str]| {
        let option = |name: &str, part: &str| {
            let mut option = OsString::from(format!("Dir::{name}="));
            option.push(draft.join(part));
            option
        };
        let mut apt = Command::new("apt-get");
        apt.arg("-q").arg("-o").arg(option("Etc::sourcelist", "none"));
        apt.arg("-o").arg(option("Etc::sourceparts", "sources"));
        apt.arg("-o").arg(option("State::lists", "lists"));
        apt.args(["-o", "APT::Sandbox::User=root"]).args(verbs).current_dir(&draft);
        run(&mut apt)
    };
    apt(&["update"])?;
    apt(&["source", "--download-only", PACKAGE])?;
    unpack(&draft)?;
    fs::rename(draft.join("unpacked"), directory).context("putting the captures in place")?;
    Ok(fs::remove_dir_all(&draft)?)
}

/// The machine's own sources, of source packages.
fn write_sources(to: &Path) -> Result<()> {
    let mut written = 0;
    for path in SOURCES.iter().map(Path::new) {
        let files = match path.is_dir() {
            true => fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?,
            false => vec![path.to_owned()],
        };
        for file in
            files.iter().filter(|file| file.extension().is_some_and(|end| end == "list" || end == "sources"))
        {
            let Ok(text) = fs::read_to_string(file) else { continue };
            let name = file.file_name().context("a file's name")?;
            fs::write(to.join(name), of_source_packages(&text))?;
            written += 1;
        }
    }
    if written == 0 {
        bail!("apt has no sources here");
    }
    Ok(())
}

/// Both of apt's formats.
fn of_source_packages(text: &str) -> String {
    let line = |line: &str| match line.split_once(char::is_whitespace) {
        Some(("deb", rest)) => format!("deb-src {rest}\n"),
        Some(("Types:", _)) => "Types: deb-src\n".to_owned(),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// Only the captures, all in one directory.
fn unpack(draft: &Path) -> Result<()> {
    let entries = fs::read_dir(draft)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let is_source = |path: &&PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.contains(".orig.tar.") && !name.ends_with(".asc")
    };
    let archive = entries.iter().find(is_source).context("no source archive was downloaded")?;
    let mut tar = Command::new("tar");
    tar.arg("-x").arg("-f").arg(archive).arg("-C").arg(draft.join("unpacked"));
    tar.args(["--wildcards", "--strip-components=2", "*/tests/*.pcap"]);
    output(&mut tar).map(drop)
}

#[cfg(test)]
mod tests {
    use super::of_source_packages;

    #[test]
    fn sources_become_those_of_source_packages() {
        let text = "# deb a\ndeb [arch=amd64] http://mirror b main\nTypes: deb\nURIs: http://mirror\n";
        let expected =
            "# deb a\ndeb-src [arch=amd64] http://mirror b main\nTypes: deb-src\nURIs: http://mirror\n";
        assert_eq!(of_source_packages(text), expected);
    }
}
