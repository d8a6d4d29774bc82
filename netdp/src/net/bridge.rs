//! Bridges and their ports.

use netlink_packet_route::link::{BridgeStpState, InfoBridge};
use rtnetlink::{LinkBridge, LinkBridgePort, LinkMessageBuilder, LinkUnspec};

use super::error::Result;
use super::link::check_name;
use super::{Link, Mac, Net, answer, sysctl};

/// A bridge to create.
#[derive(Clone, Debug)]
pub struct BridgeSpec {
    /// Its name.
    pub name: String,
    /// Its address. Without one of its own a bridge takes a port's, and containers lose their gateway's neighbour
    /// entry whenever a port comes or goes.
    pub mac: Mac,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// It forwards IPv6. While it is created, every link would: nobody else may create any.
    pub forwards_v6: bool,
}

/// How a bridge port treats frames. Broadcast and multicast are always flooded. The default is what endpoints get:
/// everything off.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PortFlags {
    /// Frames may leave by the port they came from.
    pub hairpin: bool,
    /// The bridge learns addresses from the port's frames.
    pub learning: bool,
    /// Unicast frames with an unknown destination go out of the port.
    pub unicast_flood: bool,
    /// Only frames from addresses that the FDB has at this port come in (Linux 5.18; older kernels ignore it).
    pub locked: bool,
    /// Frames of other isolated ports don't leave by it, nor its own by them.
    pub isolated: bool,
}

impl Net {
    /// Creates a bridge with a fixed MAC and without STP, and brings it up. Nothing is left of it on failure. The
    /// calling thread must be in this namespace, for the sysctls.
    pub async fn create_bridge(&self, spec: &BridgeSpec) -> Result<Link> {
        let name = &spec.name;
        check_name(name)?;
        let message = LinkMessageBuilder::<LinkBridge>::new(name)
            .address(spec.mac.0.to_vec())
            .stp_state(BridgeStpState::Disabled)
            .build();
        let doing = || format!("creating the bridge {name}");
        let switch = spec.forwards_v6 && !sysctl::forwards_v6("default")?;
        if switch {
            sysctl::set_default_forwarding_v6(true)?;
        }
        let added = answer(self.handle.link().add(message).execute(), doing).await;
        if switch {
            sysctl::set_default_forwarding_v6(false)?;
        }
        added?;
        let link = self.existing_link(name, doing).await?;
        match self.finish_bridge(link.index, spec).await {
            Ok(link) => Ok(link),
            Err(error) => {
                // The first error is the one to report.
                let _ = self.delete_link(link.index).await;
                Err(error)
            }
        }
    }

    /// The MTU has a message of its own: one given at creation follows the smallest port's later on.
    async fn finish_bridge(&self, index: u32, spec: &BridgeSpec) -> Result<Link> {
        let BridgeSpec { name, mtu, .. } = spec;
        sysctl::settle_v6(name)?;
        let message = LinkUnspec::new_with_index(index).mtu(*mtu).up().build();
        self.change_link(message, || {
            format!("setting the MTU of the bridge {name} to {mtu} and bringing it up")
        })
        .await?;
        self.existing_link(name, || format!("creating the bridge {name}")).await
    }

    /// Sets the flags of the bridge port `port`. Put the port's static FDB entry in place first
    /// ([`Net::replace_fdb`]): without flooding, nothing reaches an address that the bridge doesn't know.
    pub async fn set_bridge_port(&self, port: u32, flags: PortFlags) -> Result<()> {
        let PortFlags { hairpin, learning, unicast_flood, locked, isolated } = flags;
        let message = LinkBridgePort::new(port)
            .hairpin(hairpin)
            .learning(learning)
            .flood(unicast_flood)
            .locked(locked)
            .isolated(isolated)
            .build();
        let doing = || format!("setting {flags:?} on the bridge port {port}");
        answer(self.handle.link().set_port(message).execute(), doing).await
    }

    /// Lets iptables and ip6tables see what a bridge forwards by itself, whatever the host-wide sysctl says. Takes
    /// effect where the kernel has br_netfilter.
    pub async fn filter_bridge(&self, bridge: u32, name: &str) -> Result<()> {
        let message = LinkMessageBuilder::<LinkBridge>::new(name)
            .index(bridge)
            .append_info_data(InfoBridge::NfCallIpTables(true))
            .append_info_data(InfoBridge::NfCallIp6Tables(true))
            .build();
        self.change_link(message, || format!("letting iptables see what the bridge {name} forwards")).await
    }
}
