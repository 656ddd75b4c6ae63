//! Gathers whether everything exists that a plan will need, for its condition `Prepared`.
//!
//! Objects are looked up in the cluster cache, and a change of them wakes the task. Rights are reviewed by the API server, each once for
//! a plan, and again at intervals that grow with their number: RBAC objects are not watched.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use resurgam_core::preparation::{Answer, Fact, Judgement, Need, judge};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;
use tracing::Instrument;

use self::inputs::{Input, inputs};
use self::others::{Other, others};
use super::context::Context;
use super::observe;
use super::running::Running;
use crate::access::{Access, CheckQuestion, Right};
use crate::api::{OPERATOR_ACCOUNT, OPERATOR_NAMESPACE};
use crate::cluster_cache::{KindCache, STALE_AFTER};
use crate::engine::Presence;
use crate::gates::Interest;
use crate::plan::Plan;
use crate::reviews;

mod inputs;
mod others;

/// Reviews of rights that are asked at a time, for all plans.
const PARALLEL: usize = 4;
/// Shortest duration of one review's slot. With [`PARALLEL`], at most 200 reviews a second, for all plans.
const SLOT: Duration = Duration::from_millis(20);
/// Interval at which a granted right is reviewed again, if the plan needs at most as many rights as this has seconds.
const GRANTED_FOR: Duration = Duration::from_secs(10 * 60);
/// Share of each right of a plan in the interval of granted rights: at most one review a second and plan.
const GRANTED_EACH: Duration = Duration::from_secs(1);
/// Interval at which a missing right, or one that could not be reviewed, is reviewed again.
const MISSING_FOR: Duration = Duration::from_secs(30);
/// Share of each missing right in their interval: at most ten reviews a second and plan.
const MISSING_EACH: Duration = Duration::from_millis(100);
/// How long changes are collected before the plan is checked again.
const DEBOUNCE: Duration = Duration::from_millis(500);

/// Limits reviews of rights, for all plans.
#[derive(Clone)]
pub(crate) struct ReviewSlots(Arc<Semaphore>);

impl Default for ReviewSlots {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(PARALLEL)))
    }
}

/// Task that checks one plan. Dropping it ends the task.
pub(crate) struct PreparationTask {
    plan: Arc<Plan>,
    handle: AbortHandle,
    wake: Arc<Notify>,
    shared: Arc<Shared>,
}

/// What the task and the plan's reconciliation share.
#[derive(Default)]
struct Shared {
    rights: Mutex<Vec<Reviewed>>,
    judgement: Mutex<Option<Judgement>>,
}

/// A right, and the last review of it.
struct Reviewed {
    user: User,
    right: Right,
    /// The time, and whether the right is granted, or why the review failed. `None`: not reviewed yet.
    last: Option<(Instant, Result<bool, String>)>,
}

/// Namespace and name of an account.
type User = (String, String);

