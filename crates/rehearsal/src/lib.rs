//! Rehearses an attack and the recovery on a real control plane: the estate, on-call staff, GitOps, the recovery lead, and the operator
//! as a process of its own. The demo and the tests use it. It shares no code with the operator and observes the cluster through the API
//! server only.

pub mod bad_day;
mod chart;
mod endpoint;
pub mod estate;
pub mod flux;
mod git;
mod helm;
mod idle;
pub mod library;
mod line;
mod manifests;
pub mod many;
mod operator;
mod people;
mod random;
mod registry;
mod release;
mod requests;
pub mod restoration;
mod s3;
pub mod saboteur;
mod shared;
mod stages;
pub mod three_boroughs;
pub mod trial;
pub mod velero;
mod wait;

use std::path::{Path, PathBuf};

pub use chart::{chart, rights};
pub use endpoint::Endpoint;
pub use git::GitServer;
pub use helm::{Helm, operator_image};
pub use idle::idle;
pub use line::Line;
pub use manifests::{apply, documents};
pub use operator::{Operator, OperatorOptions, leads};
pub use people::{NeededDecision, decide, decisions_needed, needed_decision, retry};
pub use random::{SplitMix, seed};
pub use registry::Registry;
pub use release::Release;
pub use requests::{Mark, Requests};
pub use s3::S3Server;
pub use shared::shared_cluster;
pub use stages::{End, Shared, Stage, Stages};
pub use wait::{DEADLINE, await_condition, condition, eventually, field, kind, object, of_condition, text};

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::ListParams;
use serde_json::Value;

const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Role of a person who upgrades during an incident, both cluster-wide and in the operator's namespace.
const UPGRADE: &str = "resurgam-upgrade";

/// Returns the path of a folder in the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
}

/// Returns the smallest example as one text, in the order in which its comment says to apply it: objects from before the day, the output
/// of `resurgam access` for its plan, and those of the day.
///
/// # Errors
/// A file cannot be read.
pub fn smallest() -> Result<String> {
    let read = |part: &str| {
        let file = repository(&format!("examples/smallest{part}.yaml"));
        std::fs::read_to_string(&file).with_context(|| file.display().to_string())
    };
    Ok([read("")?, read("-access")?, read("-incident")?].join("---\n"))
}

/// Parses the YAML documents of a file in the repository, or of all files in a folder, by name.
///
/// # Errors
/// A file cannot be read or parsed.
pub fn read(path: &str) -> Result<Vec<Value>> {
    read_at(&repository(path))
}

fn read_at(path: &Path) -> Result<Vec<Value>> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
        files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
        files.sort();
    }
    let mut all = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        all.extend(documents(&text).with_context(|| file.display().to_string())?);
    }
    Ok(all)
}

/// Installs the CustomResourceDefinitions, and waits until they are served.
///
/// # Errors
/// The API server rejected one, or does not serve it in time.
pub async fn install_kinds(client: &Client) -> Result<()> {
    install_kinds_of(client, client, &repository(".")).await
}

/// Installs the CustomResourceDefinitions of another checkout. `writer` may write them, `client` may list the kinds.
async fn install_kinds_of(writer: &Client, client: &Client, checkout: &Path) -> Result<()> {
    serve_kinds(writer, client, "install", &read_at(&crds_of(checkout))?).await
}

/// Applies CustomResourceDefinitions, and waits until they are served. `writer` may write them, `client` may list the kinds.
async fn serve_kinds(writer: &Client, client: &Client, manager: &str, crds: &[Value]) -> Result<()> {
    apply(writer, manager, crds).await?;
    let kinds = kind(client, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    for crd in crds {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        let served = |object: &Value| condition(object, "Established") == "True";
        eventually(&kinds, name, &format!("{name} to be served"), DEADLINE, served).await?;
    }
    Ok(())
}

/// Installs the CustomResourceDefinitions and RBAC as an administrator does.
///
/// # Errors
/// The API server refused something.
pub async fn install(cluster: &ControlPlane) -> Result<()> {
    install_of(cluster, &repository(".")).await
}

/// Installs the CustomResourceDefinitions and RBAC of another checkout.
async fn install_of(cluster: &ControlPlane, checkout: &Path) -> Result<()> {
    let client = cluster.client(Identity::PlatformAdministrator).await?;
    install_kinds_of(&client, &client, checkout).await?;
    apply(&client, "install", &rights_of(checkout).await?).await
}

/// Returns the folder with a checkout's CustomResourceDefinitions: in the chart, or in a separate folder in older states.
fn crds_of(checkout: &Path) -> PathBuf {
    let before = checkout.join("crds");
    if before.is_dir() { before } else { checkout.join("charts/resurgam/files/crds") }
}

/// Returns the RBAC of a checkout: from its chart, or from a manifest in older states.
async fn rights_of(checkout: &Path) -> Result<Vec<Value>> {
    let before = checkout.join("deploy/rbac.yaml");
    if before.is_file() { read_at(&before) } else { tokio::task::spawn_blocking(rights).await? }
}

/// Replaces the CustomResourceDefinitions and RBAC by those of this repository while something is isolated, as a recovery lead with the
/// role for upgrades.
///
/// # Errors
/// The API server refused something.
pub async fn upgrade(cluster: &ControlPlane) -> Result<()> {
    upgrade_to(cluster, &repository(".")).await
}

async fn upgrade_to(cluster: &ControlPlane, checkout: &Path) -> Result<()> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let upgrader = cluster.client(Identity::Upgrader).await?;
    let rights = rights_of(checkout).await?;
    if kind(&admin, RBAC, "ClusterRole", None).get_opt(UPGRADE).await?.is_none() {
        // An earlier state knows no such role. It holds none of our verbs: an administrator may give it, and its holder the one of the
        // operator's namespace.
        let of_upgrade = |wanted: &str| {
            let is = |right: &&Value| right["kind"] == wanted && text(right, "/metadata/name") == UPGRADE;
            rights.iter().filter(is).cloned().collect::<Vec<_>>()
        };
        apply(&admin, "install", &of_upgrade("ClusterRole")).await?;
        may_list(&kind(&upgrader, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None)).await?;
        apply(&upgrader, "install", &of_upgrade("Role")).await?;
        may_list(&kind(&upgrader, "v1", "ServiceAccount", Some("resurgam-system"))).await?;
    }
    install_kinds_of(&upgrader, &upgrader, checkout).await?;
    apply(&upgrader, "install", &rights).await
}

/// Waits until the client may list: the authorizer observes a role some milliseconds after the write.
async fn may_list(objects: &kube::Api<kube::api::DynamicObject>) -> Result<()> {
    let until = tokio::time::Instant::now() + DEADLINE;
    while let Err(error) = objects.list(&ListParams::default().limit(1)).await {
        ensure!(tokio::time::Instant::now() < until, "the right to upgrade does not come: {error}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Returns the user name that the API server reports for a client.
///
/// # Errors
/// The API server did not say.
pub async fn name_of(client: &Client) -> Result<String> {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let reviews: kube::Api<SelfSubjectReview> = kube::Api::all(client.clone());
    let review = reviews.create(&kube::api::PostParams::default(), &SelfSubjectReview::default()).await?;
    review
        .status
        .and_then(|s| s.user_info)
        .and_then(|u| u.username)
        .context("the API server did not say who we are")
}
