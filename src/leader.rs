//! Who leads, by a Lease: one replica acts, the others stand by.
//!
//! By the rules of client-go's leader election, on which the field relies: whoever stands by takes the Lease only once it has seen it
//! unrenewed for its whole duration, by its own steady clock; and a leader ends some time before that. What the Lease says of times is for
//! people: a wall clock that is wrong, or is set, makes nobody lead, and keeps nobody from it.

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

/// How long giving the Lease back may take. Then it runs out.
const RELEASE: Duration = Duration::from_secs(5);

/// Whoever may lead.
#[derive(Clone)]
pub struct LeaderElector {
    /// Where the Lease is.
    pub leases: Api<Lease>,
    /// Its name.
    pub name: String,
    /// What this one is called there. No other process is called so, nor was.
    pub identity: String,
    /// For how long a Lease holds that is not renewed. At least two seconds.
    pub duration: Duration,
    /// Becomes true once the Lease was read: from then on this one leads or stands by.
    pub is_read: Arc<AtomicBool>,
    /// Where both loops, that of who stands by and that of who leads, give signs of life.
    pub heartbeats: Heartbeats,
    /// What it publishes while it leads.
    pub published: Published,
    /// RenewedLease up to date by whoever keeps the Lease: no write is sent without it.
    pub leadership: Leadership,
}

/// Facts about the leader, as annotations of its Lease: written when it is taken, and with each renewal. All clones are one.
#[derive(Clone, Debug, Default)]
pub struct Published(Arc<Mutex<BTreeMap<String, String>>>);

impl Published {
    /// Publishes a fact with the next write of the Lease, in place of an earlier one.
    pub fn set(&self, annotation: &str, value: String) {
        let mut facts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        facts.insert(annotation.to_owned(), value);
    }

    fn annotations(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Until when this process may take itself for the leader. All clones are one.
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

/// Whoever leads. It has to be [kept](LeaderLease::keep_renewed).
pub struct LeaderLease {
    elector: LeaderElector,
    /// As it was last written by us, or found to be ours.
    lease: Lease,
    /// When the last renewal that the API server confirmed was sent.
    renewed: Instant,
}

/// What a Lease looked like, and since when it does so.
struct ObservedLease {
    version: Option<String>,
    since: Instant,
}

impl ObservedLease {
    /// May whoever stands by take the Lease now? `seen` is what it looked like at the last look.
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
        // Whoever holds it says for how long; a replica that was started with less does not hurry it.
        let said = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let lasts = said.map_or(own, Duration::from_secs).max(own);
        now.duration_since(latest.since) >= lasts
    }
}

impl LeaderElector {
    /// Stands by until it leads, or until `stop`. The API server's errors are told, and waited out.
    ///
    /// # Errors
    /// What `stop` resolved to. This one does not hold the Lease then, as far as the API server answered.
    pub async fn lead<S>(self, stop: impl Future<Output = S>) -> Result<LeaderLease, S> {
        let mut stop = std::pin::pin!(stop);
        let heart = self.heart();
        let (mut observed, mut has_tried) = (None, false);
        loop {
            heart.beat();
            // Reading can be broken off at any time. A write that was sent is waited for: it may have taken the Lease.
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
                // Somebody was quicker.
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, "lease cannot be read or acquired; standing by"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.duration / 5) => {}
                why = &mut stop => return self.stand_down(has_tried, why).await,
            }
        }
    }

    /// Leads no more before it knew that it did: the answer to a write may have been lost.
    async fn stand_down<S>(&self, has_tried: bool, why: S) -> Result<LeaderLease, S> {
        if has_tried {
            self.release().await;
        }
        Err(why)
    }

    fn heart(&self) -> Heart {
        // A round is a pause of a part of the Lease's duration, and calls that have deadlines.
        self.heartbeats.watch("leader election", self.duration + heartbeats::LIMIT)
    }

    /// Reads the Lease. Returns it as it is to be written, if this one may take it now.
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

    /// Takes the Lease. Returns it, and when that was sent.
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

    /// Gives the Lease back where this one holds it, so that a successor need not wait. If that fails, it runs out.
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
        // As it is now: a renewal may have been under way.
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

    /// Writes the Lease as it is here, if it still is of the version that it was read at: whoever else writes it comes too late, or we do.
    async fn write(&self, lease: &Lease) -> kube::Result<Lease> {
        let metadata =
            json!({"resourceVersion": lease.resource_version(), "annotations": self.published.annotations()});
        let patch = json!({"metadata": metadata, "spec": lease.spec});
        let params = PatchParams::default();
        self.leases.patch(&self.name, &params, &Patch::Merge(patch)).await
    }

    /// The Lease, as this one holds it from now on.
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
    /// For how long it leads without a renewal that is confirmed. The rest of the Lease is for whatever is under way then.
    fn renewal_deadline(&self) -> Duration {
        self.elector.duration * 5 / 6
    }

    fn extend(&self) {
        self.elector.leadership.set(Some(self.renewed + self.renewal_deadline()));
    }

    /// Renews the Lease for as long as it is polled. Resolves, with the reason, when this one must not take itself for the leader any
    /// more: before anybody else may.
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
            // No try is waited for so long that there is no time for another.
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
            // By whom it was written is to be seen: perhaps by ourselves, and the answer was lost.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                let found = call_opt(what("get"), elector.leases.get(&elector.name)).await?;
                let Some(found) = found else { return Err(Renewal::Lost("the lease is gone".to_owned())) };
                match found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) {
                    Some(holder) if holder == elector.identity => self.lease = found,
                    Some(holder) if !holder.is_empty() => {
                        return Err(Renewal::Lost(format!("the lease is held by {holder}")));
                    }
                    _ => return Err(Renewal::Lost("the lease is held by nobody".to_owned())),
                }
                Err(error.into())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Has it kept by a task of its own, so that nothing that the leader does holds up a renewal.
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

/// A lease that is renewed by a task of its own.
pub struct RenewedLease {
    task: JoinHandle<Option<String>>,
    /// Dropped, it ends the keeping.
    renewal_guard: oneshot::Sender<Never>,
    elector: LeaderElector,
}

enum Never {}

impl RenewedLease {
    /// Resolves, with the reason, once this one must not take itself for the leader any more; also if nobody keeps the Lease. It is not to
    /// be given back then.
    pub async fn lost(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Some(why)) => why,
            Ok(None) => "the lease task ended".to_owned(),
            Err(error) => format!("the lease task died: {error}"),
        }
    }

    /// Gives the Lease back, so that a successor need not wait. To be called once nothing is done any more. If it cannot be given back, it
    /// runs out.
    pub async fn release_lease(self) {
        drop(self.renewal_guard);
        // Whoever renews it is done first, or the Lease is lost.
        if let Ok(None) = self.task.await {
            self.elector.release().await;
        }
    }
}

/// Why a Lease was not renewed.
enum Renewal {
    /// It is not ours any more.
    Lost(String),
    /// Nobody knows.
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
