//! `netdp flows`: what is being translated.

use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::cli::{FlowFilter, Flows, Global};
use crate::datapath::FlowInfo;
use crate::error::Error;
use crate::instance::Instance;
use crate::output;
use crate::refusal::Refusal;

/// Names of protocols that netdp translates.
const PROTOCOLS: [(u8, &str); 7] =
    [(1, "icmp"), (6, "tcp"), (17, "udp"), (47, "gre"), (50, "esp"), (58, "icmpv6"), (132, "sctp")];
/// Names of states, as [`FlowInfo::state`] has them.
const STATES: [&str; 7] = ["syn", "established", "closing", "closed", "new", "answered", "stream"];

/// `flows [ls]` and `flows flush`.
pub async fn run(global: &Global, command: Option<Flows>, filter: FlowFilter) -> Result<(), Error> {
    match command {
        None => ls(global, &filter).await,
        Some(Flows::Ls(filter)) => ls(global, &filter).await,
        Some(Flows::Flush(filter)) => flush(global, &filter).await,
    }
}

/// A flow in JSON.
#[derive(Serialize)]
struct Listed {
    kind: &'static str,
    proto: String,
    endpoint: Option<String>,
    src: String,
    dst: String,
    ext_src: String,
    ext_dst: String,
    state: &'static str,
    packets: Option<u64>,
    bytes: Option<u64>,
    idle_s: u64,
    expires_s: u64,
}

async fn ls(global: &Global, filter: &FlowFilter) -> Result<(), Error> {
    let filter = Filter::parse(filter)?;
    let listed = match Instance::read(global).await? {
        Some(mut instance) => {
            let flows = filter.select(&mut instance)?;
            flows.iter().map(|flow| Listed::new(&instance, flow)).collect()
        }
        None => filter.of_nothing()?,
    };
    if global.json {
        return output::json(&listed);
    }
    let head = [
        "KIND",
        "PROTO",
        "ENDPOINT",
        "SOURCE",
        "DESTINATION",
        "OUTSIDE SOURCE",
        "OUTSIDE DESTINATION",
        "STATE",
        "IDLE",
        "EXPIRES",
    ];
    output::table(head, listed.into_iter().map(Listed::row).collect())
}

async fn flush(global: &Global, filter: &FlowFilter) -> Result<(), Error> {
    let filter = Filter::parse(filter)?;
    let removed = match Instance::existing(global).await? {
        Some(mut instance) => {
            let removed = remove(&mut instance, &filter);
            instance.finish(removed).await?
        }
        None => filter.of_nothing::<()>()?.len(),
    };
    if global.json {
        return output::json(&serde_json::json!({ "removed": removed }));
    }
    output::line(format!("{removed} flows removed"))
}

fn remove(instance: &mut Instance, filter: &Filter) -> Result<usize, Error> {
    let flows: Vec<_> = filter.select(instance)?.into_iter().map(|flow| flow.handle).collect();
    Ok(instance.datapath()?.remove_flows(&flows)?)
}

/// A filter that was checked.
struct Filter {
    endpoint: Option<String>,
    proto: Option<u8>,
    dst: Option<(IpAddr, Option<u16>)>,
    state: Option<String>,
}

impl Filter {
    fn parse(filter: &FlowFilter) -> Result<Self, Refusal> {
        let bad = |option, value: &str, remedy| Refusal::Filter { option, value: value.into(), remedy };
        let proto = |text: &String| {
            parse_proto(text)
                .ok_or_else(|| bad("--proto", text, "give tcp, udp, icmp, or a protocol's number"))
        };
        let dst = |text: &String| {
            parse_dst(text).ok_or_else(|| {
                bad("--dst", text, "give ADDR or ADDR:PORT, like 192.0.2.1:443 or [2001:db8::1]:443")
            })
        };
        if let Some(state) = filter.state.as_ref().filter(|state| !STATES.contains(&state.as_str())) {
            return Err(bad(
                "--state",
                state,
                "give syn, established, closing, closed, new, answered or stream",
            ));
        }
        Ok(Self {
            endpoint: filter.endpoint.clone(),
            proto: filter.proto.as_ref().map(proto).transpose()?,
            dst: filter.dst.as_ref().map(dst).transpose()?,
            state: filter.state.clone(),
        })
    }

    fn select(&self, instance: &mut Instance) -> Result<Vec<FlowInfo>, Error> {
        let host_ifindex = match &self.endpoint {
            Some(name) => Some(instance.endpoint(name)?.host_ifindex),
            None => None,
        };
        let flows = match instance.datapath_if_there()? {
            Some(datapath) => datapath.flows()?,
            None => Vec::new(),
        };
        let of_endpoint = |flow: &FlowInfo| host_ifindex.is_none_or(|ifindex| ifindex == flow.host_ifindex);
        Ok(flows.into_iter().filter(|flow| of_endpoint(flow) && self.matches(flow)).collect())
    }

