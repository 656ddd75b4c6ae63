//! The sabotaged namespace and its actors.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use control_plane::{ControlPlane, Identity};
use futures::{StreamExt, TryStreamExt, stream};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};

use super::Trick;
use crate::{DEADLINE, apply, condition, documents, eventually, field, kind};

/// Kinds of third parties that the platform has installed and tenants may write.
const KINDS: &str = include_str!("kinds.yaml");
/// Number of objects that are planted concurrently.
const AT_ONCE: usize = 8;
/// Polling interval for states that cannot be watched.
pub(super) const LOOK: Duration = Duration::from_millis(250);
/// A finalizer that nobody removes.
pub(super) const KEEP: &str = "mallory.example/keep";
/// An image that is not approved.
pub(super) const IMAGE: &str = "registry.shared.example/implant:1";

/// Installs the third-party kinds that tricks need, and the tenants' rights to them. Once per control plane.
///
/// # Errors
/// The API server refused something.
pub async fn prepare(cluster: &ControlPlane) -> Result<()> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let kinds = documents(KINDS)?;
    apply(&admin, "platform", &kinds).await?;
    let crds = kind(&admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    for crd in kinds.iter().filter(|object| object["kind"] == "CustomResourceDefinition") {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        let served = |object: &Value| condition(object, "Established") == "True";
        eventually(&crds, name, &format!("{name} to be served"), DEADLINE, served).await?;
    }
    // The API server calls a kind established before its storage is ready, and refuses lists until then.
    for (version, what) in
        [("cilium.io/v2", "CiliumNetworkPolicy"), ("apps.kruise.io/v1beta1", "StatefulSet")]
    {
        let objects = kind(&admin, version, what, None);
        let answered = async {
            while objects.list(&ListParams::default()).await.is_err() {
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::time::timeout(DEADLINE, answered)
            .await
            .with_context(|| format!("{what}s are not answered for"))?;
    }
    Ok(())
}

/// A namespace with an estate.
pub struct Scene<'a> {
    pub(super) cluster: &'a ControlPlane,
    namespace: String,
    pub(super) admin: Client,
    pub(super) mallory: Client,
    /// ServiceAccounts whose tokens the tenant holds, with the tokens.
    pub(super) tokens: Vec<(String, String)>,
}

impl<'a> Scene<'a> {
    /// Creates the namespace, its estate and its tenant, and waits until the estate runs.
    ///
    /// # Errors
    /// The API server refused something, or the estate does not run.
    pub async fn lay_down(cluster: &'a ControlPlane, namespace: &str) -> Result<Self> {
        let mut scene = Self::at(cluster, namespace).await?;
        let estate = documents(&include_str!("estate.yaml").replace("NAMESPACE", namespace))?;
        let (first, rest): (Vec<_>, Vec<_>) = estate
            .into_iter()
            .partition(|o| ["Namespace", "ServiceAccount"].iter().any(|kind| o["kind"] == *kind));
        apply(&scene.admin, "platform", &first).await?;
        for (version, what, name) in
            [("v1", "ServiceAccount", "default"), ("v1", "ConfigMap", "kube-root-ca.crt")]
        {
            scene.until(version, what, name, "to be there", |_| true).await?;
        }
        apply(&scene.admin, "platform", &rest).await?;
        scene.until("apps/v1", "Deployment", "web", "to run", is_ready).await?;
        scene.until_mallory_may_write().await?;
        for account in ["default", "worker"] {
            scene.take_token(account).await?;
        }
        Ok(scene)
    }

    /// Returns the scene of a namespace without creating it.
    pub(super) async fn at(cluster: &'a ControlPlane, namespace: &str) -> Result<Self> {
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        let mallory = impersonating(cluster, "mallory").await?;
        Ok(Self { cluster, namespace: namespace.to_owned(), admin, mallory, tokens: Vec::new() })
    }

    /// Returns the name of the namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Plants all tricks.
    ///
    /// # Errors
    /// A trick cannot be planted.
    pub async fn plant(&mut self, tricks: &[Trick]) -> Result<()> {
        for trick in tricks {
            trick.plant(self).await?;
        }
        Ok(())
    }

    /// Returns the objects of a kind in the namespace, with the platform administrator's client.
    pub(super) fn objects(&self, version: &str, what: &str) -> Api<DynamicObject> {
        kind(&self.admin, version, what, Some(&self.namespace))
    }

    /// Creates an object as the tenant.
    pub(super) async fn create(&self, object: Value) -> Result<DynamicObject> {
        create(&self.mallory, &self.namespace, object).await
    }

    /// Creates objects as the tenant.
    pub(super) async fn create_all(&self, objects: impl IntoIterator<Item = Value>) -> Result<()> {
        let all = objects.into_iter().map(|object| async move { self.create(object).await.map(drop) });
        stream::iter(all).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// Creates an object as the platform administrator.
    pub(super) async fn create_as_platform(&self, object: Value) -> Result<DynamicObject> {
        create(&self.admin, &self.namespace, object).await
    }

    /// Waits until an object satisfies a predicate.
    pub(super) async fn until(
        &self,
        version: &str,
        what: &str,
        name: &str,
        how: &str,
        is: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let sentence = format!("{what} {}/{name} {how}", self.namespace);
        eventually(&self.objects(version, what), name, &sentence, DEADLINE, is).await
    }

    /// Waits until a pod is running.
    pub(super) async fn until_running(&self, pod: &str) -> Result<()> {
        self.until("v1", "Pod", pod, "to run", |o| field(o, "/status/phase") == "Running").await.map(drop)
    }

    /// Requests a token of a ServiceAccount as the tenant.
    pub(super) async fn take_token(&mut self, account: &str) -> Result<()> {
        let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
            Api::namespaced(self.mallory.clone(), &self.namespace);
        let request = serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 28800}}))?;
        let answer = accounts
            .create_token_request(account, &PostParams::default(), &request)
            .await
            .with_context(|| format!("a token of {account}"))?;
        let token = answer.status.context("a token request without an answer")?.token;
        ensure!(
            super::check::authenticates(&self.admin, &token).await?,
            "a token of {account} is good for nothing"
        );
        self.tokens.push((account.to_owned(), token));
        Ok(())
    }

    /// Removes the platform's cluster-scoped objects: its webhooks.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn remove_webhooks(&self) -> Result<()> {
        let ours = ListParams::default().labels(&format!("saboteur.example/namespace={}", self.namespace));
        for what in ["ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"] {
            let all = kind(&self.admin, "admissionregistration.k8s.io/v1", what, None);
            all.delete_collection(&DeleteParams::default(), &ours)
                .await
                .with_context(|| format!("delete {what}s"))?;
        }
        Ok(())
    }

    /// Deletes the namespace without waiting, so that the control plane does not fill up.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn remove(&self) -> Result<()> {
        self.remove_webhooks().await?;
        for (version, what) in [
            ("v1", "Pod"),
            ("v1", "ServiceAccount"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("apps/v1", "Deployment"),
            ("apps/v1", "ReplicaSet"),
        ] {
            let objects = self.objects(version, what);
            for object in objects.list(&ListParams::default()).await?.items {
                if object.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == KEEP) {
                    let name = object.metadata.name.unwrap_or_default();
                    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                    match objects.patch(&name, &PatchParams::default(), &free).await {
                        Ok(_) => {}
                        Err(kube::Error::Api(status)) if status.code == 404 => {}
                        Err(error) => return Err(error).with_context(|| format!("free {what} {name}")),
                    }
                }
            }
        }
        let namespaces = kind(&self.admin, "v1", "Namespace", None);
        namespaces.delete(&self.namespace, &DeleteParams::default()).await.context("delete the namespace")?;
        Ok(())
    }

    /// Waits until the authorizer has observed the tenant's new binding and the aggregated role.
    async fn until_mallory_may_write(&self) -> Result<()> {
        let may = async {
            for group in ["", "networking.k8s.io", "cilium.io", "apps.kruise.io"] {
                let resource = match group {
                    "" => "pods",
                    "networking.k8s.io" => "networkpolicies",
                    "cilium.io" => "ciliumnetworkpolicies",
                    _ => "statefulsets",
                };
                let attributes = json!({"namespace": self.namespace, "verb": "create", "group": group, "resource": resource});
                let review = json!({"spec": {"resourceAttributes": attributes}});
                let reviews: Api<k8s_openapi::api::authorization::v1::SelfSubjectAccessReview> =
                    Api::all(self.mallory.clone());
                let review = serde_json::from_value(review)?;
                while !reviews
                    .create(&PostParams::default(), &review)
                    .await?
                    .status
                    .is_some_and(|status| status.allowed)
                {
                    tokio::time::sleep(LOOK).await;
                }
            }
            anyhow::Ok(())
        };
        match tokio::time::timeout(DEADLINE, may).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("mallory did not get the rights of a namespace's administrator"),
        }
    }
}

