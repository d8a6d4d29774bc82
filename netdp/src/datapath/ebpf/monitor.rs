//! Watching packets being dropped: the programs log each drop while somebody watches, and only then.

use std::sync::{Arc, Mutex, PoisonError};

use aya_log::EbpfLogger;
use netdp_common::flow::Config;
use netdp_common::verdict::DropReason;

use super::super::Error;
use super::{Ebpf, doing, hooks};

/// How the programs begin their line: the drop reason's number follows.
const PREFIX: &str = "drop ";

/// Somebody who watches. Dropping it ends the logging.
pub struct Monitor {
    ebpf: Ebpf,
    logger: EbpfLogger<Lines>,
    lines: Lines,
}

impl std::fmt::Debug for Monitor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Monitor").field("ebpf", &self.ebpf).finish_non_exhaustive()
    }
}

impl Monitor {
    /// Starts to watch. One at a time: a line is read by one watcher only.
    ///
    /// # Errors
    /// When the pinned programs can't be asked for their log.
    pub fn new(ebpf: Ebpf) -> Result<Self, Error> {
        let what = "opening the programs' log";
        let program = hooks::open_program(&ebpf, "from_container")?.info().map_err(|e| doing(what, e))?;
        let lines = Lines::default();
        let logger =
            EbpfLogger::init_from_id_with_logger(program.id(), lines.clone()).map_err(|e| doing(what, e))?;
        let mut monitor = Self { ebpf, logger, lines };
        // What was logged for an earlier watcher, and not read.
        monitor.read();
        monitor.set_trace(1)?;
        Ok(monitor)
    }

    /// The lines that have come since, one for each dropped packet.
    pub fn read(&mut self) -> Vec<String> {
        self.logger.flush();
        std::mem::take(&mut *self.lines.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn set_trace(&self, trace: u32) -> Result<(), Error> {
        let what = "telling the programs whether somebody watches";
        let mut map = self.ebpf.array::<Config>("CONFIG")?;
        let config = map.get(&0, 0).map_err(|e| doing(what, e))?;
        map.set(0, Config { trace, ..config }, 0).map_err(|e| doing(what, e))
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        if let Err(error) = self.set_trace(0) {
            tracing::warn!("{error}: the programs go on logging drops");
        }
    }
}

/// Where the logger puts its lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl log::Log for Lines {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(name_reason(&record.args().to_string()));
    }

    fn flush(&self) {}
}

/// The programs log a drop reason's number: its name takes less room here than there.
fn name_reason(line: &str) -> String {
    let named = line.strip_prefix(PREFIX).and_then(|rest| {
        let (number, rest) = rest.split_once(' ')?;
        let reason = DropReason::ALL.get(number.parse::<usize>().ok()?)?;
        Some(format!("{} {rest}", reason.name()))
    });
    named.unwrap_or_else(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_named() {
        let spoofed = DropReason::Spoofed as u32;
        assert_eq!(name_reason(&format!("drop {spoofed} if 5 len 60")), "spoofed if 5 len 60");
        assert_eq!(name_reason("drop 9999 if 5"), "drop 9999 if 5");
        assert_eq!(name_reason("something else"), "something else");
    }
}
