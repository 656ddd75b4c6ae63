//! The real Velero, with its S3 plugin and a real S3 server, as processes beside the control plane.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::wait::{DEADLINE, eventually, kind, text};
use crate::{S3Server, apply, documents, read_at, repository, serve_kinds};

/// Namespace of Velero.
pub const NAMESPACE: &str = "velero";
/// Version of Velero's kinds.
pub const API_VERSION: &str = "velero.io/v1";
/// Name of the account as which it writes, for the judge.
pub const USER: &str = "system:serviceaccount:velero:velero";
const SECRET_KEY: &str = "secret-of-the-backup-store";
const BUCKET: &str = "backups";

/// The programs of Velero.
#[derive(Clone, Debug)]
pub struct Programs {
    /// Velero itself.
    pub server: PathBuf,
    /// Its plugin for S3.
    pub plugin: PathBuf,
    /// The S3 server.
    pub s3: PathBuf,
}

impl Programs {
    /// Their names, as parts.
    pub const PARTS: [&str; 3] = ["velero", "velero-plugin-for-aws", "versitygw"];

    /// Returns the programs, if they are built already.
    ///
    /// # Errors
    /// As [`control_plane::part_if_built`].
    pub fn if_built() -> Result<Option<Self>> {
        let [server, plugin, s3] = Self::PARTS.map(control_plane::part_if_built);
        Ok(match (server?, plugin?, s3?) {
            (Some(server), Some(plugin), Some(s3)) => Some(Self { server, plugin, s3 }),
            _ => None,
        })
    }

    /// Returns the programs, built first if they are missing.
    ///
    /// # Errors
    /// One cannot be built.
    pub fn build() -> Result<Self> {
        let [server, plugin, s3] = Self::PARTS;
        let part = control_plane::part;
        Ok(Self { server: part(server)?, plugin: part(plugin)?, s3: part(s3)? })
    }
}

/// A server of Velero. Dropped, it is killed, and its store with it.
#[derive(Debug)]
pub struct Velero {
    child: Child,
    _store: S3Server,
}

impl Drop for Velero {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns the ClusterRole that docs/steps.md has for Velero's account instead of `cluster-admin`.
fn documented_role() -> Result<Vec<Value>> {
    let page = std::fs::read_to_string(repository("docs/steps.md"))?;
    let block = page.split("```yaml\n").find(|block| block.contains("name: velero-server"));
    let block = block.and_then(|block| block.split("```").next());
    documents(block.context("docs/steps.md has no ClusterRole velero-server")?)
}

/// Installs the kinds of Velero, as its module has them.
async fn install_kinds(admin: &Client) -> Result<()> {
    let source = tokio::task::spawn_blocking(|| control_plane::part_source("velero")).await??;
    for version in ["v1", "v2alpha1"] {
        let crds = read_at(&source.join("config/crd").join(version).join("bases"))?;
        serve_kinds(admin, admin, "velero", &crds).await?;
    }
    Ok(())
}

impl Velero {
    /// Starts it, and waits until its store is available.
    ///
    /// # Errors
    /// The API server refused something, a program cannot be started, or the store does not become available in time.
    pub async fn start(cluster: &ControlPlane, programs: &Programs) -> Result<Self> {
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        install_kinds(&admin).await?;
        let folder = cluster.dir().join("velero");
        let plugins = folder.join("plugins");
        std::fs::create_dir_all(&plugins)?;
        std::fs::copy(&programs.plugin, plugins.join("velero-plugin-for-aws"))?;
        // A bucket of this server is a folder.
        std::fs::create_dir_all(folder.join("s3/objects").join(BUCKET))?;
        let store = S3Server::start(&programs.s3, &folder.join("s3"), "access", SECRET_KEY)?;
        let mut manifests = documented_role()?;
        manifests.extend(installed(&store.url()));
        apply(&admin, "platform", &manifests).await?;

        let kubeconfig = folder.join("kubeconfig");
        write_kubeconfig(cluster, &admin, &kubeconfig).await?;
        let log = std::fs::File::create(folder.join("velero.log"))?;
        let mut command = Command::new(&programs.server);
        command
            .args(["server", "--namespace", NAMESPACE, "--plugin-dir"])
            .arg(&plugins)
            .args(["--metrics-address=127.0.0.1:0", "--profiler-address=127.0.0.1:0"])
            .args(["--store-validation-frequency=5s", "--backup-sync-period=5s"])
            .arg("--item-operation-sync-frequency=2s")
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let velero = Self { child: control_plane::spawn_bound(command)?, _store: store };
        let locations = kind(&admin, API_VERSION, "BackupStorageLocation", Some(NAMESPACE));
        let available = |location: &Value| text(location, "/status/phase") == "Available";
        eventually(&locations, "default", "the store to be available", DEADLINE, available).await?;
        Ok(velero)
    }
}

/// Returns what `velero install` puts there, but for its rights, and with no pod.
fn installed(store: &str) -> Vec<Value> {
    let credentials = format!("[default]\naws_access_key_id=access\naws_secret_access_key={SECRET_KEY}\n");
    let labels = json!({"deploy": "velero"});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "velero", "namespace": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud-credentials", "namespace": NAMESPACE},
            "stringData": {"cloud": credentials}}),
        // Velero reads its own Deployment when it restores pods.
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "velero", "namespace": NAMESPACE},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "velero", "image": "registry.example/velero"}]}}}}),
        json!({"apiVersion": API_VERSION, "kind": "BackupStorageLocation", "metadata": {"name": "default", "namespace": NAMESPACE},
            "spec": {"provider": "aws", "default": true, "objectStorage": {"bucket": BUCKET},
                "credential": {"name": "cloud-credentials", "key": "cloud"},
                "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": store, "checksumAlgorithm": ""}}}),
    ]
}

/// Writes a kubeconfig with a token of Velero's account.
async fn write_kubeconfig(cluster: &ControlPlane, admin: &Client, path: &Path) -> Result<()> {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), NAMESPACE);
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 86400}}))?;
    let answer = accounts.create_token_request("velero", &PostParams::default(), &request).await?;
    let token = answer.status.context("the API server issued no token for Velero")?.token;
    let mut kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(Identity::PlatformAdministrator))?;
    for user in &mut kubeconfig.auth_infos {
        user.auth_info = Some(serde_json::from_value(json!({"token": token}))?);
    }
    std::fs::write(path, serde_yaml::to_string(&kubeconfig)?)?;
    Ok(())
}
