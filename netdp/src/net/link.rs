//! Links: find, bring up, delete.

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage, LinkXdp};
use nix::errno::Errno;
use rtnetlink::{LinkGetRequest, LinkUnspec};

use super::error::{Error, Result, gone_is_fine};
use super::{Mac, Net, answer, answers};

/// The longest link name, in bytes: the kernel's IFNAMSIZ without the terminator.
const NAME_MAX: usize = 15;

/// Whether a link can have that name. The kernel would take a '%' for the start of a pattern like `br%d`, and make up
/// the number.
pub fn is_link_name(name: &str) -> bool {
    let bad = |c: char| c.is_whitespace() || matches!(c, '/' | ':' | '%' | '\0');
    (1..=NAME_MAX).contains(&name.len()) && name != "." && name != ".." && !name.contains(bad)
}

/// [`is_link_name`], as an error.
pub(super) fn check_name(name: &str) -> Result<()> {
    if is_link_name(name) { Ok(()) } else { Err(Error::BadLinkName(name.to_owned())) }
}

/// What a link's packets begin with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// The network header: tun, WireGuard, PPP, what a modem has.
    Bare,
    /// Something else.
    Other,
}

/// A network interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its ifindex, unique in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its Ethernet address, if it has one.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// The ifindex of the bridge, bond or VRF it belongs to.
    pub master: Option<u32>,
    /// The kernel's name for its kind, like `bridge`, `veth`, `vlan`; none for hardware and `lo`.
    pub kind: Option<String>,
    /// The ifindex it refers to (IFLA_LINK): a veth's peer, a VLAN's parent; in the namespace `peer_netnsid`.
    pub peer_index: Option<u32>,
    /// The namespace of `peer_index`, as an identifier that only means something in this namespace; none: this one.
    pub peer_netnsid: Option<i32>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it is a loopback interface.
    pub loopback: bool,
    /// What its packets begin with.
    pub framing: Framing,
    /// Its description (`ip link set alias`).
    pub alias: Option<String>,
    /// The ids of its XDP programs.
    pub xdp: Vec<u32>,
}

impl Net {
    /// The link called `name`; none if there is no such link.
    pub async fn link(&self, name: &str) -> Result<Option<Link>> {
        if name.is_empty() || name.len() > NAME_MAX {
            return Ok(None);
        }
        self.get_link(self.handle.link().get().match_name(name), || format!("looking up the link {name}"))
            .await
    }

    /// The link with that ifindex; none if there is no such link.
    pub async fn link_by_index(&self, index: u32) -> Result<Option<Link>> {
        if index == 0 {
            return Ok(None);
        }
        self.get_link(self.handle.link().get().match_index(index), || format!("looking up the link {index}"))
            .await
    }

    /// Every link of the namespace.
    pub async fn links(&self) -> Result<Vec<Link>> {
        let messages = answers(self.handle.link().get().execute(), || "listing the links".to_owned()).await?;
        Ok(messages.iter().map(Link::from).collect())
    }

    /// Brings a link up.
    pub async fn set_up(&self, index: u32) -> Result<()> {
        self.change_link(LinkUnspec::new_with_index(index).up().build(), || {
            format!("bringing up the link {index}")
        })
        .await
    }

    /// Takes a link down.
    pub async fn set_down(&self, index: u32) -> Result<()> {
        self.change_link(LinkUnspec::new_with_index(index).down().build(), || {
            format!("taking down the link {index}")
        })
        .await
    }

    /// Makes a link a port of a bridge.
    pub async fn set_master(&self, index: u32, bridge: u32) -> Result<()> {
        self.change_link(LinkUnspec::new_with_index(index).controller(bridge).build(), || {
            format!("making the link {index} a port of the bridge {bridge}")
        })
        .await
    }

    /// Gives a link a description of at most 255 bytes.
    pub async fn set_alias(&self, index: u32, alias: &str) -> Result<()> {
        let message = LinkUnspec::new_with_index(index).alias(alias).build();
        self.change_link(message, || format!("setting the alias of the link {index} to {alias:?}")).await
    }

    /// Deletes a link; a veth's peer goes with it. A link that is gone already is fine.
    pub async fn delete_link(&self, index: u32) -> Result<()> {
        let deleted =
            answer(self.handle.link().del(index).execute(), || format!("deleting the link {index}"));
        gone_is_fine(deleted.await, &[Errno::ENODEV])
    }

    /// The link called `name`, which was there a moment ago.
    pub(super) async fn existing_link(&self, name: &str, doing: impl FnOnce() -> String) -> Result<Link> {
        self.link(name).await?.ok_or_else(|| Error::LinkVanished { doing: doing(), name: name.to_owned() })
    }

    pub(super) async fn change_link(
        &self,
        message: LinkMessage,
        doing: impl FnOnce() -> String,
    ) -> Result<()> {
        answer(self.handle.link().change(message).execute(), doing).await
    }

    async fn get_link(
        &self,
        request: LinkGetRequest,
        doing: impl FnOnce() -> String,
    ) -> Result<Option<Link>> {
        match answers(request.execute(), doing).await {
            Ok(messages) => Ok(messages.first().map(Link::from)),
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl From<&LinkMessage> for Link {
    fn from(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            name: String::new(),
            mac: None,
            mtu: 0,
            master: None,
            kind: None,
            peer_index: None,
            peer_netnsid: None,
            up: flags.contains(LinkFlags::Up),
            loopback: flags.contains(LinkFlags::Loopback),
            framing: framing(message.header.link_layer_type),
            alias: None,
            xdp: Vec::new(),
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Address(bytes) => link.mac = bytes.as_slice().try_into().ok().map(Mac),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.master = Some(*index),
                LinkAttribute::Link(index) => link.peer_index = Some(*index),
                LinkAttribute::LinkNetNsId(id) => link.peer_netnsid = Some(*id),
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias.clone()),
                LinkAttribute::LinkInfo(infos) => link.kind = kind(infos),
                LinkAttribute::Xdp(said) => link.xdp = xdp_programs(said),
                _ => {}
            }
        }
        link
    }
}

/// By `ARPHRD_*`. Tunnels that the kernel has types of their own for, as GRE, are not among them.
const fn framing(kind: LinkLayerType) -> Framing {
    match kind {
        LinkLayerType::Ether => Framing::Ethernet,
        LinkLayerType::None | LinkLayerType::Ppp | LinkLayerType::Rawip => Framing::Bare,
        _ => Framing::Other,
    }
}

fn kind(infos: &[LinkInfo]) -> Option<String> {
    infos.iter().find_map(|info| match info {
        LinkInfo::Kind(kind) => Some(kind.to_string()),
        _ => None,
    })
}

/// By mode if there are several (`IFLA_XDP_PROG_ID` is there for one alone).
fn xdp_programs(said: &[LinkXdp]) -> Vec<u32> {
    let mut ids: Vec<u32> = said
        .iter()
        .filter_map(|said| match said {
            LinkXdp::ProgId(id) | LinkXdp::DrvProgId(id) | LinkXdp::SkbProgId(id) | LinkXdp::HwProgId(id) => {
                Some(*id)
            }
            _ => None,
        })
        .collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_the_kernel_takes_literally() {
        for good in ["br0", "nd-default", "eth0.7", "fifteen-bytes-x"] {
            assert!(is_link_name(good), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "a:0", "br%d", "sixteen-bytes-xx"] {
            assert!(!is_link_name(bad), "{bad:?}");
        }
    }
}
