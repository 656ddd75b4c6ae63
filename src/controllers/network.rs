//! Whether the cluster's network enforces NetworkPolicies: tried while anything is isolated, once for the whole cluster, after
//! policies of ours changed, and at an interval. Whoever relies on them learns of the verdict here.

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

/// Changes of policies make it try again at most this often.
const GAP: Duration = Duration::from_secs(60);
/// One try takes no longer than this.
const ATTEMPT: Duration = Duration::from_secs(420);
/// A network that was not seen to hold for this many intervals is not said to.
const FRESH_INTERVALS: i32 = 3;

/// How the network is tried.
#[derive(Clone, Debug)]
pub struct ProbeOptions {
    /// Image whose entrypoint is `resurgam`; normally the operator's own. `None`: it cannot be tried.
    pub image: Option<String>,
    /// How often every control is tried again.
    pub interval: Duration,
    /// Where an API server is reached, if not at the address at which it is listed.
    pub routes: BTreeMap<SocketAddr, Uri>,
}

impl Default for ProbeOptions {
    fn default() -> Self {
        Self { image: None, interval: Duration::from_secs(600), routes: BTreeMap::new() }
    }
}

/// Who needs to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Demand {
    /// Something is isolated. Nothing is tried while nothing is.
    isolated: bool,
    /// How often policies of ours were written.
    changes: u64,
}

/// Shared by whoever tries the network and whoever relies on it.
#[derive(Clone, Debug)]
pub struct Network(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None`: not known yet.
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
    /// What is known now. `None`: nothing yet, and it is being tried.
    #[must_use]
    pub fn verdict(&self) -> Option<NetworkVerdict> {
        self.0.verdict.borrow().clone()
    }

    /// Tells of changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Option<NetworkVerdict>> {
        self.0.verdict.subscribe()
    }

    /// Whether anything is isolated.
    pub(crate) fn needed(&self, isolated: bool) {
        self.0
            .demand
            .send_if_modified(|demand| std::mem::replace(&mut demand.isolated, isolated) != isolated);
    }

    /// Is anything isolated?
    pub(crate) fn is_needed(&self) -> bool {
        self.0.demand.borrow().isolated
    }

    /// Policies of ours were written.
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

/// Tries the network whenever that is due, for ever.
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
        // After a pause in which nothing was isolated, what was known before is no answer. However long a try takes, it is none.
        if ended.is_some_and(|ended| ended.elapsed() > 2 * options.interval) {
            network.found(None);
        }
        let verdict = look(&client, &image, &mut known, options.interval).await;
        tracing::info!(state = ?verdict.state, "the network was tried: {}", verdict.message);
        network.found(Some(verdict));
        let now = Instant::now();
        ended = Some(now);
        tokio::select! {
            () = sleep_until(now + options.interval) => {}
            () = async {
                let changed = demand.wait_for(|new| new.isolated && new.changes != wanted.changes).await.is_ok();
                if changed {
                    sleep_until(now + GAP.min(options.interval)).await;
                } else {
                    std::future::pending().await
                }
            } => {}
            () = untried(&client, &known, &mut found, GAP.min(options.interval)) => {}
        }
    }
}

/// Waits for a node that can be tried and was not yet: one that joined, or one of many whose turn has not come.
async fn untried(
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
        // One that is not ready yet is heard of again: its kubelet says so.
        if let Ok((_, ready)) = nodes(client).await
            && ready.iter().any(|name| !known.contains_key(name))
        {
            return;
        }
    }
}

/// Names of nodes, whenever something of them changes.
fn node_names(client: &Client) -> impl Stream<Item = String> + Send + use<> {
    let nodes = Api::<PartialObjectMeta<Node>>::all(client.clone());
    watcher(nodes, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(|node| async move { node.ok().map(|node| node.name_any()) })
}

/// One try, and what is known with it.
async fn look(client: &Client, image: &str, known: &mut NodeRecords, interval: Duration) -> NetworkVerdict {
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
        Ok(Err(error)) => (Default::default(), Some(told(&error))),
        Err(_) => (Default::default(), Some(format!("it took longer than {} s", ATTEMPT.as_secs()))),
    };
    record_probes(known, shown, &existing, now);
    verdict(known, existing.len(), trouble.as_deref(), fresh_since)
}

/// What went wrong, and what it may take where the operator has not been given what it needs.
fn told(error: &AttemptError) -> String {
    let hint = match error {
        AttemptError::Io(error) if error.is_not_found() => ": the chart has its namespaces and rights",
        _ => "",
    };
    format!("{error}{hint}")
}

/// All nodes, and those that can run a pod of ours.
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
