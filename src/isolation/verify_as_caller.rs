//! Verifies by dry-run that the write fence denies the caller, with writes that RBAC permits. The operator probes with an account of its
//! own ([`super::probe`]), which responders have no right to impersonate.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use resurgam_core::isolation::verify::dry_run::as_caller;
use serde_json::json;

use super::policies::{FENCES, NAMESPACE_LOCK};
use super::probe::ProbeResult;
use super::probe::fence::{answer, pod};
use crate::api::{ISOLATION_LABEL, Isolation};
use crate::calls::call;

/// Probes the fence at a level with a write that RBAC permits a responder. A holder of `repair` passes that, so a pod follows, which
/// nobody may create outside a clean room.
pub async fn fence(client: &Client, namespace: &str, level: Isolation) -> ProbeResult {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let policy: NetworkPolicy = NetworkPolicy {
        metadata: kube::core::ObjectMeta {
            name: Some("resurgam-probe".to_owned()),
            ..kube::core::ObjectMeta::default()
        },
        // No pod has this label, so the policy would have no effect if admitted.
        spec: serde_json::from_value(json!({"podSelector": {"matchLabels": {"resurgam.dev/probe": "none"}}}))
            .ok(),
    };
    let params = PostParams { dry_run: true, field_manager: None };
    let what = format!("try to create a NetworkPolicy in namespace {namespace}");
    let seen = answer(call(what, policies.create(&params, &policy)).await).judge(&FENCES, level);
    if seen == ProbeResult::Denied {
        return seen;
    }
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let what = format!("try to create a pod in namespace {namespace}");
    let pod = match serde_json::from_value::<Pod>(pod(namespace)) {
        Ok(pod) => pod,
        Err(error) => return ProbeResult::Inconclusive(error.to_string()),
    };
    let by_pod = answer(call(what, pods.create(&params, &pod)).await).judge(&FENCES, level);
    as_caller(seen, by_pod)
}

/// Probes the lock at a level by removing the label. A holder of `release` passes.
pub async fn lock(client: &Client, namespace: &str, level: Isolation) -> ProbeResult {
    let api: Api<Namespace> = Api::all(client.clone());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: null}}}));
    let what = format!("try to unlabel namespace {namespace}");
    answer(call(what, api.patch(namespace, &params, &patch)).await).judge(&[NAMESPACE_LOCK], level)
}
