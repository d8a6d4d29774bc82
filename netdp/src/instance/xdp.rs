//! `--xdp`: looked at before a command changes anything, and done when it has done the rest.

use super::Instance;
use crate::cli::Global;
use crate::datapath::ebpf::xdp::{self, Obstacle};
use crate::datapath::{self, Kind, XdpMode};
use crate::error::Error;
use crate::refusal::Refusal;
use crate::undo::Step;

impl Instance {
    /// The mode that the instance is to have from now on; none: the one that it has.
    fn new_xdp(&self) -> Option<XdpMode> {
        self.xdp.filter(|asked| *asked != self.state.xdp)
    }

    /// Refuses a mode that this host can't have.
    pub(super) fn check_xdp(&self) -> Result<(), Error> {
        let Some(mode) = self.new_xdp().filter(|mode| !mode.is_off()) else { return Ok(()) };
        if self.state.datapath == Kind::Iptables {
            return Err(Refusal::XdpWithoutPrograms { mode: mode.name() }.into());
        }
        match xdp::candidates(&self.name)?.into_iter().find_map(|candidate| candidate.obstacle) {
            Some(obstacle) => Err(refusal(mode, &obstacle)),
            None => Ok(()),
        }
    }

    /// Puts the program where it was asked for.
    pub(super) fn apply_xdp(&mut self) -> Result<(), Error> {
        let Some(mode) = self.new_xdp() else { return Ok(()) };
        // `auto` may have fallen back to netfilter meanwhile.
        self.datapath()?;
        self.check_xdp()?;
        self.will(Step::Xdp(self.state.xdp))?;
        self.state.xdp = mode;
        self.datapath()?.set_xdp(mode).map_err(|error| refused(mode, error))
    }
}

/// `--xdp` where there is no instance to remember it.
pub(super) fn check_absent(global: &Global) -> Result<(), Refusal> {
    match global.xdp {
        Some(mode) if !mode.is_off() => {
            Err(Refusal::XdpOfNothing { mode: mode.name(), instance: global.instance.clone() })
        }
        _ => Ok(()),
    }
}

/// `--xdp` with a command that changes nothing.
pub(super) fn check_unchanged(global: &Global, has: XdpMode) -> Result<(), Refusal> {
    match global.xdp {
        Some(asked) if asked != has => {
            let instance = global.instance.clone();
            Err(Refusal::XdpUnchanged { asked: asked.name(), has: has.name(), instance })
        }
        _ => Ok(()),
    }
}

/// What an interface does not take is no failure of netdp's.
fn refused(mode: XdpMode, error: datapath::Error) -> Error {
    match error.cause.downcast_ref::<Obstacle>() {
        Some(obstacle) => refusal(mode, obstacle),
        None => error.into(),
    }
}

fn refusal(mode: XdpMode, obstacle: &Obstacle) -> Error {
    Refusal::Xdp { mode: mode.name(), why: obstacle.to_string() }.into()
}
