//! Is the fence there? It is tried, as an account that may do what is tried but for the fence: by dry-runs, which the API server
//! takes through admission and then throws away. Only a refusal by the policy's own name counts.

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Namespace, Pod, PodTemplate};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Resource;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::core::request::Request;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::admission::{Probed, Seen, TRIES, Tried};
use super::servers::{Server, Servers};
use crate::api::{ISOLATION_LABEL, Isolation, OPERATOR_NAMESPACE};
use crate::calls::{IoError, call_within};
use crate::isolation::failure::{Culprit, culprit};
use crate::isolation::policies::{FENCES, WRITE_FENCE, static_name};
use crate::isolation::{MANAGED_BY, PROBER, PROBER_WITHIN, PROBERS};

/// The header that names whom to act as.
const USER: &str = "impersonate-user";

/// Tries lock, fence and guard of a namespace at a level, on every API server.
pub async fn probe(servers: &Servers, namespace: &str, level: Isolation) -> Probed {
    let now = servers.now();
    let asked = join_all(now.servers.iter().map(|server| on(server, namespace, level))).await;
    let asked = asked.into_iter().flat_map(|tried| servers.remember(namespace, tried));
    let away = now.away.into_iter().flat_map(|(address, why)| {
        let (seen, listed) = (Seen::Unanswered(why), Some(address));
        let server = address.to_string();
        let not_tried = TRIES.map(|(control, policy)| {
            let (server, seen) = (server.clone(), seen.clone());
            Tried { server, listed, control, policy, seen }
        });
        servers.recall(namespace, not_tried.into())
    });
    let tries = asked.chain(away).collect();
    Probed { tries, unknown: now.unknown }
}

async fn on(server: &Server, namespace: &str, level: Isolation) -> Vec<Tried> {
    let (lock, fence, rights, accounts) = futures::join!(
        unlabel(server, namespace),
        try_fences(server, namespace, level),
        bind(server, namespace),
        write_elsewhere(server, namespace)
    );
    // In the order of what is to be tried.
    let answers = TRIES.into_iter().zip([lock, fence, rights, accounts]);
    let tried = answers.map(|((control, policy), answer)| {
        // Of the two fences either is enough.
        let policies: &[&str] = if policy == WRITE_FENCE { &FENCES } else { &[policy] };
        let seen = judge(answer, policies, level);
        Tried { server: server.name.clone(), listed: server.listed, control, policy, seen }
    });
    tried.collect()
}

/// Tries whether a namespace that was opened is free of the fence.
///
/// # Errors
/// It is not, or nobody can say: why.
pub async fn is_open(servers: &Servers, namespace: &str) -> Result<(), String> {
    shows_open(create_pod(servers.own(), namespace).await)
}

/// What else refuses a pod, such as a quota, is not ours to judge, as long as it was admission that refused. Whoever was turned
/// away before that saw no fence, and no answer is no proof.
fn shows_open(answer: Result<(), IoError>) -> Result<(), String> {
    let Err(error) = answer else { return Ok(()) };
    let by_admission = error.status().is_some_and(|status| {
        let by_rights = status.message.contains("User \"") && status.message.contains(" cannot ");
        matches!(status.code, 400 | 403 | 422) && !by_rights && refusals(status, &FENCES).is_empty()
    });
    if by_admission { Ok(()) } else { Err(error.to_string()) }
}

/// What these policies said, if it was they that refused.
fn refusals<'a>(status: &'a Status, policies: &[&str]) -> Vec<&'a str> {
    let causes =
        status.details.iter().flat_map(|details| &details.causes).map(|cause| cause.message.as_str());
    let named = |name: &str| format!("ValidatingAdmissionPolicy '{name}'");
    let by = |text: &&str| {
        policies
            .iter()
            .any(|policy| text.contains(&named(policy)) || text.contains(&named(&static_name(policy))))
    };
    if status.code != 403 {
        return Vec::new();
    }
    std::iter::once(status.message.as_str()).chain(causes).filter(by).collect()
}

