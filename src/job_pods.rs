//! The pods of a Job, and what reading their logs takes: for gate `jobResult` and step `job`.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

use crate::access::Right;

/// Returns up to `limit` pods of a Job.
///
/// # Errors
/// The API server refused, or could not be reached. The caller sets the deadline.
pub(crate) async fn list(client: &Client, namespace: &str, job: &Job, limit: u32) -> kube::Result<Vec<Pod>> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let uid = job.uid().unwrap_or_default();
    let params =
        ListParams::default().labels(&format!("batch.kubernetes.io/controller-uid={uid}")).limit(limit);
    Ok(pods.list(&params).await?.items)
}

/// Returns the rights to list pods and to read their logs.
pub(crate) fn rights(namespace: &str) -> [Right; 2] {
    [Right::list::<Pod>(namespace), Right::new("get", "", "pods/log", Some(namespace), None)]
}
