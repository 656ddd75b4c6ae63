//! One pass: as far as it gets towards the target, then the status. Where isolation tightens, each control is enforced by itself: one
//! that fails is reported and tried again, and the next ones proceed. Where it loosens, the first failure ends the pass.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use kube::runtime::controller::Action;

use super::context::Uncut;
use super::{Context, Held, PassError, RESYNC, Seal, announce, gitops, wanted, write};
use crate::api::quarantine::ControlName;
use crate::api::{ISOLATION_LABEL, Isolation, Quarantine, QuarantineReason, conditions};
use crate::calls::IoError;
use crate::clock;
use crate::isolation::controls::{legacy, pod_security, pods, quota};
use crate::isolation::egress_exceptions;
use crate::isolation::identity::{self, Mark};
use crate::isolation::label;
use crate::isolation::network::{self, Before, NetworkError, Room, Written};
use crate::isolation::observation::Observation;
use crate::isolation::other_policies;
use crate::isolation::pass::{Pass, PassFailure};
use crate::isolation::probe::{self, Probed};
use crate::isolation::status;
use crate::isolation::target::{self, Next, Target};

mod tighten;

/// How long the fence is tried in quick succession before that counts as failed. Labels take effect within milliseconds.
const PROBING: Duration = Duration::from_secs(30);
/// Then it is tried this often: what stands in the way may be gone within a minute.
const PROBE_SLOWLY: Duration = Duration::from_secs(20);

/// Goes as far as it gets towards what is wanted, and writes the status, whatever came of it. `unprotected`: why our finalizer is not
/// on the Quarantine. Nothing is loosened then. `uncut`: others let it go first until its network is cut.
pub(super) async fn run(
    context: &Context,
    quarantine: Quarantine,
    namespace: Namespace,
    wanted: Target,
    unprotected: Option<IoError>,
    uncut: Option<Uncut<'_>>,
) -> Result<Action, PassError> {
    let name = quarantine.name_any();
    let before = quarantine.status.clone().unwrap_or_default();
    let settled =
        before.isolation == Some(wanted.level) && conditions::is_true(&before.conditions, conditions::READY);
    let is_held = wanted.held.is_some();
    let mut pass = Pass::new(wanted);
    let marked = namespace.labels().contains_key(ISOLATION_LABEL);
    let mut work = Work {
        context,
        name: &name,
        quarantine,
        namespace,
        before: before.isolation,
        marked,
        drift: Vec::new(),
        observation: Observation::default(),
        again: None,
        uncut,
    };
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
    /// When the next pass is due at the latest, where something asked for one.
    again: Option<Duration>,
    /// Others let it go first for as long as this is there.
    uncut: Option<Uncut<'a>>,
}

