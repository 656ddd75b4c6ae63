//! A proxy between a client of a Kubernetes API server and the server that injects faults: it denies and delays requests, breaks
//! connections, drops the answers to completed writes, lets watches end, lag and repeat events, and simulates partitions.
//!
//! Faults are chosen by a seed and by the request, not by time: the n-th request for a path gets the same fault in each run, however
//! requests interleave, so that a failing seed can be run again. Faults of time (a partition, an expired token, the halt at an effect)
//! are switched by the test.

mod choice;
mod fault;
mod halt;
mod request;
mod serve;
mod shaper;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::task::JoinHandle;

pub use choice::{Profile, Schedule};
pub use fault::Fault;
pub use halt::Moment;

use serve::Shared;

/// A running proxy. Dropping it stops it and breaks all its connections.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy on a free loopback port and writes the kubeconfig `to`: a copy of `from` that points to it. `from` must
    /// authenticate by a token, which is passed on unchanged. Requests have the file name of `to` as user agent, so that the audit log
    /// distinguishes clients.
    ///
    /// # Errors
    /// A file cannot be read or written, or no port is available.
    pub async fn start(from: &Path, to: &Path, schedule: Schedule) -> Result<Self> {
        let text = std::fs::read_to_string(from).with_context(|| from.display().to_string())?;
        let mut kubeconfig = Kubeconfig::from_yaml(&text)?;
        let mut server = kubeconfig.clone();
        // Whose request it is, is for the client to say.
        for user in &mut server.auth_infos {
            user.auth_info = Some(Default::default());
        }
        let options = KubeConfigOptions::default();
        let mut config = kube::Config::from_custom_kubeconfig(server, &options).await?;
        config.default_retry = false;
        let upstream = kube::Client::try_from(config)?;

        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        for cluster in kubeconfig.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
            cluster.server = Some(format!("http://{address}"));
            cluster.certificate_authority = None;
            cluster.certificate_authority_data = None;
        }
        std::fs::write(to, serde_yaml::to_string(&kubeconfig)?).with_context(|| to.display().to_string())?;
        let agent = to.file_stem().unwrap_or_default().to_string_lossy().parse()?;
        let shared = Arc::new(Shared::new(upstream, agent, schedule));
        let task = tokio::spawn(serve::listen(listener, shared.clone()));
        Ok(Self { shared, address, task })
    }

    /// Returns the address of the proxy.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the faults from now on. Counts of requests start again.
    pub fn follow(&self, schedule: Schedule) {
        self.shared.follow(schedule);
    }

    /// Removes all faults: schedule, partition, expired token and halt.
    pub fn heal(&self) {
        self.follow(Schedule::default());
        self.partition(false);
        self.refuse_tokens(false);
        self.shared.halt.clear();
    }

    /// Starts a partition: nothing passes in either direction. Connections are accepted and stay silent.
    pub fn partition(&self, on: bool) {
        self.shared.halt.partition(on);
        if on {
            self.shared.count(Fault::Partition);
        }
    }

    /// Starts a partition that ends after a time.
    pub async fn partition_for(&self, time: Duration) {
        self.partition(true);
        tokio::time::sleep(time).await;
        self.partition(false);
    }

    /// Switches an expired token on or off: everything is answered by 401.
    pub fn refuse_tokens(&self, on: bool) {
        self.shared.refuse_tokens(on);
    }

    /// Counts effects from now on and halts at the n-th, counted from 1: nothing passes until [`Proxy::heal`]. The server then has the
    /// state that it would have if the client had died at that moment.
    pub fn stop_at(&self, effect: u64, moment: Moment) {
        self.shared.halt.stop_at(effect, moment);
    }

    /// Excludes requests that only report status from the effects: the status of a ServiceRecovery or a RecoveryPlan.
    pub fn count_acts_only(&self, acts_only: bool) {
        self.shared.halt.acts_only(acts_only);
    }

    /// Waits until the halt.
    pub async fn stopped(&self) {
        self.shared.halt.stopped().await;
    }

    /// Returns the number of requested effects since the start or the last [`Proxy::stop_at`]: writes that other clients can observe.
    /// Reviews, dry runs, Events and Leases do not count.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.shared.halt.effects()
    }

    /// Waits until this many effects were requested.
    pub async fn effects_reach(&self, effects: u64) {
        self.shared.halt.effects_reach(effects).await;
    }

    /// Waits until the next fault.
    pub async fn strikes(&self, fault: Fault) {
        let before = self.counts().get(&fault).copied();
        while self.counts().get(&fault).copied() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Returns the number of occurrences of each fault.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<Fault, u64> {
        self.shared.counts()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}
