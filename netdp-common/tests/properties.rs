//! Tier 1: what holds for every packet, by proptest, for both families.
#![cfg(not(loom))]

use netdp_common::family::{V4, V6};

#[path = "properties/bytes.rs"]
mod bytes;
#[path = "properties/flows.rs"]
mod flows;
#[path = "properties/host.rs"]
mod host;
#[path = "properties/ports.rs"]
mod ports;
#[path = "properties/random.rs"]
mod random;
#[path = "properties/translation.rs"]
mod translation;

macro_rules! in_both_families {
    ($($property:ident = $module:ident::$function:ident;)*) => {$(
        mod $property {
            #[test]
            fn v4() {
                crate::$module::$function::<crate::V4>();
            }

            #[test]
            fn v6() {
                crate::$module::$function::<crate::V6>();
            }
        }
    )*};
}

in_both_families! {
    there_and_back_is_the_identity = translation::there_and_back;
    errors_quote_what_was_sent = translation::errors;
    no_two_flows_share_a_tuple = flows::no_two_share_a_tuple;
    look_alikes_reach_the_same_port = flows::look_alikes;
    who_is_apart_is_found = flows::who_is_apart_is_found;
    a_range_serves_its_number_of_flows = ports::exactly_as_many_as_there_are;
    the_ephemeral_ports_come_last = ports::ephemeral_last;
    a_full_table_refuses_and_recovers = ports::full_table;
    cut_off_anywhere = bytes::truncated;
    changed_anywhere = bytes::changed;
    random_bytes = bytes::random;
    ports_are_uniform = random::uniform;
    ports_are_unpredictable = random::unpredictable;
}
