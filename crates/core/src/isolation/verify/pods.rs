//! Pods that probe the network: listeners, connectors, and their termination messages.

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use serde_json::json;

use super::network::{DENIED_NAMESPACE, OPEN_NAMESPACE};
use crate::api::MANAGED_BY_LABEL;
use crate::isolation::MANAGED_BY;

/// Label with the ID of the probe run.
pub const TRY_LABEL: &str = "resurgam.dev/probe";
/// Port of the listeners.
pub const PORT: u16 = 8443;
/// How long a connector retries until the result is the expected one. A network may take some seconds to apply a policy.
pub const CONVERGENCE_SECONDS: u64 = 20;
/// Lifetime of a pod that nobody deletes.
const DEADLINE_SECONDS: u64 = 300;

/// Side of the policy on which a pod is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// No policy applies.
    Open,
    /// All traffic is denied once the policy is written.
    Denied,
}

impl Side {
    /// Returns the namespace of this side.
    #[must_use]
    pub const fn namespace(self) -> &'static str {
        match self {
            Self::Open => OPEN_NAMESPACE,
            Self::Denied => DENIED_NAMESPACE,
        }
    }
}

/// One probe run: the image of its pods, and its ID.
#[derive(Clone, Debug)]
pub struct ProbeRun {
    /// An image whose entrypoint is `resurgam`.
    pub image: String,
    /// ID in names and labels. Listeners send it to connectors.
    pub id: String,
}

/// Target of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeTarget {
    /// Name of the target in the report.
    pub name: String,
    /// `IP:PORT`.
    pub address: String,
    /// Whether the connector expects to be denied.
    pub denied: bool,
}

impl ProbeRun {
    /// Returns a pod that sends the ID to every client that connects.
    #[must_use]
    pub fn listener(&self, side: Side, name: &str, node: &str) -> Option<Pod> {
        let port = PORT.to_string();
        self.pod(side, name, node, &["listen", "--port", &port, "--say", &self.id])
    }

    /// Returns a pod that connects to these targets, reports the results and exits.
    #[must_use]
    pub fn connector(&self, side: Side, name: &str, node: &str, goals: &[ProbeTarget]) -> Option<Pod> {
        let patience = format!("{CONVERGENCE_SECONDS}s");
        let mut args = vec!["connect", "--hear", &self.id, "--patience", &patience];
        let goals: Vec<_> = goals
            .iter()
            .map(|g| (if g.denied { "--denied" } else { "--open" }, format!("{}={}", g.name, g.address)))
            .collect();
        args.extend(goals.iter().flat_map(|(flag, target)| [*flag, target.as_str()]));
        self.pod(side, name, node, &args)
    }

    /// Returns the selector of the pods of all probe runs.
    #[must_use]
    pub fn selector() -> String {
        format!("{MANAGED_BY_LABEL}={MANAGED_BY},{TRY_LABEL}")
    }

    /// Returns a pod that satisfies Pod Security `restricted` and names its node, so that taints and the scheduler do not matter.
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

/// Returns `IP:PORT` of a running listener.
#[must_use]
pub fn address(pod: &Pod) -> Option<String> {
    let ip = pod.status.as_ref()?.pod_ip.as_deref().filter(|ip| !ip.is_empty())?;
    let ip: std::net::IpAddr = ip.parse().ok()?;
    is_running(pod).then(|| std::net::SocketAddr::new(ip, PORT).to_string())
}

/// Returns whether the pod is running.
#[must_use]
pub fn is_running(pod: &Pod) -> bool {
    phase(pod) == "Running"
        && pod.metadata.deletion_timestamp.is_none()
        && container(pod)
            .and_then(|status| status.state.as_ref())
            .is_some_and(|state| state.running.is_some())
}

/// Returns whether the pod has ended, successfully or not.
#[must_use]
pub fn has_ended(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Returns the pod's termination message.
#[must_use]
pub fn termination_message(pod: &Pod) -> Option<&str> {
    container(pod)?.state.as_ref()?.terminated.as_ref()?.message.as_deref()
}

/// Returns the pod's state in Kubernetes' own terms.
#[must_use]
pub fn describe_state(pod: &Pod) -> String {
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
