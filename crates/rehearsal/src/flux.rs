//! The real Flux: its source-controller and its kustomize-controller, as processes beside the control plane.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity};
use kube::Client;

use crate::{read_at, serve_kinds};

/// Namespace of Flux.
pub const NAMESPACE: &str = "flux-system";
/// Version of the kind Kustomization.
pub const KUSTOMIZE: &str = "kustomize.toolkit.fluxcd.io/v1";
/// Version of the kinds of sources.
pub const SOURCES: &str = "source.toolkit.fluxcd.io/v1";

/// The programs of Flux.
#[derive(Clone, Debug)]
pub struct Programs {
    /// The source-controller.
    pub source: PathBuf,
    /// The kustomize-controller.
    pub kustomize: PathBuf,
}

impl Programs {
    /// Their names, as parts.
    pub const PARTS: [&str; 2] = ["source-controller", "kustomize-controller"];

    /// Returns the programs, if they are built already.
    ///
    /// # Errors
    /// As [`control_plane::part_if_built`].
    pub fn if_built() -> Result<Option<Self>> {
        let [source, kustomize] = Self::PARTS.map(control_plane::part_if_built);
        Ok(source?.zip(kustomize?).map(|(source, kustomize)| Self { source, kustomize }))
    }

    /// Returns the programs, built first if they are missing.
    ///
    /// # Errors
    /// One cannot be built.
    pub fn build() -> Result<Self> {
        let [source, kustomize] = Self::PARTS;
        Ok(Self { source: control_plane::part(source)?, kustomize: control_plane::part(kustomize)? })
    }

    /// Starts the source-controller, which keeps what it fetches in the cluster's folder.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_source(&self, cluster: &ControlPlane) -> Result<FluxController> {
        let storage = cluster.dir().join("flux-source");
        std::fs::create_dir_all(&storage)?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let at = format!("127.0.0.1:{port}");
        let arguments = [
            format!("--storage-path={}", storage.display()),
            format!("--storage-addr={at}"),
            format!("--storage-adv-addr={at}"),
        ];
        start(cluster, &self.source, &arguments)
    }

    /// Starts the kustomize-controller.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start_kustomize(&self, cluster: &ControlPlane) -> Result<FluxController> {
        start(cluster, &self.kustomize, &["--http-retry=2".to_owned()])
    }
}

/// A controller of Flux. Dropped, it is killed.
#[derive(Debug)]
pub struct FluxController(Child);

impl Drop for FluxController {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(cluster: &ControlPlane, program: &Path, arguments: &[String]) -> Result<FluxController> {
    let name = program.file_name().context("a controller of Flux without a name")?.to_string_lossy();
    let log = std::fs::File::create(cluster.dir().join(format!("{name}.log")))?;
    let mut command = Command::new(program);
    command
        .args([
            "--watch-all-namespaces",
            "--enable-leader-election=false",
            "--events-addr=",
            "--log-level=debug",
        ])
        .args(["--metrics-addr=127.0.0.1:0", "--health-addr=127.0.0.1:0"])
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig(Identity::GitOps))
        .env("RUNTIME_NAMESPACE", NAMESPACE)
        .env("HOME", cluster.dir())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    Ok(FluxController(control_plane::spawn_bound(command)?))
}

/// Installs Flux's kinds, as their modules have them, and waits until they are served.
///
/// # Errors
/// The modules cannot be had, or the API server refused a kind.
pub async fn install_kinds(admin: &Client) -> Result<()> {
    for part in Programs::PARTS {
        let source = tokio::task::spawn_blocking(move || control_plane::part_source(part)).await??;
        serve_kinds(admin, admin, "flux", &read_at(&source.join("config/crd/bases"))?).await?;
    }
    Ok(())
}
