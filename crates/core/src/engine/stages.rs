//! Transitions of one service in one pass (DESIGN §3). A transition changes the status only; actions are effects, which begin once the
//! status is written.

use crate::api::{Isolation, Phase, Reason, Stage, StepPhase};
use crate::plan::{Plan, ServiceId};

use super::context::{ServiceContext, enforced, except};
use super::decisions::loosened;
use super::inspection::is_cleared;
use super::next::{Next, missing_quarantine, phases, time};
use super::phase_gates::{is_accepted_failure, passes};
use super::quarantines::open_original;
use super::ratchet::{self, Ratchet};
use super::room;
use super::slots::{UnitView, holds, isolated_again, satisfies_dependents};
use super::steps::{PhaseSteps, pending};
use super::{ClaimState, Effect, Observation, QuarantineObservation, QuarantineState, ServiceObservation};

/// Advances one service as far as one pass allows.
pub(super) fn advance(plan: &Plan, observed: &Observation, units: &[UnitView], id: ServiceId) -> Next {
    let of = &observed.services[id];
    let mut next = Next::unchanged(of);
    next.blocks.clear();
    next.status.isolation = loosest(of);
    let context = ServiceContext { plan, observed, unit: &units[plan.services[id].unit], id, of };
    if let Some(decision) = of.status.decision.as_ref().filter(|d| d.reason.is_latched()) {
        next.ask.clear();
        // External blockers are added again in each pass.
        next.blocks = of.status.blocked_by.iter().filter(|b| b.reason == decision.reason).cloned().collect();
        context.record_requirements(&mut next);
        if let Ratchet::Loosened { lost, .. } = ratchet::judge(plan, observed, id) {
            next.block(Reason::Loosened, &plan.services[id].name, loosened(&lost));
        }
        return next;
    }
    next.status.decision = None;
    if context.record_requirements(&mut next)
        || context.is_held(&mut next)
        || context.has_lost_claim(&mut next)
        || context.is_on_hold(&mut next)
        || context.is_loosened(&mut next)
        || context.is_superseded(&mut next)
        || context.has_lacking_control(&mut next)
    {
        return next;
    }
    if of.status.stage != Stage::Recovered && open_original(of).is_some() {
        // Nothing of it is started or loosened until the original is isolated; what it waits for is said with the other blockers.
        next.ask.clear();
        return next;
    }
    match of.status.stage {
        Stage::Isolated => context.isolated(&mut next),
        Stage::PreChecks => context.pre_checks(&mut next),
        Stage::Restoring => context.restoring(&mut next),
        Stage::PostChecks => context.post_checks(&mut next),
        Stage::Reconnecting => context.reconnecting(&mut next),
        Stage::Recovered => context.recovered(&mut next),
    }
    next
}

/// Returns the loosest isolation that the service's Quarantines enforce.
pub(super) fn loosest(of: &ServiceObservation) -> Option<Isolation> {
    of.quarantines.iter().filter_map(|q| q.found.as_ref()?.isolation).max()
}

