//! One pass: as far as it gets towards the target, then the status. Where isolation tightens, each control is enforced by itself: one
//! that fails is reported and tried again, and the next ones proceed. Where it loosens, the first failure ends the pass.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::context::Uncut;
use super::{Begun, Context, Held, PassError, RESYNC, Seal, announce, gitops, wanted, write};
use crate::api::quarantine::ControlName;
use crate::api::{ISOLATION_LABEL, Isolation, Quarantine, QuarantineReason, conditions};
use crate::calls::IoError;
use crate::clock;
use crate::isolation::controls::pod_security;
use crate::isolation::identity::SealMark;
use crate::isolation::label;
use crate::isolation::observation::Observation;
use crate::isolation::pass::{Pass, PassFailure};
use crate::isolation::probe::{self, ProbeReport};
use crate::isolation::status;
use crate::isolation::target::{self, NextAction};
pub(super) use confirm::confirm;
pub(super) use network::restore;

/// How long a live read of what decides stands, from when it began: a loosening that takes longer is decided anew before it goes on.
const DECISION_STANDS: Duration = Duration::from_secs(1);

mod confirm;
mod network;
mod tighten;

/// How long the fence is tried in quick succession before that counts as failed. Labels take effect within milliseconds.
const PROBING: Duration = Duration::from_secs(30);
/// Then it is tried this often: what stands in the way may be gone within a minute.
const PROBE_SLOWLY: Duration = Duration::from_secs(20);

/// Goes as far as it gets towards what is wanted, and writes the status, whatever came of it. `unprotected`: why our finalizer is not
/// on the Quarantine. Nothing is loosened then. `uncut`: others let it go first until its network is cut.
pub(super) async fn run(
    context: &Context,
    begun: Begun,
    unprotected: Option<IoError>,
    uncut: Option<Uncut<'_>>,
) -> Result<Action, PassError> {
    let Begun { quarantine, namespace, wanted, decided_at } = begun;
    let name = quarantine.name_any();
    let before = quarantine.status.clone().unwrap_or_default();
    let settled =
        before.isolation == Some(wanted.level) && conditions::is_true(&before.conditions, conditions::READY);
    let is_held = wanted.held.is_some();
    let mut pass = Pass::new(wanted);
    let mut work = Work::new(context, &name, (quarantine, namespace), decided_at);
    work.uncut = uncut;
    let outcome = match (unprotected, pass.target.level) {
        (Some(error), Isolation::CleanRoom | Isolation::Open) => Err(error.into()),
        (Some(error), Isolation::Sealed | Isolation::Contained) => {
            work.failed(&mut pass, ControlName::Guard, QuarantineReason::FinalizerFailed, &error.into())
                .await;
            work.go(&mut pass).await
        }
        (None, _) => work.go(&mut pass).await,
    };
    match &outcome {
        // Somebody else wrote in between, or wants something else by now: that is no failure, and no news.
        Err(error) if error.is_conflict() => return outcome,
        // Half let out, and an answer was lost: as with `is_between`, saying so would take back what was granted.
        Err(error)
            if target::loosens(before.isolation, pass.target.level)
                && error.io().is_some_and(|io| io.is_transient()) =>
        {
            return outcome;
        }
        Err(error) => {
            pass.failure =
                Some(PassFailure { reason: error.reason(), message: error.to_string(), stalled: false });
        }
        Ok(_) => {}
    }
    let went_on = |pass: &Pass| {
        if outcome.is_ok() && pass.failures.is_empty() {
            context.remember(&name, |memory| memory.failures = 0);
        }
    };
    if pass.is_between(before.isolation) {
        went_on(&pass);
        return outcome;
    }
    if outcome.is_ok() && pass.in_place.captured && pass.target.level < Isolation::CleanRoom {
        pass.deliverers = Some(gitops::look(&context.client, &context.gitops, &work.quarantine).await);
    }
    let status = status::after(&work.quarantine, &pass, &context.cluster_state(), clock::now());
    let drift = if settled { work.drift } else { Vec::new() };
    write(context, &work.quarantine, status.clone()).await?;
    announce(context, &work.quarantine, &before, &status, drift).await;
    went_on(&pass);
    // What its claim waits for may have come about just now, and nothing else wakes it: its own status is no news.
    let has_changed =
        (before.isolation, conditions::find(&before.conditions, conditions::READY).map(state_of))
            != (status.isolation, conditions::find(&status.conditions, conditions::READY).map(state_of));
    if is_held && has_changed && outcome.is_ok() {
        return Ok(Action::requeue(Duration::ZERO));
    }
    outcome
}

/// Status and reason of a condition.
fn state_of(condition: &Condition) -> (&str, &str) {
    (&condition.status, &condition.reason)
}

