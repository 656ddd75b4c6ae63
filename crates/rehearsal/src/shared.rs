//! A control plane that tests share: their own, or the one of `cargo xtask cluster up`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity, Options};
use kube::Client;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::wait::{DEADLINE, kind};

/// Environment variable with the folder of a running cluster that tests attach to.
const VARIABLE: &str = "RESURGAM_CLUSTER";
/// Polling interval for deletions.
const LOOK: Duration = Duration::from_millis(100);
const ADMISSION: &str = "admissionregistration.k8s.io/v1";
const RBAC: &str = "rbac.authorization.k8s.io/v1";
/// Namespaces of a new cluster. A test created every other one.
const NAMESPACES: [&str; 6] =
    ["default", "kube-system", "kube-public", "kube-node-lease", "flux-system", "resurgam-system"];
/// Cluster-scoped kinds that only tests create. Policies come first, as they deny the rest.
const OF_THE_CLUSTER: [(&str, &str); 10] = [
    (ADMISSION, "ValidatingAdmissionPolicyBinding"),
    (ADMISSION, "ValidatingAdmissionPolicy"),
    (ADMISSION, "ValidatingWebhookConfiguration"),
    (ADMISSION, "MutatingWebhookConfiguration"),
    ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
    ("v1", "PersistentVolume"),
    ("storage.k8s.io/v1", "StorageClass"),
    ("storage.k8s.io/v1", "VolumeAttachment"),
    (RBAC, "ClusterRoleBinding"),
    (RBAC, "ClusterRole"),
];

/// Starts a control plane, or attaches to the one in the folder `RESURGAM_CLUSTER` after removing what earlier tests left in it. Only the
/// first caller in a process attaches, as callers use the same names and leases. Tests that configure or stop a control plane use
/// [`ControlPlane::start`].
///
/// # Errors
/// No control plane can be started, or none is running in that folder.
pub async fn shared_cluster() -> Result<ControlPlane> {
    static ATTACHED: AtomicBool = AtomicBool::new(false);
    let Some(dir) = std::env::var_os(VARIABLE) else { return ControlPlane::start(Options::default()).await };
    if ATTACHED.swap(true, Ordering::Relaxed) {
        return ControlPlane::start(Options::default()).await;
    }
    let cluster = ControlPlane::attach(&PathBuf::from(dir)).await.context(VARIABLE)?;
    let swept = tokio::time::timeout(DEADLINE, sweep(&cluster)).await;
    swept.context("what earlier tests left does not go")?.context("removing what earlier tests left")?;
    Ok(cluster)
}

/// Removes everything that a new cluster does not have.
async fn sweep(cluster: &ControlPlane) -> Result<()> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    for (version, name) in OF_THE_CLUSTER {
        if name == "CustomResourceDefinition" {
            without_finalizers(&admin).await?;
        }
        remove(&admin, (version, name), None, &is_of_a_test).await?;
    }
    remove(&admin, ("v1", "Namespace"), None, &|o: &Value| !NAMESPACES.contains(&name_of(o))).await?;
    for what in [("v1", "ConfigMap"), ("coordination.k8s.io/v1", "Lease")] {
        let is_of_a_test = |o: &Value| name_of(o) != "kube-root-ca.crt";
        remove(&admin, what, Some("resurgam-system"), &is_of_a_test).await?;
    }
    Ok(())
}

fn name_of(object: &Value) -> &str {
    crate::text(object, "/metadata/name")
}

/// Returns whether a cluster-scoped object is neither Kubernetes' own nor the control plane's.
fn is_of_a_test(object: &Value) -> bool {
    let is_bootstrap = object["metadata"]["labels"]["kubernetes.io/bootstrapping"].is_string();
    let managers = object["metadata"]["managedFields"].as_array();
    let by_the_rig = managers.into_iter().flatten().any(|m| m["manager"] == "resurgam-rig");
    !is_bootstrap
        && !by_the_rig
        && !name_of(object).starts_with("resurgam-rig-")
        && !name_of(object).starts_with("system:")
        && !name_of(object).starts_with("kubeadm:")
}

/// Deletes the objects for which `is` holds, repeatedly until there are none: a deleted policy still denies for a moment.
async fn remove(
    admin: &Client,
    (version, name): (&str, &str),
    namespace: Option<&str>,
    is: &dyn Fn(&Value) -> bool,
) -> Result<()> {
    let objects = kind(admin, version, name, namespace);
    loop {
        let all = objects.list(&ListParams::default()).await?;
        let all: Vec<Value> = all.into_iter().map(serde_json::to_value).collect::<Result<_, _>>()?;
        let left: Vec<&Value> = all.iter().filter(|object| is(object)).collect();
        if left.is_empty() {
            return Ok(());
        }
        for object in left {
            let _ = objects.delete(name_of(object), &DeleteParams::default().grace_period(0)).await;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Removes the finalizers of our objects, as no operator does so any more.
async fn without_finalizers(admin: &Client) -> Result<()> {
    let crds = kind(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    let strip = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    for crd in crds.list(&ListParams::default()).await? {
        if crd.data["spec"]["group"] != "resurgam.dev" {
            continue;
        }
        let name = crd.data["spec"]["names"]["kind"].as_str().unwrap_or_default();
        let all = kind(admin, "resurgam.dev/v1alpha1", name, None);
        for object in all.list(&ListParams::default()).await? {
            let metadata = object.metadata;
            if metadata.finalizers.is_none_or(|finalizers| finalizers.is_empty()) {
                continue;
            }
            let of = kind(admin, "resurgam.dev/v1alpha1", name, metadata.namespace.as_deref());
            of.patch(&metadata.name.unwrap_or_default(), &PatchParams::default(), &strip).await?;
        }
    }
    Ok(())
}
