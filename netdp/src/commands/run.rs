//! `netdp run`: a command in a new, attached namespace.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};

use super::attach::{self, Place};
use super::detach;
use crate::cli::{self, Attachment, Global};
use crate::entry::Caller;
use crate::error::Error;
use crate::hostfiles;
use crate::instance::Instance;
use crate::net::{LOOPBACK, Net, NetNs};
use crate::plan::mode::Mode;
use crate::plan::names;
use crate::refusal::Refusal;
use crate::state::Endpoint;
use crate::target::Target;
use crate::undo::Step;

mod launch;

use launch::{Launch, Mounts, Plan};

/// What a shell adds to a signal's number.
const BY_SIGNAL: i32 = 128;
/// Exit code when the command's own can't be told.
const UNKNOWN: u8 = 255;

/// Runs it; returns its exit code.
pub async fn run(global: &Global, args: cli::Run, caller: Caller) -> Result<u8, Error> {
    let cli::Run { attachment, command } = args;
    attach::check(&attachment)?;
    if let Some(mode) = Mode::parse(&attachment.network) {
        let (ns, mounts) = unattached(global, &attachment, &mode).await?;
        let launch = Launch::start(Plan { command, ns, caller, mounts })?;
        let signals = Signals::listen()?;
        return signals.wait(launch.go()?).await.map(code);
    }
    let name = attachment.name.clone().unwrap_or_else(|| format!("run-{}", std::process::id()));
    names::check_endpoint(&name)?;
    let mut instance = Instance::change(global).await?;
    // From here on signals are for the command: netdp has something to clean up.
    let signals = Signals::listen()?;
    let begun = begin(
        &mut instance,
        &name,
        &attachment,
        Plan { command, ns: None, caller, mounts: Mounts::default() },
    );
    let begun = begun.await;
    let (launch, endpoint) = instance.finish(begun).await?;
    let ended = match launch.go() {
        Ok(child) => signals.wait(child).await,
        Err(error) => Err(error),
    };
    end(global, &name, &endpoint).await?;
    ended.map(code)
}

/// The namespace of the modes without an own interface (none: the host's), and the names that are known there.
async fn unattached(
    global: &Global,
    attachment: &Attachment,
    mode: &Mode,
) -> Result<(Option<NetNs>, Mounts), Error> {
    if attachment.name.is_some() {
        return Err(Refusal::NothingToTranslate { option: "--name", mode: mode.to_string() }.into());
    }
    let Some(lender) = mode.lender() else {
        let ns = if *mode == Mode::Host { None } else { Some(NetNs::create_anonymous()?) };
        if let Some(ns) = &ns {
            let net = Net::open(ns)?;
            if let Some(lo) = net.link(LOOPBACK).await? {
                net.set_up(lo.index).await?;
            }
        }
        return Ok((ns, Mounts::default()));
    };
    let instance = Instance::read(global).await?;
    let no_endpoint = || Refusal::NoEndpoint { name: lender.into(), known: Vec::new() };
    let instance = instance.ok_or_else(no_endpoint)?;
    let ns = attach::mode::existing(&instance, mode).await?;
    let files = hostfiles::of_name(instance.dir(), lender, &instance.state);
    Ok((ns, Mounts::prepare(&files)?))
}

/// Starts the command's process, which waits, and attaches its namespace.
async fn begin(
    instance: &mut Instance,
    name: &str,
    attachment: &Attachment,
    mut plan: Plan,
) -> Result<(Launch, Endpoint), Error> {
    // An own namespace can't be opened again by the process that waits in it until it has a pid: clone the fd.
    let ns = NetNs::create_anonymous()?;
    let held =
        NetNs::open(&PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&ns.fd()))))?;
    let dir = hostfiles::run_dir(instance.dir(), name);
    instance.will(Step::RemoveFiles(dir.clone()))?;
    plan.mounts = Mounts::prepare(&hostfiles::create_run(&dir)?)?;
    plan.ns = Some(held);
    let launch = Launch::start(plan)?;
    let target = Target::Pid(launch.pid());
    let endpoint = attach::attach(instance, name, target, Place::There(ns), attachment).await?;
    Ok((launch, endpoint))
}

/// Removes the endpoint, unless somebody did, or put another in its place.
async fn end(global: &Global, name: &str, endpoint: &Endpoint) -> Result<(), Error> {
    let Some(mut instance) = Instance::existing(global).await? else {
        return Ok(());
    };
    let own =
        instance.state.endpoints.get(name).is_some_and(|found| found.host_ifname == endpoint.host_ifname);
    let removed = if own { detach::remove(&mut instance, name).await } else { Ok(()) };
    instance.finish(removed).await
}

fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| BY_SIGNAL + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(UNKNOWN)
}

/// The signals that netdp hands on, and the one that tells that the command has ended.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    hang_up: tokio::signal::unix::Signal,
    child: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, Error> {
        let listen = |kind| signal(kind).map_err(Error::system("listening for signals"));
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
            child: listen(SignalKind::child())?,
        })
    }

    async fn wait(mut self, mut child: Child) -> Result<ExitStatus, Error> {
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        loop {
            if let Some(status) = child.try_wait().map_err(Error::system("waiting for the command"))? {
                return Ok(status);
            }
            let signal = tokio::select! {
                _ = self.interrupt.recv() => Signal::SIGINT,
                _ = self.terminate.recv() => Signal::SIGTERM,
                _ = self.hang_up.recv() => Signal::SIGHUP,
                _ = self.child.recv() => continue,
            };
            // The terminal has sent its own to both already.
            if signal != Signal::SIGINT || !has_terminal() {
                // It may have ended just now.
                let _ = kill(pid, signal);
            }
        }
    }
}

/// Whether this process is in the foreground of a terminal, whose Ctrl-C goes to the command as well.
fn has_terminal() -> bool {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // proc(5): after the name in parentheses come state, ppid, pgrp, session, tty_nr, tpgid.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    fields.get(2).is_some_and(|group| fields.get(5) == Some(group))
}
