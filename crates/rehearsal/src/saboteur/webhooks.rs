//! Webhooks of the platform that fail closed and are down.

use std::fmt;

use anyhow::{Context, Result, bail};
use kube::Api;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::scene::{LOOK, allow, pod};
use super::{Promise, Scene};
use crate::{DEADLINE, kind};

/// A configuration with one webhook, whose endpoint is unreachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// Requests that it intercepts.
    pub target: Target,
    /// Whether it is mutating, and so runs before the admission policies.
    pub mutating: bool,
    /// Timeout in seconds.
    pub timeout_seconds: u8,
}

/// Requests that a webhook intercepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// UPDATE of the namespace.
    Namespace,
    /// CREATE of pods.
    PodsCreate,
    /// DELETE of pods.
    PodsDelete,
    /// UPDATE of pods.
    PodsUpdate,
    /// All writes of NetworkPolicies.
    Policies,
    /// All writes of ConfigMaps.
    ConfigMaps,
    /// All writes of ServiceAccounts.
    Accounts,
    /// UPDATE of Deployments.
    Deployments,
}

impl Target {
    pub(super) const ALL: [Self; 8] = [
        Self::Namespace,
        Self::PodsCreate,
        Self::PodsDelete,
        Self::PodsUpdate,
        Self::Policies,
        Self::ConfigMaps,
        Self::Accounts,
        Self::Deployments,
    ];

    fn rule(self) -> Value {
        let (group, resource, operations): (&str, &str, &[&str]) = match self {
            Self::Namespace => ("", "namespaces", &["UPDATE"]),
            Self::PodsCreate => ("", "pods", &["CREATE"]),
            Self::PodsDelete => ("", "pods", &["DELETE"]),
            Self::PodsUpdate => ("", "pods", &["UPDATE"]),
            Self::Policies => ("networking.k8s.io", "networkpolicies", &["CREATE", "UPDATE", "DELETE"]),
            Self::ConfigMaps => ("", "configmaps", &["CREATE", "UPDATE", "DELETE"]),
            Self::Accounts => ("", "serviceaccounts", &["CREATE", "UPDATE", "DELETE"]),
            Self::Deployments => ("apps", "deployments", &["UPDATE"]),
        };
        json!({"apiGroups": [group], "apiVersions": ["*"], "resources": [resource], "operations": operations})
    }

    /// Returns the promise whose writes it intercepts.
    pub(super) fn exempts(self) -> Option<Promise> {
        match self {
            Self::Policies => Some(Promise::NetworkCut),
            Self::PodsDelete => Some(Promise::NothingRuns),
            Self::Accounts => Some(Promise::TokensVoid),
            Self::Namespace | Self::PodsCreate | Self::PodsUpdate | Self::ConfigMaps | Self::Deployments => {
                None
            }
        }
    }
}

impl fmt::Display for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.target, if self.mutating { "-mutating" } else { "" })
    }
}

impl Webhook {
    /// Returns its name in denials.
    pub(super) fn name(self, namespace: &str) -> String {
        format!("{}.{namespace}.platform.example", format!("{:?}", self.target).to_lowercase())
    }

    pub(super) async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        let namespace = scene.namespace();
        let what =
            if self.mutating { "MutatingWebhookConfiguration" } else { "ValidatingWebhookConfiguration" };
        let name = self.name(namespace);
        scene
            .create_as_platform(json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": what,
                "metadata": {"name": name, "labels": {"saboteur.example/namespace": namespace}},
                "webhooks": [{
                    "name": name,
                    // Nobody listens there.
                    "clientConfig": {"url": "https://127.0.0.1:9/admit"},
                    "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
                    "timeoutSeconds": self.timeout_seconds,
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
                    "rules": [self.rule()],
                }],
            }))
            .await?;
        match tokio::time::timeout(DEADLINE, self.until_asked(scene)).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the API server does not ask {name}"),
        }
    }

    fn rule(self) -> Value {
        self.target.rule()
    }

    /// Waits until the API server has observed the webhook and denies requests.
    async fn until_asked(self, scene: &Scene<'_>) -> Result<()> {
        loop {
            match self.attempt(scene).await {
                Err(kube::Error::Api(status)) if status.message.contains(&self.name(scene.namespace())) => {
                    return Ok(());
                }
                // Another trick may refuse it first: whether this one is asked cannot be seen, then, and it is never alone.
                Err(kube::Error::Api(status)) if status.message.contains("failed calling webhook") => {
                    return Ok(());
                }
                Err(kube::Error::Api(status)) if status.message.contains("usage per Container") => {
                    return Ok(());
                }
                // Quotas come after webhooks: this one was not asked yet.
                Err(kube::Error::Api(status)) if status.message.contains("exceeded quota") => {
                    tokio::time::sleep(LOOK).await;
                }
                Ok(()) => tokio::time::sleep(LOOK).await,
                Err(error) => return Err(error).context("a write that the webhook is asked about"),
            }
        }
    }

    /// Makes a request that it intercepts, as a dry run.
    async fn attempt(self, scene: &Scene<'_>) -> kube::Result<()> {
        let (create, patch, delete) = (
            PostParams { dry_run: true, ..PostParams::default() },
            PatchParams { dry_run: true, ..PatchParams::default() },
            DeleteParams { dry_run: true, ..DeleteParams::default() },
        );
        let noted = Patch::Merge(json!({"metadata": {"annotations": {"platform.example/note": "asked"}}}));
        let read =
            |object: Value| serde_json::from_value::<DynamicObject>(object).map_err(kube::Error::SerdeError);
        let pods = scene.objects("v1", "Pod");
        let of_web = || async {
            let all = pods.list_metadata(&kube::api::ListParams::default().labels("app=web")).await?;
            kube::Result::<String>::Ok(
                all.items.into_iter().find_map(|pod| pod.metadata.name).unwrap_or_default(),
            )
        };
        let namespaces: Api<DynamicObject> = kind(&scene.admin, "v1", "Namespace", None);
        match self.target {
            Target::Namespace => namespaces.patch(scene.namespace(), &patch, &noted).await.map(drop),
            Target::PodsCreate => pods.create(&create, &read(pod("asked"))?).await.map(drop),
            Target::PodsDelete => pods.delete(&of_web().await?, &delete).await.map(drop),
            Target::PodsUpdate => pods.patch(&of_web().await?, &patch, &noted).await.map(drop),
            Target::Policies => {
                let policies = scene.objects("networking.k8s.io/v1", "NetworkPolicy");
                policies.create(&create, &read(allow("asked"))?).await.map(drop)
            }
            Target::ConfigMaps => {
                scene.objects("v1", "ConfigMap").patch("settings", &patch, &noted).await.map(drop)
            }
            Target::Accounts => {
                scene.objects("v1", "ServiceAccount").patch("worker", &patch, &noted).await.map(drop)
            }
            Target::Deployments => {
                scene.objects("apps/v1", "Deployment").patch("web", &patch, &noted).await.map(drop)
            }
        }
    }
}
