//! Random numbers for names and choices. Not for secrets.

use std::hash::{BuildHasher as _, RandomState};

/// A random number: the keys of std's hasher come from the kernel's random pool and differ for every call.
pub(crate) fn number() -> u64 {
    RandomState::new().hash_one(())
}
