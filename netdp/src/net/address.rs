//! Addresses of links.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use nix::errno::Errno;

use super::error::{Result, gone_is_fine};
use super::{Net, answer, answers};

impl Net {
    /// Adds an address, usable at once: IPv6's duplicate detection would keep it tentative for a second or two.
    /// An address that the link has already is an error (EEXIST).
    pub async fn add_address(&self, index: u32, addr: IpNet) -> Result<()> {
        let mut request = self.handle.address().add(index, addr.addr(), addr.prefix_len());
        if addr.addr().is_ipv6() {
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        answer(request.execute(), || format!("adding the address {addr} to the link {index}")).await
    }

    /// Removes an address; one that isn't there, or whose link is gone, is fine.
    pub async fn remove_address(&self, index: u32, addr: IpNet) -> Result<()> {
        let message = self.handle.address().add(index, addr.addr(), addr.prefix_len()).message_mut().clone();
        let doing = || format!("removing the address {addr} from the link {index}");
        let removed = answer(self.handle.address().del(message).execute(), doing).await;
        gone_is_fine(removed, &[Errno::EADDRNOTAVAIL, Errno::ENODEV])
    }

    /// Every address of the namespace with its link's ifindex.
    pub async fn addresses(&self) -> Result<Vec<(u32, IpNet)>> {
        let messages =
            answers(self.handle.address().get().execute(), || "listing the addresses".to_owned()).await?;
        Ok(messages.iter().filter_map(|message| Some((message.header.index, address(message)?))).collect())
    }
}

/// On a point-to-point link, IFA_ADDRESS is the other side's and IFA_LOCAL ours; IPv6 has only IFA_ADDRESS otherwise.
fn address(message: &AddressMessage) -> Option<IpNet> {
    let find = |pick: fn(&AddressAttribute) -> Option<IpAddr>| message.attributes.iter().find_map(pick);
    let local = find(|attribute| match attribute {
        AddressAttribute::Local(addr) => Some(*addr),
        _ => None,
    });
    let addr = local.or_else(|| {
        find(|attribute| match attribute {
            AddressAttribute::Address(addr) => Some(*addr),
            _ => None,
        })
    })?;
    IpNet::new(addr, message.header.prefix_len).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_local_address_wins() {
        let mut message = AddressMessage::default();
        message.header.prefix_len = 24;
        let peer = AddressAttribute::Address("192.0.2.9".parse().expect("an address"));
        message.attributes = vec![peer.clone()];
        assert_eq!(address(&message), "192.0.2.9/24".parse().ok());
        message.attributes = vec![peer, AddressAttribute::Local("192.0.2.1".parse().expect("an address"))];
        assert_eq!(address(&message), "192.0.2.1/24".parse().ok());
    }
}
