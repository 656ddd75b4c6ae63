//! One pass: enforces the target as far as possible, then writes the status. When isolation tightens, a control that fails is reported
//! and retried, and the next ones proceed. When it loosens, the first failure ends the pass.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::context::PendingCut;
use super::{
    Context, FenceVerification, PassError, PassInput, RESYNC, VerificationScope, announce, gitops, wanted,
    write,
};
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
pub(super) use cleanup::clean_up;
pub(super) use confirm::confirm;
pub(super) use network::restore;

/// How long a decision that rests on live reads is valid. A loosening that takes longer is decided again before it goes on.
const DECISION_STANDS: Duration = Duration::from_secs(1);

mod cleanup;
mod confirm;
mod network;
mod tighten;

/// How long the fence is probed in quick succession before that counts as failed. Labels take effect within milliseconds.
const PROBE_QUICKLY_FOR: Duration = Duration::from_secs(30);
/// Interval between probes after that. Whatever makes them fail may be gone within a minute.
const PROBE_INTERVAL: Duration = Duration::from_secs(20);

/// Enforces the target as far as possible and writes the status in any case. `unprotected`: why our finalizer is not on the Quarantine;
/// nothing is loosened then. `pending_cut`: makes other passes wait until the network is cut.
pub(super) async fn run(
    context: &Context,
    input: PassInput,
    unprotected: Option<IoError>,
    pending_cut: Option<PendingCut<'_>>,
) -> Result<Action, PassError> {
    let PassInput { quarantine, namespace, wanted, decided_at } = input;
    let name = quarantine.name_any();
    let before = quarantine.status.clone().unwrap_or_default();
    let settled =
        before.isolation == Some(wanted.level) && conditions::is_true(&before.conditions, conditions::READY);
    let is_held = wanted.held.is_some();
    let mut pass = Pass::new(wanted);
    let mut work = PassRun::new(context, &name, (quarantine, namespace), decided_at);
    work.pending_cut = pending_cut;
    let outcome = match (unprotected, pass.target.level) {
        (Some(error), Isolation::CleanRoom | Isolation::Open) => Err(error.into()),
        (Some(error), Isolation::Sealed | Isolation::Contained) => {
            work.report_failure(
                &mut pass,
                ControlName::Guard,
                QuarantineReason::FinalizerFailed,
                &error.into(),
            )
            .await;
            work.enforce(&mut pass).await
        }
        (None, _) => work.enforce(&mut pass).await,
    };
    match &outcome {
        // Another writer changed the object: neither a failure nor worth reporting.
        Err(error) if error.is_conflict() => return outcome,
        // The answer to a write of a loosening was lost. As with `is_between`, reporting a failure would revert what was granted.
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
    let reset_failures = |pass: &Pass| {
        if outcome.is_ok() && pass.failures.is_empty() {
            context.remember(&name, |memory| memory.failures = 0);
        }
    };
    if pass.is_between(before.isolation) {
        reset_failures(&pass);
        return outcome;
    }
    if outcome.is_ok() && pass.in_place.captured && pass.target.level < Isolation::CleanRoom {
        pass.deliverers =
            Some(gitops::suspend_sources(&context.client, &context.gitops, &work.quarantine).await);
    }
    let status = status::after(&work.quarantine, &pass, &context.cluster_state(), clock::now());
    let drift = if settled { work.drift } else { Vec::new() };
    write(context, &work.quarantine, status.clone()).await?;
    announce(context, &work.quarantine, &before, &status, drift).await;
    reset_failures(&pass);
    // A claim may wait for this change, and this controller's own status writes wake no pass.
    let has_changed =
        (before.isolation, conditions::find(&before.conditions, conditions::READY).map(state_of))
            != (status.isolation, conditions::find(&status.conditions, conditions::READY).map(state_of));
    if is_held && has_changed && outcome.is_ok() {
        return Ok(Action::requeue(Duration::ZERO));
    }
    if outcome.is_ok()
        && pass.target.level == Isolation::Open
        && pass.in_place.fenced
        && let Some(again) = cleanup::clean_up_later(context, &work.namespace).await
    {
        return Ok(Action::requeue(again));
    }
    outcome
}

/// Returns status and reason of a condition.
fn state_of(condition: &Condition) -> (&str, &str) {
    (&condition.status, &condition.reason)
}

struct PassRun<'a> {
    context: &'a Context,
    name: &'a str,
    quarantine: Quarantine,
    namespace: Namespace,
    /// Level in the status before the pass.
    before: Option<Isolation>,
    /// The namespace had the isolation label when it was read.
    was_labelled: bool,
    /// What had to be written.
    drift: Vec<String>,
    /// What was read of the namespace.
    observation: Observation,
    /// When the live read began on which the target is based.
    decided_at: Instant,
    /// Latest time of the next pass, if something asked for one.
    next_wake: Option<Duration>,
    /// Makes other passes wait while the network is not cut.
    pending_cut: Option<PendingCut<'a>>,
}

