//! Reads where the services of the cluster are that a clean room may connect to.

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;
use kube::{Api, Client};

use super::api_servers;
use crate::api::ClusterService;
use crate::calls::{IoError, call, call_opt};

pub use resurgam_core::isolation::egress_exceptions::*;

/// Reads where the services are that the plan opts into.
///
/// # Errors
/// [`IoError`] of what could not be read.
pub async fn find(client: &Client, services: &[ClusterService]) -> Result<Vec<EgressException>, IoError> {
    let mut found = Vec::new();
    for service in services {
        found.push(match service {
            ClusterService::Dns => {
                let services: Api<Service> = Api::namespaced(client.clone(), DNS_NAMESPACE);
                let caches: Api<DaemonSet> = Api::namespaced(client.clone(), DNS_NAMESPACE);
                let labelled = ListParams::default().labels(&format!("{}={}", DNS_LABEL.0, DNS_LABEL.1));
                let (named, cache) = futures::try_join!(
                    call(format!("list services in namespace {DNS_NAMESPACE}"), services.list(&labelled)),
                    call_opt(format!("get DaemonSet {DNS_NAMESPACE}/{NODE_LOCAL}"), caches.get(NODE_LOCAL)),
                )?;
                dns(&named.items, cache.as_ref())
            }
            ClusterService::ApiServer => {
                let of = ListParams::default().labels(api_servers::LABEL);
                let slices = api_servers::slices(client);
                let listed = call("list endpointslices of default/kubernetes", slices.list(&of)).await?;
                api_server(&listed.items)
            }
        });
    }
    Ok(found)
}
