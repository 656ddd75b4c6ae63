//! Stands between a client of a Kubernetes API server and that server, and fails as a network and a server can: it refuses,
//! delays, breaks off, loses answers to what was done, lets watches end, lag and repeat themselves, and is cut off altogether.
//!
//! What fails is chosen by a seed and by what is asked, never by when it is asked: the n-th request for a path meets the same
//! fault in each run, however requests interleave. So a seed that failed can be run again. What is done to time rather than to
//! a request (a partition, a token that has run out, the moment to stop at) is for the test to switch.

mod asked;
mod choice;
mod fault;
mod halt;
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

/// A running proxy. Dropped, it ends, and so does every connection to it.
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port of loopback, for whoever has the kubeconfig file `to`: a copy of `from` that points here. What
    /// `from` authenticates by must be a token, as that goes through here unchanged. Requests bear the name of the file `to` as
    /// their user agent, so that an audit log tells clients apart.
    ///
    /// # Errors
    /// A file cannot be read or written, or no port be had.
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

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What fails from now on. Requests are counted from the start again.
    pub fn follow(&self, schedule: Schedule) {
        self.shared.follow(schedule);
    }

    /// Nothing fails any more: no schedule, no partition, no token that has run out, no moment to stop at.
    pub fn heal(&self) {
        self.follow(Schedule::default());
        self.partition(false);
        self.refuse_tokens(false);
        self.shared.halt.clear();
    }

    /// Cut off: nothing gets through in either direction, and nobody is told. Connections are taken and stay silent.
    pub fn partition(&self, on: bool) {
        self.shared.halt.partition(on);
        if on {
            self.shared.count(Fault::Partition);
        }
    }

    /// Cut off for a time.
    pub async fn partition_for(&self, time: Duration) {
        self.partition(true);
        tokio::time::sleep(time).await;
        self.partition(false);
    }

    /// As if the client's token had run out: everything is answered 401.
    pub fn refuse_tokens(&self, on: bool) {
        self.shared.refuse_tokens(on);
    }

    /// From now on, effects are counted anew, and everything comes to rest at the n-th of them, counted from 1: nothing further
    /// gets through until [`Proxy::heal`]. What the server holds then is what it would hold, had the client died at that moment.
    pub fn stop_at(&self, effect: u64, moment: Moment) {
        self.shared.halt.stop_at(effect, moment);
    }

    /// Whether only what acts is an effect: not what says how a recovery stands, the status of a ServiceRecovery or a RecoveryPlan.
    pub fn count_acts_only(&self, acts_only: bool) {
        self.shared.halt.acts_only(acts_only);
    }

    /// Returns once that moment is there.
    pub async fn stopped(&self) {
        self.shared.halt.stopped().await;
    }

    /// How many effects were asked for, since the start or the last [`Proxy::stop_at`]: writes that can change anything for
    /// others, so no reviews, no dry runs, no Events and no Leases.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.shared.halt.effects()
    }

    /// Returns once so many effects were asked for.
    pub async fn effects_reach(&self, effects: u64) {
        self.shared.halt.effects_reach(effects).await;
    }

    /// Returns once a fault strikes, after this is asked.
    pub async fn strikes(&self, fault: Fault) {
        let before = self.counts().get(&fault).copied();
        while self.counts().get(&fault).copied() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How often each fault has struck.
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
