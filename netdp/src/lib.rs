//! netdp
