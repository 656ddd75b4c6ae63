//! Sets the cluster up before its first use: accounts, their rights, and fake nodes.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleRef, Subject};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind, ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;
use serde_json::json;

/// Field manager of everything that this crate applies.
const MANAGER: &str = "resurgam-rig";
/// User that issues tokens of the impersonated accounts. The product's guard denies the operator's token to others.
pub(crate) const REGISTRAR: &str = "resurgam-rig-registrar";
/// Time limit of each step.
const DEADLINE: Duration = Duration::from_secs(60);
/// Lifetime of tokens, longer than any test or demo.
const TOKEN_SECONDS: i64 = 24 * 60 * 60;

/// Grants the user `platform-administrator` cluster-admin. This is the only write of `masters`, a client in `system:masters`.
pub(crate) async fn hand_over(masters: Client) -> anyhow::Result<()> {
    let group = "rbac.authorization.k8s.io";
    let binding = ClusterRoleBinding {
        metadata: ObjectMeta {
            name: Some("resurgam-rig-platform-administrator".into()),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: group.into(),
            kind: "ClusterRole".into(),
            name: "cluster-admin".into(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(group.into()),
            kind: "User".into(),
            name: "platform-administrator".into(),
            namespace: None,
        }]),
    };
    let create = async { Api::all(masters).create(&PostParams::default(), &binding).await };
    within("the bootstrap binding", create).await.map(drop)
}

/// Waits until the API server's authorizer has observed that binding.
pub(crate) async fn handed_over(administrator: &Client) -> anyhow::Result<()> {
    let everything = ResourceAttributes {
        group: Some("*".into()),
        resource: Some("*".into()),
        verb: Some("*".into()),
        ..ResourceAttributes::default()
    };
    allowed(administrator, "platform-administrator", everything).await
}

/// Waits until the token issuer may issue tokens.
pub(crate) async fn issues_tokens(registrar: &Client) -> anyhow::Result<()> {
    let issue = ResourceAttributes {
        group: Some(String::new()),
        resource: Some("serviceaccounts".into()),
        subresource: Some("token".into()),
        verb: Some("create".into()),
        ..ResourceAttributes::default()
    };
    allowed(registrar, REGISTRAR, issue).await
}

async fn allowed(client: &Client, who: &str, what: ResourceAttributes) -> anyhow::Result<()> {
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(what),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let until = Instant::now() + DEADLINE;
    loop {
        let answer = within("a review of access", reviews.create(&PostParams::default(), &review)).await?;
        if answer.status.is_some_and(|status| status.allowed) {
            return Ok(());
        }
        if Instant::now() >= until {
            bail!("{who} did not get its rights within {} s", DEADLINE.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Applies the accounts and rights of this crate.
pub(crate) async fn apply_rig(administrator: &Client) -> anyhow::Result<()> {
    // Read before anything is awaited: a parser stays on its thread, and who starts a control plane need not.
    let documents = serde_yaml::Deserializer::from_str(include_str!("../manifests/rig.yaml"));
    let objects: Vec<_> = documents.map(DynamicObject::deserialize).collect();
    for object in objects {
        let object = object.context("manifests/rig.yaml")?;
        let types = object.types.as_ref().context("manifests/rig.yaml: an object without a kind")?;
        let resource = ApiResource::from_gvk(&GroupVersionKind::try_from(types)?);
        let api: Api<DynamicObject> = match &object.metadata.namespace {
            Some(namespace) => Api::namespaced_with(administrator.clone(), namespace, &resource),
            None => Api::all_with(administrator.clone(), &resource),
        };
        let name = object.name_any();
        let patch = Patch::Apply(&object);
        within(&name, api.patch(&name, &PatchParams::apply(MANAGER), &patch)).await?;
    }
    Ok(())
}

/// Returns a token of a ServiceAccount, as a pod gets it.
pub(crate) async fn token(registrar: &Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    let accounts: Api<ServiceAccount> = Api::namespaced(registrar.clone(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let params = PostParams::default();
    let create = accounts.create_token_request(name, &params, &request);
    let answer = within(&format!("a token of {namespace}/{name}"), create).await?;
    Ok(answer.status.context("a token request without an answer")?.token)
}

/// Creates fake nodes.
pub(crate) async fn create_nodes(administrator: &Client, names: &[String]) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(administrator.clone());
    for name in names {
        let node: Node = serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "annotations": {"kwok.x-k8s.io/node": "fake"},
                "labels": {
                    "kubernetes.io/hostname": name,
                    "kubernetes.io/os": "linux",
                    "kubernetes.io/arch": "amd64",
                },
            },
        }))?;
        within(name, nodes.create(&PostParams::default(), &node)).await?;
    }
    Ok(())
}

/// Waits until pods can be created, scheduled and run: ServiceAccounts exist, nodes are ready and untainted.
pub(crate) async fn usable(administrator: &Client, nodes: &[String]) -> anyhow::Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(administrator.clone(), "default");
    let made = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
    within("the service account default/default", made).await?;
    for name in nodes {
        let api: Api<Node> = Api::all(administrator.clone());
        within(&format!("node {name} to be ready"), await_condition(api, name, ready)).await?;
    }
    Ok(())
}

fn ready(node: Option<&Node>) -> bool {
    node.is_some_and(|node| {
        let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
        let ready =
            conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        ready && taints.is_none_or(Vec::is_empty)
    })
}

/// Returns the result of `what`, or an error that names it if it fails or times out.
async fn within<T, E>(what: &str, future: impl Future<Output = Result<T, E>>) -> anyhow::Result<T>
where
    E: std::error::Error + Send + Sync + 'static,
{
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(outcome) => outcome.with_context(|| format!("setting up the cluster: {what}")),
        Err(_) => bail!("setting up the cluster: {what} took longer than {} s", DEADLINE.as_secs()),
    }
}
