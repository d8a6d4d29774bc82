//! The requirements, in their RFCs' order.

use super::{Row, errors, filtering, fragments, lifetimes, mapping, tcp};

/// Every port serves every remote, and nobody guesses the next (RFC 6056): that is what a port for each remote buys.
const RANDOM: &str =
    "a random port for each remote: all 64 512 serve every remote, and none can be guessed (RFC 6056)";
const STRICT: &str = "a mapping is for one remote only, so nothing else can use it";
const CLIENT: &str = "the server is to see who asks";

/// All rows.
pub(super) fn all() -> impl Iterator<Item = &'static Row> {
    SECTIONS.iter().flat_map(|(_, rows)| *rows)
}

/// By RFC.
pub(super) const SECTIONS: &[(&str, &[Row])] =
    &[("RFC 4787: UDP", UDP), ("RFC 5382: TCP", TCP), ("RFC 5508: ICMP", ICMP), ("Beyond", BEYOND)];

const UDP: &[Row] = &[
    Row { id: "REQ-1", asks: "endpoint-independent mapping", measure: mapping::of_udp, why: RANDOM },
    Row { id: "REQ-2", asks: "one external address per endpoint", measure: mapping::is_paired, why: "" },
    Row { id: "REQ-3", asks: "no port overloading", measure: mapping::overloads_udp, why: "" },
    Row {
        id: "REQ-3a",
        asks: "ports below 1024 stay below, others above (recommended)",
        measure: mapping::keeps_ranges,
        why: "published ports and the host's services live below 1024",
    },
    Row { id: "REQ-4", asks: "port parity kept (recommended)", measure: mapping::keeps_parity, why: RANDOM },
    Row { id: "REQ-5", asks: "2 min at least", measure: lifetimes::of_udp, why: "" },
    Row { id: "REQ-5c", asks: "5 min or more (recommended)", measure: lifetimes::of_udp_stream, why: "" },
    Row { id: "REQ-6", asks: "refreshed from inside", measure: lifetimes::refreshed_from_inside, why: "" },
    Row { id: "REQ-6a", asks: "from outside (may)", measure: lifetimes::refreshed_from_outside, why: "" },
    Row {
        id: "REQ-7",
        asks: "internal addresses do not conflict with external ones",
        measure: filtering::conflicting_addresses,
        why: "",
    },
    Row {
        id: "REQ-8",
        asks: "endpoint-independent or address-dependent filtering (recommended)",
        measure: filtering::of_udp,
        why: STRICT,
    },
    Row { id: "REQ-9", asks: "hairpinning", measure: mapping::hairpins_udp, why: "" },
    Row {
        id: "REQ-9a",
        asks: "with the external source address and port",
        measure: mapping::hairpin_source_udp,
        why: CLIENT,
    },
    Row { id: "REQ-10", asks: "no application-level gateways", measure: filtering::no_udp_gateway, why: "" },
    Row { id: "REQ-11", asks: "deterministic", measure: mapping::is_deterministic, why: "" },
    Row { id: "REQ-12", asks: "no ICMP message ends a mapping", measure: errors::udp_survives, why: "" },
    Row { id: "REQ-12a", asks: "ICMP not filtered by its source", measure: errors::from_any_router, why: "" },
    Row { id: "REQ-12b", asks: "destination unreachable supported", measure: errors::supported, why: "" },
    Row { id: "REQ-13", asks: "DF set and too big: told", measure: fragments::too_big, why: "" },
    Row {
        id: "REQ-13a",
        asks: "DF clear and too big: fragmented, in order",
        measure: fragments::fragmented,
        why: "",
    },
    Row { id: "REQ-14", asks: "fragments in order", measure: fragments::in_order, why: "" },
    Row { id: "REQ-14", asks: "fragments in any order", measure: fragments::in_any_order, why: "" },
    Row {
        id: "REQ-14a",
        asks: "a flood of fragments harms nobody else",
        measure: fragments::under_a_flood,
        why: "",
    },
];

