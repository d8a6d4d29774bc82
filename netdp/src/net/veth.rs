//! veth pairs: one end on the host's bridge, the other in a container.

use std::os::fd::AsRawFd;

use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use rtnetlink::{LinkMessageBuilder, LinkUnspec, LinkVeth};

use super::error::Result;
use super::link::check_name;
use super::{Link, Mac, Net, NetNs, answer, sysctl};

/// A veth pair to create.
#[derive(Clone, Debug)]
pub struct VethSpec<'a> {
    /// Name of the host's end.
    pub host_name: &'a str,
    /// Its address; udev rewrites one that isn't given at creation.
    pub host_mac: Mac,
    /// Ifindex of the bridge that the host's end joins; 0: none.
    pub bridge: u32,
    /// The namespace of the other end.
    pub peer_ns: &'a NetNs,
    /// Name of the other end.
    pub peer_name: &'a str,
    /// Its address.
    pub peer_mac: Mac,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// Queues of both ends, at least 1; more than one lets several CPUs receive.
    pub queues: u32,
}

impl Net {
    /// Creates a veth pair: the host's end here, up and on the bridge, its peer in the other namespace, up.
    /// Nothing is left of it on failure.
    pub async fn create_veth(&self, spec: &VethSpec<'_>) -> Result<(Link, Link)> {
        check_name(spec.host_name)?;
        let peer_net = Self::open(spec.peer_ns)?;
        answer(self.handle.link().add(pair(spec)).execute(), || creating(spec)).await?;
        let host = self.existing_link(spec.host_name, || creating(spec)).await?;
        match finish_peer(&peer_net, spec).await {
            Ok(peer) => Ok((host, peer)),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.delete_link(host.index).await;
                Err(error)
            }
        }
    }
}

/// The peer is not up in this message: the kernel opens it before the two are a pair, and fails with ENOTCONN.
fn pair(spec: &VethSpec<'_>) -> LinkMessage {
    let queues = spec.queues.max(1);
    let peer = LinkUnspec::new_with_name(spec.peer_name)
        .setns_by_fd(spec.peer_ns.fd().as_raw_fd())
        .address(spec.peer_mac.0.to_vec())
        .mtu(spec.mtu)
        .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
        .append_extra_attribute(LinkAttribute::NumRxQueues(queues))
        .build();
    LinkMessageBuilder::<LinkVeth>::new(spec.host_name, spec.peer_name)
        .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
        .address(spec.host_mac.0.to_vec())
        .mtu(spec.mtu)
        .append_extra_attribute(LinkAttribute::NumTxQueues(queues))
        .append_extra_attribute(LinkAttribute::NumRxQueues(queues))
        .controller(spec.bridge)
        .up()
        .build()
}

async fn finish_peer(net: &Net, spec: &VethSpec<'_>) -> Result<Link> {
    let peer = net.existing_link(spec.peer_name, || creating(spec)).await?;
    spec.peer_ns.run(|| sysctl::settle_v6(spec.peer_name))??;
    net.set_up(peer.index).await?;
    net.existing_link(spec.peer_name, || creating(spec)).await
}

fn creating(spec: &VethSpec<'_>) -> String {
    let VethSpec { host_name, peer_name, .. } = spec;
    format!("creating the veth pair {host_name}, {peer_name} in {}", spec.peer_ns.id())
}
