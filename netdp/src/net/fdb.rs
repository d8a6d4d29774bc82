//! A bridge's forwarding database: behind which port a MAC is.

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState};

use super::error::Result;
use super::{Mac, Net, answer, answers};

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
        // In the FDB, NOARP means static; PERMANENT would be an address of the bridge itself.
        let request = self.handle.neighbours().add_bridge(port, &mac.0).state(NeighbourState::Noarp);
        let request = request.flags(NeighbourFlags::Controller).replace();
        answer(request.execute(), || format!("setting the FDB entry {mac} of the bridge port {port}")).await
    }

    /// The addresses that the bridge of `port` knows behind it.
    pub async fn fdb(&self, port: u32) -> Result<Vec<FdbEntry>> {
        let request = self.handle.neighbours().get().set_address_family(AddressFamily::Bridge);
        let doing = || format!("listing the FDB entries of the bridge port {port}");
        let messages = answers(request.execute(), doing).await?;
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
