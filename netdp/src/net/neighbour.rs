//! Neighbours: which MAC has an address.

use std::net::IpAddr;

use netlink_packet_route::neighbour::NeighbourState;
use nix::errno::Errno;

use super::error::{Result, gone_is_fine};
use super::{Mac, Net, answer};

impl Net {
    /// Sets the MAC of `addr` on the link for good, whatever the kernel has learnt about it.
    pub async fn replace_neighbour(&self, index: u32, addr: IpAddr, mac: Mac) -> Result<()> {
        let request = self.handle.neighbours().add(index, addr).link_layer_address(&mac.0);
        let request = request.state(NeighbourState::Permanent).replace();
        answer(request.execute(), || format!("setting the neighbour {addr} to {mac} on the link {index}"))
            .await
    }

    /// Removes a neighbour; one that isn't there, or whose link is gone, is fine.
    pub async fn remove_neighbour(&self, index: u32, addr: IpAddr) -> Result<()> {
        let message = self.handle.neighbours().add(index, addr).message_mut().clone();
        let doing = || format!("removing the neighbour {addr} from the link {index}");
        let removed = answer(self.handle.neighbours().del(message).execute(), doing).await;
        gone_is_fine(removed, &[Errno::ENOENT, Errno::ENODEV])
    }
}
