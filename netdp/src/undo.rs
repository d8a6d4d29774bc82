//! All or nothing: what a command is about to do is written down as what undoes it, before it is done.
//!
//! On failure the steps are undone in reverse. The list also lies in the instance's directory while the command
//! runs, so that the next command undoes what one that was killed left half done.

use std::fs;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::datapath::{EndpointEntry, NetworkEntry, PublishEntry, XdpMode};
use crate::failpoint;
use crate::net::{Mac, NetNsId};
use crate::state::{self, NEXT, remove_next, replace_file};

/// The list's name in the instance's directory.
const FILE: &str = "undo.json";

/// How to undo one thing. Each succeeds when there is nothing to undo.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Step {
    /// Remove the datapath, which was not there before.
    RemoveDatapath,
    /// Remove a namespace's name.
    DeleteNamespace(String),
    /// Remove a directory of ours.
    RemoveFiles(PathBuf),
    /// Take loopback down again in the namespace of this file, if it is this one.
    LoopbackDown(PathBuf, NetNsId),
    /// Delete a link of the host: the one of that name that has this address, which no other has.
    DeleteLink(String, Mac),
    /// Make links that are created from now on not forward IPv6.
    SwitchOffDefaultForwarding,
    /// Remove a permanent neighbour from a bridge.
    RemoveNeighbour(u32, IpAddr),
    /// Put a permanent neighbour back on a bridge.
    RestoreNeighbour(u32, IpAddr, Mac),
    /// Take a network out of the datapath, by its bridge's ifindex.
    ForgetNetwork(u32),
    /// Put a network back into the datapath.
    RestoreNetwork(NetworkEntry),
    /// Take an endpoint out of the datapath.
    ForgetEndpoint(EndpointEntry),
    /// Put an endpoint back into the datapath.
    RestoreEndpoint(EndpointEntry),
    /// Unpublish ports.
    Unpublish(Vec<PublishEntry>),
    /// Publish ports again as they were.
    Republish(Vec<PublishEntry>),
    /// Put the XDP program back to where it was, or was not.
    Xdp(XdpMode),
}

/// The steps of one command, in the order in which they were announced.
#[derive(Debug)]
pub struct Undo {
    file: PathBuf,
    list: List,
}

/// What lies in the file.
#[derive(Debug, Serialize, Deserialize)]
struct List {
    /// The state's revision before the command.
    revision: u64,
    steps: Vec<Step>,
}

impl Undo {
    /// Of a command that begins, in an instance's directory, on that revision of the state.
    pub fn new(dir: &Path, revision: u64) -> Self {
        Self { file: dir.join(FILE), list: List { revision, steps: Vec::new() } }
    }

    /// What a killed command left to undo; none if there was none, or it had completed its change.
    pub fn left_behind(dir: &Path, revision: u64) -> Result<Option<Self>, state::Error> {
        let file = dir.join(FILE);
        remove_next(&file)?;
        let text = match fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(state::Error::File { doing: "reading", path: file, source }),
        };
        let list: List = serde_json::from_str(&text)
            .map_err(|source| state::Error::Damaged { path: file.clone(), source })?;
        let undo = Self { file, list };
        if undo.list.revision == revision {
            return Ok(Some(undo));
        }
        undo.done()?;
        Ok(None)
    }

    /// Announces something: call it before doing what `step` undoes.
    pub fn push(&mut self, step: Step) -> Result<(), state::Error> {
        self.list.steps.push(step);
        replace_file(&self.file, &self.list)
    }

    /// Takes back the last announcement: it was found out that there is nothing to do.
    pub fn pop(&mut self) -> Result<(), state::Error> {
        self.list.steps.pop();
        replace_file(&self.file, &self.list)
    }

    /// Whether a command is at work in that directory, or was killed there.
    pub fn is_there(dir: &Path) -> bool {
        let file = dir.join(FILE);
        file.exists() || file.with_extension(NEXT).exists()
    }

    /// The steps in the order in which they must be undone.
    pub fn backwards(&self) -> Vec<Step> {
        self.list.steps.iter().rev().cloned().collect()
    }

    /// Nothing is left to undo.
    pub fn done(self) -> Result<(), state::Error> {
        match failpoint::pass("remove the undo list").and_then(|()| fs::remove_file(&self.file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(state::Error::File { doing: "removing", path: self.file, source: error })
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str) -> Step {
        Step::DeleteLink(name.into(), Mac([2, 0, 0, 0, 0, 1]))
    }

    #[test]
    fn steps_are_undone_in_reverse() {
        let dir = tempfile::tempdir().unwrap();
        let mut undo = Undo::new(dir.path(), 4);
        undo.push(link("netdp0")).unwrap();
        undo.push(Step::ForgetNetwork(3)).unwrap();
        undo.push(link("nd1")).unwrap();
        assert_eq!(undo.backwards(), [link("nd1"), Step::ForgetNetwork(3), link("netdp0")]);
        undo.done().unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_killed_command_is_undone_unless_it_was_complete() {
        let dir = tempfile::tempdir().unwrap();
        let mut undo = Undo::new(dir.path(), 4);
        undo.push(link("netdp0")).unwrap();
        drop(undo);
        let left = Undo::left_behind(dir.path(), 4).unwrap().unwrap();
        assert_eq!(left.backwards(), [link("netdp0")]);
        assert!(Undo::left_behind(dir.path(), 5).unwrap().is_none());
        assert!(Undo::left_behind(dir.path(), 4).unwrap().is_none(), "the completed one's list is gone");
    }

    #[test]
    fn a_command_without_steps_leaves_no_file() {
        let dir = tempfile::tempdir().unwrap();
        Undo::new(dir.path(), 0).done().unwrap();
        assert!(Undo::left_behind(dir.path(), 0).unwrap().is_none());
    }
}