impl ServiceContext<'_> {
    /// Records requirements that need no acceptance before anything else, and lists what people accepted as exceptions.
    fn record_requirements(&self, next: &mut Next) -> bool {
        for exception in ratchet::exceptions(self.observed, self.id) {
            except(next, exception);
        }
        let Ratchet::Records(records) = ratchet::judge(self.plan, self.observed, self.id) else {
            return false;
        };
        self.effect(next, Effect::Accept { records });
        // If the requirements cannot be recorded now, nothing advances, except that a recovered service is still monitored.
        next.effect.is_some() || self.of.status.stage != Stage::Recovered
    }

    fn isolated(&self, next: &mut Next) {
        if self.is_open_already(next) {
            return;
        }
        let attempt = self.of.status.attempt;
        let mine = |q: Option<&QuarantineState>| q.is_some_and(|q| q.claim == ClaimState::Mine { attempt });
        // A unit that has not begun may owe its slot to a write in progress for a member. The others wait for that write.
        if !self.unit.go || self.members().any(|(_, m)| m.busy) {
            return;
        }
        if found(self.of).all(mine) {
            next.status.stage = Stage::PreChecks;
            next.status.claimed_at = Some(time(self.observed.now));
            next.status.compromised_since = self.observed.compromised_since.map(time);
            self.note_missing_dependencies(next);
            next.ask = phases(Stage::PreChecks).to_vec();
        } else {
            self.effect(next, Effect::Claim { attempt });
        }
    }

    /// Lists the optional dependencies that the service goes on without.
    fn note_missing_dependencies(&self, next: &mut Next) {
        let unit = &self.plan.units[self.service().unit];
        for &id in unit.optional.iter().filter(|&&id| !satisfies_dependents(self.plan, self.observed, id)) {
            let by = self.observed.services[id].status.held_up_by.as_deref().unwrap_or_default();
            let name = &self.plan.services[id].name;
            except(next, &format!("started without {name}, which was held up by {by}"));
        }
    }

    fn pre_checks(&self, next: &mut Next) {
        self.check_workloads(next);
        let mut asked = self.ask(next, Phase::BeforeRestore);
        asked.passed &= is_cleared(self.plan, self.of, self.id);
        let all = self.members().all(|(id, m)| {
            m.status.stage > Stage::PreChecks
                || (m.status.stage == Stage::PreChecks
                    && passes(self.plan, m, id, Phase::BeforeRestore)
                    && is_cleared(self.plan, m, id))
        });
        if asked.passed && !all {
            self.wait_for_group(next, Stage::PreChecks, Phase::BeforeRestore);
        }
        if asked.passed && all && self.unit.go {
            asked.record(next, Phase::BeforeRestore);
            let not_started = self.of.inspection.iter().flat_map(|found| &found.not_started);
            not_started.for_each(|workload| except(next, workload));
            if self.service().namespaces.is_empty() {
                next.status.stage = Stage::PostChecks;
            } else {
                next.status.stage = Stage::Restoring;
                // The first step's intent is written with the stage, which saves a write.
                next.status.steps =
                    pending(&self.service().steps, &next.status.begun_before, self.observed.now);
            }
            next.ask = phases(next.status.stage).to_vec();
        }
    }

    fn restoring(&self, next: &mut Next) {
        match self.asked() {
            Some(Isolation::CleanRoom) => self.restore(next),
            Some(Isolation::Sealed | Isolation::Contained | Isolation::Open) | None => {
                self.enter_clean_room(next)
            }
        }
    }

    /// Requests sealing with capture first, and then, once every gate of every member has passed in this attempt, the clean room.
    fn enter_clean_room(&self, next: &mut Next) {
        let asked = self.ask(next, Phase::BeforeRestore);
        if !self.enforced(Isolation::Sealed) {
            if self.asked() == Some(Isolation::Sealed) {
                self.wait_for_isolation(next, Isolation::Sealed);
            } else {
                self.effect(next, self.asking(Isolation::Sealed));
            }
            return;
        }
        let ready = |id: ServiceId, m: &ServiceObservation| {
            let in_clean_room =
                m.asked.is_some_and(|a| a.attempt == m.status.attempt && a.isolation >= Isolation::CleanRoom);
            m.status.stage > Stage::Restoring
                || (m.status.stage == Stage::Restoring
                    && (in_clean_room
                        || (passes(self.plan, m, id, Phase::BeforeRestore)
                            && enforced(m, Isolation::Sealed))))
        };
        if asked.passed && self.unit.go {
            if self.members().all(|(id, m)| ready(id, m)) {
                self.effect(next, self.asking(Isolation::CleanRoom));
            } else {
                self.wait_for_group(next, Stage::Restoring, Phase::BeforeRestore);
            }
        }
    }

    /// Runs the steps in the clean room, after those of the members that come first.
    fn restore(&self, next: &mut Next) {
        next.ask.clear();
        if !self.enforced(Isolation::CleanRoom) {
            self.wait_for_isolation(next, Isolation::CleanRoom);
            return;
        }
        for &before in &self.service().steps_after {
            let other = &self.observed.services[before];
            if !(other.status.stage > Stage::Restoring || self.has_restored(before)) {
                next.block(Reason::WaitingForSteps, &self.plan.services[before].name, "its steps come first");
                return;
            }
        }
        if self.run_steps(next, StepPhase::CleanRoom) == PhaseSteps::Succeeded {
            next.status.stage = Stage::PostChecks;
            next.ask = phases(Stage::PostChecks).to_vec();
        }
    }

    fn post_checks(&self, next: &mut Next) {
        let asked = self.ask(next, Phase::BeforeRelease);
        if !asked.passed || !self.unit.go {
            return;
        }
        if self.all_releasable() {
            asked.record(next, Phase::BeforeRelease);
            next.status.stage = Stage::Reconnecting;
        } else {
            self.wait_for_group(next, Stage::PostChecks, Phase::BeforeRelease);
        }
    }

    /// Returns whether all members of the unit can be opened. They are opened together.
    fn all_releasable(&self) -> bool {
        self.members().all(|(id, m)| {
            let opened =
                m.asked.is_some_and(|a| a.attempt == m.status.attempt && a.isolation == Isolation::Open);
            m.status.stage == Stage::Recovered
                || (m.status.stage >= Stage::PostChecks
                    && (opened || passes(self.plan, m, id, Phase::BeforeRelease)))
        })
    }

    fn reconnecting(&self, next: &mut Next) {
        if self.asked() == Some(Isolation::Open) {
            if !self.enforced(Isolation::Open) {
                self.wait_for_isolation(next, Isolation::Open);
            } else if self.run_steps(next, StepPhase::AfterRelease) == PhaseSteps::Succeeded {
                self.recover(next);
            }
            return;
        }
        let asked = self.ask(next, Phase::BeforeRelease);
        if asked.passed && self.unit.go {
            if !self.all_releasable() {
                self.wait_for_group(next, Stage::Reconnecting, Phase::BeforeRelease);
            } else if self.service().namespaces.is_empty() {
                self.recover(next);
            } else {
                self.effect(next, self.asking(Isolation::Open));
            }
        }
    }

    fn recover(&self, next: &mut Next) {
        next.status.stage = Stage::Recovered;
        next.status.recovered_at = Some(time(self.observed.now));
        if let Some(reason) = &self.service().ungated {
            except(next, &format!("ungated: {reason}"));
        }
        for lost in self.of.quarantines.iter().filter_map(lost_pods) {
            except(next, &lost);
        }
        next.ask = phases(Stage::Recovered).to_vec();
    }

    pub(super) fn recovered(&self, next: &mut Next) {
        if let Some(namespace) = isolated_again(self.of) {
            let message =
                format!("namespace {namespace} was isolated again: retry brings it back through its gates");
            self.need(next, Reason::IsolatedAgain, namespace, &message, None);
            return;
        }
        for gate in self.service().gates_of(Phase::Continuous) {
            let name = &gate.spec.name;
            let Some(state) = self.of.gates.get(&gate.key) else { continue };
            next.wake.extend(state.changes_at);
            if state.failed && is_accepted_failure(self.of, gate) {
                continue;
            }
            if state.failed {
                if self.contains(next, gate, state) {
                    return;
                }
                let anew = if state.is_judged_anew {
                    ". The service is what it was when the gate passed: what is approved has changed"
                } else {
                    ""
                };
                let message = format!("continuous gate '{name}' fails: {}{anew}", state.message);
                self.need(next, Reason::Regressed, name, &message, None);
            } else if state.is_overdue {
                let message = format!(
                    "continuous gate '{name}' has no answer since {}, so dependents wait: {}. It clears by itself; Retry isolates the service",
                    time(state.since).0,
                    state.message
                );
                self.need(next, Reason::GateUnknown, name, &message, None);
            }
        }
    }

    fn wait_for_isolation(&self, next: &mut Next, level: Isolation) {
        for q in &self.of.quarantines {
            match &q.found {
                None => next.block(Reason::QuarantineMissing, &q.namespace, missing_quarantine(&q.namespace)),
                Some(found) if !(holds(self.of, &q.namespace, found) && found.isolation == Some(level)) => {
                    let message =
                        format!("{} is on its way to {}: {}", q.namespace, level.as_str(), found.message);
                    next.block(Reason::Isolation, &q.namespace, message);
                }
                Some(_) => {}
            }
        }
    }

    fn wait_for_group(&self, next: &mut Next, stage: Stage, phase: Phase) {
        for (id, member) in self.members() {
            let behind = member.status.stage < stage
                || (member.status.stage == stage && !passes(self.plan, member, id, phase));
            if id != self.id && behind {
                let message =
                    format!("goes together with this one, and is at {}", member.status.stage.as_str());
                next.block(Reason::WaitingForGroup, &self.plan.services[id].name, message);
            }
        }
    }

    pub(super) fn asking(&self, isolation: Isolation) -> Effect {
        let dependencies = self.plan.dependency_keys(self.id);
        let reachable = if isolation == Isolation::CleanRoom {
            room::wanted(self.plan, self.observed, self.id).reachable
        } else {
            Vec::new()
        };
        Effect::Ask { isolation, attempt: self.of.status.attempt, reachable, dependencies }
    }
}

/// Returns the message about pods that were stopped and that no workload recreates: their owners have to start them.
fn lost_pods(quarantine: &QuarantineObservation) -> Option<String> {
    let pods = &quarantine.found.as_ref().filter(|found| !found.unmanaged_pods.is_empty())?.unmanaged_pods;
    let text = format!(
        "namespace {}: pods were stopped that no workload brings back: {}",
        quarantine.namespace,
        pods.join(", ")
    );
    Some(crate::api::conditions::shorten(&text, 600))
}

/// Returns the Quarantines of a service, `None` for a missing one.
fn found(of: &ServiceObservation) -> impl Iterator<Item = Option<&QuarantineState>> {
    of.quarantines.iter().map(|q| q.found.as_ref())
}
