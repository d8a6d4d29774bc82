//! Traffic control filters behind a `clsact` or `ingress` qdisc: where programs were attached before TCX.

use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcHandle, TcMessage, TcOption};
use nix::errno::Errno;

use super::error::{Result, gone_is_fine};
use super::{Net, answer, answers};

/// A filter of a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// The kernel's name for its kind: `bpf`, `u32`, `flower`.
    pub kind: String,
    /// A BPF program's name or its object's section, if the filter has one.
    pub program: Option<String>,
    /// A BPF program's id.
    pub program_id: Option<u32>,
    /// The lower, the earlier.
    pub priority: u16,
    /// Its handle at that priority, as the kernel counts.
    pub handle: u32,
    /// Whether it sees what leaves; otherwise what arrives.
    pub egress: bool,
}

impl Net {
    /// The filters of a link at the `clsact` hooks.
    pub async fn filters(&self, index: u32) -> Result<Vec<Filter>> {
        let mut found = Vec::new();
        let Ok(signed) = i32::try_from(index) else { return Ok(found) };
        for egress in [false, true] {
            let request = self.handle.traffic_filter(signed).get();
            let request = if egress { request.egress() } else { request.ingress() };
            let messages =
                answers(request.execute(), || format!("listing the filters of the link {index}")).await?;
            for filter in messages.iter().filter_map(|message| filter(message, egress)) {
                // The kernel lists a chain's head and each of its filters.
                if !found.contains(&filter) {
                    found.push(filter);
                }
            }
        }
        Ok(found)
    }

    /// Removes a link's `clsact` qdisc and every filter behind it; none, or no link, is fine.
    pub async fn remove_clsact(&self, index: u32) -> Result<()> {
        let Ok(signed) = i32::try_from(index) else { return Ok(()) };
        let mut request = self.handle.qdisc().del(signed);
        let message = request.message_mut();
        message.header.parent = TcHandle::CLSACT;
        message.header.handle = TcHandle { major: u16::MAX, minor: 0 };
        // With another kind there, an `ingress` qdisc, the kernel says EINVAL.
        message.attributes.push(TcAttribute::Kind("clsact".to_owned()));
        let removed =
            answer(request.execute(), || format!("removing the clsact qdisc of the link {index}")).await;
        gone_is_fine(removed, &[Errno::ENOENT, Errno::EINVAL, Errno::ENODEV])
    }
}

/// None for a chain's head, which has no handle.
fn filter(message: &TcMessage, egress: bool) -> Option<Filter> {
    let kind = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Kind(kind) => Some(kind.clone()),
        _ => None,
    })?;
    let options = message.attributes.iter().find_map(|attribute| match attribute {
        TcAttribute::Options(options) => Some(options.as_slice()),
        _ => None,
    })?;
    let program = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => Some(name.clone()),
        _ => None,
    });
    let program_id = options.iter().find_map(|option| match option {
        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => Some(*id),
        _ => None,
    });
    // The priority is above the protocol (TC_H_MAJ of tcm_info).
    let priority = (message.header.info >> 16) as u16;
    let TcHandle { major, minor } = message.header.handle;
    let handle = u32::from(major) << 16 | u32::from(minor);
    Some(Filter { kind, program, program_id, priority, handle, egress })
}
