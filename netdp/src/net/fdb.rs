//! A bridge's forwarding database: behind which port a MAC is.

use futures_util::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};

use super::error::{Error, Result};
use super::{Mac, Net};

/// One address that a bridge knows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FdbEntry {
    /// Ifindex of the port.
    pub port: u32,
    /// The address.
    pub mac: Mac,
    /// It doesn't age: set by hand (static) or the port's own (permanent).
    pub fixed: bool,
}

impl Net {
    /// `bridge fdb replace MAC dev PORT master static`: frames for `mac` leave by `port`, for good. Replacing matters:
    /// the bridge learns the address from the container's first frames, adding then fails, and the learnt entry ages
    /// out later.
    pub async fn replace_fdb(&self, port: u32, mac: Mac) -> Result<()> {
        self.handle
            .neighbours()
            .add_bridge(port, &mac.0)
            // In the FDB, NOARP means static; PERMANENT would be an address of the bridge itself.
            .state(NeighbourState::Noarp)
            .flags(NeighbourFlags::Controller)
            .replace()
            .execute()
            .await
            .map_err(Error::netlink(|| format!("setting the FDB entry {mac} of the bridge port {port}")))
    }

    /// The addresses that the bridge of `port` knows behind it.
    pub async fn fdb(&self, port: u32) -> Result<Vec<FdbEntry>> {
        let messages: Vec<NeighbourMessage> = self
            .handle
            .neighbours()
            .get()
            .set_address_family(AddressFamily::Bridge)
            .execute()
            .try_collect()
            .await
            .map_err(Error::netlink(|| format!("listing the FDB entries of the bridge port {port}")))?;
        // A port's device lists addresses of its own too (NTF_SELF): those have no master.
        let on_port = messages.iter().filter(|message| message.header.ifindex == port && has_master(message));
        Ok(on_port.filter_map(from_message).collect())
    }
}

fn has_master(message: &NeighbourMessage) -> bool {
    message.attributes.iter().any(|attribute| matches!(attribute, NeighbourAttribute::Controller(_)))
        && !message.header.flags.contains(NeighbourFlags::Own)
}

fn from_message(message: &NeighbourMessage) -> Option<FdbEntry> {
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => bytes.as_slice().try_into().ok().map(Mac),
        _ => None,
    })?;
    let fixed = matches!(message.header.state, NeighbourState::Noarp | NeighbourState::Permanent);
    Some(FdbEntry { port: message.header.ifindex, mac, fixed })
}
