//! Leader election by a Lease: one replica acts, the others stand by.
//!
//! Follows client-go's leader election: a standby acquires the Lease only after observing it unrenewed for its whole duration, by its own
//! monotonic clock, and a leader stops some time before that. The times in the Lease are for people, so a wrong wall clock neither makes
//! nor prevents a leader.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::calls::{IoError, call, call_opt};
use crate::clock;
use crate::heartbeats::{self, Heart, Heartbeats};

/// Name of the Lease by which replicas agree on a leader.
pub(crate) const LEASE: &str = "resurgam";

/// Deadline for releasing the Lease. After that, the Lease expires.
const RELEASE: Duration = Duration::from_secs(5);

/// A replica that takes part in leader election.
#[derive(Clone)]
pub struct LeaderElector {
    /// API of the Lease's namespace.
    pub leases: Api<Lease>,
    /// Name of the Lease.
    pub name: String,
    /// Identity of this replica, unique over all processes and time.
    pub identity: String,
    /// How long an unrenewed Lease is valid. At least two seconds.
    pub duration: Duration,
    /// Set once the Lease was read. From then on, this replica leads or stands by.
    pub is_read: Arc<AtomicBool>,
    /// Heartbeats of the standby loop and of the renewal loop.
    pub heartbeats: Heartbeats,
    /// What this replica publishes while it leads.
    pub published: Published,
    /// Updated by each renewal. Without it, no write is sent.
    pub leadership: Leadership,
}

/// Facts about the leader, written as annotations of its Lease when it is acquired and at each renewal. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Published(Arc<Mutex<BTreeMap<String, String>>>);

impl Published {
    /// Sets an annotation for the next write of the Lease.
    pub fn set(&self, annotation: &str, value: String) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        facts.insert(annotation.to_owned(), value);
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Time until which this process is the leader. Clones share their state.
#[derive(Clone, Debug, Default)]
pub struct Leadership(Arc<Mutex<Option<Instant>>>);

impl Leadership {
    /// Returns whether this process leads, by its last confirmed renewal.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|until| Instant::now() < until)
    }

