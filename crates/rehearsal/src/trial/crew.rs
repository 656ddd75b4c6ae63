//! Operators behind fault proxies, looked after as a kubelet would: who ends is started again.

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

/// How often it is looked whether an operator has ended by itself.
const LOOK: Duration = Duration::from_millis(100);

/// What each is called in the audit log, but for its number.
const AGENT: &str = "replica";

/// What a process that panicked ends with.
const PANICKED: i32 = 101;

/// How much of a log is told.
const LINES: usize = 60;

/// Replicas of the operator, each behind a proxy of its own.
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
    /// Starts so many, with nothing in their way.
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

    /// The same, each with a further environment of its own.
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

    /// How many there are.
    #[must_use]
    pub fn size(&self) -> usize {
        self.replicas.len()
    }

    /// What stands between one of them and the API server.
    #[must_use]
    pub fn proxy(&self, replica: usize) -> &Proxy {
        &self.replicas[replica].proxy
    }

    /// How often one of them ended by itself.
    #[must_use]
    pub fn ended(&self) -> usize {
        self.replicas.iter().map(|replica| replica.state().ended.len()).sum()
    }

    /// When this one was first seen to have ended by itself since then.
    pub(super) fn ended_since(&self, replica: usize, since: SystemTime) -> Option<SystemTime> {
        self.replicas[replica].state().ended.iter().copied().find(|at| *at >= since)
    }

    /// What it is called in the audit log.
    pub(super) fn agent(replica: usize) -> String {
        format!("{AGENT}-{}", replica + 1)
    }

    /// Returns which of them is the first to ask for so many effects.
    pub(super) async fn effects_reach(&self, effects: u64) -> usize {
        let reach = self.replicas.iter().enumerate().map(|(number, replica)| {
            Box::pin(async move {
                replica.proxy.effects_reach(effects).await;
                number
            })
        });
        futures::future::select_all(reach).await.0
    }

    /// SIGKILL for one of them, and nothing in its place.
    pub(super) fn kill(&self, replica: usize) -> Result<()> {
        let operator = self.replicas[replica].state().operator.take();
        operator.map_or(Ok(()), Operator::kill)
    }

    /// The end of what they said, for whoever has to find out what went wrong.
    #[must_use]
    pub fn said(&self) -> String {
        let said = |replica: &Replica| {
            let log = std::fs::read_to_string(&replica.options.log).unwrap_or_default();
            let lines: Vec<&str> = log.lines().filter(|line| !line.contains("kube_client")).collect();
            lines[lines.len().saturating_sub(LINES)..].join("\n")
        };
        self.replicas.iter().map(said).collect::<Vec<_>>().join("\n--\n")
    }

    /// Starts one of them, with what is in its way left there.
    pub(super) fn run(&self, replica: usize) -> Result<()> {
        let replica = &self.replicas[replica];
        replica.state().operator = Some(Operator::start(self.cluster, &replica.options)?);
        Ok(())
    }

    /// SIGKILL for one of them, and then another in its place, with nothing in its way.
    ///
    /// # Errors
    /// It cannot be killed, or the other not be started.
    pub fn replace(&self, replica: usize) -> Result<()> {
        self.kill(replica)?;
        self.proxy(replica).heal();
        self.run(replica)
    }

    /// Gives the lease back in place of a leader that is known to be dead, so that nobody waits until it runs out.
    pub(super) async fn free_lease(&self, admin: &Client) -> Result<()> {
        let leases = kind(admin, "coordination.k8s.io/v1", "Lease", Some("resurgam-system"));
        let free = Patch::Merge(json!({"spec": {"holderIdentity": ""}}));
        leases.patch("resurgam", &PatchParams::default(), &free).await.context("the lease")?;
        Ok(())
    }

    /// Starts whoever ends by itself, for as long as it is polled. Returns only with an error.
    ///
    /// # Errors
    /// One cannot be started, or crashed: a kubelet would start that again, too, and hide it.
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

    /// Waits for something while they are looked after.
    ///
    /// # Errors
    /// What is waited for does not come, or an operator cannot be started.
    pub async fn meanwhile<T>(&self, wait: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = wait => done,
            broken = self.look_after() => broken.map(|never| match never {}),
        }
    }

    /// Returns which of them comes to rest at its moment.
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
