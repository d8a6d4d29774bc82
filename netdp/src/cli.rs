//! The command line: its doc comments are the help text and the man pages.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

use crate::datapath::select::Feature;
use crate::datapath::{Firewall, XdpMode};
use crate::plan::names::DEFAULT_IFNAME;
use crate::plan::sources;
use crate::plan::timeouts;
use crate::spec::Spec;
use crate::target::Target;

mod flows;

pub use flows::{FlowFilter, Flows};

/// How a publish spec is written.
const SPEC_FORM: &str = "[[HOST_ADDR:]HOST_PORT[-END]:]PORT[-END][/tcp|udp|sctp]";

/// Race-free NAT for container hosts, in eBPF.
///
/// Attaches network namespaces to a bridge, translates their way to the outside without losing a packet to a port
/// collision, and publishes their ports.
#[derive(Debug, Parser)]
#[command(name = "netdp", version, max_term_width = 110)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Options of every command")]
pub struct Global {
    /// The instance: its state is in /run/netdp/NAME, its pins in /sys/fs/bpf/netdp/NAME
    #[arg(long, value_name = "NAME", global = true, env = "NETDP_INSTANCE", default_value = "default")]
    pub instance: String,
    /// Act on this network namespace as the host: a name in /run/netns, or a path
    #[arg(long, value_name = "NAME|PATH", global = true, env = "NETDP_HOST_NETNS")]
    pub host_netns: Option<String>,
    /// The datapath; an instance's first command fixes it
    #[arg(long, global = true, env = "NETDP_DATAPATH", value_enum, default_value = "auto")]
    pub datapath: DatapathChoice,
    /// How many flows the table holds; only with an instance's first command
    #[arg(long, value_name = "N", global = true, env = "NETDP_FLOWS_MAX")]
    pub flows_max: Option<u32>,
    /// Who decides about translated packets; only with an instance's first command, which takes `bypass` if nothing is said
    #[arg(long, global = true, env = "NETDP_FIREWALL", value_enum)]
    pub firewall: Option<Firewall>,
    /// Drop what is refused from outside before the kernel makes a socket buffer of it: in the network card's driver, or
    /// behind it; only with commands that change something, and it stays [default: as it is; off at first]
    #[arg(long, value_name = "MODE", global = true, env = "NETDP_XDP", value_enum)]
    pub xdp: Option<XdpMode>,
    /// Do as if the kernel didn't have this; for tests
    #[arg(
        long,
        value_name = "FEATURE",
        global = true,
        env = "NETDP_WITHOUT",
        value_delimiter = ',',
        hide = true
    )]
    pub without: Vec<Feature>,
    /// One JSON document on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Say what is being done, on standard error; twice: in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// `--datapath`.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum DatapathChoice {
    /// The best that this kernel offers.
    Auto,
    /// TC and cgroup programs.
    Ebpf,
    /// Netfilter rules.
    Iptables,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list and remove networks
    #[command(subcommand)]
    Network(Network),
    /// Give a network namespace an interface on a network
    Attach(Attach),
    /// Take an endpoint off its network
    Detach {
        /// The endpoint
        name: String,
    },
    /// Make an endpoint's ports reachable at the host's addresses
    Publish(Publish),
    /// Undo `publish`
    Unpublish(Unpublish),
    /// Run a command in a new, attached network namespace
    Run(Run),
    /// List the endpoints
    Ls,
    /// Show one endpoint
    Inspect {
        /// The endpoint
        name: String,
    },
    /// List or remove translated flows
    #[command(args_conflicts_with_subcommands = true)]
    Flows {
        /// What to do with them; list them, if nothing is said
        #[command(subcommand)]
        command: Option<Flows>,
        /// Which ones
        #[command(flatten)]
        filter: FlowFilter,
    },
    /// Counters, and packets dropped by reason
    Stats {
        /// Print them again every second
        #[arg(long)]
        watch: bool,
    },
    /// Print every packet that netdp drops, with its reason, until interrupted
    Monitor,
    /// What this kernel and host offer, and what is wrong
    Doctor {
        /// Instead: from where each published port is reached, and what the host's firewall has to do with it
        #[arg(long)]
        reachability: bool,
    },
    /// Measure netdp side by side with what it replaces, in network namespaces of its own
    Bench(Bench),
    /// Put back what somebody else removed: rules, programs, settings
    Repair,
    /// Remove what belongs to endpoints whose namespace is gone
    Gc,
    /// Remove everything of this instance
    Down,
    /// Print a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages
    Man {
        /// Into which directory
        dir: PathBuf,
    },
}

impl Command {
    /// The verb, for messages.
    pub fn verb(&self) -> &'static str {
        match self {
            Self::Network(_) => "network",
            Self::Attach(_) => "attach",
            Self::Detach { .. } => "detach",
            Self::Publish(_) => "publish",
            Self::Unpublish(_) => "unpublish",
            Self::Run(_) => "run",
            Self::Ls => "ls",
            Self::Inspect { .. } => "inspect",
            Self::Flows { .. } => "flows",
            Self::Stats { .. } => "stats",
            Self::Monitor => "monitor",
            Self::Doctor { .. } => "doctor",
            Self::Bench(_) => "bench",
            Self::Repair => "repair",
            Self::Gc => "gc",
            Self::Down => "down",
            Self::Completions { .. } => "completions",
            Self::Man { .. } => "man",
        }
    }
}

