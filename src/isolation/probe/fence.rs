//! Verifies the fence by dry-runs that pass admission and are then discarded, as an account that RBAC permits the writes. Only a refusal
//! in the policy's own name counts.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplate};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Resource;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::request::Request;
use resurgam_core::isolation::verify::dry_run::Answer;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::admission::{PROBED_POLICIES, PolicyProbe, ProbeReport, ProbeResult};
use super::servers::{Server, Servers};
use crate::api::{ISOLATION_LABEL, Isolation, OPERATOR_NAMESPACE};
use crate::calls::{IoError, call_within};
use crate::isolation::failure::{Culprit, culprit};
use crate::isolation::policies::{FENCES, WRITE_FENCE};
use crate::isolation::{MANAGED_BY, PROBER, PROBER_WITHIN, PROBERS};

/// The impersonation header.
const USER: &str = "impersonate-user";

/// Probes lock, fence and guard of a namespace at a level on every API server.
pub async fn probe(servers: &Servers, namespace: &str, level: Isolation) -> ProbeReport {
    let now = servers.targets();
    let asked = join_all(now.servers.iter().map(|server| on(server, namespace, level))).await;
    let asked = asked.into_iter().flat_map(|tried| servers.remember(namespace, tried));
    let away = now.away.into_iter().flat_map(|(address, why)| {
        let (seen, listed) = (ProbeResult::Unreachable(why), Some(address));
        let server = address.to_string();
        let not_tried = PROBED_POLICIES.map(|(control, policy)| {
            let (server, seen) = (server.clone(), seen.clone());
            PolicyProbe { server, listed, control, policy, result: seen }
        });
        servers.recall(namespace, not_tried.into())
    });
    let tries = asked.chain(away).collect();
    ProbeReport { probes: tries, unknown: now.unknown }
}

async fn on(server: &Server, namespace: &str, level: Isolation) -> Vec<PolicyProbe> {
    let (lock, fence, rights, accounts) = futures::join!(
        unlabel(server, namespace),
        try_fences(server, namespace, level),
        bind(server, namespace),
        write_elsewhere(server, namespace)
    );
    // The answers are in the order of `TRIES`.
    let answers = PROBED_POLICIES.into_iter().zip([lock, fence, rights, accounts]);
    let tried = answers.map(|((control, policy), answer)| {
        // Either of the two fences suffices.
        let policies: &[&str] = if policy == WRITE_FENCE { &FENCES } else { &[policy] };
        let seen = answer.judge(policies, level);
        PolicyProbe { server: server.name.clone(), listed: server.listed, control, policy, result: seen }
    });
    tried.collect()
}

/// Verifies that the fence admits writes in a namespace that was opened.
///
/// # Errors
/// Why it does not, or why that is unknown.
pub async fn is_open(servers: &Servers, namespace: &str) -> Result<(), String> {
    create_pod(servers.own(), namespace).await.shows_open()
}

async fn unlabel(server: &Server, namespace: &str) -> Answer {
    let patch = json!({"metadata": {"labels": {ISOLATION_LABEL: null}}});
    let what = format!("try to unlabel namespace {namespace}");
    send::<Namespace>(server, what, &[(USER, PROBER)], patch_namespace(namespace, &patch)).await
}

/// Writes the namespace itself as an account of the namespace, which only the guard denies. The write would change nothing.
async fn write_elsewhere(server: &Server, namespace: &str) -> Answer {
    let what = format!("try to write as an account of namespace {namespace}");
    let account = format!("system:serviceaccount:{namespace}:{PROBER_WITHIN}");
    // An explicit group replaces the account's own groups, so it is no member of the namespace's group.
    let who = [(USER, account.as_str()), ("impersonate-group", PROBERS)];
    send::<Namespace>(server, what, &who, patch_namespace(namespace, &json!({}))).await
}

fn patch_namespace(
    namespace: &str,
    patch: &serde_json::Value,
) -> Result<http::Request<Vec<u8>>, kube::core::request::Error> {
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    Request::new(Namespace::url_path(&(), None)).patch(namespace, &params, &Patch::Merge(patch))
}