async fn create(client: &Client, namespace: &str, object: Value) -> Result<DynamicObject> {
    let text = |at: &str| object.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (version, what, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
    let cluster_wide = what.ends_with("WebhookConfiguration");
    let api = kind(client, &version, &what, (!cluster_wide).then_some(namespace));
    let object = serde_json::from_value(object)?;
    api.create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("create {what} {namespace}/{name}"))
}

/// Returns a client that impersonates a user, with the platform administrator's rights.
async fn impersonating(cluster: &ControlPlane, user: &str) -> Result<Client> {
    let kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(Identity::PlatformAdministrator))?;
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    config.auth_info.impersonate = Some(user.to_owned());
    // A refusal is an answer here.
    config.default_retry = false;
    Ok(Client::try_from(config)?)
}

/// Returns whether a workload has all of its replicas.
pub(super) fn is_ready(object: &Value) -> bool {
    field(object, "/status/readyReplicas").as_i64() == field(object, "/spec/replicas").as_i64()
}

/// Returns the spec of a malicious pod.
pub(super) fn implant() -> Value {
    json!({"containers": [{"name": "main", "image": IMAGE}]})
}

/// Returns a bare pod.
pub(super) fn pod(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": implant()})
}

/// Returns a workload of `apps/v1`.
pub(super) fn workload(what: &str, name: &str, replicas: u8) -> Value {
    let mut object = json!({
        "apiVersion": "apps/v1", "kind": what, "metadata": {"name": name}, "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": implant()},
        },
    });
    if what == "StatefulSet" {
        object["spec"]["serviceName"] = json!(name);
    }
    object
}

/// Returns a NetworkPolicy that allows all traffic in both directions.
pub(super) fn allow(name: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "ingress": [{}], "egress": [{}]},
    })
}