/// What an answer shows of policies of which each refuses by itself. All of them say the level in their message. Any of them isolates;
/// but what loosens has to be agreed by all that refuse, else one of them is stale.
pub(in crate::isolation) fn judge(answer: Result<(), IoError>, policies: &[&str], level: Isolation) -> Seen {
    let Err(error) = answer else {
        return Seen::LetThrough;
    };
    let refusals = error.status().map(|status| refusals(status, policies)).unwrap_or_default();
    if refusals.is_empty() {
        return error.unanswered().map_or_else(|| Seen::Unclear(error.to_string()), Seen::Unanswered);
    }
    let at = |level: Isolation| {
        let said = format!("is quarantined ({})", level.label().unwrap_or("open"));
        move |text: &&str| text.contains(&said)
    };
    let is_refused = match level {
        // Between the two, nothing is let through that either refuses.
        Isolation::Contained | Isolation::Sealed => {
            refusals.iter().any(|text| at(Isolation::Contained)(text) || at(Isolation::Sealed)(text))
        }
        Isolation::CleanRoom | Isolation::Open => refusals.iter().all(at(level)),
    };
    if is_refused { Seen::Refused } else { Seen::LetThrough }
}

async fn unlabel(server: &Server, namespace: &str) -> Result<(), IoError> {
    let patch = json!({"metadata": {"labels": {ISOLATION_LABEL: null}}});
    let what = format!("try to unlabel namespace {namespace}");
    send::<Namespace>(server, what, &[(USER, PROBER)], patch_namespace(namespace, &patch)).await
}

