//! netdp as a library: what the command line is made of, so that tests and xtask can use the parts.

pub mod datapath;
pub mod net;
