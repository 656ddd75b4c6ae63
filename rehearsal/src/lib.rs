//! Plays an attack and its people on a real control plane: the estate, on-call staff, GitOps, the recovery lead, and the
//! operator as a process of its own. The demo and the tests are made of it. It shares no code with the operator: it sees
//! what anybody sees, through the API server.

mod endpoint;
pub mod estate;
mod idle;
mod manifests;
mod operator;
mod people;
mod random;
mod spoil;
pub mod trial;
mod wait;

use std::path::{Path, PathBuf};

pub use endpoint::Endpoint;
pub use idle::idle;
pub use manifests::{apply, documents};
pub use operator::{Operator, OperatorOptions};
pub use people::{Asked, asked, decide, decisions_needed, retry};
pub use random::{SplitMix, seed};
pub use spoil::spoiled;
pub use wait::{DEADLINE, condition, eventually, field, kind, object, text};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity};
use kube::Client;
use serde_json::Value;

/// A folder of the repository.
#[must_use]
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// Reads the documents of a YAML file of the repository, or of all files of a folder, in the order of their names.
///
/// # Errors
/// A file cannot be read or parsed.
pub fn read(path: &str) -> Result<Vec<Value>> {
    let path = repository(path);
    let mut files = vec![path.clone()];
    if path.is_dir() {
        files = std::fs::read_dir(&path)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
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

/// Makes the kinds known, and waits until they are served.
///
/// # Errors
/// The API server refused one, or does not come to serve it.
pub async fn install_kinds(client: &Client) -> Result<()> {
    let crds = read("crds")?;
    apply(client, "install", &crds).await?;
    let kinds = kind(client, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    for crd in &crds {
        let name = crd["metadata"]["name"].as_str().unwrap_or_default();
        let served = |object: &Value| condition(object, "Established") == "True";
        eventually(&kinds, name, &format!("{name} to be served"), DEADLINE, served).await?;
    }
    Ok(())
}

/// Installs the kinds, and the rights of the operator and its people, as an administrator would.
///
/// # Errors
/// The API server refused something.
pub async fn install(cluster: &ControlPlane) -> Result<()> {
    let client = cluster.client(Identity::PlatformAdministrator).await?;
    install_kinds(&client).await?;
    apply(&client, "install", &read("deploy/rbac.yaml")?).await
}

/// The three boroughs, scene by scene.
pub mod three_boroughs {
    use super::{ControlPlane, Identity, Result, apply, kind, read};
    use crate::wait::{DEADLINE, condition, eventually, is_running};

    const AT: &str = "examples/three-boroughs";
    /// Namespace of the plan.
    pub const NAMESPACE: &str = "recovery";
    /// Name of the plan.
    pub const PLAN: &str = "three-boroughs";

    /// The estate as the attack left it, up and running, with the rights and lists that had been made before the day.
    ///
    /// # Errors
    /// The API server refused something, or a workload did not start.
    pub async fn lay_down(cluster: &ControlPlane, tampered: bool) -> Result<usize> {
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        apply(&admin, "platform", &read(&format!("{AT}/namespaces.yaml"))?).await?;
        let mut estate = read(&format!("{AT}/estate"))?;
        if tampered {
            let same = |a: &serde_json::Value, b: &serde_json::Value| {
                ["/kind", "/metadata/name", "/metadata/namespace"]
                    .iter()
                    .all(|at| a.pointer(at) == b.pointer(at))
            };
            for bad in read(&format!("{AT}/tampered"))? {
                estate.retain(|good| !same(good, &bad));
                estate.push(bad);
            }
        }
        apply(&admin, "platform", &estate).await?;
        for file in ["access.yaml", "people.yaml", "approved-images.yaml"] {
            apply(&admin, "platform", &read(&format!("{AT}/{file}"))?).await?;
        }
        for workload in &estate {
            let at =
                |field: &str| workload.pointer(field).and_then(serde_json::Value::as_str).unwrap_or_default();
            let (kind_, name, namespace) = (at("/kind"), at("/metadata/name"), at("/metadata/namespace"));
            if ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod"]
                .contains(&kind_)
            {
                let api = kind(&admin, at("/apiVersion"), kind_, Some(namespace));
                let what = format!("{kind_} {namespace}/{name} to run");
                eventually(&api, name, &what, DEADLINE, |object| is_running(kind_, object)).await?;
            }
        }
        Ok(estate.len())
    }

    /// On-call staff isolate everything. Returns the namespaces, without waiting.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn isolate(cluster: &ControlPlane) -> Result<Vec<String>> {
        let responder = cluster.client(Identity::Responder).await?;
        let quarantines = read(&format!("{AT}/quarantines.yaml"))?;
        apply(&responder, "on-call", &quarantines).await?;
        Ok(quarantines
            .iter()
            .map(|q| q["metadata"]["name"].as_str().unwrap_or_default().to_owned())
            .collect())
    }

    /// Waits until a namespace's isolation stands.
    ///
    /// # Errors
    /// It did not come to stand in time.
    pub async fn isolated(cluster: &ControlPlane, namespace: &str) -> Result<serde_json::Value> {
        let responder = cluster.client(Identity::Responder).await?;
        let quarantines = kind(&responder, "resurgam.dev/v1alpha1", "Quarantine", None);
        let what = format!("Quarantine {namespace} to be Ready");
        eventually(&quarantines, namespace, &what, DEADLINE, |object| condition(object, "Ready") == "True")
            .await
    }

    /// GitOps applies the Incident and the plan, which names it and is thereby armed. The plan's HTTP gates are pointed at
    /// `endpoint`. Returns the plan as applied, as YAML, for the judge.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn arm(cluster: &ControlPlane, endpoint: &str) -> Result<String> {
        let gitops = cluster.client(Identity::GitOps).await?;
        apply(&gitops, "gitops", &read(&format!("{AT}/incident.yaml"))?).await?;
        let text = std::fs::read_to_string(super::repository(&format!("{AT}/plan.yaml")))?
            .replace("http://127.0.0.1:8080/healthz", endpoint);
        apply(&gitops, "gitops", &super::documents(&text)?).await?;
        Ok(text)
    }

    /// The recovery lead puts the approved versions back, by `repair`.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn repair(cluster: &ControlPlane) -> Result<()> {
        let lead = cluster.client(Identity::RecoveryLead).await?;
        apply(&lead, "repair", &read(&format!("{AT}/repair"))?).await
    }
}

/// Who somebody is, by the API server's word.
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