/// Binds an account of the namespace to the prober's own rights, which RBAC lets the prober pass on.
async fn bind(server: &Server, namespace: &str) -> Answer {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {
            "name": "resurgam-probe",
            "namespace": OPERATOR_NAMESPACE,
            "labels": {crate::api::MANAGED_BY_LABEL: MANAGED_BY},
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "resurgam-prober"},
        "subjects": [{"kind": "ServiceAccount", "name": "resurgam-probe", "namespace": namespace}],
    });
    let params = PostParams { dry_run: true, field_manager: None };
    let what = format!("try to give rights to an account of namespace {namespace}");
    let request = Request::new(RoleBinding::url_path(&(), Some(OPERATOR_NAMESPACE)))
        .create(&params, binding.to_string().into_bytes());
    send::<RoleBinding>(server, what, &[(USER, PROBER)], request).await
}

/// Returns a pod that would start nothing even if admitted.
pub(in crate::isolation) fn pod(namespace: &str) -> serde_json::Value {
    // The pod satisfies the strictest pod security level, so that only the fence can refuse it.
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "resurgam-probe",
            "namespace": namespace,
            "labels": {crate::api::MANAGED_BY_LABEL: MANAGED_BY},
        },
        "spec": {
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65534, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "probe",
                "image": "resurgam.invalid/probe",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// Probes the fences. The API server names one of the policies that deny. In a clean room both have to agree, so the probe uses a
/// PodTemplate with a name that only a clean room's fence admits, in the prober's dry-runs.
async fn try_fences(server: &Server, namespace: &str, level: Isolation) -> Answer {
    let answer = create_pod(server, namespace).await;
    if level != Isolation::CleanRoom || answer.judge(&FENCES, level) != ProbeResult::Denied {
        return answer;
    }
    let by_template = create_a_template(server, namespace, "resurgam-probe").await;
    if by_template.is_refused_by(&FENCES) { by_template } else { answer }
}

/// Probes the fence with a pod. If a webhook on pods interferes, uses a kind that hardly any webhook matches.
async fn create_pod(server: &Server, namespace: &str) -> Answer {
    let answer = create_a_pod(server, namespace).await;
    match &answer {
        Answer::Status(status, _) if matches!(culprit(Some(status)), Culprit::Webhook(_)) => {
            create_a_template(server, namespace, "resurgam-refused").await
        }
        _ => answer,
    }
}

async fn create_a_template(server: &Server, namespace: &str, name: &str) -> Answer {
    let spec = pod(namespace)["spec"].clone();
    let template = json!({
        "apiVersion": "v1", "kind": "PodTemplate",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {crate::api::MANAGED_BY_LABEL: MANAGED_BY},
        },
        "template": {"spec": spec},
    });
    let params = PostParams { dry_run: true, field_manager: None };
    let what = format!("try to create a PodTemplate in namespace {namespace}");
    let request = Request::new(PodTemplate::url_path(&(), Some(namespace)))
        .create(&params, template.to_string().into_bytes());
    send::<PodTemplate>(server, what, &[(USER, PROBER)], request).await
}

async fn create_a_pod(server: &Server, namespace: &str) -> Answer {
    let pod = pod(namespace);
    let params = PostParams { dry_run: true, field_manager: None };
    let what = format!("try to create a pod in namespace {namespace}");
    let request =
        Request::new(Pod::url_path(&(), Some(namespace))).create(&params, pod.to_string().into_bytes());
    send::<Pod>(server, what, &[(USER, PROBER)], request).await
}

/// Sends a request as a user with hardly any rights, so that a refusal is the policy's, and a bug here is harmless.
async fn send<K: DeserializeOwned>(
    server: &Server,
    what: String,
    who: &[(&'static str, &str)],
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Answer {
    let sent = call_within(server.deadline, what, async {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        for (header, value) in who {
            let value = http::HeaderValue::from_str(value).map_err(http::Error::from);
            request.headers_mut().insert(*header, value.map_err(kube::Error::HttpError)?);
        }
        server.client.request::<K>(request).await.map(drop)
    });
    answer(sent.await)
}

/// Converts a result for judging.
pub(in crate::isolation) fn answer<T>(result: Result<T, IoError>) -> Answer {
    let Err(error) = result else { return Answer::Accepted };
    match (error.status(), error.unanswered()) {
        (Some(status), _) => Answer::Status(Box::new(status.clone()), error.to_string()),
        (None, Some(why)) => Answer::Unanswered(why, error.to_string()),
        (None, None) => Answer::Failed(error.to_string()),
    }
}
