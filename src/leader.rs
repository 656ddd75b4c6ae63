//! Who leads, by a Lease: one replica acts, the others stand by.
//!
//! By the rules of client-go's leader election, on which the field relies: whoever stands by takes the Lease only once it has seen it
//! unrenewed for its whole duration, by its own steady clock; and a leader ends some time before that. What the Lease says of times is for
//! people: a wall clock that is wrong, or is set, makes nobody lead, and keeps nobody from it.

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

/// Whoever may lead.
pub struct Candidate {
    /// Where the Lease is.
    pub leases: Api<Lease>,
    /// Its name.
    pub name: String,
    /// What this one is called there. No other process is called so, nor was.
    pub identity: String,
    /// For how long a Lease holds that is not renewed. At least two seconds.
    pub duration: Duration,
}

/// Whoever leads. It has to be [kept](Reign::kept).
pub struct Reign {
    candidate: Candidate,
    /// As it was last written by us, or found to be ours.
    lease: Lease,
    /// When the last renewal that the API server confirmed was sent.
    renewed: Instant,
}

/// What a Lease looked like, and since when it does so.
struct Sight {
    version: Option<String>,
    since: Instant,
}

impl Sight {
    /// May whoever stands by take the Lease now? `seen` is what it looked like at the last look.
    fn may_take(seen: &mut Option<Self>, lease: &Lease, own: Duration, now: Instant) -> bool {
        let spec = lease.spec.as_ref();
        if spec.and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default().is_empty() {
            return true;
        }
        let version = lease.resource_version();
        let sight = match seen {
            Some(sight) if sight.version == version => sight,
            _ => seen.insert(Self { version, since: now }),
        };
        // Whoever holds it says for how long; a replica that was started with less does not hurry it.
        let said = spec.and_then(|spec| spec.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let lasts = said.map_or(own, Duration::from_secs).max(own);
        now.duration_since(sight.since) >= lasts
    }
}

impl Candidate {
    /// Stands by until it leads. The API server's errors are told, and waited out.
    pub async fn lead(self) -> Reign {
        let mut seen = None;
        loop {
            match self.take(&mut seen).await {
                Ok(Some(reign)) => return self.reign(reign),
                Ok(None) => {}
                // Somebody was quicker.
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(%error, "nobody knows who leads: standing by"),
            }
            tokio::time::sleep(self.duration / 5).await;
        }
    }

    fn reign(self, (lease, renewed): (Lease, Instant)) -> Reign {
        Reign { candidate: self, lease, renewed }
    }

    async fn take(&self, seen: &mut Option<Sight>) -> Result<Option<(Lease, Instant)>, IoError> {
        let what = |verb: &str| format!("{verb} Lease {}", self.name);
        let found = call_opt(what("get"), self.leases.get(&self.name)).await?;
        let now = Instant::now();
        match found {
            None => {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let lease = self.held(Lease { metadata, spec: None });
                let params = PostParams::default();
                let created = self.leases.create(&params, &lease);
                Ok(Some((call(what("create"), created).await?, now)))
            }
            Some(lease) if Sight::may_take(seen, &lease, self.duration, now) => {
                Ok(Some((call(what("take"), self.write(&self.held(lease))).await?, now)))
            }
            Some(_) => Ok(None),
        }
    }

    /// Writes the Lease as it is here, if it still is of the version that it was read at: whoever else writes it comes too late, or we do.
    async fn write(&self, lease: &Lease) -> kube::Result<Lease> {
        let patch = json!({"metadata": {"resourceVersion": lease.resource_version()}, "spec": lease.spec});
        let params = PatchParams::default();
        self.leases.patch(&self.name, &params, &Patch::Merge(patch)).await
    }

    /// The Lease, as this one holds it from now on.
    fn held(&self, mut lease: Lease) -> Lease {
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

impl Reign {
    /// For how long it leads without a renewal that is confirmed. The rest of the Lease is for whatever is under way then.
    fn lasts(&self) -> Duration {
        self.candidate.duration * 5 / 6
    }

    /// Renews the Lease for as long as it is polled. Resolves, with the reason, when this one must not take itself for the leader any
    /// more: before anybody else may.
    async fn keep(&mut self) -> String {
        let (duration, lasts) = (self.candidate.duration, self.lasts());
        let mut pause = duration / 3;
        loop {
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
                    tracing::warn!(%error, "the lease is not renewed yet");
                    pause = duration / 20;
                }
                Err(_) => pause = Duration::ZERO,
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Renewal> {
        let candidate = &self.candidate;
        let what = |verb: &str| format!("{verb} Lease {}", candidate.name);
        let sent = Instant::now();
        let lease = candidate.held(self.lease.clone());
        match call(what("renew"), candidate.write(&lease)).await {
            Ok(lease) => {
                (self.lease, self.renewed) = (lease, sent);
                Ok(())
            }
            // By whom it was written is to be seen: perhaps by ourselves, and the answer was lost.
            Err(error) if error.is_conflict() || error.is_not_found() => {
                let found = call_opt(what("get"), candidate.leases.get(&candidate.name)).await?;
                let Some(found) = found else { return Err(Renewal::Lost("the lease is gone".to_owned())) };
                match found.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()) {
                    Some(holder) if holder == candidate.identity => self.lease = found,
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

    /// The Lease is let go, so that a successor need not wait.
    async fn give_back(self) -> Result<(), IoError> {
        let candidate @ Candidate { leases, name, identity, .. } = &self.candidate;
        // As it is now: a renewal may have been under way.
        let mut lease = call(format!("get Lease {name}"), leases.get(name)).await?;
        match &mut lease.spec {
            Some(spec) if spec.holder_identity.as_ref() == Some(identity) => {
                spec.holder_identity = Some(String::new())
            }
            _ => return Ok(()),
        }
        call(format!("give back Lease {name}"), candidate.write(&lease)).await.map(drop)
    }

    /// Has it kept by a task of its own, so that nothing that the leader does holds up a renewal.
    #[must_use]
    pub fn kept(mut self) -> Kept {
        let (let_go, asked) = oneshot::channel::<Never>();
        let task = tokio::spawn(async move {
            tokio::select! {
                why = self.keep() => Err(why),
                _ = asked => Ok(self),
            }
        });
        Kept { task, let_go }
    }
}

/// A reign that goes on by itself.
pub struct Kept {
    task: JoinHandle<Result<Reign, String>>,
    /// Dropped, it ends the keeping.
    let_go: oneshot::Sender<Never>,
}

enum Never {}

impl Kept {
    /// Resolves, with the reason, once this one must not take itself for the leader any more; also if nobody keeps the Lease.
    pub async fn lost(&mut self) -> String {
        match (&mut self.task).await {
            Ok(Err(why)) => why,
            Ok(Ok(_)) => "the lease task ended".to_owned(),
            Err(error) => format!("the lease task died: {error}"),
        }
    }

    /// Lets go of the Lease, so that a successor need not wait. To be called once nothing is done any more. If it cannot be given back, it
    /// runs out.
    pub async fn give_back(self) {
        drop(self.let_go);
        let Ok(Ok(reign)) = self.task.await else { return };
        if let Err(error) = reign.give_back().await {
            tracing::warn!(%error, "the lease runs out");
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
