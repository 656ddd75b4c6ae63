//! The pods that try the network: who listens, who connects, and what their pods say when they end.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;

use super::network::{DENIED_NAMESPACE, OPEN_NAMESPACE};
use crate::api::MANAGED_BY_LABEL;
use crate::isolation::MANAGED_BY;

/// Label with the try that a pod belongs to.
pub const TRY_LABEL: &str = "resurgam.dev/probe";
/// Where listeners listen.
pub const PORT: u16 = 8443;
/// How long a connector goes on until what it expects is so. A network may take some seconds to learn of a policy.
pub const PATIENCE_SECONDS: u64 = 20;
/// A pod that nobody removes ends by itself.
const DEADLINE_SECONDS: u64 = 300;

/// On which side of the policy a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// No policy applies.
    Open,
    /// Denied everything, once the policy is written.
    Denied,
}

impl Side {
    /// Its namespace.
    #[must_use]
    pub const fn namespace(self) -> &'static str {
        match self {
            Self::Open => OPEN_NAMESPACE,
            Self::Denied => DENIED_NAMESPACE,
        }
    }
}

/// One try: which image its pods run, and a word that tells it from others.
#[derive(Clone, Debug)]
pub struct Try {
    /// An image whose entrypoint is `resurgam`.
    pub image: String,
    /// In names and labels, and said by listeners to whoever connects.
    pub id: String,
}

/// What a connector tries to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// By which name it reports it.
    pub name: String,
    /// `IP:PORT`.
    pub address: String,
    /// Whether it goes on until it is reached, or until it is not.
    pub denied: bool,
}

impl Try {
    /// A pod that says the try's word to whoever connects.
    #[must_use]
    pub fn listener(&self, side: Side, name: &str, node: &str) -> Option<Pod> {
        let port = PORT.to_string();
        self.pod(side, name, node, &["listen", "--port", &port, "--say", &self.id])
    }

    /// A pod that tries to reach these, says what came of it, and ends.
    #[must_use]
    pub fn connector(&self, side: Side, name: &str, node: &str, goals: &[Goal]) -> Option<Pod> {
        let patience = format!("{PATIENCE_SECONDS}s");
        let mut args = vec!["connect", "--hear", &self.id, "--patience", &patience];
        let goals: Vec<_> = goals
            .iter()
            .map(|g| (if g.denied { "--denied" } else { "--open" }, format!("{}={}", g.name, g.address)))
            .collect();
        args.extend(goals.iter().flat_map(|(flag, target)| [*flag, target.as_str()]));
        self.pod(side, name, node, &args)
    }

    /// Selects the pods of every try of ours.
    #[must_use]
    pub fn selector() -> String {
        format!("{MANAGED_BY_LABEL}={MANAGED_BY},{TRY_LABEL}")
    }

    /// Fit for the strictest pod security level; placed by us, so that a taint or a full scheduler does not stand in the way.
    fn pod(&self, side: Side, name: &str, node: &str, args: &[&str]) -> Option<Pod> {
        let mut all = vec!["probe"];
        all.extend(args);
        let pod = json!({
            "metadata": {
                "name": format!("{name}-{}", self.id),
                "namespace": side.namespace(),
                "labels": {MANAGED_BY_LABEL: MANAGED_BY, TRY_LABEL: self.id},
            },
            "spec": {
                "nodeName": node,
                "restartPolicy": "Never",
                "activeDeadlineSeconds": DEADLINE_SECONDS,
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": false,
                "enableServiceLinks": false,
                "tolerations": [{"operator": "Exists"}],
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [{
                    "name": "probe",
                    "image": self.image,
                    "imagePullPolicy": "IfNotPresent",
                    "args": all,
                    "terminationMessagePolicy": "File",
                    "resources": {
                        "requests": {"cpu": "5m", "memory": "16Mi"},
                        "limits": {"cpu": "500m", "memory": "128Mi"},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": false,
                        "readOnlyRootFilesystem": true,
                        "capabilities": {"drop": ["ALL"]},
                    },
                }],
            },
        });
        serde_json::from_value(pod).ok()
    }
}

/// `IP:PORT` of a listener that runs.
#[must_use]
pub fn address(pod: &Pod) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
    let ip: std::net::IpAddr = ip.parse().ok()?;
    is_running(pod).then(|| std::net::SocketAddr::new(ip, PORT).to_string())
}

/// Does its process run?
#[must_use]
pub fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running"
        && pod.metadata.deletion_timestamp.is_none()
        && container(pod)
            .and_then(|status| status.state.as_ref())
            .is_some_and(|state| state.running.is_some())
}

/// Has it ended, however it did?
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// What it said when it ended.
#[must_use]
pub fn last_words(pod: &Pod) -> Option<&str> {
    container(pod)?.state.as_ref()?.terminated.as_ref()?.message.as_deref()
}

/// Why it is not where it should be, in Kubernetes' own words.
#[must_use]
pub fn state_of(pod: &Pod) -> String {
    let status = pod.status.clone().unwrap_or_default();
    let waiting = container(pod).and_then(|c| c.state.as_ref()?.waiting.as_ref());
    let ended = container(pod).and_then(|c| c.state.as_ref()?.terminated.as_ref());
    let words = |reason: Option<&String>, message: Option<&String>| {
        [reason, message].into_iter().flatten().map(String::as_str).collect::<Vec<_>>().join(": ")
    };
    let why = match (waiting, ended) {
        (Some(w), _) => words(w.reason.as_ref(), w.message.as_ref()),
        (None, Some(t)) => words(t.reason.as_ref(), t.message.as_ref()),
        (None, None) => words(status.reason.as_ref(), status.message.as_ref()),
    };
    let phase = if phase(pod).is_empty() { "Pending" } else { phase(pod) };
    if why.is_empty() { phase.to_owned() } else { format!("{phase} ({why})") }
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default()
}

fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}

#[cfg(test)]
#[path = "pods_tests.rs"]
mod tests;
