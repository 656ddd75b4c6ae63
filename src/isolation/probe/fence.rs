//! Is the fence there? It is tried, as an account that may do what is tried but for the fence: by dry-runs, which the API server
//! takes through admission and then throws away. Only a refusal by the policy's own name counts.

use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::core::request::Request;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::{ISOLATION_LABEL, Isolation, OPERATOR_NAMESPACE};
use crate::calls::{IoError, call};
use crate::isolation::policies::{NAMESPACE_LOCK, RIGHTS_GUARD, WRITE_FENCE, static_name};
use crate::isolation::{MANAGED_BY, PROBER};

/// What a try showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Refused, by the policy, at this level.
    Refused,
    /// Let through: the policy or the label is not in force (yet) at the API server that answered.
    LetThrough,
    /// Neither: something else stood in the way, so it shows nothing. What it was.
    Unclear(String),
}

/// What trying lock, fence and guard showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Taking the label away.
    pub lock: Seen,
    /// Creating a pod.
    pub fence: Seen,
    /// Giving rights to an account of the namespace.
    pub guard: Seen,
}

/// Tries lock, fence and guard of a namespace at a level.
pub async fn probe(client: &Client, namespace: &str, level: Isolation) -> Probed {
    let (lock, fence, guard) =
        futures::join!(unlabel(client, namespace), create_pod(client, namespace), bind(client, namespace));
    Probed {
        lock: judge(lock, NAMESPACE_LOCK, level),
        fence: judge(fence, WRITE_FENCE, level),
        guard: judge(guard, RIGHTS_GUARD, level),
    }
}

/// Tries whether a namespace that was opened is free of the fence.
///
/// # Errors
/// It is not, or nobody can say: why.
pub async fn is_open(client: &Client, namespace: &str) -> Result<(), String> {
    shows_open(create_pod(client, namespace).await)
}

/// What else refuses a pod, such as a quota, is not ours to judge, as long as it was admission that refused. Whoever was turned
/// away before that saw no fence, and no answer is no proof.
fn shows_open(answer: Result<(), IoError>) -> Result<(), String> {
    let Err(error) = answer else { return Ok(()) };
    let by_admission = error.status().is_some_and(|status| {
        let by_rights = status.message.contains("User \"") && status.message.contains(" cannot ");
        matches!(status.code, 400 | 403 | 422) && !by_rights && !is_by(status, WRITE_FENCE)
    });
    if by_admission { Ok(()) } else { Err(error.to_string()) }
}

fn is_by(status: &Status, policy: &str) -> bool {
    let named = |name: &str| status.message.contains(&format!("ValidatingAdmissionPolicy '{name}'"));
    status.code == 403 && (named(policy) || named(&static_name(policy)))
}

/// What an answer shows of a policy. All of them say the level in their message: an answer at another level is stale.
pub(in crate::isolation) fn judge(answer: Result<(), IoError>, policy: &str, level: Isolation) -> Seen {
    let Err(error) = answer else {
        return Seen::LetThrough;
    };
    if !error.status().is_some_and(|status| is_by(status, policy)) {
        return Seen::Unclear(error.to_string());
    }
    let level = level.label().unwrap_or("open");
    if error.to_string().contains(&format!("is quarantined ({level})")) {
        Seen::Refused
    } else {
        Seen::LetThrough
    }
}

async fn unlabel(client: &Client, namespace: &str) -> Result<(), IoError> {
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"labels": {ISOLATION_LABEL: null}}}));
    let what = format!("try to unlabel namespace {namespace}");
    let request = Request::new(Namespace::url_path(&(), None)).patch(namespace, &params, &patch);
    as_prober::<Namespace>(client, what, request).await
}

/// Binds an account of the namespace to what the prober may do itself: RBAC lets it give that on.
async fn bind(client: &Client, namespace: &str) -> Result<(), IoError> {
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
    as_prober::<RoleBinding>(client, what, request).await
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

async fn create_pod(client: &Client, namespace: &str) -> Result<(), IoError> {
    let pod = pod(namespace);
    let params = PostParams { dry_run: true, field_manager: None };
    let what = format!("try to create a pod in namespace {namespace}");
    let request =
        Request::new(Pod::url_path(&(), Some(namespace))).create(&params, pod.to_string().into_bytes());
    as_prober::<Pod>(client, what, request).await
}

/// Sends a request as the prober. It has hardly any rights, so that a refusal is the policy's, and a mistake of ours harmless.
async fn as_prober<K: DeserializeOwned>(
    client: &Client,
    what: String,
    request: Result<http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<(), IoError> {
    call(what, async {
        let mut request = request.map_err(kube::Error::BuildRequest)?;
        request.headers_mut().insert("impersonate-user", http::HeaderValue::from_static(PROBER));
        client.request::<K>(request).await.map(drop)
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
        assert_eq!(
            shows_open(answer(403, "pods \"resurgam-probe\" is forbidden: exceeded quota: q")),
            Ok(())
        );
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
        for (answer, expected) in [
            (answer(403, refusal), Seen::Refused),
            (answer(403, &refusal.replace("fence' with", "fence.static.k8s.io' with")), Seen::Refused),
            (answer(403, &refusal.replace("(sealed)", "(contained)")), Seen::LetThrough),
            (Ok(()), Seen::LetThrough),
        ] {
            assert_eq!(judge(answer, WRITE_FENCE, Isolation::Sealed), expected);
        }
        for unclear in [
            answer(403, "User \"prober\" cannot create resource \"pods\""),
            answer(403, &refusal.replace("resurgam-write-fence", "another")),
            answer(422, refusal),
            answer(500, "etcdserver: request timed out"),
        ] {
            assert!(matches!(judge(unclear, WRITE_FENCE, Isolation::Sealed), Seen::Unclear(_)));
        }
    }
}