/// `netdp network`.
#[derive(Debug, Subcommand)]
pub enum Network {
    /// Create a network: a bridge with its subnets
    Create(NetworkCreate),
    /// List the networks
    Ls,
    /// Show one network
    Inspect {
        /// The network
        name: String,
    },
    /// Remove a network that has no endpoints
    Rm {
        /// The network
        name: String,
    },
}

/// `netdp network create`.
#[derive(Debug, Args)]
pub struct NetworkCreate {
    /// Its name
    pub name: String,
    /// Its subnet, like 10.9.0.0/24 or fd09::/64; one of each family
    #[arg(long, value_name = "CIDR", required = true)]
    pub subnet: Vec<String>,
    /// The bridge's address [default: the subnet's first]; one of each family
    #[arg(long, value_name = "ADDR")]
    pub gateway: Vec<IpAddr>,
    /// The bridge's name [default: nd-NAME, cut to 15 bytes]
    #[arg(long, value_name = "IFNAME")]
    pub bridge: Option<String>,
    /// MTU [default: the default route's interface's]
    #[arg(long, value_name = "N")]
    pub mtu: Option<u32>,
    /// Translate to this address of the host [default: what the route prefers]; several: each endpoint to one of them,
    /// to the next where its ports are spent
    #[arg(long, value_name = "ADDR")]
    pub snat_to: Vec<IpAddr>,
    /// Translate to these ports
    #[arg(long, value_name = "LO-HI", default_value = "1024-65535")]
    pub snat_ports: String,
    /// No way out of the network and none in
    #[arg(long)]
    pub internal: bool,
    /// Endpoints of the network don't reach each other
    #[arg(long)]
    pub no_icc: bool,
    /// Unpublished ports are reachable for whoever has a route
    #[arg(long)]
    pub routed: bool,
    /// How long idle flows live, like udp=30s: tcp-half-open, tcp-established, tcp-transitory, tcp-closed, udp,
    /// udp-answered, udp-stream or icmp
    #[arg(long, value_name = "KEY=DURATION", value_parser = timeouts::parse)]
    pub timeout: Vec<timeouts::Given>,
}

/// What `attach` and `run` share.
#[derive(Clone, Debug, Args)]
pub struct Attachment {
    /// The endpoint's name [default: the namespace's, the path's last part, pid-N]
    #[arg(long)]
    pub name: Option<String>,
    /// The network, or a mode: none, host, container:NAME
    #[arg(long, value_name = "NETWORK", default_value = "default")]
    pub network: String,
    /// Its address [default: the lowest free one]; one of each family
    #[arg(long, value_name = "ADDR")]
    pub ip: Vec<IpAddr>,
    /// Its MAC [default: a random one]
    #[arg(long)]
    pub mac: Option<String>,
    /// Its interface
    #[arg(long, default_value = DEFAULT_IFNAME)]
    pub ifname: String,
    /// Publish a port
    #[arg(short, long, value_name = "SPEC", help = format!("Publish a port: {SPEC_FORM}"))]
    pub publish: Vec<Spec>,
    /// Most flows that the endpoint may have [default: half of what the others leave]
    #[arg(long, value_name = "N")]
    pub max_flows: Option<u32>,
    /// Addresses that it may send from besides its own
    #[arg(long, value_name = "CIDR")]
    pub allow_address: Vec<IpNet>,
}

/// `netdp attach`.
#[derive(Debug, Args)]
pub struct Attach {
    /// The namespace: its name in /run/netns, a path, or pid:N
    pub target: Target,
    /// How.
    #[command(flatten)]
    pub attachment: Attachment,
    /// Create the named namespace if there is none
    #[arg(long)]
    pub create: bool,
}

/// `netdp run`.
#[derive(Debug, Args)]
pub struct Run {
    /// How.
    #[command(flatten)]
    pub attachment: Attachment,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<std::ffi::OsString>,
}

/// `netdp bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// Less of everything: within two minutes
    #[arg(long)]
    pub quick: bool,
    /// Only this workload; may be given more than once
    #[arg(long, value_name = "WORKLOAD")]
    pub only: Vec<String>,
    /// Where report.html, plots and results.json go [default: netdp-bench-TIME; with --json, nowhere]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Rounds of each competitor in each case [default: 5; quick: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rounds: Option<u32>,
    /// Measure nothing: put two runs beside each other (results.json, or the directory it is in)
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["quick", "only", "out", "rounds"])]
    pub compare: Vec<PathBuf>,
}

/// `netdp publish`.
#[derive(Debug, Args)]
pub struct Publish {
    /// The endpoint
    pub name: String,
    /// What to publish
    #[arg(required = true, help = format!("What: {SPEC_FORM}; no host port: a free one"))]
    pub spec: Vec<Spec>,
    /// Take the port from the endpoint that has it
    #[arg(long)]
    pub replace: bool,
    /// Only for clients with these addresses, and for the host itself [default: for everybody]
    #[arg(long, value_name = "CIDR", value_delimiter = ',', value_parser = sources::parse)]
    pub from: Vec<IpNet>,
}

/// `netdp unpublish`.
#[derive(Debug, Args)]
pub struct Unpublish {
    /// The endpoint
    pub name: String,
    /// What, as it was published
    #[arg(required_unless_present = "all")]
    pub spec: Vec<Spec>,
    /// Everything that it publishes
    #[arg(long, conflicts_with = "spec")]
    pub all: bool,
    /// Let established connections finish
    #[arg(long)]
    pub drain: bool,
}

#[cfg(test)]
mod tests;
