//! `netdp inspect`: one endpoint.

use super::endpoint;
use crate::cli::Global;
use crate::error::Error;
use crate::output;
use crate::refusal::Refusal;

/// Shows it.
pub async fn run(global: &Global, name: &str) -> Result<(), Error> {
    let listed = endpoint::all(global).await?;
    let known = || listed.iter().map(|endpoint| endpoint.name.clone()).collect();
    let found = listed.iter().find(|endpoint| endpoint.name == name);
    let endpoint = found.ok_or_else(|| Refusal::NoEndpoint { name: name.into(), known: known() })?;
    if global.json {
        return output::json(endpoint);
    }
    let end = |end: Option<(&str, u32)>| {
        output::joined(end.map(|(name, index)| format!("{name} (ifindex {index})")))
    };
    let lines = [
        ("name", endpoint.name.clone()),
        ("namespace", endpoint.netns.to_string()),
        ("state", endpoint.state.to_owned()),
        ("network", endpoint.network.clone()),
        ("addresses", output::joined(&endpoint.addresses)),
        ("gateway", output::joined(&endpoint.gateway)),
        ("mac", output::joined(endpoint.interface.mac)),
        ("interface", end(endpoint.interface.inner())),
        ("host veth", end(endpoint.interface.host())),
        ("published", output::joined(&endpoint.published)),
        ("flows", endpoint.flows.map_or_else(|| "-".into(), |flows| flows.to_string())),
    ];
    lines.iter().try_for_each(|(key, value)| output::line(format!("{key:<10} {value}")))?;
    let listed = endpoint.published.iter().filter(|published| !published.sources.is_everybody());
    listed.into_iter().try_for_each(|published| {
        let port = format!("{}/{}", published.host(), published.proto.name());
        output::line(format!("{:<10} {port}: {}", "from", output::joined(published.sources.nets())))
    })
}