const TCP: &[Row] = &[
    Row { id: "REQ-1", asks: "endpoint-independent mapping", measure: mapping::of_tcp, why: RANDOM },
    Row { id: "REQ-2", asks: "all valid sequences of segments", measure: tcp::sequences, why: "" },
    Row { id: "REQ-2a", asks: "simultaneous open", measure: tcp::simultaneous_open, why: "" },
    Row {
        id: "REQ-3",
        asks: "endpoint-independent or address-dependent filtering (recommended)",
        measure: filtering::of_tcp,
        why: STRICT,
    },
    Row {
        id: "REQ-4",
        asks: "an unsolicited SYN is not answered for 6 s",
        measure: filtering::unsolicited_syn,
        why: "what no mapping owns is the host's own, and its stack answers",
    },
    Row {
        id: "REQ-5",
        asks: "established 2 h 4 min, transitory 4 min at least",
        measure: lifetimes::of_tcp,
        why: "",
    },
    Row { id: "REQ-6", asks: "no application-level gateways", measure: filtering::no_tcp_gateway, why: "" },
    Row { id: "REQ-7", asks: "no port overloading", measure: mapping::overloads_tcp, why: "" },
    Row { id: "REQ-8", asks: "hairpinning", measure: mapping::hairpins_tcp, why: "" },
    Row {
        id: "REQ-8a",
        asks: "with the external source address and port",
        measure: mapping::hairpin_source_tcp,
        why: CLIENT,
    },
    Row {
        id: "REQ-9",
        asks: "destination unreachable translated",
        measure: errors::unreachable_for_tcp,
        why: "",
    },
    Row { id: "REQ-10", asks: "no ICMP message ends a mapping", measure: errors::tcp_survives, why: "" },
];

const ICMP: &[Row] = &[
    Row { id: "REQ-1", asks: "queries from inside and their answers", measure: errors::queries, why: "" },
    Row {
        id: "REQ-1a",
        asks: "identifiers do not depend on the remote",
        measure: mapping::of_echo,
        why: RANDOM,
    },
    Row { id: "REQ-2", asks: "queries live 60 s at least", measure: lifetimes::of_echo, why: "" },
    Row {
        id: "REQ-3",
        asks: "an error with a wrong checksum is dropped",
        measure: errors::wrong_checksum,
        why: "",
    },
    Row {
        id: "REQ-3a",
        asks: "so is one that quotes a header with a wrong checksum",
        measure: errors::wrong_quoted_header,
        why: "routers that quote carelessly are to be heard, about path MTUs above all",
    },
    Row { id: "REQ-3b", asks: "options in the quoted header", measure: errors::quoted_options, why: "" },
    Row {
        id: "REQ-3c",
        asks: "the quoted transport checksum is not judged",
        measure: errors::wrong_quoted_transport,
        why: "",
    },
    Row { id: "REQ-3d", asks: "extensions (RFC 4884)", measure: errors::extensions, why: "" },
    Row {
        id: "REQ-4",
        asks: "an error from outside about nothing is dropped",
        measure: errors::unmatched_from_outside,
        why: "",
    },
    Row {
        id: "REQ-4a–c",
        asks: "else it is translated with what it quotes",
        measure: errors::translated,
        why: "",
    },
    Row {
        id: "REQ-5",
        asks: "an error from inside about nothing is dropped",
        measure: errors::unmatched_from_inside,
        why: "",
    },
    Row { id: "REQ-5a–c", asks: "else it is translated", measure: errors::from_inside, why: "" },
    Row {
        id: "REQ-6",
        asks: "an error neither refreshes nor deletes a query's flow",
        measure: lifetimes::refreshed_by_errors,
        why: "",
    },
    Row { id: "REQ-7", asks: "hairpinned errors", measure: errors::hairpinned, why: "" },
    Row {
        id: "REQ-8",
        asks: "no port left: administratively prohibited",
        measure: filtering::exhaustion,
        why: "",
    },
    Row { id: "REQ-10a", asks: "its own errors: time exceeded", measure: errors::last_hop, why: "" },
    Row { id: "REQ-10b", asks: "other queries: timestamp (may)", measure: errors::timestamps, why: "" },
    Row {
        id: "REQ-11",
        asks: "neither query nor error (may be dropped)",
        measure: errors::neither_query_nor_error,
        why: "",
    },
];

const BEYOND: &[Row] = &[
    Row {
        id: "RFC 5961",
        asks: "a reset with a guessed sequence number does not cut a connection",
        measure: tcp::blind_reset,
        why: "",
    },
    Row { id: "–", asks: "a segment of a connection that is not known", measure: tcp::midstream, why: "" },
];
