//! What netdp refuses before it touches anything: wrong names, taken names, things that this version can't do.

use crate::net::NetNsId;

/// Bad input that depends on what is there. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    /// `--replace` without `--from` of a port that has sources.
    #[error(
        "{published}: who may reach it was said with --from: say it again, or open it with --from 0.0.0.0/0,::/0"
    )]
    SourcesLeftOut {
        /// The port with its sources.
        published: String,
    },
    /// `--max-flows 0`.
    #[error(
        "--max-flows 0: an endpoint without flows is on a network without a way out: use --internal, or a number from 1 on"
    )]
    NoFlows,
    /// Limits on the iptables datapath.
    #[error(
        "--max-flows: the iptables datapath can't limit an endpoint's flows: leave it out, or use --datapath ebpf"
    )]
    NoLimits,
    /// Timeouts on the iptables datapath.
    #[error(
        "--timeout: the iptables datapath can't give a network timeouts of its own: leave it out, set netfilter's for the whole host (sysctl net.netfilter), or use --datapath ebpf"
    )]
    NoTimeouts,
    /// Another datapath than the instance's.
    #[error(
        "--datapath {asked}: instance {instance} uses {has} since its first command: leave --datapath out, or start over with netdp down"
    )]
    OtherDatapath {
        /// The instance.
        instance: String,
        /// As asked.
        asked: &'static str,
        /// What it uses.
        has: &'static str,
    },
    /// Another size of the flow table.
    #[error(
        "--flows-max {asked}: only an instance's first command can give it: leave it out, or start over with netdp down"
    )]
    OtherFlowsMax {
        /// As asked.
        asked: u32,
    },
    /// Another mode than the instance's.
    #[error(
        "--firewall {asked}: the instance is in mode {has} since its first command: leave --firewall out, or start over with netdp down"
    )]
    OtherFirewall {
        /// As asked.
        asked: &'static str,
        /// What it has.
        has: &'static str,
    },
    /// A mode that only eBPF has.
    #[error(
        "--firewall honour: the iptables datapath accepts its packets before the host's rules see them: leave it out, or use --datapath ebpf"
    )]
    NoHonour,
    /// The instance serves another namespace.
    #[error(
        "instance {instance} serves another network namespace ({serves}) than this one ({here}): run netdp there or with --host-netns, or choose another --instance"
    )]
    OtherHost {
        /// The instance.
        instance: String,
        /// Which host it serves.
        serves: NetNsId,
        /// Which one this is.
        here: NetNsId,
    },
    /// The namespace that the instance served is gone.
    #[error(
        "instance {instance} served a network namespace that is gone ({serves}): remove its remains with netdp --instance {instance} down"
    )]
    HostGone {
        /// The instance.
        instance: String,
        /// Which host it served.
        serves: NetNsId,
    },
    /// This kernel doesn't take the programs.
    #[error(
        "--datapath ebpf: this kernel does not take the programs ({why}): netdp doctor shows what it lacks, --datapath iptables does without"
    )]
    NoEbpf {
        /// What it said.
        why: String,
    },
    /// `--xdp` that an interface is in the way of.
    #[error("--xdp {mode}: {why}")]
    Xdp {
        /// The mode.
        mode: &'static str,
        /// Which interface, why, and what to do.
        why: String,
    },
    /// `--xdp` on the iptables datapath.
    #[error(
        "--xdp {mode}: the iptables datapath has no programs: leave it out, or start over with --datapath ebpf"
    )]
    XdpWithoutPrograms {
        /// The mode.
        mode: &'static str,
    },
    /// `--xdp` where there is nothing.
    #[error(
        "--xdp {mode}: instance {instance} has no datapath yet: give it with its first command, like netdp attach"
    )]
    XdpOfNothing {
        /// The mode.
        mode: &'static str,
        /// The instance.
        instance: String,
    },
    /// `--xdp` with a command that only reads.
    #[error(
        "--xdp {asked}: instance {instance} has {has}, and this command changes nothing: say it with one that does, like netdp repair"
    )]
    XdpUnchanged {
        /// As asked.
        asked: &'static str,
        /// What it has.
        has: &'static str,
        /// The instance.
        instance: String,
    },
    /// No eBPF datapath to watch.
    #[error(
        "instance {instance} has no eBPF datapath to watch: its first command, like netdp attach, makes one"
    )]
    NothingToWatch {
        /// The instance.
        instance: String,
    },
    /// No such host namespace.
    #[error("--host-netns {name}: {why}: give the name of a namespace in /run/netns, or a path to one")]
    NoHost {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// No such endpoint.
    #[error("no endpoint is called {name}: netdp ls lists them{}", there_are(known))]
    NoEndpoint {
        /// As given.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// No such network.
    #[error(
        "no network is called {name}: create it with netdp network create {name} --subnet CIDR{}",
        there_are(known)
    )]
    NoNetwork {
        /// As given.
        name: String,
        /// Those that there are.
        known: Vec<String>,
    },
    /// A network of that name exists.
    #[error("network {0} exists already: choose another name, or remove it with netdp network rm {0}")]
    NetworkExists(String),
    /// A network still has endpoints.
    #[error("network {network} has endpoints: {endpoints}; detach them first")]
    NetworkInUse {
        /// The network.
        network: String,
        /// Their names.
        endpoints: String,
    },
    /// The bridge's name is taken.
    #[error(
        "network {network}: an interface {bridge} exists already: choose another name for the bridge, netdp network create {network} --subnet CIDR --bridge IFNAME"
    )]
    BridgeExists {
        /// The network.
        network: String,
        /// The bridge's name.
        bridge: String,
    },
    /// A network's bridge was removed by hand, and another interface has its name.
    #[error(
        "network {network}: its bridge is gone, and another interface is called {bridge}: rename or delete that one, then the bridge comes back"
    )]
    BridgeReplaced {
        /// The network.
        network: String,
        /// The bridge's name.
        bridge: String,
    },
    /// An MTU that no bridge can have.
    #[error("--mtu {mtu}: an MTU is from {least} to {most} bytes for these subnets: choose one of them")]
    Mtu {
        /// As asked.
        mtu: u32,
        /// The least for these subnets.
        least: u32,
        /// The most.
        most: u32,
    },
    /// The kernel has no IPv6.
    #[error("{0}: this host's kernel runs without IPv6 (ipv6.disable=1): leave it out, or boot with IPv6")]
    NoV6(ipnet::IpNet),
    /// Links don't get IPv6 addresses there.
    #[error(
        "{subnet}: {place} has {sysctl}=1, so that new interfaces get no IPv6 address: set it to 0 there, or use a network without an IPv6 subnet"
    )]
    V6Disabled {
        /// The subnet whose addresses are wanted.
        subnet: ipnet::IpNet,
        /// Where.
        place: String,
        /// Which one.
        sysctl: &'static str,
    },
    /// Not LO-HI.
    #[error("--snat-ports {0}: write first and last port, like 1024-65535")]
    SnatPorts(String),
    /// An address of a family that the network doesn't have.
    #[error("--snat-to {0}: the network has no subnet of its family: leave it out, or add a --subnet for it")]
    SnatToFamily(std::net::IpAddr),
    /// The same address again.
    #[error("--snat-to {0} is given twice: leave one of them out")]
    SnatToTwice(std::net::IpAddr),
    /// More than a network can have.
    #[error("--snat-to {addr}: a network has at most {most} of each family: leave some out")]
    SnatToMany {
        /// The first one too many.
        addr: std::net::IpAddr,
        /// How many there may be.
        most: usize,
    },
    /// An address that means something on one link only.
    #[error(
        "--snat-to {0}: nobody beyond its link can answer a link-local address: use another of this host's"
    )]
    SnatToLinkLocal(std::net::IpAddr),
    /// Not an address of this host.
    #[error("--snat-to {0}: this host has no such address: use one of its own")]
    SnatTo(std::net::IpAddr),
    /// No such named namespace.
    #[error("no network namespace is called {name}: create it with --create, or with ip netns add {name}")]
    NoNamespace {
        /// As given.
        name: String,
    },
    /// A TARGET that can't be opened.
    #[error(
        "TARGET {target}: {why}: give the name of a namespace in /run/netns, a path to one, or pid:N of a process that runs"
    )]
    BadTarget {
        /// As given.
        target: String,
        /// What is wrong with it.
        why: String,
    },
    /// `--create` with a path or process.
    #[error("--create makes namespaces with a name, and {0} is none: give a name, or leave --create out")]
    CreateNeedsName(String),
    /// The host itself.
    #[error("TARGET {0} is the host's own network namespace: give a container's")]
    HostAsTarget(String),
    /// An endpoint of that name lives.
    #[error(
        "endpoint {name} exists already ({netns} on network {network}): choose another with --name, or remove it with netdp detach {name}"
    )]
    EndpointExists {
        /// Its name.
        name: String,
        /// Its namespace.
        netns: String,
        /// Its network.
        network: String,
    },
    /// The namespace is on that network already.
    #[error("{target} is on network {network} already, as endpoint {name}: choose another --network")]
    AttachedAlready {
        /// As given.
        target: String,
        /// The network.
        network: String,
        /// The endpoint's name.
        name: String,
    },
    /// The interface's name is taken in the target.
    #[error("{target} has an interface {ifname} already: choose another --ifname")]
    IfnameTaken {
        /// As given.
        target: String,
        /// The interface.
        ifname: String,
    },
    /// The endpoint's namespace is gone.
    #[error("endpoint {0}: its namespace is gone: attach it again, or clean up with netdp gc")]
    EndpointGone(String),
    /// Nothing like that is published.
    #[error("endpoint {name} does not publish {spec}{}", publishes(published))]
    NotPublished {
        /// The endpoint.
        name: String,
        /// As given.
        spec: String,
        /// What it publishes.
        published: Vec<String>,
    },
    /// A published port on the IPv6 loopback, on the iptables datapath.
    #[error(
        "[::1]: the iptables datapath can't publish there: use 127.0.0.1, or an instance on --datapath ebpf"
    )]
    LoopbackV6,
    /// A filter's value.
    #[error("{option} {value}: {remedy}")]
    Filter {
        /// The option.
        option: &'static str,
        /// As given.
        value: String,
        /// What it takes.
        remedy: &'static str,
    },
    /// A mode without an interface of its own.
    #[error(
        "{option} with --network {mode}: there is nothing to translate, name or address: leave {option} out, or choose a network"
    )]
    NothingToTranslate {
        /// The option.
        option: &'static str,
        /// The mode.
        mode: String,
    },
    /// A mode that shares a namespace, for one that is there.
    #[error(
        "--network {mode} with {target}, which is a namespace of its own: give a new name and --create, which is then bound to the shared one, or use netdp run --network {mode}"
    )]
    ModeNeedsNew {
        /// As given.
        target: String,
        /// The mode.
        mode: String,
    },
    /// A name without an interface.
    #[error(
        "{name} has --network {mode}, so there is nothing to translate: it has no interface of its own; name an endpoint that is on a network"
    )]
    NoInterface {
        /// As given.
        name: String,
        /// Its mode.
        mode: String,
    },
    /// Others share the namespace.
    #[error("{lender}: {} has its namespace, by --network container:{lender}: detach that first", borrowers.join(", "))]
    Borrowed {
        /// As given.
        lender: String,
        /// Who shares it.
        borrowers: Vec<String>,
    },
    /// `run` of something that can't be started.
    #[error("can't run {command}: {why}")]
    Command {
        /// The command.
        command: String,
        /// Why.
        why: std::io::Error,
    },
}

fn there_are(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (there are: {})", names.join(", ")) }
}

fn publishes(entries: &[String]) -> String {
    if entries.is_empty() {
        ": it publishes nothing".into()
    } else {
        format!(": it publishes {}", entries.join(", "))
    }
}
