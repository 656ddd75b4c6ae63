//! Runs the operator as a process that can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity};

/// Options of an operator process.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// Path of the `resurgam` binary.
    pub binary: PathBuf,
    /// Kubeconfig with which it connects to the API server. `None`: directly.
    pub kubeconfig: Option<PathBuf>,
    /// Folder of the evidence store.
    pub evidence: PathBuf,
    /// Log file, to which the process appends.
    pub log: PathBuf,
    /// Duration of the leader lease in seconds.
    pub lease_seconds: u32,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further environment.
    pub environment: Vec<(String, String)>,
}

impl OperatorOptions {
    /// Returns options with all files in the cluster's folder.
    #[must_use]
    pub fn within(cluster: &ControlPlane, binary: &Path) -> Self {
        Self {
            binary: binary.to_owned(),
            kubeconfig: None,
            evidence: cluster.dir().join("evidence"),
            log: cluster.dir().join("operator.log"),
            lease_seconds: 5,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }
}

/// A running operator process. It is killed when dropped, and when this process ends.
pub struct Operator(Child);

impl Operator {
    /// Starts the operator with the rights that it has in a pod. Its `http` gates may connect to loopback.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(cluster: &ControlPlane, options: &OperatorOptions) -> Result<Self> {
        let log = File::options().create(true).append(true).open(&options.log)?;
        let kubeconfig = options.kubeconfig.as_deref();
        let kubeconfig = kubeconfig.unwrap_or_else(|| cluster.kubeconfig(Identity::Operator));
        let mut command = Command::new(&options.binary);
        command
            .arg("controller")
            .args(["--http-allow", "127.0.0.0/8", "--listen", "127.0.0.1:0"])
            .arg("--evidence")
            .arg(&options.evidence)
            .args(["--lease-duration", &format!("{}s", options.lease_seconds)])
            .args(&options.arguments)
            .env("KUBECONFIG", kubeconfig)
            .envs(options.environment.iter().map(|(name, value)| (name, value)))
            // Only tests themselves need more of a stack.
            .env_remove("RUST_MIN_STACK")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let child = control_plane::spawn_bound(command)
            .with_context(|| format!("start {}", options.binary.display()))?;
        Ok(Self(child))
    }

    /// Returns its process ID.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Kills the operator by SIGKILL: it does not release its lease.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// Kills the operator by SIGKILL if it is still running.
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Sends SIGTERM.
    ///
    /// # Errors
    /// The signal cannot be sent.
    pub fn terminate(&mut self) -> Result<()> {
        Ok(control_plane::terminate(&mut self.0)?)
    }

    /// Returns the exit status if the process has ended.
    ///
    /// # Errors
    /// The status cannot be read.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until an operator is the leader and has written the guards' objects.
///
/// # Errors
/// None becomes the leader in time.
pub async fn leads(cluster: &ControlPlane) -> Result<()> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let leases = crate::kind(&admin, "coordination.k8s.io/v1", "Lease", Some("resurgam-system"));
    let held = |lease: &serde_json::Value| !crate::text(lease, "/spec/holderIdentity").is_empty();
    crate::eventually(&leases, "resurgam", "an operator to lead", crate::DEADLINE, held).await?;
    let bindings = "ValidatingAdmissionPolicyBinding";
    let bindings = crate::kind(&admin, "admissionregistration.k8s.io/v1", bindings, None);
    // The last one is written last.
    for guard in ["resurgam-account-guard", "resurgam-own-guard", "resurgam-list-fence"] {
        let is_there = |_: &serde_json::Value| true;
        crate::eventually(&bindings, guard, &format!("{guard} to be bound"), crate::DEADLINE, is_there)
            .await?;
    }
    Ok(())
}
