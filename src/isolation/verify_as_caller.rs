//! Is the fence seen to refuse, by who isolates, as themselves? By dry-runs of what they may do but for the fence. The operator
//! tries as an account of its own ([`super::probe`]); a responder has no right to act as that.

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

/// Tries the fence at a level: by what a responder may write, and, for whom that is let through (who may `repair` is), by a
/// pod, which nobody may create outside the clean room.
pub async fn fence(client: &Client, namespace: &str, level: Isolation) -> ProbeResult {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let policy: NetworkPolicy = NetworkPolicy {
        metadata: kube::core::ObjectMeta {
            name: Some("resurgam-probe".to_owned()),
            ..kube::core::ObjectMeta::default()
        },
        // No pod bears this label: let through, it would be nothing.
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

/// Tries the lock at a level: takes the label away. Who may `release` is let through.
pub async fn lock(client: &Client, namespace: &str, level: Isolation) -> ProbeResult {
    let api: Api<Namespace> = Api::all(client.clone());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: null}}}));
    let what = format!("try to unlabel namespace {namespace}");
    answer(call(what, api.patch(namespace, &params, &patch)).await).judge(&[NAMESPACE_LOCK], level)
}
