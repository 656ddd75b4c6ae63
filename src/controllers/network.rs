//! Probes whether the cluster's network enforces NetworkPolicies: while anything is isolated, once for the whole cluster, after policies
//! of ours changed, and at an interval. Publishes the verdict.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::Uri;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::ListParams;
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::calls::{IoError, call};
use crate::clock;
use crate::isolation::probe::network::{NetworkVerdict, NodeRecords, choose_nodes, record_probes, verdict};
use crate::isolation::probe::{AttemptError, attempt, pods::ProbeRun};

/// Minimum time between two probes that policy changes cause.
const MIN_PAUSE: Duration = Duration::from_secs(60);
/// Maximum duration of one probe.
const ATTEMPT: Duration = Duration::from_secs(420);
/// A verdict expires after this many intervals.
const FRESH_INTERVALS: i32 = 3;

/// How the network is probed.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Image whose entrypoint is `resurgam`, normally the operator's own. `None`: the network cannot be probed.
    pub image: Option<String>,
    /// Interval after which every control is verified again.
    pub interval: Duration,
    /// Where an API server is reached, if not at the address in its EndpointSlice.
    pub routes: BTreeMap<SocketAddr, Uri>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { image: None, interval: Duration::from_secs(600), routes: BTreeMap::new() }
    }
}

/// What determines whether the network has to be probed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Demand {
    /// Something is isolated. Without that, nothing is probed.
    isolated: bool,
    /// Number of writes to policies of ours.
    changes: u64,
}

/// The verdict on the network, shared by the prober and the controllers that report it.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: no verdict yet.
    verdict: watch::Sender<Option<NetworkVerdict>>,
    demand: watch::Sender<Demand>,
}

impl Default for Network {
    fn default() -> Self {
        Self(Arc::new(Inner {
            verdict: watch::Sender::new(None),
            demand: watch::Sender::new(Demand::default()),
        }))
    }
}

impl Network {
    /// Returns the current verdict. `None`: the first probe has not ended.
    #[must_use]
    pub fn verdict(&self) -> Option<NetworkVerdict> {
        self.0.verdict.borrow().clone()
    }

    /// Subscribes to changes of the verdict.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<NetworkVerdict>> {
        self.0.verdict.subscribe()
    }

    /// Sets whether anything is isolated.
    pub(crate) fn set_needed(&self, isolated: bool) {
        self.0
            .demand
            .send_if_modified(|demand| std::mem::replace(&mut demand.isolated, isolated) != isolated);
    }

    /// Returns whether anything is isolated.
    pub(crate) fn is_needed(&self) -> bool {
        self.0.demand.borrow().isolated
    }

    /// Records that policies of ours were written.
    pub(crate) fn changed(&self) {
        self.0.demand.send_modify(|demand| demand.changes = demand.changes.wrapping_add(1));
    }

    fn found(&self, verdict: Option<NetworkVerdict>) {
        self.0.verdict.send_if_modified(|known| {
            let changed = *known != verdict;
            *known = verdict;
            changed
        });
    }
}

/// Probes the network whenever that is due. Never returns.
pub async fn keep(client: Client, network: Network, options: ProbeOptions) {
    let Some(image) = options.image else {
        network.found(Some(NetworkVerdict::unverifiable(
            "no image to try it with is configured (--probe-image)",
        )));
        return std::future::pending().await;
    };
    let mut demand = network.0.demand.subscribe();
    let mut known = NodeRecords::new();
    let mut found = node_names(&client).boxed();
    let mut ended: Option<Instant> = None;
    loop {
        let Ok(wanted) = demand.wait_for(|demand| demand.isolated).await.map(|demand| *demand) else {
            return;
        };
        // After a pause in which nothing was isolated, the previous verdict is discarded, however long the next probe takes.
        if ended.is_some_and(|ended| ended.elapsed() > 2 * options.interval) {
            network.found(None);
        }
        let verdict = probe(&client, &image, &mut known, options.interval).await;
        tracing::info!(state = ?verdict.state, "network probed: {}", verdict.message);
        network.found(Some(verdict));
        let now = Instant::now();
        ended = Some(now);
        tokio::select! {
            () = sleep_until(now + options.interval) => {}
            () = async {
                let changed = demand.wait_for(|new| new.isolated && new.changes != wanted.changes).await.is_ok();
                if changed {
                    sleep_until(now + MIN_PAUSE.min(options.interval)).await;
                } else {
                    std::future::pending().await
                }
            } => {}
            () = unprobed_node(&client, &known, &mut found, MIN_PAUSE.min(options.interval)) => {}
        }
    }
}

