//! Addresses of the cluster's API servers, from the EndpointSlices of `default/kubernetes`, which the API servers write themselves.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label of the EndpointSlices of `default/kubernetes`.
pub const LABEL: &str = "kubernetes.io/service-name=kubernetes";

/// Returns every address at every port of each slice. Slices without a port, and FQDN endpoints, are skipped.
#[must_use]
pub fn addresses<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>) -> BTreeSet<SocketAddr> {
    let of = |slice: &EndpointSlice| {
        let ports: Vec<u16> =
            slice.ports.iter().flatten().filter_map(|p| u16::try_from(p.port?).ok()).collect();
        let all = slice.endpoints.iter().flat_map(|e| &e.addresses).filter_map(|a| a.parse::<IpAddr>().ok());
        all.flat_map(|address| {
            ports.iter().map(move |port| SocketAddr::new(address, *port)).collect::<Vec<_>>()
        })
        .collect::<Vec<_>>()
    };
    slices.into_iter().flat_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn api_server_addresses_come_from_all_slices_and_ports() {
        let slice = |family: &str, addresses: &[&[&str]], ports: Value| -> EndpointSlice {
            let endpoints: Vec<_> = addresses.iter().map(|all| json!({"addresses": all})).collect();
            let value = json!({"addressType": family, "endpoints": endpoints, "ports": ports});
            serde_json::from_value(value).unwrap()
        };
        let slices = [
            slice("IPv4", &[&["192.0.2.2"], &["192.0.2.1", "192.0.2.2"]], json!([{"port": 6443}])),
            slice("IPv6", &[&["2001:db8::1"]], json!([{"port": 443}])),
            slice("IPv4", &[&["192.0.2.9"]], json!([{"name": "none"}])),
            slice("IPv4", &[&["192.0.2.9"]], Value::Null),
            slice("FQDN", &[&["api.example"]], json!([{"port": 6443}])),
            slice("IPv4", &[&["192.0.2.9"]], json!([{"port": 70000}])),
        ];
        let found: Vec<_> = addresses(&slices).iter().map(ToString::to_string).collect();
        assert_eq!(found, ["192.0.2.1:6443", "192.0.2.2:6443", "[2001:db8::1]:443"]);
        assert_eq!(addresses(&[]), BTreeSet::new());
    }
}
