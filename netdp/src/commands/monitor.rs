//! `netdp monitor`: every packet that netdp drops, as it is dropped.

use std::time::Duration;

use serde_json::json;

use crate::cli::Global;
use crate::datapath::Kind;
use crate::datapath::ebpf::monitor::Monitor;
use crate::datapath::ebpf::{Ebpf, OpenOptions};
use crate::error::Error;
use crate::instance::Instance;
use crate::output;
use crate::refusal::Refusal;

/// How often the programs' log is emptied: it has room for some thousand lines.
const INTERVAL: Duration = Duration::from_millis(20);

/// Prints a line for each dropped packet until it is interrupted.
pub async fn run(global: &Global) -> Result<(), Error> {
    let there = Instance::read(global).await?.is_some_and(|instance| instance.state.datapath == Kind::Ebpf);
    if !there || !Ebpf::exists(&global.instance) {
        return Err(Refusal::NothingToWatch { instance: global.instance.clone() }.into());
    }
    let mut monitor = Monitor::new(Ebpf::open(&global.instance, &OpenOptions::default())?)?;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(Error::system("catching signals"))?;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = &mut interrupt => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        }
        for line in monitor.read() {
            output::line(if global.json { json!({ "drop": line }).to_string() } else { line })?;
        }
    }
}