impl Drop for PreparationTask {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

impl PreparationTask {
    /// Returns the result for this plan. `None`: it has not been checked yet.
    pub(crate) fn judgement(&self, plan: &Arc<Plan>) -> Option<Judgement> {
        lock(&self.shared.judgement).clone().filter(|_| Arc::ptr_eq(&self.plan, plan))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the task of a new plan, with the reviews of the previous one, or wakes it. `has_changed`: an object may have changed that no
/// interest of the task covers, such as the account or the Incident.
pub(super) fn update(context: &Arc<Context>, running: &Arc<Running>, plan: &Arc<Plan>, has_changed: bool) {
    let mut state = running.state();
    if let Some(task) = state.preparation.as_ref().filter(|task| Arc::ptr_eq(&task.plan, plan)) {
        if has_changed {
            task.wake.notify_one();
        }
        return;
    }
    let access = Access::from_plan(plan);
    let before = state.preparation.take().map(|task| std::mem::take(&mut *lock(&task.shared.rights)));
    let shared = Arc::new(Shared {
        rights: Mutex::new(rights(&access, before.unwrap_or_default())),
        ..Shared::default()
    });
    let inputs = inputs(plan);
    let wake = Arc::new(Notify::new());
    let namespaces = plan.services.iter().flat_map(|service| &service.namespaces).cloned();
    let config_maps = inputs.iter().filter_map(|input| input.config_map.clone());
    let interests = namespaces
        .map(|name| Interest::Namespace { name })
        .chain(config_maps.map(|(namespace, name)| Interest::ConfigMap { namespace, name }));
    context.wakeups.register(interests.collect(), &wake);
    let checking = Checking {
        context: Arc::downgrade(context),
        running: Arc::downgrade(running),
        plan: plan.clone(),
        shared: shared.clone(),
        inputs,
        others: others(plan),
    };
    let span = tracing::error_span!(parent: None, "preparation", plan = %running.key);
    let task = tokio::spawn(checking.run(wake.clone()).instrument(span));
    state.preparation =
        Some(PreparationTask { plan: plan.clone(), handle: task.abort_handle(), wake, shared });
}

/// Returns the rights to review. Granted ones keep the reviews of `before`; all others are reviewed at once.
fn rights(access: &Access, before: Vec<Reviewed>) -> Vec<Reviewed> {
    let granted = before.into_iter().filter(Reviewed::is_granted);
    let mut known: HashMap<_, _> =
        granted.map(|Reviewed { user, right, last }| ((user, right), last)).collect();
    let account = (access.namespace.clone(), access.account.clone());
    let operator = (OPERATOR_NAMESPACE.to_owned(), OPERATOR_ACCOUNT.to_owned());
    let asked = access.own_questions().into_iter().filter_map(|question| match question {
        CheckQuestion::Account => None,
        CheckQuestion::Wildcard { right, .. } => Some((account.clone(), right)),
        CheckQuestion::May { user, right, .. } if user == access.user() => Some((account.clone(), right)),
        CheckQuestion::May { right, .. } => Some((operator.clone(), right)),
    });
    asked
        .map(|key| {
            let last = known.remove(&key).flatten();
            Reviewed { user: key.0, right: key.1, last }
        })
        .collect()
}

impl Reviewed {
    /// Returns whether the last review is as the plan needs it. The canary verb must not be granted.
    fn is_granted(&self) -> bool {
        matches!(&self.last, Some((_, Ok(granted))) if *granted != self.is_canary())
    }

    fn is_canary(&self) -> bool {
        self.right.verb == "never-granted"
    }

    fn fact(&self) -> Fact {
        let answer = match &self.last {
            _ if self.is_granted() => Answer::Met,
            Some((_, Ok(_))) => Answer::Missing,
            Some((_, Err(why))) => Answer::Unknown(why.clone()),
            None => Answer::Unknown("the API server did not answer".to_owned()),
        };
        let Right { verb, namespace, .. } = &self.right;
        let object = self.right.object();
        let need = match *verb {
            "never-granted" => Need::ExplicitGrant { object },
            "impersonate" => Need::Impersonation,
            verb => Need::Right { verb: verb.to_owned(), object, namespace: namespace.clone() },
        };
        Fact { need, answer }
    }
}

struct Checking {
    context: Weak<Context>,
    running: Weak<Running>,
    plan: Arc<Plan>,
    shared: Arc<Shared>,
    inputs: Vec<Input>,
    others: Vec<Other>,
}

impl Checking {
    async fn run(mut self, wake: Arc<Notify>) {
        loop {
            let (Some(context), Some(running)) = (self.context.upgrade(), self.running.upgrade()) else {
                return;
            };
            let is_complete = self.review(&context).await;
            let judgement = self.check(&context, &running).await;
            let before = lock(&self.shared.judgement).replace(judgement.clone());
            if before.as_ref() != Some(&judgement) {
                running.wake_for_status();
            }
            drop((context, running));
            let pause = if is_complete { self.pause(Instant::now()) } else { MISSING_FOR };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = wake.notified() => tokio::time::sleep(DEBOUNCE).await,
            }
        }
    }

    /// Reviews the rights that are due. Stops at the first review that fails, and returns whether there was none.
    async fn review(&self, context: &Context) -> bool {
        let due = self.due(Instant::now());
        let reviews = due.into_iter().map(|(index, user, right)| async move {
            let Ok(_slot) = context.review_slots.0.acquire().await else { return None };
            let what = format!("ask whether account {}/{} may {right}", user.0, user.1);
            let account = (user.0.as_str(), user.1.as_str());
            let asked = Instant::now();
            let review = reviews::account_may(&context.client, account, right.attributes(), what);
            let (granted, ()) = futures::join!(review, tokio::time::sleep(SLOT));
            Some((index, asked, granted.map_err(|error| error.to_string())))
        });
        let mut reviews = stream::iter(reviews).buffer_unordered(PARALLEL);
        while let Some(Some((index, asked, granted))) = reviews.next().await {
            let has_failed = granted.is_err();
            if let Some(reviewed) = lock(&self.shared.rights).get_mut(index) {
                reviewed.last = Some((asked, granted));
            }
            if has_failed {
                return false;
            }
        }
        true
    }

    /// Returns the rights whose review has expired.
    fn due(&self, now: Instant) -> Vec<(usize, User, Right)> {
        let rights = lock(&self.shared.rights);
        let intervals = self.intervals(&rights);
        let is_due = |(_, reviewed): &(usize, &Reviewed)| intervals.left(reviewed, now).is_zero();
        let copy =
            |(index, reviewed): (usize, &Reviewed)| (index, reviewed.user.clone(), reviewed.right.clone());
        rights.iter().enumerate().filter(is_due).map(copy).collect()
    }

    fn intervals(&self, rights: &[Reviewed]) -> Intervals {
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let granted = rights.iter().filter(|reviewed| reviewed.is_granted()).count();
        let mut hasher = DefaultHasher::new();
        self.plan.uid.hash(&mut hasher);
        // Plans that were checked together at a start are not checked together for ever.
        let jitter = u32::try_from(hasher.finish() % 20).unwrap_or_default();
        Intervals {
            granted: (GRANTED_EACH * number(granted)).max(GRANTED_FOR) * (90 + jitter) / 100,
            missing: (MISSING_EACH * number(rights.len() - granted)).max(MISSING_FOR),
        }
    }

    /// Returns how long nothing is due, if nothing changes.
    fn pause(&self, now: Instant) -> Duration {
        let rights = lock(&self.shared.rights);
        let intervals = self.intervals(&rights);
        let rights = rights.iter().map(|reviewed| intervals.left(reviewed, now));
        let inputs = self.inputs.iter().filter_map(|input| input.last.as_ref());
        let inputs = inputs.map(|(_, read, answer)| {
            let interval = if *answer == Answer::Met { intervals.granted } else { MISSING_FOR };
            (*read + interval).saturating_duration_since(now)
        });
        let others = self.others.iter().map(|other| other.left(intervals.granted, now));
        rights
            .chain(inputs)
            .chain(others)
            .min()
            .unwrap_or(GRANTED_FOR)
            .clamp(Duration::from_secs(1), GRANTED_FOR)
    }

    /// Judges what the caches, the reviews and the gates' inputs say.
    async fn check(&mut self, context: &Context, running: &Running) -> Judgement {
        let (plan, stores) = (self.plan.clone(), &context.stores);
        stores.namespaces.confirmation().ready().await;
        stores.config_maps.confirmation().ready().await;
        let account = presence(&stores.accounts, &plan.namespace, &plan.account);
        let mut facts = vec![Fact { need: Need::Account, answer: account.clone() }];
        if let Some(incident) = &plan.incident {
            let answer = match observe::incident(stores, &plan) {
                Presence::Present => Answer::Met,
                Presence::Missing => Answer::Missing,
                Presence::Unknown(why) => Answer::Unknown(why),
            };
            facts.push(Fact { need: Need::Incident(incident.clone()), answer });
        }
        for service in &plan.services {
            // Those that the service is rebuilt in are created on the day.
            let names = service.namespaces.iter().filter(|_| service.replaces.is_empty());
            facts.extend(names.map(|name| Fact {
                need: Need::Namespace { name: name.clone(), service: service.name.clone() },
                answer: presence(&stores.namespaces, "", name),
            }));
        }
        facts.extend(self.check_inputs(context, running, account == Answer::Met).await);
        facts.extend(self.check_others(context, running).await);
        facts.extend(lock(&self.shared.rights).iter().map(Reviewed::fact));
        judge(&format!("{}/{}", plan.namespace, plan.account), &facts)
    }
}

/// How long a review counts.
struct Intervals {
    granted: Duration,
    missing: Duration,
}

impl Intervals {
    fn left(&self, reviewed: &Reviewed, now: Instant) -> Duration {
        let Some((at, _)) = &reviewed.last else { return Duration::ZERO };
        let interval = if reviewed.is_granted() { self.granted } else { self.missing };
        (*at + interval).saturating_duration_since(now)
    }
}

/// Returns whether the cache has an object. An outdated cache tells nothing.
fn presence<T: PartialEq>(cache: &KindCache<T>, namespace: &str, name: &str) -> Answer {
    if let Err(stale) = cache.is_fresh(STALE_AFTER) {
        return Answer::Unknown(format!("the operator's watch of {} is broken", stale.resource));
    }
    if cache.get(namespace, name).is_some() { Answer::Met } else { Answer::Missing }
}
