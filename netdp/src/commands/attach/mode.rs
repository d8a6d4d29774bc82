//! `attach` with a mode instead of a network: no interface, but a name for a namespace.

use super::Place;
use crate::cli::Attachment;
use crate::commands::detach;
use crate::error::Error;
use crate::instance::Instance;
use crate::net::NetNs;
use crate::plan::mode::Mode;
use crate::plan::names;
use crate::refusal::Refusal;
use crate::state::Bound;
use crate::target::{self, Target};

/// Refuses options that only an interface has a use for.
pub fn check(attachment: &Attachment, mode: &Mode) -> Result<(), Error> {
    let wants = [
        (!attachment.publish.is_empty(), "--publish"),
        (!attachment.ip.is_empty(), "--ip"),
        (attachment.mac.is_some(), "--mac"),
        (attachment.ifname != names::DEFAULT_IFNAME, "--ifname"),
    ];
    if let Some((_, option)) = wants.iter().find(|(wants, _)| *wants) {
        return Err(Refusal::NothingToTranslate { option, mode: mode.to_string() }.into());
    }
    mode.lender().map_or(Ok(()), |lender| Ok(names::check("endpoint", lender)?))
}

/// Gives a namespace its name.
pub(super) async fn bind(
    instance: &mut Instance,
    name: &str,
    target: Target,
    place: Place,
    mode: Mode,
) -> Result<Bound, Error> {
    let replaces = super::check_name(instance, name).await?;
    if mode != Mode::None && !matches!(place, Place::New(_)) {
        return Err(Refusal::ModeNeedsNew { target: target.to_string(), mode: mode.to_string() }.into());
    }
    if let Place::There(ns) = &place
        && ns.id() == instance.host.id()
    {
        return Err(Refusal::HostAsTarget(target.to_string()).into());
    }
    let existing = existing(instance, &mode).await?;
    let kept = if replaces { detach::replace(instance, name, &target).await? } else { Vec::new() };
    let (ns, created) = match place {
        Place::There(ns) => {
            let created = kept.iter().any(|kept| kept.is_name_of(&target, ns.id()));
            (ns, created)
        }
        Place::New(name) => {
            let create = |name: &str| match existing {
                Some(ns) => ns.bind_named(name),
                None => NetNs::create_named(name),
            };
            (super::create_namespace(instance, &name, create)?, true)
        }
    };
    if mode == Mode::None {
        super::loopback(instance, &ns, &target).await?;
    }
    let bound = Bound { target, netns: ns.id(), created, mode };
    instance.state.bound.insert(name.into(), bound.clone());
    Ok(bound)
}

/// The namespace that a mode shares; none: it makes a new one.
pub async fn existing(instance: &Instance, mode: &Mode) -> Result<Option<NetNs>, Error> {
    let lender = match mode {
        Mode::None => return Ok(None),
        Mode::Host => return Ok(Some(NetNs::current()?)),
        Mode::Container(lender) => lender,
    };
    let gone = || Refusal::EndpointGone(lender.clone());
    let (target, id) = if let Some(bound) = instance.state.bound.get(lender) {
        (&bound.target, bound.netns)
    } else {
        let endpoint = instance.endpoint(lender)?;
        if !instance.is_alive(endpoint).await? {
            return Err(gone().into());
        }
        (&endpoint.target, endpoint.netns)
    };
    let file = if target.is_at(id) { Some(target.file()) } else { target::find(id) };
    let ns = NetNs::open(&file.ok_or_else(gone)?)?;
    if ns.id() == id { Ok(Some(ns)) } else { Err(gone().into()) }
}