struct Work<'a> {
    context: &'a Context,
    name: &'a str,
    quarantine: Quarantine,
    namespace: Namespace,
    /// What was enforced before.
    before: Option<Isolation>,
    /// The namespace bore the label when it was read.
    marked: bool,
    /// What had to be written.
    drift: Vec<String>,
    /// What was read of the namespace.
    observation: Observation,
    /// When it began to be read, live, what decides.
    decided_at: Instant,
    /// When the next pass is due at the latest, where something asked for one.
    again: Option<Duration>,
    /// Others let it go first for as long as this is there.
    uncut: Option<Uncut<'a>>,
}

impl<'a> Work<'a> {
    fn new(
        context: &'a Context,
        name: &'a str,
        (quarantine, namespace): (Quarantine, Namespace),
        decided_at: Instant,
    ) -> Self {
        Self {
            context,
            name,
            before: quarantine.status.as_ref().and_then(|status| status.isolation),
            marked: namespace.labels().contains_key(ISOLATION_LABEL),
            quarantine,
            namespace,
            drift: Vec::new(),
            observation: Observation::default(),
            decided_at,
            again: None,
            uncut: None,
        }
    }

    async fn go(&mut self, pass: &mut Pass) -> Result<Action, PassError> {
        let level = pass.target.level;
        match level {
            Isolation::Sealed | Isolation::Contained => return self.tighten(pass).await,
            Isolation::CleanRoom | Isolation::Open => {}
        }
        self.context.remember(self.name, |memory| memory.captured = None);
        let seal = self.fence_seal(level);
        let held = self.verified(&seal);
        pass.tried = held.as_ref().map(|held| held.at);
        pass.in_place.labelled =
            self.context.lists.is_marked(&self.namespace, &self.quarantine.spec, level).await?;
        if level == Isolation::CleanRoom {
            pass.in_place.labelled &= pod_security::is_enforced(&self.namespace, pass.target.privileged);
        }
        pass.in_place.fenced = pass.in_place.labelled && self.still_holds(pass, level);
        pass.probed = held.filter(|_| pass.in_place.fenced).map(|held| held.probed);
        pass.in_place.captured = true;
        loop {
            let next = pass.next_action();
            let _turn = self.context.turns.take(next).await;
            let again = match next {
                NextAction::Label => self.label(pass).await?,
                NextAction::Probe => self.probe(pass, &seal).await?,
                NextAction::Network => self.network(pass).await?,
                NextAction::Done => Some(self.again.map_or_else(|| self.rest(pass), Action::requeue)),
                // No level that loosens wants these.
                NextAction::List
                | NextAction::Capture
                | NextAction::Stop
                | NextAction::AwaitPods
                | NextAction::Identity => Some(self.rest(pass)),
            };
            if let Some(again) = again {
                return Ok(again);
            }
        }
    }

    /// What a try of the fence at this level is good for.
    fn fence_seal(&self, level: Isolation) -> Seal {
        // Whether the fence lets go is seen on one.
        let servers = if level == Isolation::Open { 0 } else { self.context.servers.epoch() };
        Seal {
            namespace: self.namespace.uid(),
            level,
            epoch: self.context.options.fence.state().epoch,
            servers,
        }
    }

    /// The last try that showed what was wanted, if it still counts.
    fn verified(&self, seal: &Seal) -> Option<Held> {
        self.context.remember(self.name, |memory| memory.seen.clone()).filter(|held| held.seal == *seal)
    }

    /// Was the fence tried so lately that it need not be tried again?
    fn still_holds(&self, pass: &Pass, level: Isolation) -> bool {
        self.context.options.fence.state().drift.is_none()
            && pass.tried.is_some_and(|at| level == Isolation::Open || !self.is_due(at))
    }

    /// When the fence was last tried, by a status that still holds: a start of the operator, which tries everything again, has
    /// nothing new to tell then.
    fn told_lately(&self, level: Isolation) -> Option<Timestamp> {
        let anew =
            self.context.remember(self.name, |memory| memory.seen.is_none() && memory.probing.is_none());
        let status = self.quarantine.status.as_ref().filter(|_| anew)?;
        status::last_verified(status, level).filter(|at| !self.is_due(*at))
    }

    /// Has the interval passed after which controls are tried again?
    fn is_due(&self, tried: Timestamp) -> bool {
        self.left(tried).is_zero()
    }

    fn left(&self, tried: Timestamp) -> Duration {
        let since = Duration::try_from(clock::now().duration_since(tried)).unwrap_or_default();
        self.context.options.probe.interval.saturating_sub(since)
    }

    /// Asks for another pass, at the latest after this.
    fn wake_within(&mut self, after: Duration) {
        self.again = Some(self.again.map_or(after, |before| before.min(after)));
    }

    /// Nothing to do: until something wakes it, or its controls are to be tried again.
    fn rest(&self, pass: &Pass) -> Action {
        let open = pass.target.level == Isolation::Open;
        let left = pass.tried.filter(|_| !open).map(|tried| self.left(tried) + Duration::from_secs(1));
        Action::requeue(left.unwrap_or(RESYNC).min(RESYNC))
    }

