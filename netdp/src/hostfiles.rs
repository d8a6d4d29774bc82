//! Names: `/etc/hosts` and `/etc/resolv.conf` of named namespaces and of what `netdp run` starts.
//!
//! They follow from the state alone, and every command that changes it brings them up to date, so that there is nothing
//! to undo: what a killed command left wrong, the next one puts right.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::failpoint;
use crate::instance::lock_all_instances;
use crate::state::State;
use crate::target::Target;

mod content;
mod named;
mod slots;

use slots::{Slots, render};

/// Where the files are seen.
const ETC: &str = "/etc";
/// Which files: names first, then resolvers.
const FILES: [&str; 2] = ["hosts", "resolv.conf"];
/// Where managers of a local resolver write the real ones.
const UPSTREAM: [&str; 3] = [
    "/run/systemd/resolve/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/dnsmasq/resolv.conf",
];
/// The first line of `run`'s files.
const RUN_MARK: &str = "# netdp run";

/// The lines of both files.
struct Lines([Vec<String>; 2]);

/// Brings every file up to date with the state of an instance; returns what failed.
pub fn update(instance: &str, dir: &Path, state: &State) -> Vec<String> {
    let host = HostFiles::read();
    let mut failures = Vec::new();
    for (name, endpoint) in &state.endpoints {
        let files = run_dir(dir, name);
        if files.exists() {
            let lines = host.lines(content::network(state, &endpoint.network));
            failures.extend(change_run(&files, &lines).err().map(|error| error.to_string()));
        }
    }
    let mut networks: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for endpoint in state.endpoints.values() {
        let bound =
            state.bound.values().filter(|bound| bound.netns == endpoint.netns).map(|bound| &bound.target);
        for name in bound.chain([&endpoint.target]).filter_map(Target::netns_name) {
            networks.entry(name).or_default().insert(&endpoint.network);
        }
    }
    if networks.is_empty() && named::is_absent() {
        return failures;
    }
    let of_all =
        |networks: &BTreeSet<&str>| networks.iter().flat_map(|name| content::network(state, name)).collect();
    let wanted = networks.iter().map(|(name, networks)| (*name, host.lines(of_all(networks)))).collect();
    failures.extend(update_named(instance, &wanted, &host));
    failures
}

/// Removes the files of an instance's named namespaces; returns what failed.
pub fn remove(instance: &str) -> Vec<String> {
    if named::is_absent() { Vec::new() } else { update_named(instance, &BTreeMap::new(), &HostFiles::read()) }
}

fn update_named(instance: &str, wanted: &BTreeMap<&str, Lines>, host: &HostFiles) -> Vec<String> {
    match lock_all_instances() {
        Ok(_lock) => named::update(instance, wanted, &host.lines(Vec::new())),
        Err(error) => vec![error.to_string()],
    }
}

/// Where the files of an endpoint are that its command sees in `/etc`.
pub fn run_dir(dir: &Path, name: &str) -> PathBuf {
    dir.join("run").join(name)
}

/// The files of an endpoint's namespace that are there, each with its place.
pub fn of_name(dir: &Path, name: &str, state: &State) -> Vec<(PathBuf, String)> {
    let endpoint = state.endpoints.get(name).map(|endpoint| &endpoint.target);
    let target = endpoint.or_else(|| state.bound.get(name).map(|bound| &bound.target));
    let named = target.and_then(Target::netns_name).map(named::dir);
    let dirs: Vec<PathBuf> = named.into_iter().chain([run_dir(dir, name)]).collect();
    let first = |file: &str| dirs.iter().map(|dir| dir.join(file)).find(|path| path.exists());
    FILES.iter().filter_map(|file| Some((first(file)?, format!("{ETC}/{file}")))).collect()
}

/// Creates the files of a command before it is attached; returns each with its place.
pub fn create_run(dir: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
    failpoint::pass("create a directory")
        .and_then(|()| fs::create_dir_all(dir))
        .map_err(Error::system(format!("creating {}", dir.display())))?;
    let lines = HostFiles::read().lines(Vec::new());
    let create = |(file, lines): (&str, &Vec<String>)| {
        let path = dir.join(file);
        failpoint::pass("write a file")
            .and_then(|()| fs::write(&path, render(RUN_MARK, lines)))
            .map_err(Error::system(format!("writing {}", path.display())))?;
        Ok((path, format!("{ETC}/{file}")))
    };
    FILES.into_iter().zip(&lines.0).map(create).collect()
}

/// The host's own files.
struct HostFiles {
    hosts: String,
    resolv: Vec<String>,
}

impl HostFiles {
    /// A host without such a file has none to hand on.
    fn read() -> Self {
        let read = |file: &str| fs::read_to_string(Path::new(ETC).join(file)).unwrap_or_default();
        let upstream = UPSTREAM.iter().find_map(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        Self { hosts: read(FILES[0]), resolv: content::resolv(&read(FILES[1]), &upstream) }
    }

    /// With what the networks' endpoints are called.
    fn lines(&self, networks: Vec<String>) -> Lines {
        Lines([content::hosts(networks, &self.hosts), self.resolv.clone()])
    }
}

fn change_run(dir: &Path, lines: &Lines) -> Result<(), Error> {
    for (number, (file, lines)) in FILES.into_iter().zip(&lines.0).enumerate() {
        let path = dir.join(file);
        let doing = || format!("reading {}", path.display());
        let opened = OpenOptions::new().read(true).write(true).open(&path).map_err(Error::system(doing()))?;
        // One that its command has edited is its own.
        if let Some(slots) = Slots::read(opened).map_err(Error::system(doing()))? {
            change(slots, number, lines, &path)?;
        }
    }
    Ok(())
}

/// Only resolvers have an order.
fn change(mut slots: Slots, number: usize, lines: &[String], path: &Path) -> Result<(), Error> {
    let changed = if number == 0 { slots.set(lines) } else { slots.replace(lines) };
    changed.map_err(Error::system(format!("writing {}", path.display())))
}
