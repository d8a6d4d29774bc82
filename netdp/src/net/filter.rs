//! Traffic control filters behind a `clsact` or `ingress` qdisc: where programs were attached before TCX.

use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};

use super::error::Result;
use super::{Net, answers};

/// A filter of a link.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// The kernel's name for its kind: `bpf`, `u32`, `flower`.
    pub kind: String,
    /// A BPF program's name or its object's section, if the filter has one.
    pub program: Option<String>,
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
    Some(Filter { kind, program, egress })
}
