//! Netlink for callers that aren't asynchronous.

use std::thread;

use super::error::{Error, Result};
use super::{Net, NetNs};

/// Runs `work` in the calling thread's network namespace, on a thread and a runtime of its own: the caller may be on
/// a runtime already, which can't be waited on from within.
pub fn blocking<T: Send>(work: impl AsyncFnOnce(Net) -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .map_err(Error::system(|| "starting a runtime for netlink".to_owned()))?;
            runtime.block_on(async { work(Net::open(&NetNs::current()?)?).await })
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
