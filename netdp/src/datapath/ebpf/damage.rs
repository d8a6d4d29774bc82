//! What somebody removed by hand of what is pinned.

use std::collections::BTreeSet;
use std::path::Path;

use aya::maps::MapInfo;
use aya::programs::ProgramInfo;

use super::super::Error;
use super::object::{SOCKET_HOOKS, classifiers};
use super::{FILTERS, TCX, doing, step, xdp};

/// The programs, maps and socket hooks that are not pinned any more. Programs are known by name; the maps that there
/// must be are those that the pinned programs use.
pub(super) fn missing_pins(dir: &Path) -> Result<Vec<String>, Error> {
    step("look at the pins")?;
    let mut missing = Vec::new();
    let mut maps = BTreeSet::new();
    for name in classifiers().chain(SOCKET_HOOKS).chain(xdp::PROGRAMS) {
        let pin = dir.join("programs").join(name);
        if !pin.exists() {
            missing.push(format!("the program {name}"));
            continue;
        }
        let what = || format!("asking the program {name} for its maps");
        let info = ProgramInfo::from_pin(&pin).map_err(|e| doing(what(), e))?;
        maps.extend(info.map_ids().map_err(|e| doing(what(), e))?.unwrap_or_default());
    }
    for id in maps {
        let info = MapInfo::from_id(id).map_err(|e| doing(format!("asking for the map {id}"), e))?;
        let name = info.name_as_str().unwrap_or_default();
        // The compiler's own sections (.rodata, .bss) are not pinned.
        if !name.contains('.') && !dir.join("maps").join(name).exists() {
            missing.push(format!("the map {name}"));
        }
    }
    missing.extend(missing_links(&dir.join("links")));
    if ![TCX, FILTERS].iter().any(|hooks| dir.join(hooks).exists()) {
        missing.push("what is attached to interfaces".to_owned());
    }
    Ok(missing)
}

/// Without a cgroup2 tree there are no socket hooks at all.
fn missing_links(links: &Path) -> Vec<String> {
    if !links.exists() {
        return vec!["all links of socket hooks".to_owned()];
    }
    let there = |name: &&str| links.join(name).exists();
    if !SOCKET_HOOKS.iter().any(there) {
        return Vec::new();
    }
    let missing = SOCKET_HOOKS.iter().filter(|name| !there(name));
    missing.map(|name| format!("the link of {name}")).collect()
}