    /// Returns whether what is about to be let in or out is not wanted any more. A live read of a moment ago says so, unless somebody is
    /// known to have changed the Quarantine since.
    async fn loosened_in_vain(&mut self, pass: &Pass) -> Result<bool, PassError> {
        if !target::loosens(self.before, pass.target.level) {
            return Ok(false);
        }
        let watched = self.context.cache.kinds().quarantines.store().get(&ObjectRef::new(self.name));
        let is_as_read = watched.is_some_and(|watched| {
            let meta = watched.meta();
            meta.generation == self.quarantine.metadata.generation && meta.deletion_timestamp.is_none()
        });
        if is_as_read && self.decided_at.elapsed() < DECISION_STANDS {
            return Ok(false);
        }
        let label = self.namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
        let now = Instant::now();
        let stands = wanted::still_wanted(self.context, &self.quarantine, &pass.target, label).await?;
        self.decided_at = now;
        Ok(!stands)
    }

    async fn label(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        if self.loosened_in_vain(pass).await? {
            return Ok(Some(Action::requeue(Duration::ZERO)));
        }
        let level = pass.target.level;
        if level == Isolation::CleanRoom {
            // Before anything may start there.
            let privileged = pass.target.privileged;
            self.namespace = pod_security::enforce(&self.context.client, &self.namespace, privileged).await?;
        }
        let (lists, spec) = (&self.context.lists, &self.quarantine.spec);
        self.namespace = lists.mark(&self.namespace, spec, level).await?;
        pass.in_place.labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, level);
        self.drift.push(format!("label and annotations of namespace {}", self.name));
        Ok((!pass.in_place.labelled).then(|| Action::requeue(Duration::from_secs(1))))
    }

    /// Tries lock, fence and guard once (to open: whether the fence lets go). Returns whether they are as wanted.
    async fn try_fence(&mut self, pass: &mut Pass, seal: &Seal) -> bool {
        let servers = &self.context.servers;
        let probed = if seal.level == Isolation::Open {
            pass.closed = probe::is_open(servers, self.name).await.err();
            pass.in_place.fenced = pass.closed.is_none();
            ProbeReport::default()
        } else {
            let probed = probe::probe(servers, self.name, seal.level).await;
            let is_labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, seal.level);
            pass.in_place.fenced = if is_labelled { probed.holds() } else { probed.holds_except_lock() };
            probed
        };
        pass.probed = Some(probed.clone());
        let is_whole = seal.level == Isolation::Open || probed.holds();
        if pass.in_place.fenced && is_whole {
            let at = self.told_lately(seal.level).unwrap_or_else(|| status::seconds(clock::now()));
            pass.tried = Some(at);
            let seen = Some(Held { seal: seal.clone(), at, probed });
            self.context.remember(self.name, |memory| (memory.seen, memory.probing) = (seen, None));
        }
        if pass.in_place.fenced {
            self.time_to_fence(seal.level);
        }
        pass.in_place.fenced
    }

    /// Counts how long it took from the Quarantine's creation to here, the first time its fence is verified.
    fn time_to_fence(&self, level: Isolation) {
        let is_new = self.before.is_none() && matches!(level, Isolation::Contained | Isolation::Sealed);
        let is_timed =
            self.context.remember(self.name, |memory| std::mem::replace(&mut memory.is_timed, true));
        if !is_new || is_timed {
            return;
        }
        // What is isolated has to be there.
        let created = |meta: &ObjectMeta| meta.creation_timestamp.as_ref().map(|at| at.0);
        let since = created(&self.quarantine.metadata).max(created(&self.namespace.metadata));
        if let Some(since) = since {
            let took = clock::now().duration_since(since);
            self.context.options.process.metrics.fenced(took.as_secs_f64());
        }
    }

    /// Notes that the fence was tried in vain. Returns when to try again; once that has gone on for too long, it is a failure.
    fn fence_not_verified(&mut self, pass: &mut Pass) -> Duration {
        let (since, tries) = self.context.remember(self.name, |memory| {
            memory.seen = None;
            let (since, tries) = memory.probing.unwrap_or((Instant::now(), 0));
            memory.probing = Some((since, tries.saturating_add(1)));
            (since, tries)
        });
        if since.elapsed() < PROBING {
            return Duration::from_millis(5 * 2_u64.pow(tries.min(6)));
        }
        if let Some(probed) = &pass.probed {
            self.context.servers.leaks(self.name, probed);
        }
        let message = format!("tried for {} s: {}", PROBING.as_secs(), status::unverified_fence(pass));
        pass.failure =
            Some(PassFailure { reason: QuarantineReason::FenceNotVerified, message, stalled: true });
        PROBE_SLOWLY
    }

    /// Tries lock, fence and guard, as the last thing of a loosening. `None`: as wanted; else when to try again.
    async fn probe(&mut self, pass: &mut Pass, seal: &Seal) -> Result<Option<Action>, PassError> {
        if self.try_fence(pass, seal).await {
            return Ok(None);
        }
        Ok(Some(Action::requeue(self.fence_not_verified(pass))))
    }
}