/// Writes, as an account of the namespace, what the fence knows nothing of: the namespace itself. Nothing would change, and nobody
/// but the guard minds.
async fn write_elsewhere(server: &Server, namespace: &str) -> Result<(), IoError> {
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
async fn bind(server: &Server, namespace: &str) -> Result<(), IoError> {
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
async fn try_fences(server: &Server, namespace: &str, level: Isolation) -> Result<(), IoError> {
    let answer = create_pod(server, namespace).await;
    if level != Isolation::CleanRoom || judge(answer.clone(), &FENCES, level) != Seen::Refused {
        return answer;
    }
    match create_a_template(server, namespace, "resurgam-probe").await {
        Err(error) if error.status().is_some_and(|status| !refusals(status, &FENCES).is_empty()) => {
            Err(error)
        }
        Ok(()) | Err(_) => answer,
    }
}

/// Tries the fence with a pod; where a webhook on pods stands in the way, with a kind that hardly anybody has a webhook for.
async fn create_pod(server: &Server, namespace: &str) -> Result<(), IoError> {
    let answer = create_a_pod(server, namespace).await;
    match &answer {
        Err(error) if matches!(culprit(error.status()), Culprit::Webhook(_)) => {
            create_a_template(server, namespace, "resurgam-refused").await
        }
        _ => answer,
    }
}

async fn create_a_template(server: &Server, namespace: &str, name: &str) -> Result<(), IoError> {
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

async fn create_a_pod(server: &Server, namespace: &str) -> Result<(), IoError> {
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
) -> Result<(), IoError> {
    call_within(server.deadline, what, async {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        for (header, value) in who {
            let value = http::HeaderValue::from_str(value).map_err(http::Error::from);
            request.headers_mut().insert(*header, value.map_err(kube::Error::HttpError)?);
        }
        server.client.request::<K>(request).await.map(drop)
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn answer(code: u16, message: &str) -> Result<(), IoError> {
        let status = Status::failure(message, "Forbidden").with_code(code);
        Err(IoError::Api { what: "try".into(), source: Arc::new(kube::Error::Api(Box::new(status))) })
    }

    #[test]
    fn open_is_what_admission_let_through_or_refused_for_reasons_of_its_own() {
        assert_eq!(shows_open(Ok(())), Ok(()));
        for of_others in ["exceeded quota: q", "a limit that a pod cannot exceed", "not for User \"prober\""]
        {
            let refusal = format!("pods \"resurgam-probe\" is forbidden: {of_others}");
            assert_eq!(shows_open(answer(403, &refusal)), Ok(()), "{refusal}");
        }
        for closed in [
            answer(
                403,
                "ValidatingAdmissionPolicy 'resurgam-write-fence' with binding 'x' denied request: no",
            ),
            answer(
                403,
                "pods is forbidden: User \"prober\" cannot create resource \"pods\" in API group \"\"",
            ),
            answer(
                403,
                "users \"prober\" is forbidden: User \"operator\" cannot impersonate resource \"users\"",
            ),
            answer(401, "Unauthorized"),
            answer(404, "namespaces \"a\" not found"),
            answer(429, "Too many requests"),
            answer(500, "etcdserver: request timed out"),
            Err(IoError::Timeout { what: "try".into(), after: std::time::Duration::from_secs(1) }),
        ] {
            let text = format!("{closed:?}");
            assert!(shows_open(closed).is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_refusal_by_the_policy_at_this_level_counts() {
        let refusal = "pods \"x\" is forbidden: ValidatingAdmissionPolicy 'resurgam-write-fence' with binding \
            'resurgam-write-fence' denied request: namespace a is quarantined (sealed): CREATE pods";
        let by_list = refusal.replace("write-fence", "list-fence").replace("(sealed)", "(contained)");
        for (answer, expected) in [
            (answer(403, refusal), Seen::Refused),
            (answer(403, &refusal.replace("fence' with", "fence.static.k8s.io' with")), Seen::Refused),
            (answer(403, &refusal.replace("(sealed)", "(contained)")), Seen::Refused),
            (answer(403, &by_list), Seen::Refused),
            (answer(403, &refusal.replace("(sealed)", "(clean-room)")), Seen::LetThrough),
            (Ok(()), Seen::LetThrough),
        ] {
            assert_eq!(judge(answer, &FENCES, Isolation::Sealed), expected);
        }
        for unclear in [
            answer(403, "User \"prober\" cannot create resource \"pods\""),
            answer(403, &refusal.replace("resurgam-write-fence", "another")),
            answer(422, refusal),
            answer(500, "etcdserver: request timed out"),
        ] {
            assert!(matches!(judge(unclear, &FENCES, Isolation::Sealed), Seen::Unclear(_)));
        }
    }

    #[test]
    fn a_clean_room_is_one_only_where_all_fences_agree() {
        let said = |fence: &str, level: &str| {
            format!(
                "ValidatingAdmissionPolicy '{fence}' with binding 'b' denied request: namespace a is quarantined ({level}): no"
            )
        };
        let answer = |first: String, second: Option<String>| {
            let mut status = Status::failure(&first, "Forbidden").with_code(403);
            let causes: Vec<_> =
                std::iter::once(first).chain(second).map(|message| json!({"message": message})).collect();
            status.details = serde_json::from_value(json!({"causes": causes})).unwrap();
            Err(IoError::Api { what: "try".into(), source: Arc::new(kube::Error::Api(Box::new(status))) })
        };
        let (write, list) = (FENCES[0], FENCES[1]);
        for (first, second, expected) in [
            (said(write, "clean-room"), Some(said(list, "clean-room")), Seen::Refused),
            (said(write, "clean-room"), None, Seen::Refused),
            (said(write, "clean-room"), Some(said(list, "sealed")), Seen::LetThrough),
            (said(list, "sealed"), Some(said(write, "clean-room")), Seen::LetThrough),
            (said(write, "clean-room"), Some("by another policy".to_owned()), Seen::Refused),
        ] {
            assert_eq!(judge(answer(first, second), &FENCES, Isolation::CleanRoom), expected);
        }
    }
}
