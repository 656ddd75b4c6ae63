//! Operators behind fault proxies, supervised like by a kubelet: one that exits is restarted.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use fault_proxy::{Proxy, Schedule};
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::{Operator, OperatorOptions, kind};

/// Interval at which operators are checked for having exited.
const LOOK: Duration = Duration::from_millis(100);

/// Prefix of the user agents in the audit log, followed by a number.
const AGENT: &str = "replica";

/// Exit code of a panic.
const PANICKED: i32 = 101;

/// Number of log lines in a message.
const LINES: usize = 60;

/// Replicas of the operator, each behind its own proxy.
pub struct Crew<'a> {
    cluster: &'a ControlPlane,
    replicas: Vec<Replica>,
}

struct Replica {
    proxy: Proxy,
    options: OperatorOptions,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    operator: Option<Operator>,
    ended: Vec<SystemTime>,
}

impl Replica {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> Crew<'a> {
    /// Starts this many replicas without faults.
    ///
    /// # Errors
    /// A proxy or an operator cannot be started.
    pub async fn start(
        cluster: &'a ControlPlane,
        binary: &Path,
        replicas: usize,
        lease_seconds: u32,
    ) -> Result<Self> {
        Self::start_with(cluster, binary, replicas, lease_seconds, |_| Vec::new()).await
    }

    /// Starts replicas with a further environment for each.
    ///
    /// # Errors
    /// A proxy or an operator cannot be started.
    pub async fn start_with(
        cluster: &'a ControlPlane,
        binary: &Path,
        replicas: usize,
        lease_seconds: u32,
        environment: impl Fn(usize) -> Vec<(String, String)>,
    ) -> Result<Self> {
        let mut crew = Self { cluster, replicas: Vec::new() };
        for replica in 0..replicas {
            let file =
                |end: &str| -> PathBuf { cluster.dir().join(format!("{}.{end}", Self::agent(replica))) };
            let kubeconfig = file("yaml");
            let proxy =
                Proxy::start(cluster.kubeconfig(Identity::Operator), &kubeconfig, Schedule::default())
                    .await?;
            let options = OperatorOptions {
                kubeconfig: Some(kubeconfig),
                log: file("log"),
                lease_seconds,
                environment: environment(replica),
                ..OperatorOptions::within(cluster, binary)
            };
            crew.replicas.push(Replica { proxy, options, state: Mutex::default() });
            crew.run(replica)?;
        }
        Ok(crew)
    }

    /// Returns the number of replicas.
    #[must_use]
    pub fn size(&self) -> usize {
        self.replicas.len()
    }

    /// Returns the proxy of a replica.
    #[must_use]
    pub fn proxy(&self, replica: usize) -> &Proxy {
        &self.replicas[replica].proxy
    }

    /// Returns how often a replica exited by itself.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.replicas.iter().map(|replica| replica.state().ended.len()).sum()
    }

    /// Returns when this replica was first observed to have exited by itself since then.
    pub(super) fn ended_since(&self, replica: usize, since: SystemTime) -> Option<SystemTime> {
        self.replicas[replica].state().ended.iter().copied().find(|at| *at >= since)
    }

    /// Returns the user agent of a replica.
    pub(super) fn agent(replica: usize) -> String {
        format!("{AGENT}-{}", replica + 1)
    }

    /// Waits until a replica has requested this many effects, and returns it.
    pub(super) async fn effects_reach(&self, effects: u64) -> usize {
        let reach = self.replicas.iter().enumerate().map(|(number, replica)| {
            Box::pin(async move {
                replica.proxy.effects_reach(effects).await;
                number
            })
        });
        futures::future::select_all(reach).await.0
    }

    /// Kills a replica by SIGKILL without a replacement.
    pub(super) fn kill(&self, replica: usize) -> Result<()> {
        let operator = self.replicas[replica].state().operator.take();
        operator.map_or(Ok(()), Operator::kill)
    }

    /// Returns the end of the logs, to explain a failure.
    #[must_use]
    pub fn said(&self) -> String {
        let said = |replica: &Replica| {
            let log = std::fs::read_to_string(&replica.options.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("kube_client")).collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        };
        self.replicas.iter().map(said).collect::<Vec<_>>().join("\n--\n")
    }

    /// Starts a replica with the current faults of its proxy.
    pub(super) fn run(&self, replica: usize) -> Result<()> {
        let replica = &self.replicas[replica];
        replica.state().operator = Some(Operator::start(self.cluster, &replica.options)?);
        Ok(())
    }

    /// Kills a replica by SIGKILL and starts another without faults.
    ///
    /// # Errors
    /// It cannot be killed, or the other one cannot be started.
    pub fn replace(&self, replica: usize) -> Result<()> {
        self.kill(replica)?;
        self.proxy(replica).heal();
        self.run(replica)
    }

    /// Releases the lease of a dead leader, so that nobody waits for its expiry.
    pub(super) async fn free_lease(&self, admin: &Client) -> Result<()> {
        let leases = kind(admin, "coordination.k8s.io/v1", "Lease", Some("resurgam-system"));
        let free = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
        leases.patch("resurgam", &PatchParams::default(), &free).await.context("the lease")?;
        Ok(())
    }

    /// Restarts replicas that exit, while it is polled. Returns only with an error.
    ///
    /// # Errors
    /// One cannot be started, or has panicked: a kubelet would restart it and hide that.
    pub async fn look_after(&self) -> Result<std::convert::Infallible> {
        loop {
            for number in 0..self.replicas.len() {
                let ended = {
                    let mut state = self.replicas[number].state();
                    let ended = state.operator.as_mut().map(Operator::ended).transpose()?.flatten();
                    state.ended.extend(ended.map(|_| SystemTime::now()));
                    ended
                };
                if let Some(status) = ended {
                    // By a signal, or by a panic: whoever knows why it ends says 1.
                    ensure!(
                        status.code().is_some_and(|code| code != PANICKED),
                        "an operator crashed: {status}"
                    );
                    self.run(number)?;
                }
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for a future while the replicas are supervised.
    ///
    /// # Errors
    /// The future fails, or a replica cannot be started.
    pub async fn meanwhile<T>(&self, wait: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = wait => done,
            broken = self.look_after() => broken.map(|never| match never {}),
        }
    }

    /// Waits until a replica halts, and returns it.
    pub async fn stopped(&self) -> usize {
        let stops = self.replicas.iter().enumerate().map(|(number, replica)| {
            Box::pin(async move {
                replica.proxy.stopped().await;
                number
            })
        });
        futures::future::select_all(stops).await.0
    }
}
