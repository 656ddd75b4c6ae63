//! Where the EndpointSlices of `default/kubernetes` are read: they list the cluster's API servers.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};

pub use resurgam_core::isolation::api_servers::{LABEL, addresses};

/// Returns the API of the EndpointSlices in namespace `default`.
#[must_use]
pub fn slices(client: &Client) -> Api<EndpointSlice> {
    Api::namespaced(client.clone(), "default")
}
