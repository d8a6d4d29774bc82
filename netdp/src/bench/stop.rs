//! Signals end a run early, and everything that it made goes as at its end.

use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use super::Error;

/// Threads of a load look at it between steps that are short.
static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Whether a signal came.
pub(super) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// An error if a signal came.
pub(super) fn check() -> Result<(), Error> {
    if requested() { Err(Error::Interrupted) } else { Ok(()) }
}

/// Runs the work on a thread of its own, and lets it end soon after a signal.
pub(super) async fn on_signals<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, crate::Error> {
    let listen = |kind| signal(kind).map_err(crate::Error::system("listening for signals"));
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    let mut work = tokio::task::spawn_blocking(work);
    loop {
        tokio::select! {
            done = &mut work => {
                return done.map_err(|panic| crate::Error::system("measuring")(std::io::Error::other(panic)));
            }
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
        REQUESTED.store(true, Ordering::Relaxed);
    }
}
