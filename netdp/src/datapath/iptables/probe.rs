//! What this host offers the iptables datapath.

use super::family::Family;
use super::program::Backend;

/// Which iptables netdp would use here, with its version; or why there is none.
pub fn probe() -> Result<String, String> {
    let backend = Backend::detect().map_err(|error| error.to_string())?;
    let describe = |family| {
        backend.save(family).and_then(|_| backend.version(family)).map_err(|error| error.to_string())
    };
    let v4 = describe(Family::V4)?;
    match describe(Family::V6) {
        Ok(v6) => Ok(format!("{v4}, {v6}")),
        Err(error) => Ok(format!("{v4}, IPv4 only: {error}")),
    }
}