    fn set(&self, until: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// A held Lease. It must be [renewed](LeaderLease::keep_renewed).
pub struct LeaderLease {
    elector: LeaderElector,
    /// The Lease as last written, or as found to be ours.
    lease: Lease,
    /// When the last confirmed renewal was sent.
    renewed: Instant,
}

/// A version of a Lease, and since when it has not changed.
struct ObservedLease {
    version: Option<String>,
    since: Instant,
}

impl ObservedLease {
    /// Returns whether a standby may acquire the Lease now. `observed`: the previous observation.
    fn can_acquire(observed: &mut Option<Self>, lease: &Lease, own: Duration, now: Instant) -> bool {
        let spec = lease.spec.as_ref();
        if spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default().is_empty() {
            return true;
        }
        let version = lease.resource_version();
        let latest = match observed {
            Some(latest) if latest.version == version => latest,
            _ => observed.insert(Self { version, since: now }),
        };
        // The holder's duration applies, even if this replica was started with a shorter one.
        let said = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let lasts = said.map_or(own, Duration::from_secs).max(own);
        now.duration_since(latest.since) >= lasts
    }
}

impl LeaderElector {
    /// Stands by until the Lease is acquired, or until `stop`. Errors of the API server are logged and retried.
    ///
    /// # Errors
    /// The output of `stop`. The Lease is then not held, if the API server answered.
    pub async fn lead<S>(self, stop: impl Future<Output = S>) -> Result<LeaderLease, S> {
        let mut stop = std::pin::pin!(stop);
        let heart = self.heart();
        let (mut observed, mut has_tried) = (None, false);
        loop {
            heart.beat();
            // A read can be cancelled. A write must be awaited, since it may have acquired the Lease.
            let found = tokio::select! {
                found = self.observe(&mut observed) => found,
                why = &mut stop => return self.stand_down(has_tried, why).await,
            };
            let taken = match found {
                Ok(Some(lease)) => {
                    has_tried = true;
                    self.acquire(lease).await.map(Some)
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            };
            match taken {
                Ok(Some((lease, renewed))) => {
                    let held = LeaderLease { elector: self, lease, renewed };
                    held.extend();
                    return Ok(held);
                }
                Ok(None) => {}
                // Another replica was faster.
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, "lease cannot be read or acquired; standing by"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.duration / 5) => {}
                why = &mut stop => return self.stand_down(has_tried, why).await,
            }
        }
    }

    /// Releases the Lease if an attempt to acquire it may have succeeded: the answer may have been lost.
    async fn stand_down<S>(&self, has_tried: bool, why: S) -> Result<LeaderLease, S> {
        if has_tried {
            self.release().await;
        }
        Err(why)
    }

    fn heart(&self) -> Heart {
        // A round is a pause of part of the Lease's duration, and calls with deadlines.
        self.heartbeats.watch("leader election", self.duration + heartbeats::LIMIT)
    }

    /// Reads the Lease. Returns the Lease to write if it can be acquired now.
    async fn observe(&self, observed: &mut Option<ObservedLease>) -> Result<Option<Lease>, IoError> {
        let found = call_opt(format!("get Lease {}", self.name), self.leases.get(&self.name)).await?;
        self.is_read.store(true, Ordering::Relaxed);
        Ok(match found {
            None => {
                let annotations = Some(self.published.annotations());
                let metadata =
                    ObjectMeta { name: Some(self.name.clone()), annotations, ..ObjectMeta::default() };
                Some(self.with_own_identity(Lease { metadata, spec: None }))
            }
            Some(lease) if ObservedLease::can_acquire(observed, &lease, self.duration, Instant::now()) => {
                Some(self.with_own_identity(lease))
            }
            Some(_) => None,
        })
    }

    /// Acquires the Lease. Returns it, and when the request was sent.
    async fn acquire(&self, lease: Lease) -> Result<(Lease, Instant), IoError> {
        let sent = Instant::now();
        let lease = if lease.resource_version().is_some() {
            call(format!("take Lease {}", self.name), self.write(&lease)).await?
        } else {
            let params = PostParams::default();
            call(format!("create Lease {}", self.name), self.leases.create(&params, &lease)).await?
        };
        Ok((lease, sent))
    }

    /// Releases the Lease if this replica holds it, so that a successor need not wait. If that fails, the Lease expires.
    async fn release(&self) {
        match tokio::time::timeout(RELEASE, self.release_lease()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "lease not released; a successor has to wait until it expires")
            }
            Err(_) => tracing::warn!("lease not released in time; a successor has to wait until it expires"),
        }
    }

    async fn release_lease(&self) -> Result<(), IoError> {
        let Self { leases, name, identity, .. } = self;
        // Read again, since a renewal may have been running.
        let Some(mut lease) = call_opt(format!("get Lease {name}"), leases.get(name)).await? else {
            return Ok(());
        };
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_ref() == Some(identity) => {
                spec.holder_identity = Some(String::new())
            }
            _ => return Ok(()),
        }
        call(format!("give back Lease {name}"), self.write(&lease)).await.map(drop)
    }

    /// Writes the Lease over the version that was read. A concurrent write is a conflict.
    async fn write(&self, lease: &Lease) -> kube::Result<Lease> {
        let metadata =
            json!({"resourceVersion": lease.resource_version(), "annotations": self.published.annotations()});
        let patch = json!({"metadata": metadata, "spec": lease.spec});
        let params = PatchParams::default();
        self.leases.patch(&self.name, &params, &Patch::Merge(patch)).await
    }

    /// Returns the Lease with this replica as its holder.
    fn with_own_identity(&self, mut lease: Lease) -> Lease {
        let now = MicroTime(clock::now());
        let before = lease.spec.take().unwrap_or_default();
        let mine = before.holder_identity.as_deref() == Some(&self.identity);
        lease.spec = Some(LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)),
            acquire_time: if mine { before.acquire_time.clone() } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(
                before.lease_transitions.unwrap_or_default().saturating_add(i32::from(!mine)),
            ),
            ..before
        });
        lease
    }
}

