//! Attempts of privileged users, and the API server's answers.

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::say::quote;

/// Attempts, each of which must be denied. The first denial is shown in full.
pub(super) async fn try_all(cluster: &ControlPlane, namespace: &str) -> Result<()> {
    for who in [Identity::TenantAdministrator, Identity::GitOps] {
        let client = cluster.client(who).await?;
        let refusal = refused("scale up", scale_up(&client, namespace).await)?;
        refused("create a pod", create_pod(&client, namespace).await)?;
        refused("take the namespace's label off", unlabel(&client, namespace).await)?;
        refused("delete a NetworkPolicy", delete_policy(&client, namespace).await)?;
        let name = match who {
            Identity::TenantAdministrator => "tenant administrator",
            _ => "GitOps (cluster-admin)",
        };
        quote(name, "may not scale up, create a pod, unlabel the namespace, delete a NetworkPolicy:");
        quote("", &refusal);
    }
    Ok(())
}

/// Returns the API server's denial. Anything else fails the demo.
fn refused<T>(what: &str, outcome: kube::Result<T>) -> Result<String> {
    match outcome {
        Err(kube::Error::Api(status)) if status.code == 403 => {
            ensure!(
                status.message.contains("resurgam-"),
                "refused, but not by the fence, to {what}: {}",
                status.message
            );
            Ok(status.message)
        }
        Err(error) => Err(error).context(format!("tried to {what}")),
        Ok(_) => anyhow::bail!("an isolated namespace let somebody {what}"),
    }
}

async fn scale_up(client: &Client, namespace: &str) -> kube::Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": 3}}));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    if let Some(first) = deployments.list(&ListParams::default()).await?.items.first() {
        return deployments.patch(&first.name_any(), &PatchParams::default(), &patch).await.map(drop);
    }
    let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
    let name =
        sets.list(&ListParams::default()).await?.items.first().map(ResourceExt::name_any).unwrap_or_default();
    sets.patch(&name, &PatchParams::default(), &patch).await.map(drop)
}

async fn create_pod(client: &Client, namespace: &str) -> kube::Result<()> {
    let mut pod = Pod::default();
    pod.metadata.name = Some("way-in".to_owned());
    pod.spec = Some(k8s_openapi::api::core::v1::PodSpec {
        containers: vec![k8s_openapi::api::core::v1::Container {
            name: "shell".to_owned(),
            image: Some("busybox".to_owned()),
            ..Default::default()
        }],
        ..Default::default()
    });
    Api::namespaced(client.clone(), namespace).create(&PostParams::default(), &pod).await.map(drop)
}

async fn unlabel(client: &Client, namespace: &str) -> kube::Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let patch = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}}));
    namespaces.patch(namespace, &PatchParams::default(), &patch).await.map(drop)
}

async fn delete_policy(client: &Client, namespace: &str) -> kube::Result<()> {
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    policies.delete("resurgam-default-deny", &DeleteParams::default()).await.map(drop)
}
