//! Empty: makes cargo rebuild what depends on the programs when they change.
#![no_std]