/// Waits for a ready node that was not probed yet: a new one, or one of many that were left for later.
async fn unprobed_node(
    client: &Client,
    known: &NodeRecords,
    found: &mut (impl Stream<Item = String> + Unpin),
    pause: Duration,
) {
    loop {
        let mut unknown = pin!(found.by_ref().filter(|name| std::future::ready(!known.contains_key(name))));
        if unknown.next().await.is_none() {
            std::future::pending().await
        }
        sleep(pause).await;
        // A node that is not ready yet changes when its kubelet reports it ready.
        if let Ok((_, ready)) = nodes(client).await
            && ready.iter().any(|name| !known.contains_key(name))
        {
            return;
        }
    }
}

/// Returns a stream of the names of nodes that changed.
fn node_names(client: &Client) -> impl Stream<Item = String> + Send + use<> {
    let nodes = Api::<PartialObjectMeta<Node>>::all(client.clone());
    watcher(nodes, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(|node| async move { node.ok().map(|node| node.name_any()) })
}

/// Probes the network once, and returns the verdict on all nodes probed so far.
async fn probe(client: &Client, image: &str, known: &mut NodeRecords, interval: Duration) -> NetworkVerdict {
    let now = clock::now();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let fresh =
        SignedDuration::try_from(interval).unwrap_or(SignedDuration::MAX).checked_mul(FRESH_INTERVALS);
    let fresh_since = fresh.and_then(|fresh| now.checked_sub(fresh).ok()).unwrap_or(Timestamp::MIN);
    let (existing, ready) = match nodes(client).await {
        Ok(nodes) => nodes,
        Err(error) => return verdict(known, known.len(), Some(&error.to_string()), fresh_since),
    };
    let chosen = choose_nodes(&ready, known);
    if chosen.is_empty() {
        return verdict(known, existing.len(), Some("no node is ready"), fresh_since);
    }
    let this = ProbeRun { image: image.to_owned(), id: format!("{:x}", now.as_second()) };
    let shown = timeout(ATTEMPT, attempt(client, &this, &chosen)).await;
    let (shown, trouble) = match shown {
        Ok(Ok(shown)) => (shown, None),
        Ok(Err(error)) => (Default::default(), Some(explain(&error))),
        Err(_) => (Default::default(), Some(format!("it took longer than {} s", ATTEMPT.as_secs()))),
    };
    record_probes(known, shown, &existing, now);
    verdict(known, existing.len(), trouble.as_deref(), fresh_since)
}

/// Returns an error for people, with the missing permission or setting if that is the cause.
fn explain(error: &AttemptError) -> String {
    let hint = match error {
        AttemptError::Io(error) if error.is_not_found() => ": the chart has its namespaces and rights",
        _ => "",
    };
    format!("{error}{hint}")
}

/// Returns all nodes, and those that can run a pod of ours.
async fn nodes(client: &Client) -> Result<(BTreeSet<String>, BTreeSet<String>), IoError> {
    let api: Api<Node> = Api::all(client.clone());
    let found = call("list nodes", api.list(&ListParams::default().match_any())).await?.items;
    let ready = found.iter().filter(|node| is_ready(node)).map(ResourceExt::name_any).collect();
    Ok((found.iter().map(ResourceExt::name_any).collect(), ready))
}

fn is_ready(node: &Node) -> bool {
    let linux = node.labels().get("kubernetes.io/os").is_none_or(|os| os == "linux");
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    linux && conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
}
