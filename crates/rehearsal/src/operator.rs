//! The operator as a process of its own, which can be killed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Identity};

/// How the operator is started.
#[derive(Clone, Debug)]
pub struct OperatorOptions {
    /// The `resurgam` binary.
    pub binary: PathBuf,
    /// By which it reaches the API server. `None`: directly.
    pub kubeconfig: Option<PathBuf>,
    /// The evidence store.
    pub evidence: PathBuf,
    /// Where its log goes; what was there is kept.
    pub log: PathBuf,
    /// Seconds after which a dead leader's lease has run out.
    pub lease_seconds: u32,
    /// Further arguments.
    pub arguments: Vec<String>,
    /// Further environment.
    pub environment: Vec<(String, String)>,
}

impl OperatorOptions {
    /// Everything in the cluster's own folder.
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

/// A running operator. Dropped, it is killed; it never outlives this process.
pub struct Operator(Child);

impl Operator {
    /// Starts it with the rights that it would have in a pod. Its `http` gates may reach loopback.
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

    /// Its process.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL: no goodbye, the lease stays behind.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(mut self) -> Result<()> {
        self.0.kill()?;
        self.0.wait()?;
        Ok(())
    }

    /// SIGKILL, if it still runs.
    pub fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// SIGTERM: it is asked to end.
    ///
    /// # Errors
    /// It cannot be asked.
    pub fn terminate(&mut self) -> Result<()> {
        Ok(control_plane::terminate(&mut self.0)?)
    }

    /// Has it ended by itself?
    ///
    /// # Errors
    /// That cannot be found out.
    pub fn ended(&mut self) -> Result<Option<std::process::ExitStatus>> {
        Ok(self.0.try_wait()?)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until an operator leads, and the guards that only an operator writes are there.
///
/// # Errors
/// None comes to lead in time.
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