impl<'a> PassRun<'a> {
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
            was_labelled: namespace.labels().contains_key(ISOLATION_LABEL),
            quarantine,
            namespace,
            drift: Vec::new(),
            observation: Observation::default(),
            decided_at,
            next_wake: None,
            pending_cut: None,
        }
    }

    async fn enforce(&mut self, pass: &mut Pass) -> Result<Action, PassError> {
        let level = pass.target.level;
        match level {
            Isolation::Sealed | Isolation::Contained => return self.tighten(pass).await,
            Isolation::CleanRoom | Isolation::Open => {}
        }
        self.context.remember(self.name, |memory| memory.captured = None);
        let scope = self.verification_scope(level);
        let held = self.verified(&scope);
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
            let _permit = self.context.limits.acquire(next).await;
            let again = match next {
                NextAction::Label => self.label(pass).await?,
                NextAction::Probe => self.probe(pass, &scope).await?,
                NextAction::Network => self.network(pass).await?,
                NextAction::Done => {
                    Some(self.next_wake.map_or_else(|| self.requeue_idle(pass), Action::requeue))
                }
                // These actions belong to levels that tighten.
                NextAction::List
                | NextAction::Capture
                | NextAction::Stop
                | NextAction::AwaitPods
                | NextAction::Identity => Some(self.requeue_idle(pass)),
            };
            if let Some(again) = again {
                return Ok(again);
            }
        }
    }

    /// Returns the scope of a fence verification at this level.
    fn verification_scope(&self, level: Isolation) -> VerificationScope {
        // Opening is verified on one API server only.
        let servers = if level == Isolation::Open { 0 } else { self.context.servers.epoch() };
        VerificationScope {
            namespace: self.namespace.uid(),
            level,
            epoch: self.context.options.fence.state().epoch,
            servers,
        }
    }

    /// Returns the last successful verification if its scope is still the same.
    fn verified(&self, scope: &VerificationScope) -> Option<FenceVerification> {
        self.context
            .remember(self.name, |memory| memory.verification.clone())
            .filter(|held| held.scope == *scope)
    }

    /// Returns whether the last verification is recent enough.
    fn still_holds(&self, pass: &Pass, level: Isolation) -> bool {
        self.context.options.fence.state().drift.is_none()
            && pass.tried.is_some_and(|at| level == Isolation::Open || !self.is_due(at))
    }

    /// Returns the time of the last verification in the status, if still valid. After a restart, a renewed verification does not change
    /// the status.
    fn last_reported_verification(&self, level: Isolation) -> Option<Timestamp> {
        let is_first = self
            .context
            .remember(self.name, |memory| memory.verification.is_none() && memory.failed_probes.is_none());
        let status = self.quarantine.status.as_ref().filter(|_| is_first)?;
        status::last_verified(status, level).filter(|at| !self.is_due(*at))
    }

    /// Returns whether controls are due to be verified again.
    fn is_due(&self, tried: Timestamp) -> bool {
        self.time_until_due(tried).is_zero()
    }

    fn time_until_due(&self, tried: Timestamp) -> Duration {
        let since = Duration::try_from(clock::now().duration_since(tried)).unwrap_or_default();
        self.context.options.probe.interval.saturating_sub(since)
    }

    /// Requests another pass within this time.
    fn wake_within(&mut self, after: Duration) {
        self.next_wake = Some(self.next_wake.map_or(after, |before| before.min(after)));
    }

    /// Returns the requeue time of a pass that has nothing to do: the next verification or resync.
    fn requeue_idle(&self, pass: &Pass) -> Action {
        let open = pass.target.level == Isolation::Open;
        let left =
            pass.tried.filter(|_| !open).map(|tried| self.time_until_due(tried) + Duration::from_secs(1));
        Action::requeue(left.unwrap_or(RESYNC).min(RESYNC))
    }

    /// Returns whether a loosening that is about to be written is no longer wanted. Reads live, unless the decision is recent and the
    /// watch reports no change of the Quarantine since.
    async fn is_loosening_outdated(&mut self, pass: &Pass) -> Result<bool, PassError> {
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
        if self.is_loosening_outdated(pass).await? {
            return Ok(Some(Action::requeue(Duration::ZERO)));
        }
        let level = pass.target.level;
        if level == Isolation::CleanRoom {
            // Pod security is enforced before anything may start in the namespace.
            let privileged = pass.target.privileged;
            self.namespace = pod_security::enforce(&self.context.client, &self.namespace, privileged).await?;
        }
        let (lists, spec) = (&self.context.lists, &self.quarantine.spec);
        self.namespace = lists.mark(&self.namespace, spec, level).await?;
        pass.in_place.labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, level);
        self.drift.push(format!("label and annotations of namespace {}", self.name));
        Ok((!pass.in_place.labelled).then(|| Action::requeue(Duration::from_secs(1))))
    }

    /// Probes lock, fence and guard once; for Open, whether the fence admits writes. Returns whether the result is as wanted.
    async fn try_fence(&mut self, pass: &mut Pass, scope: &VerificationScope) -> bool {
        let servers = &self.context.servers;
        let probed = if scope.level == Isolation::Open {
            pass.closed = probe::is_open(servers, self.name).await.err();
            pass.in_place.fenced = pass.closed.is_none();
            ProbeReport::default()
        } else {
            let probed = probe::probe(servers, self.name, scope.level).await;
            let is_labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, scope.level);
            pass.in_place.fenced = if is_labelled { probed.holds() } else { probed.holds_except_lock() };
            probed
        };
        pass.probed = Some(probed.clone());
        let is_whole = scope.level == Isolation::Open || probed.holds();
        if pass.in_place.fenced && is_whole {
            let at =
                self.last_reported_verification(scope.level).unwrap_or_else(|| status::seconds(clock::now()));
            pass.tried = Some(at);
            let verification = Some(FenceVerification { scope: scope.clone(), at, probed });
            self.context.remember(self.name, |memory| {
                (memory.verification, memory.failed_probes) = (verification, None)
            });
        }
        if pass.in_place.fenced {
            self.time_to_fence(scope.level);
        }
        pass.in_place.fenced
    }

    /// Records the time from the creation of the Quarantine to the first verification of its fence.
    fn time_to_fence(&self, level: Isolation) {
        let is_new = self.before.is_none() && matches!(level, Isolation::Contained | Isolation::Sealed);
        let is_timed =
            self.context.remember(self.name, |memory| std::mem::replace(&mut memory.is_timed, true));
        if !is_new || is_timed {
            return;
        }
        // The namespace may be newer than its Quarantine.
        let created = |meta: &ObjectMeta| meta.creation_timestamp.as_ref().map(|at| at.0);
        let since = created(&self.quarantine.metadata).max(created(&self.namespace.metadata));
        if let Some(since) = since {
            let took = clock::now().duration_since(since);
            self.context.options.process.metrics.fenced(took.as_secs_f64());
        }
    }

    /// Records a failed verification. Returns when to retry; after [`PROBE_QUICKLY_FOR`], reports a failure.
    fn fence_not_verified(&mut self, pass: &mut Pass) -> Duration {
        let (since, tries) = self.context.remember(self.name, |memory| {
            memory.verification = None;
            let (since, tries) = memory.failed_probes.unwrap_or((Instant::now(), 0));
            memory.failed_probes = Some((since, tries.saturating_add(1)));
            (since, tries)
        });
        if since.elapsed() < PROBE_QUICKLY_FOR {
            return Duration::from_millis(5 * 2_u64.pow(tries.min(6)));
        }
        if let Some(probed) = &pass.probed {
            self.context.servers.leaks(self.name, probed);
        }
        let message =
            format!("tried for {} s: {}", PROBE_QUICKLY_FOR.as_secs(), status::unverified_fence(pass));
        pass.failure =
            Some(PassFailure { reason: QuarantineReason::FenceNotVerified, message, stalled: true });
        PROBE_INTERVAL
    }

    /// Probes lock, fence and guard as the last action of a loosening. Returns `None` on success, else when to retry.
    async fn probe(
        &mut self,
        pass: &mut Pass,
        scope: &VerificationScope,
    ) -> Result<Option<Action>, PassError> {
        if self.try_fence(pass, scope).await {
            return Ok(None);
        }
        Ok(Some(Action::requeue(self.fence_not_verified(pass))))
    }
}
