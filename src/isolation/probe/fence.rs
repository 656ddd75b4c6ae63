//! Is the fence there? It is tried, as an account that may do what is tried but for the fence: by dry-runs, which the API server
//! takes through admission and then throws away. Only a refusal by the policy's own name counts.

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

/// The header that names whom to act as.
const USER: &str = "impersonate-user";

/// Tries lock, fence and guard of a namespace at a level, on every API server.
pub async fn probe(servers: &Servers, namespace: &str, level: Isolation) -> ProbeReport {
    let now = servers.now();
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
    // In the order of what is to be tried.
    let answers = PROBED_POLICIES.into_iter().zip([lock, fence, rights, accounts]);
    let tried = answers.map(|((control, policy), answer)| {
        // Of the two fences either is enough.
        let policies: &[&str] = if policy == WRITE_FENCE { &FENCES } else { &[policy] };
        let seen = answer.judge(policies, level);
        PolicyProbe { server: server.name.clone(), listed: server.listed, control, policy, result: seen }
    });
    tried.collect()
}

/// Tries whether a namespace that was opened is free of the fence.
///
/// # Errors
/// It is not, or nobody can say: why.
pub async fn is_open(servers: &Servers, namespace: &str) -> Result<(), String> {
    create_pod(servers.own(), namespace).await.shows_open()
}

async fn unlabel(server: &Server, namespace: &str) -> Answer {
    let patch = json!({"metadata": {"labels": {ISOLATION_LABEL: null}}});
    let what = format!("try to unlabel namespace {namespace}");
    send::<Namespace>(server, what, &[(USER, PROBER)], patch_namespace(namespace, &patch)).await
}

/// Writes, as an account of the namespace, what the fence knows nothing of: the namespace itself. Nothing would change, and nobody
/// but the guard minds.
async fn write_elsewhere(server: &Server, namespace: &str) -> Answer {
    let what = format!("try to write as an account of namespace {namespace}");
    let account = format!("system:serviceaccount:{namespace}:{PROBER_WITHIN}");
    // A group that is given replaces those that the account would be in: it is no member of the namespace's own.
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

/// Binds an account of the namespace to what the prober may do itself: RBAC lets it give that on.
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

/// A pod that starts nothing even where it is let through.
pub(in crate::isolation) fn pod(namespace: &str) -> serde_json::Value {
    // Fit for the strictest pod security level, so that nothing but the fence stands in the way.
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

/// Tries the fences. The API server names one of those that refuse. For a clean room all of them have to agree: where one does not, it
/// refuses what they let through there only: a PodTemplate of that one name, in the prober's dry-runs.
async fn try_fences(server: &Server, namespace: &str, level: Isolation) -> Answer {
    let answer = create_pod(server, namespace).await;
    if level != Isolation::CleanRoom || answer.judge(&FENCES, level) != ProbeResult::Denied {
        return answer;
    }
    let by_template = create_a_template(server, namespace, "resurgam-probe").await;
    if by_template.is_refused_by(&FENCES) { by_template } else { answer }
}

/// Tries the fence with a pod; where a webhook on pods stands in the way, with a kind that hardly anybody has a webhook for.
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

/// Sends a request as somebody with hardly any rights, so that a refusal is the policy's, and a mistake of ours harmless.
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

/// Returns an answer as it is judged.
pub(in crate::isolation) fn answer<T>(result: Result<T, IoError>) -> Answer {
    let Err(error) = result else { return Answer::Accepted };
    match (error.status(), error.unanswered()) {
        (Some(status), _) => Answer::Status(Box::new(status.clone()), error.to_string()),
        (None, Some(why)) => Answer::Unanswered(why, error.to_string()),
        (None, None) => Answer::Failed(error.to_string()),
    }
}
