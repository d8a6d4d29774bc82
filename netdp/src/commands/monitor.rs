//! `netdp monitor`: every packet that netdp drops, as it is dropped.

use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::cli::Global;
use crate::datapath::Kind;
use crate::datapath::ebpf::monitor::Monitor;
use crate::datapath::ebpf::{Ebpf, OpenOptions};
use crate::error::Error;
use crate::instance::Instance;
use crate::output;
use crate::refusal::Refusal;

/// Prints a line for each dropped packet until it is interrupted.
pub async fn run(global: &Global) -> Result<(), Error> {
    let there = Instance::read(global)?.is_some_and(|instance| instance.state.datapath == Kind::Ebpf);
    if !there || !Ebpf::exists(&global.instance) {
        return Err(Refusal::NothingToWatch { instance: global.instance.clone() }.into());
    }
    let monitor = Monitor::new(Ebpf::open(&global.instance, &OpenOptions::default())?)?;
    let mut readable = AsyncFd::with_interest(monitor, Interest::READABLE)
        .map_err(Error::system("watching the programs' log"))?;
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .map_err(Error::system("catching signals"))?;
    loop {
        let mut ready = tokio::select! {
            ready = readable.readable_mut() => ready.map_err(Error::system("watching the programs' log"))?,
            _ = &mut interrupt => return Ok(()),
            _ = terminate.recv() => return Ok(()),
        };
        let lines = ready.get_inner_mut().read();
        ready.clear_ready();
        for line in lines {
            output::line(if global.json { json!({ "drop": line }).to_string() } else { line })?;
        }
    }
}
