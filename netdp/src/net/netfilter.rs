//! Netlink to netfilter, in the calling thread's network namespace.

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_NONREC, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::nftables::{
    ChainAttribute, ChainMessage, NfTablesMessage, TableAttribute, TableMessage,
};
use netlink_packet_netfilter::none::ControlMessage;
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::error::{Error, Result};
use crate::failpoint;

/// Room for what the kernel sends at once: it fills at most 32 KiB of a dump.
const BUFFER: usize = 1 << 16;
/// The subsystem of nf_tables, for batches.
const NFNL_SUBSYS_NFTABLES: u16 = 10;

/// `linux/netfilter.h`.
const NF_ACCEPT: u32 = 1;

/// A conversation with netfilter.
pub(super) struct Netfilter {
    socket: Socket,
}

impl Netfilter {
    pub(super) fn open() -> Result<Self> {
        let opened = || {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            Ok::<_, io::Error>(socket)
        };
        let socket =
            opened().map_err(Error::system(|| "opening a netlink socket to netfilter".to_owned()))?;
        Ok(Self { socket })
    }

    /// Asks for all of something, in every family.
    pub(super) fn dump(&self, inner: NetfilterMessageInner) -> io::Result<Vec<NetfilterMessage>> {
        let family = NetfilterProtoFamily::Unspec;
        self.send(&[message(family, 0, inner, NLM_F_REQUEST | NLM_F_DUMP)])?;
        let mut answers = Vec::new();
        loop {
            for message in self.receive()? {
                match message.payload {
                    NetlinkPayload::InnerMessage(message) => answers.push(message),
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }

    /// Asks for one change and waits until it is made.
    pub(super) fn change(
        &self,
        family: NetfilterProtoFamily,
        inner: NetfilterMessageInner,
    ) -> io::Result<()> {
        self.send(&[message(family, 0, inner, NLM_F_REQUEST | NLM_F_ACK)])?;
        self.acknowledged()
    }

    fn acknowledged(&self) -> io::Result<()> {
        loop {
            for message in self.receive()? {
                if let NetlinkPayload::Error(error) = message.payload {
                    return if error.code.is_none() { Ok(()) } else { Err(error.to_io()) };
                }
            }
        }
    }

    fn send(&self, messages: &[NetlinkMessage<NetfilterMessage>]) -> io::Result<()> {
        let mut bytes = Vec::new();
        for message in messages {
            let start = bytes.len();
            bytes.resize(start + message.buffer_len(), 0);
            message.serialize(&mut bytes[start..]);
        }
        self.socket.send(&bytes, 0).map(drop)
    }

    fn receive(&self) -> io::Result<Vec<NetlinkMessage<NetfilterMessage>>> {
        let mut buffer = Vec::with_capacity(BUFFER);
        self.socket.recv(&mut buffer, 0)?;
        let mut messages = Vec::new();
        let mut rest = &buffer[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(rest).map_err(io::Error::other)?;
            let length = (message.header.length as usize).next_multiple_of(4);
            messages.push(message);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(messages)
    }
}

/// Removes a table of nf_tables that has nothing in it but chains of the kernel's hooks as iptables makes them, without
/// a rule and with the policy to accept. One that has more stays, also when somebody adds to it meanwhile.
pub fn remove_empty_table(ipv6: bool, name: &str) -> Result<()> {
    let family = if ipv6 { NetfilterProtoFamily::IPv6 } else { NetfilterProtoFamily::IPv4 };
    let doing = || format!("removing the empty table {name}");
    failpoint::pass("remove a table").map_err(Error::system(doing))?;
    let netfilter = Netfilter::open()?;
    let question = NfTablesMessage::GetChain(ChainMessage { attributes: Vec::new() });
    let answers = netfilter.dump(question.into()).map_err(Error::system(doing))?;
    let chains: Vec<Chain> = answers.iter().filter_map(|answer| Chain::of(answer, family, name)).collect();
    if chains.iter().any(|chain| !chain.is_empty) {
        return Ok(());
    }
    let change =
        |change: NfTablesMessage, ack| message(family, 0, change.into(), NLM_F_REQUEST | NLM_F_NONREC | ack);
    let control = |control| {
        let none = NetfilterMessageInner::None(control);
        message(NetfilterProtoFamily::Unspec, NFNL_SUBSYS_NFTABLES, none, NLM_F_REQUEST)
    };
    let mut batch = vec![control(ControlMessage::BatchBegin)];
    batch.extend(chains.into_iter().map(|chain| {
        let attributes = vec![ChainAttribute::Table(name.to_owned()), ChainAttribute::Name(chain.name)];
        change(NfTablesMessage::DeleteChain(ChainMessage { attributes }), 0)
    }));
    let table = TableMessage { attributes: vec![TableAttribute::Name(name.to_owned())] };
    // The last one alone is acknowledged: an error, which undoes the whole batch, comes unasked.
    batch.push(change(NfTablesMessage::DeleteTable(table), NLM_F_ACK));
    batch.push(control(ControlMessage::BatchEnd));
    match netfilter.send(&batch).and_then(|()| netfilter.acknowledged()) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOENT)) => Ok(()),
        other => other.map_err(Error::system(doing)),
    }
}

/// A chain of a table.
struct Chain {
    name: String,
    /// Whether it does nothing: of a hook of the kernel's, without rules, and it accepts.
    is_empty: bool,
}

impl Chain {
    fn of(answer: &NetfilterMessage, family: NetfilterProtoFamily, table: &str) -> Option<Self> {
        let NetfilterMessageInner::NfTables(NfTablesMessage::NewChain(chain)) = &answer.inner else {
            return None;
        };
        let is_of_table = |attribute: &ChainAttribute| *attribute == ChainAttribute::Table(table.to_owned());
        if answer.header.family != family || !chain.attributes.iter().any(is_of_table) {
            return None;
        }
        let name = chain.attributes.iter().find_map(|attribute| match attribute {
            ChainAttribute::Name(name) => Some(name.clone()),
            _ => None,
        })?;
        // Only chains of hooks have a policy.
        let accepts = chain.attributes.contains(&ChainAttribute::Policy(NF_ACCEPT));
        Some(Self { name, is_empty: accepts && chain.attributes.contains(&ChainAttribute::Use(0)) })
    }
}

fn message(
    family: NetfilterProtoFamily,
    subsystem: u16,
    inner: NetfilterMessageInner,
    flags: u16,
) -> NetlinkMessage<NetfilterMessage> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let content = NetfilterMessage::new(NetfilterHeader::new(family, 0, subsystem), inner);
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(content));
    message.finalize();
    message
}