impl Work<'_> {
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
            let next = pass.next();
            let _turn = self.context.turns.take(next).await;
            let again = match next {
                Next::Label => self.label(pass).await?,
                Next::Probe => self.probe(pass, &seal).await?,
                Next::Network => self.network(pass).await?,
                Next::Done => Some(self.again.map_or_else(|| self.rest(pass), Action::requeue)),
                // No level that loosens wants these.
                Next::List | Next::Capture | Next::Stop | Next::AwaitPods | Next::Identity => {
                    Some(self.rest(pass))
                }
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

    /// Right before anything is let in or out: is it still wanted?
    async fn loosened_in_vain(&self, pass: &Pass) -> Result<bool, PassError> {
        let label = self.namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
        Ok(target::loosens(self.before, pass.target.level)
            && !wanted::still_wanted(self.context, &self.quarantine, &pass.target, label).await?)
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
            Probed::default()
        } else {
            let probed = probe::probe(servers, self.name, seal.level).await;
            let is_labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, seal.level);
            pass.in_place.fenced = if is_labelled { probed.holds() } else { probed.holds_but_for_the_lock() };
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

    /// The network of a level that loosens.
    async fn network(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let (client, level) = (&self.context.client, pass.target.level);
        let uid = self.quarantine.uid().unwrap_or_default();
        // Let out of the sealing before that had come to its end.
        if self.before == Some(Isolation::Sealed) {
            identity::complete(client, self.name, &uid).await?;
        }
        if level == Isolation::Open {
            if self.loosened_in_vain(pass).await? {
                return Ok(Some(Action::requeue(Duration::ZERO)));
            }
            self.namespace = restore(client, &self.namespace, &uid).await?;
            pass.in_place.network = true;
        } else {
            pass.egress_exceptions = egress_exceptions::find(client, &pass.target.allow_egress).await?;
            let exceptions = pass.egress_exceptions.iter().filter_map(|exception| exception.rule.clone());
            let room =
                Room { reachable: pass.target.reachable.clone(), egress_exceptions: exceptions.collect() };
            self.write_network(pass, Some(&room)).await?;
        }
        Ok(None)
    }

    /// Writes the network policies, and reads back what came of it.
    async fn write_network(&mut self, pass: &mut Pass, room: Option<&Room>) -> Result<(), PassError> {
        let written = self.write_policies(room).await;
        let observed = self.observe_network(pass, room, written.as_ref().ok().cloned()).await;
        written?;
        observed
    }

    /// Writes the network policies.
    async fn write_policies(&mut self, room: Option<&Room>) -> Result<Written, NetworkError> {
        let uid = self.namespace.uid().unwrap_or_default();
        let written =
            network::isolate(&self.context.client, self.name, &uid, room, self.fenced_before()).await;
        if written.as_ref().is_ok_and(|written| written.changed) {
            self.drift.push("network policies".to_owned());
            self.context.options.network.changed();
        }
        written
    }

    /// Fenced since the last pass, and without a break?
    fn fenced_before(&self) -> Before {
        match self.before {
            Some(Isolation::Contained | Isolation::Sealed | Isolation::CleanRoom) if self.marked => {
                Before::Isolated
            }
            _ => Before::Open,
        }
    }

    /// Reads what there is of the network, unless what was read before anything was written (`written`) still says it.
    async fn observe_network(
        &mut self,
        pass: &mut Pass,
        room: Option<&Room>,
        written: Option<Written>,
    ) -> Result<(), PassError> {
        let client = self.context.client.clone();
        let there = match written.and_then(|written| written.there) {
            Some(there) => Ok(there),
            None => network::list(&client, self.name, Before::Open).await,
        };
        pass.other_policies = other_policies::observe(
            &client,
            &self.context.other_policies,
            &self.namespace,
            &self.context.options.accepted_policies,
        )
        .await;
        if !pass.other_policies.is_cut() {
            self.wake_within(other_policies::RECHECK);
        }
        let on_node_network = pods::on_node_network(&client, self.name).await;
        pass.host_network_pods = on_node_network.as_ref().ok().cloned().unwrap_or_default();
        let observed = there.map(|there| network::Observed::new(&there, &network::wanted(self.name, room)));
        pass.in_place.network = observed.as_ref().is_ok_and(network::Observed::holds);
        pass.network = observed.as_ref().ok().cloned();
        self.observation.network = observed.as_ref().ok().cloned();
        observed?;
        on_node_network?;
        Ok(())
    }
}

/// Puts back what isolating changed, but for what it stopped. Returns the namespace as it is then.
pub(super) async fn restore(
    client: &kube::Client,
    namespace: &Namespace,
    seal: &str,
) -> Result<Namespace, PassError> {
    let (name, uid) = (namespace.name_any(), namespace.uid().unwrap_or_default());
    network::release(client, &name, &uid).await?;
    legacy::restore(client, &name, seal).await?;
    identity::unmark(client, &name).await?;
    quota::restore(client, &name).await?;
    Ok(pod_security::restore(client, namespace).await?)
}
