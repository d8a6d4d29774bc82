//! `netdp flows` on the command line.

use clap::{Args, Subcommand};

/// `netdp flows`.
#[derive(Debug, Subcommand)]
pub enum Flows {
    /// List them
    Ls(FlowFilter),
    /// Remove them
    Flush(FlowFilter),
}

/// Which flows.
#[derive(Clone, Debug, Default, Args)]
pub struct FlowFilter {
    /// Of this endpoint
    #[arg(long, value_name = "NAME")]
    pub endpoint: Option<String>,
    /// Of this protocol: tcp, udp, icmp, or a number
    #[arg(long)]
    pub proto: Option<String>,
    /// To this destination
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub dst: Option<String>,
    /// In this state
    #[arg(long)]
    pub state: Option<String>,
}
