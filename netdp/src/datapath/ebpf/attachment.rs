//! How TC programs are attached on this kernel, found out by attaching one.

use std::thread;

use aya::programs::tc::{NlOptions, TcAttachOptions, TcHandle, qdisc_add_clsact};
use aya::programs::{LinkOrder, ProgramError, SchedClassifier, TcAttachType};
use nix::sched::{CloneFlags, unshare};

use super::super::Error;
use super::doing;

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Attachment {
    /// Links, since Linux 6.6: pinned, they stay.
    Tcx,
    /// Filters behind a `clsact` qdisc: see [`super::clsact`].
    Clsact,
}

/// Attaches a loaded program to the loopback of a network namespace that goes with this call.
pub(super) fn find(program: &mut SchedClassifier, without_tcx: bool) -> Result<Attachment, Error> {
    let what = "attaching a program in a namespace to try it";
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| doing(what, e))?;
            if !without_tcx && try_tcx(program).is_ok() {
                return Ok(Attachment::Tcx);
            }
            try_clsact(program).map(|()| Attachment::Clsact).map_err(|e| doing(what, e))
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

const LOOPBACK: &str = "lo";

fn try_tcx(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::first());
    let link = program.attach_with_options(LOOPBACK, TcAttachType::Ingress, order)?;
    program.detach(link)
}

fn try_clsact(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    qdisc_add_clsact(LOOPBACK)?;
    let first = NlOptions { priority: 1, handle: TcHandle::new(0, 1), classid: None };
    let link =
        program.attach_with_options(LOOPBACK, TcAttachType::Ingress, TcAttachOptions::Netlink(first))?;
    program.detach(link)
}