    /// What an instance that doesn't exist has; it has no endpoint to filter by either.
    fn of_nothing<T>(&self) -> Result<Vec<T>, Refusal> {
        match &self.endpoint {
            Some(name) => Err(Refusal::NoEndpoint { name: name.clone(), known: Vec::new() }),
            None => Ok(Vec::new()),
        }
    }

    fn matches(&self, flow: &FlowInfo) -> bool {
        let to = |(addr, port): (IpAddr, u16)| {
            self.dst.is_none_or(|(wanted, wanted_port)| {
                wanted == addr && wanted_port.is_none_or(|wanted| wanted == port)
            })
        };
        self.proto.is_none_or(|proto| proto == flow.proto)
            && self.state.as_ref().is_none_or(|state| state == flow.state)
            && (to(flow.dst) || to(flow.ext_dst))
    }
}

impl Listed {
    fn new(instance: &Instance, flow: &FlowInfo) -> Self {
        let owner =
            instance.state.endpoints.iter().find(|(_, endpoint)| endpoint.host_ifindex == flow.host_ifindex);
        let text = |(addr, port): (IpAddr, u16)| SocketAddr::new(addr, port).to_string();
        Self {
            kind: flow.kind,
            proto: proto_name(flow.proto),
            endpoint: owner.map(|(name, _)| name.clone()),
            src: text(flow.src),
            dst: text(flow.dst),
            ext_src: text(flow.ext_src),
            ext_dst: text(flow.ext_dst),
            state: flow.state,
            packets: None,
            bytes: None,
            idle_s: flow.idle_s,
            expires_s: flow.expires_s,
        }
    }

    fn row(self) -> [String; 10] {
        [
            self.kind.into(),
            self.proto,
            self.endpoint.unwrap_or_else(|| "-".into()),
            self.src,
            self.dst,
            self.ext_src,
            self.ext_dst,
            self.state.into(),
            format!("{} s", self.idle_s),
            format!("{} s", self.expires_s),
        ]
    }
}

fn proto_name(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

fn parse_proto(text: &str) -> Option<u8> {
    let known = PROTOCOLS.iter().find(|(_, name)| *name == text);
    known.map_or_else(|| text.parse().ok(), |(number, _)| Some(*number))
}

fn parse_dst(text: &str) -> Option<(IpAddr, Option<u16>)> {
    if let Ok(both) = text.parse::<SocketAddr>() {
        return Some((both.ip(), Some(both.port())));
    }
    text.parse().ok().map(|addr| (addr, None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datapath::FlowHandle;

    fn flow() -> FlowInfo {
        let at = |text: &str| text.parse::<SocketAddr>().map(|addr| (addr.ip(), addr.port())).unwrap();
        FlowInfo {
            kind: "dnat",
            proto: 6,
            host_ifindex: 7,
            src: at("198.51.100.9:4000"),
            dst: at("10.9.0.2:80"),
            ext_src: at("198.51.100.9:4000"),
            ext_dst: at("192.0.2.1:8080"),
            state: "established",
            idle_s: 0,
            expires_s: 10,
            handle: FlowHandle(Vec::new()),
        }
    }

    #[test]
    fn filters_select() {
        let matches = |proto: Option<&str>, dst: Option<&str>, state: Option<&str>| {
            let own = |text: Option<&str>| text.map(ToOwned::to_owned);
            let filter = FlowFilter { endpoint: None, proto: own(proto), dst: own(dst), state: own(state) };
            Filter::parse(&filter).unwrap().matches(&flow())
        };
        assert!(matches(None, None, None));
        assert!(matches(Some("tcp"), Some("192.0.2.1:8080"), Some("established")));
        assert!(matches(Some("6"), Some("10.9.0.2"), None));
        assert!(!matches(Some("udp"), None, None));
        assert!(!matches(None, Some("192.0.2.1:80"), None));
        assert!(!matches(None, None, Some("closed")));
    }

    #[test]
    fn bad_filters_are_refused() {
        let filter = |proto: &str, dst: &str, state: &str| FlowFilter {
            endpoint: None,
            proto: Some(proto.into()),
            dst: Some(dst.into()),
            state: Some(state.into()),
        };
        for bad in [
            filter("tpc", "10.0.0.1", "new"),
            filter("tcp", "10.0.0", "new"),
            filter("tcp", "10.0.0.1", "old"),
        ] {
            assert!(Filter::parse(&bad).is_err());
        }
    }
}
