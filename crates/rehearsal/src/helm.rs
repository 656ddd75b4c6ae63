//! Installs the operator as users do: by Helm, in pods of its own image.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity, Image};
use kube::api::ListParams;
use serde_json::json;
use tokio::process::Command;

use crate::{DEADLINE, apply, field, kind, repository};

/// Returns an image of the operator for the real node, built from this machine's files: those of the product's image, without its Debian
/// packages.
#[must_use]
pub fn operator_image(name: &str, operator: &Path) -> Image {
    // Whom TLS trusts: without anybody, no `http` gate can be asked.
    Image::of_program(name, operator, &[]).with("/etc/ssl/certs/ca-certificates.crt")
}

/// Helm, for one cluster.
pub struct Helm<'a> {
    cluster: &'a ControlPlane,
    program: PathBuf,
}

impl<'a> Helm<'a> {
    /// Uses the Helm program from [`control_plane::part`].
    #[must_use]
    pub fn new(cluster: &'a ControlPlane, program: &Path) -> Self {
        Self { cluster, program: program.to_owned() }
    }

    /// Installs this repository's chart with these `--set` values, and waits until the operator is ready.
    ///
    /// # Errors
    /// Helm cannot be run or fails, or the operator does not become ready. With Helm's output.
    pub async fn install(&self, values: &[String]) -> Result<String> {
        let chart = repository("charts/resurgam");
        let chart = chart.to_string_lossy();
        let mut arguments =
            vec!["install", "resurgam", &chart, "--namespace", "resurgam-system", "--create-namespace"];
        arguments.extend(["--wait", "--timeout", "3m"]);
        arguments.extend(values.iter().flat_map(|value| ["--set", value]));
        self.run(Identity::PlatformAdministrator, &arguments).await
    }

    /// Installs the chart on the real node, which has the image already, with evidence on a local volume and this probe interval.
    ///
    /// # Errors
    /// As of [`Helm::install`].
    pub async fn install_on_real_node(&self, image: &str, probe_interval: &str) -> Result<String> {
        let (repository, tag) = image.rsplit_once(':').context("an image without a tag")?;
        let folder = self.cluster.dir().join("evidence");
        std::fs::create_dir_all(&folder)?;
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "evidence"},
            "spec": {
                "capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "evidence",
                "persistentVolumeReclaimPolicy": "Retain", "local": {"path": folder},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["real-1"]},
                ]}]}},
            },
        });
        let admin = self.cluster.client(Identity::PlatformAdministrator).await?;
        apply(&admin, "platform", &[volume]).await?;
        self.install(&[
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            "evidence.volume.storageClass=evidence".to_owned(),
            format!("probe.interval={probe_interval}"),
        ])
        .await
    }

    /// Runs the chart's test with an identity, and returns its log.
    ///
    /// # Errors
    /// It failed, or its log cannot be read.
    pub async fn test(&self, who: Identity) -> Result<String> {
        self.run(who, &["test", "resurgam", "--namespace", "resurgam-system", "--timeout", "3m"]).await?;
        let mut kubectl = Command::new(self.cluster.binary("kubectl")?);
        kubectl.args(["logs", "job/resurgam-test", "--namespace", "resurgam-system"]).kill_on_drop(true);
        kubectl.env("KUBECONFIG", self.cluster.kubeconfig(who)).stdin(Stdio::null());
        let output =
            tokio::time::timeout(DEADLINE, kubectl.output()).await.context("kubectl did not end")??;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl logs: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Checks that the installed operator is running and has never restarted.
    ///
    /// # Errors
    /// It restarted, or does not exist.
    pub async fn operator_never_ended(&self) -> Result<()> {
        let admin = self.cluster.client(Identity::PlatformAdministrator).await?;
        let of_operator = ListParams::default().labels("app.kubernetes.io/component=operator");
        let pods = kind(&admin, "v1", "Pod", Some("resurgam-system")).list(&of_operator).await?;
        ensure!(!pods.items.is_empty(), "no operator is installed");
        for pod in pods {
            let pod = serde_json::to_value(pod)?;
            let restarts = field(&pod, "/status/containerStatuses/0/restartCount");
            ensure!(*restarts == 0, "the operator ended {restarts} times: {}", field(&pod, "/status"));
        }
        Ok(())
    }

    /// Runs Helm with an identity, and returns its output.
    ///
    /// # Errors
    /// It cannot be run, or fails. With its output.
    pub async fn run(&self, who: Identity, arguments: &[&str]) -> Result<String> {
        let mut helm = Command::new(&self.program);
        helm.args(arguments).env("KUBECONFIG", self.cluster.kubeconfig(who)).kill_on_drop(true);
        // What it keeps of anything, it keeps here.
        helm.env("HOME", self.cluster.dir().join("home")).stdin(Stdio::null());
        let output = tokio::time::timeout(DEADLINE * 2, helm.output()).await.context("helm did not end")?;
        let output = output.with_context(|| format!("run {}", self.program.display()))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "helm {}: {}", arguments.first().unwrap_or(&""), complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
