//! Watches the metadata of one kind in all namespaces, for the log of changes.
//!
//! Nothing is listed: the watch starts at the version of an empty page, and at that moment everything counts as changed. It ends after
//! [`RENEWED_AFTER`] and is resumed where it was, which confirms it, as a dead connection reports no error.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, PartialObjectMeta, WatchEvent, WatchParams};
use kube::{Client, ResourceExt};
use tokio::time::{sleep, sleep_until, timeout, timeout_at};

use super::change_log::KindLog;
use super::follow::WatchError;

/// Duration of a watch, in seconds. There are some sixty of them.
const RENEWED_AFTER: u32 = 30;
/// A watch that lasts this much longer than requested counts as dead.
const GRACE: Duration = Duration::from_secs(5);
/// Deadline for a watch to start, and for the version to start at.
const BEGINS_WITHIN: Duration = Duration::from_secs(5);
/// Minimum time between the starts of two watches.
const SHORTEST: Duration = Duration::from_millis(200);
/// Pause after the first failure; doubled after each further one.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause after a failure.
const LONGEST_RETRY: Duration = Duration::from_secs(5);
/// Pause after a refusal, which a person has to end.
const REFUSED_RETRY: Duration = Duration::from_secs(60);

/// One watch.
pub(super) struct MetadataWatch {
    api: Api<DynamicObject>,
    kind: ApiResource,
    log: Arc<KindLog>,
    /// resourceVersion from which to resume. `None`: changes were missed.
    version: Option<String>,
}

impl MetadataWatch {
    pub(super) fn new(client: &Client, kind: ApiResource, log: Arc<KindLog>) -> Self {
        Self { api: Api::all_with(client.clone(), &kind), kind, log, version: None }
    }

    /// Watches until the future is dropped.
    pub(super) async fn run(mut self) {
        let mut pause = RETRY;
        loop {
            let began = tokio::time::Instant::now();
            match self.follow().await {
                Ok(()) => {
                    pause = RETRY;
                    sleep_until(began + SHORTEST).await;
                }
                Err(error) if is_refused(&error) => {
                    if !self.log.is_refused() {
                        tracing::warn!(%error, kind = self.kind.kind, group = self.kind.group,
                            "cannot watch a kind that baselines compare; each evaluation reads it. Whoever administers the cluster grants list and watch");
                    }
                    self.log.failed(true);
                    self.version = None;
                    sleep(REFUSED_RETRY).await;
                }
                Err(error) => {
                    if error.is_expired() {
                        self.version = None;
                    }
                    tracing::warn!(%error, kind = self.kind.kind, "watch of metadata failed; restarting it");
                    self.log.failed(false);
                    sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    /// Watches until the watch ends.
    async fn follow(&mut self) -> Result<(), WatchError> {
        let version = match self.version.clone() {
            Some(version) => version,
            None => self.start().await?,
        };
        let params = WatchParams::default().timeout(RENEWED_AFTER);
        let asked = Instant::now();
        let watch = timeout(BEGINS_WITHIN, self.api.watch_metadata(&params, &version)).await;
        let mut events = std::pin::pin!(watch.map_err(|_| WatchError::Unanswered(BEGINS_WITHIN))??);
        self.log.confirm(asked);
        let dead_at = tokio::time::Instant::now() + Duration::from_secs(RENEWED_AFTER.into()) + GRACE;
        loop {
            match timeout_at(dead_at, events.next()).await {
                Ok(Some(event)) => self.apply(event?)?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(WatchError::Silent),
            }
        }
    }

    /// Returns the current version. Everything before it counts as changed, and each change after it arrives.
    async fn start(&mut self) -> Result<String, WatchError> {
        let page = timeout(BEGINS_WITHIN, self.api.list_metadata(&ListParams::default().limit(1))).await;
        let page = page.map_err(|_| WatchError::Unanswered(BEGINS_WITHIN))??;
        let version = page.metadata.resource_version.filter(|version| !version.is_empty());
        let version = version.ok_or(WatchError::NoVersion)?;
        self.log.restarted();
        self.version = Some(version.clone());
        Ok(version)
    }

    fn apply(&mut self, event: WatchEvent<PartialObjectMeta<DynamicObject>>) -> Result<(), WatchError> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) | WatchEvent::Deleted(object) => {
                self.version = object.resource_version();
                let is_namespace = self.kind.group.is_empty() && self.kind.plural == "namespaces";
                let namespace = if is_namespace { object.metadata.name } else { object.metadata.namespace };
                self.log.changed(&namespace.unwrap_or_default());
            }
            WatchEvent::Bookmark(bookmark) => self.version = Some(bookmark.metadata.resource_version),
            WatchEvent::Error(status) => return Err(WatchError::Api(kube::Error::Api(status))),
        }
        Ok(())
    }
}

/// Returns whether the API server will not let the operator watch the kind, or does not serve it.
fn is_refused(error: &WatchError) -> bool {
    let WatchError::Api(kube::Error::Api(status)) = error else { return false };
    matches!(status.code, 401 | 403 | 404 | 405)
}
