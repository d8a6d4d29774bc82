//! Addresses, neighbours and routes.

use std::net::UdpSocket;

use netdp::net::Mac;
use nix::errno::Errno;

use super::{GATEWAYS, bridge, ip, json, on_a_host, subnet};

#[test]
#[ignore = "needs root"]
fn addresses_and_routes_are_listed() {
    on_a_host(async |host| {
        assert_eq!(host.default_route(false).await.expect("routes"), None);
        let bridge = bridge(&host).await;
        let addresses = host.addresses().await.expect("addresses");
        for gateway in GATEWAYS {
            assert!(addresses.contains(&(bridge.index, subnet(gateway))), "{addresses:?}");
        }
        let shown = json("ip", &["-j", "-6", "address", "show", "dev", "br0", "scope", "global"]);
        assert!(shown[0]["addr_info"][0]["tentative"].is_null(), "{shown}");

        for (v6, router) in [(false, "10.77.0.254"), (true, "fd77::fe")] {
            host.add_default_route(ip(router), bridge.index).await.expect("a default route");
            let route = host.default_route(v6).await.expect("routes").expect("a default route");
            assert_eq!((route.gateway, route.oif, route.v6), (Some(ip(router)), Some(bridge.index), v6));
            let error = host.add_default_route(ip(router), bridge.index).await.expect_err("it is there");
            assert_eq!(error.errno(), Some(Errno::EEXIST));
        }
        let routes = host.routes().await.expect("routes");
        let connected = routes.iter().find(|route| route.destination == Some(subnet(GATEWAYS[0]).trunc()));
        let connected = connected.expect("the bridge's subnet");
        assert_eq!((connected.gateway, connected.source), (None, Some(ip(GATEWAYS[0]))));
        assert!(routes.iter().any(|route| route.destination == Some(subnet(GATEWAYS[1]).trunc())));
    });
}

/// Without duplicate address detection an address can be used in the same millisecond.
#[test]
#[ignore = "needs root"]
fn an_ipv6_address_is_usable_at_once() {
    on_a_host(async |host| {
        let _bridge = bridge(&host).await;
        UdpSocket::bind((ip(GATEWAYS[1]), 0)).expect("binding to the new address");
    });
}

#[test]
#[ignore = "needs root"]
fn removing_twice_is_fine() {
    on_a_host(async |host| {
        let bridge = bridge(&host).await;
        let addr = ip("10.77.0.9");
        for mac in [Mac::random_local(), Mac::random_local()] {
            host.replace_neighbour(bridge.index, addr, mac).await.expect("a neighbour");
            let shown = json("ip", &["-j", "neighbour", "show", "dev", "br0"]);
            assert_eq!(shown[0]["lladdr"], mac.to_string());
            assert_eq!(shown[0]["state"][0], "PERMANENT");
        }
        for _ in 0..2 {
            host.remove_neighbour(bridge.index, addr).await.expect("removing a neighbour");
            host.remove_address(bridge.index, subnet(GATEWAYS[1])).await.expect("removing an address");
        }
        let error =
            host.add_address(bridge.index, subnet(GATEWAYS[0])).await.expect_err("it has that address");
        assert_eq!(error.errno(), Some(Errno::EEXIST));
        for _ in 0..2 {
            host.delete_link(bridge.index).await.expect("deleting a link");
        }
        host.remove_neighbour(bridge.index, addr).await.expect("removing from a link that is gone");
        host.remove_address(bridge.index, subnet(GATEWAYS[0]))
            .await
            .expect("removing from a link that is gone");
        assert_eq!(host.link_by_index(bridge.index).await.expect("a look"), None);
    });
}
