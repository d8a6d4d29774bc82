//! Queueing disciplines: who limits or shapes what a link sends.

use netlink_packet_route::tc::{TcAttribute, TcHandle, TcMessage};

use super::error::Result;
use super::{Net, answers};

/// What sends at once: the kernel's for virtual links.
const NO_QUEUE: &str = "noqueue";

impl Net {
    /// The ifindices of links whose packets wait in a queueing discipline before they are sent.
    pub async fn queueing_links(&self) -> Result<Vec<u32>> {
        let request = self.handle.qdisc().get().execute();
        let qdiscs = answers(request, || "listing the queueing disciplines".to_owned()).await?;
        Ok(qdiscs
            .iter()
            .filter(|qdisc| queues(qdisc))
            .map(|qdisc| qdisc.header.index.cast_unsigned())
            .collect())
    }
}

fn queues(qdisc: &TcMessage) -> bool {
    let is_kind = |attribute: &TcAttribute| matches!(attribute, TcAttribute::Kind(kind) if kind == NO_QUEUE);
    qdisc.header.parent == TcHandle::ROOT && !qdisc.attributes.iter().any(is_kind)
}
