//! What `doctor` says about XDP on uplinks: where it is, what is in the way, and what native mode would change.

use super::Check;
use crate::datapath::XdpMode;
use crate::datapath::ebpf::xdp::{Candidate, candidates};
use crate::error::Error;
use crate::net::{Link, ethtool};

/// Of an instance's mode.
pub(super) fn check(instance: &str, mode: XdpMode) -> Result<Check, Error> {
    let candidates = candidates(instance)?;
    let mut findings = Vec::new();
    for Candidate { link, obstacle } in &candidates {
        findings.push(match (obstacle, mode) {
            (Some(obstacle), _) => obstacle.to_string(),
            (None, XdpMode::Off) => native_changes(link)?,
            (None, _) if link.xdp.is_empty() => {
                format!("{} does not carry the program: netdp repair says why", link.name)
            }
            (None, _) => link.name.clone(),
        });
    }
    if findings.is_empty() {
        findings.push("there is no interface for it: no route leads to a router".to_owned());
    }
    let everywhere = candidates.iter().all(|it| it.obstacle.is_none() && !it.link.xdp.is_empty());
    let ok = mode.is_off() || (everywhere && !candidates.is_empty());
    Ok(Check::new("xdp", ok, format!("{}: {}", mode.name(), findings.join("; "))))
}

fn native_changes(link: &Link) -> Result<String, Error> {
    let name = &link.name;
    let changes = if link.kind.as_deref() == Some("veth") {
        "turn off the segmentation offload of its peer, and copy packets once more"
    } else if ethtool::features(name)?.lro {
        "turn off LRO, and make its queues anew (a moment without packets)"
    } else {
        "make its queues anew (a moment without packets), and may turn off checksum offload there"
    };
    Ok(format!("--xdp native on {name} would {changes}"))
}