impl LeaderLease {
    /// Returns how long this replica leads without a confirmed renewal. The rest of the duration is for running work to end.
    fn renewal_deadline(&self) -> Duration {
        self.elector.duration * 5 / 6
    }

    fn extend(&self) {
        self.elector.leadership.set(Some(self.renewed + self.renewal_deadline()));
    }

    /// Renews the Lease until the future is dropped. Returns the reason when this process must stop leading, which is before another
    /// replica can acquire the Lease.
    async fn renew_until_lost(&mut self) -> String {
        let (duration, lasts) = (self.elector.duration, self.renewal_deadline());
        let heart = self.elector.heart();
        let mut pause = duration / 3;
        loop {
            heart.beat();
            tokio::time::sleep(pause.min(lasts.saturating_sub(self.renewed.elapsed()))).await;
            let left = lasts.saturating_sub(self.renewed.elapsed());
            if left.is_zero() {
                let age = self.renewed.elapsed().as_secs_f64();
                return format!("the lease was last renewed {age:.1} s ago");
            }
            // The deadline of an attempt leaves time for another one.
            match tokio::time::timeout(left.min(duration / 3), self.renew()).await {
                Ok(Ok(())) => pause = duration / 3,
                Ok(Err(Renewal::Lost(why))) => return why,
                Ok(Err(Renewal::Failed(error))) => {
                    tracing::warn!(%error, "lease not renewed; will retry");
                    pause = duration / 20;
                }
                Err(_) => pause = Duration::ZERO,
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Renewal> {
        let elector = &self.elector;
        let what = |verb: &str| format!("{verb} Lease {}", elector.name);
        let sent = Instant::now();
        let lease = elector.with_own_identity(self.lease.clone());
        match call(what("renew"), elector.write(&lease)).await {
            Ok(lease) => {
                (self.lease, self.renewed) = (lease, sent);
                self.extend();
                Ok(())
            }
            // The read shows the holder. It may be this replica, if an answer was lost.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                let found = call_opt(what("get"), elector.leases.get(&elector.name)).await?;
                let Some(found) = found else { return Err(Renewal::Lost("the lease is gone".to_owned())) };
                match found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) {
                    Some(holder) if holder == elector.identity => self.lease = found,
                    Some(holder) if !holder.is_empty() => {
                        return Err(Renewal::Lost(format!("the lease is held by {holder}")));
                    }
                    _ => return Err(Renewal::Lost("the lease has no holder".to_owned())),
                }
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Renews the Lease in a task of its own, so that the leader's work cannot delay a renewal.
    #[must_use]
    pub fn keep_renewed(mut self) -> RenewedLease {
        let (renewal_guard, asked) = oneshot::channel::<Never>();
        let elector = self.elector.clone();
        let task = tokio::spawn(async move {
            tokio::select! {
                why = self.renew_until_lost() => {
                    self.elector.leadership.set(None);
                    Some(why)
                }
                _ = asked => None,
            }
        });
        RenewedLease { task, renewal_guard, elector }
    }
}

/// A Lease that a task renews.
pub struct RenewedLease {
    task: JoinHandle<Option<String>>,
    /// Dropping it stops the renewal.
    renewal_guard: oneshot::Sender<Never>,
    elector: LeaderElector,
}

enum Never {}

impl RenewedLease {
    /// Waits until this process must stop leading, or the renewal task ends. Returns the reason. The Lease must not be released then.
    pub async fn lost(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Some(why)) => why,
            Ok(None) => "the lease task ended".to_owned(),
            Err(error) => format!("the lease task died: {error}"),
        }
    }

    /// Releases the Lease, so that a successor need not wait. Call it once no work is running. If that fails, the Lease expires.
    pub async fn release_lease(self) {
        drop(self.renewal_guard);
        // The renewal task ends first, unless the Lease is lost.
        if let Ok(None) = self.task.await {
            self.elector.release().await;
        }
    }
}

/// Why a Lease was not renewed.
enum Renewal {
    /// Another replica holds it.
    Lost(String),
    /// The request failed.
    Failed(IoError),
}

impl From<IoError> for Renewal {
    fn from(error: IoError) -> Self {
        Self::Failed(error)
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
