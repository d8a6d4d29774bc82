//! What a command is about to do, decided before anything is touched: values in, values out, no system calls.

pub mod allowed;
pub mod ipam;
pub mod mac;
pub mod mode;
pub mod names;
pub mod ports;
pub mod published;
pub mod sources;
pub mod subnet;
pub mod timeouts;
