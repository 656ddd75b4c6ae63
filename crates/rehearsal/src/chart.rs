//! Renders the product's Helm chart, which tests install too.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{documents, repository};

/// Namespace of the release.
const NAMESPACE: &str = "resurgam-system";

/// Renders the chart with these `--set` values. Blocks; on first use Helm is built, which takes minutes.
///
/// # Errors
/// Helm cannot be built, or rejects the values.
pub fn chart(values: &[&str]) -> Result<Vec<Value>> {
    chart_at(&repository("charts/resurgam"), values)
}

fn chart_at(chart: &Path, values: &[&str]) -> Result<Vec<Value>> {
    let mut helm = Command::new(control_plane::part("helm")?);
    helm.args(["template", "resurgam"]).arg(chart).args(["--namespace", NAMESPACE, "--skip-tests"]);
    // The kinds that the cluster serves decide nothing in it.
    helm.args(["--kube-version", "1.37.0"]).env_remove("KUBECONFIG");
    for value in values {
        helm.args(["--set", value]);
    }
    let output = helm.output().context("run helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr).trim());
    documents(&String::from_utf8(output.stdout)?)
}

/// Returns the chart's CRDs, RBAC and policies without the workloads, for an operator that runs as a local process. It includes the right
/// to read Secrets, which the evidence key needs.
///
/// # Errors
/// As [`chart`].
pub fn rights() -> Result<Vec<Value>> {
    static RENDERED: Mutex<Option<Vec<Value>>> = Mutex::new(None);
    let mut rendered = RENDERED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(rendered) = &*rendered {
        return Ok(rendered.clone());
    }
    let mut all = chart(&["evidence.digestKeySecret=digest-key"])?;
    all.retain(|object| is_right(object["kind"].as_str().unwrap_or_default()));
    Ok(rendered.insert(all).clone())
}

fn is_right(kind: &str) -> bool {
    ["Namespace", "ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]
        .contains(&kind)
}
