//! One service, one look: the transitions of DESIGN §3. A transition changes the status only; what acts is an effect, begun
//! when the status has been written.

use serde::Serialize;
use sha2::{Digest, Sha256};

use crate::api::service_recovery::{AcceptedControl, DecisionNeeded, GateStatus, StepState, StepStatus};
use crate::api::{Action, DnsLabel, Isolation, Phase, Reason, Stage, Verdict};
use crate::plan::{Plan, ServiceId};

use super::next::{Next, missing_quarantine, phases, time};
use super::ratchet::{self, Ratchet};
use super::room;
use super::slots::{UnitView, held, holds, isolated_again};
use super::{
    ClaimState, DecisionObservation, Effect, Observation, QuarantineObservation, QuarantineState,
    ServiceObservation, StepOutcome,
};

/// As many exceptions and accepted controls as a status holds.
const EXCEPTIONS_LIMIT: usize = 16;
const ACCEPTED_LIMIT: usize = 32;

/// Takes one service as far as one look allows.
pub(super) fn advance(plan: &Plan, seen: &Observation, units: &[UnitView], id: ServiceId) -> Next {
    let of = &seen.services[id];
    let mut next = Next::unchanged(of);
    next.blocks.clear();
    next.status.isolation = loosest(of);
    let at = At { plan, seen, unit: &units[plan.services[id].unit], id, of };
    if let Some(decision) = of.status.decision.as_ref().filter(|d| d.reason.is_latched()) {
        next.ask.clear();
        // What is wrong around it is told anew at each look.
        next.blocks = of.status.blocked_by.iter().filter(|b| b.reason == decision.reason).cloned().collect();
        at.records_requirements(&mut next);
        if let Ratchet::Loosened { lost, .. } = ratchet::judge(plan, seen, id) {
            next.block(Reason::Loosened, &plan.services[id].name, loosened(&lost));
        }
        return next;
    }
    next.status.decision = None;
    if at.records_requirements(&mut next)
        || at.is_held(&mut next)
        || at.lost_its_claim(&mut next)
        || at.is_loosened(&mut next)
        || at.lacks_a_control(&mut next)
    {
        return next;
    }
    match of.status.stage {
        Stage::Isolated => at.isolated(&mut next),
        Stage::PreChecks => at.pre_checks(&mut next),
        Stage::Restoring => at.restoring(&mut next),
        Stage::PostChecks => at.post_checks(&mut next),
        Stage::Reconnecting => at.reconnecting(&mut next),
        Stage::Recovered => at.recovered(&mut next),
    }
    next
}

/// The loosest isolation that its Quarantines enforce.
fn loosest(of: &ServiceObservation) -> Option<Isolation> {
    of.quarantines.iter().filter_map(|q| q.found.as_ref()?.isolation).max()
}

/// One service in its plan.
struct At<'a> {
    plan: &'a Plan,
    seen: &'a Observation,
    unit: &'a UnitView,
    id: ServiceId,
    of: &'a ServiceObservation,
}

/// What the gates of one phase say together.
struct Asked {
    passed: bool,
    statuses: Vec<GateStatus>,
}

impl At<'_> {
    fn service(&self) -> &crate::plan::Service {
        &self.plan.services[self.id]
    }

    fn members(&self) -> impl Iterator<Item = (ServiceId, &ServiceObservation)> {
        self.plan.units[self.service().unit].members.iter().map(|&m| (m, &self.seen.services[m]))
    }

    /// Has the Quarantine of every namespace reached this level, with all that belongs to it?
    fn enforced(&self, level: Isolation) -> bool {
        enforced(self.of, level)
    }

    /// A control does not hold, and nobody has accepted that in this attempt: it goes no further. A fitting Decision accepts
    /// just that, and from then on it is an exception.
    fn lacks_a_control(&self, next: &mut Next) -> bool {
        let begins = self.of.status.stage == Stage::Isolated;
        let its_turn = self.unit.unmet.is_empty() && self.service().problems.is_empty() && !self.plan.suspend;
        if self.of.status.stage == Stage::Recovered || (begins && !its_turn) {
            return false;
        }
        let lacking: Vec<AcceptedControl> = self
            .of
            .quarantines
            .iter()
            .filter_map(|q| Some((q, q.found.as_ref()?)))
            .filter(|(q, found)| !holds(self.of, &q.namespace, found))
            .filter_map(|(q, found)| {
                Some(AcceptedControl { namespace: DnsLabel(q.namespace.clone()), control: found.lacking? })
            })
            .collect();
        let Some(first) = lacking.first() else { return false };
        let why = self.of.quarantines.iter().find(|q| q.namespace == first.namespace.0);
        let why = why.and_then(|q| q.found.as_ref()).map_or("", |found| &found.message);
        let which = lacking
            .iter()
            .map(|l| format!("{}/{:?}", l.namespace.0, l.control))
            .collect::<Vec<_>>()
            .join(", ");
        let message = format!("{why}. Override goes on without that control, as an exception");
        self.need(next, Reason::ControlNotEnforced, &which, &message, Some(&which));
        let Some(needed) = next.status.decision.as_mut() else { return true };
        needed.actions = vec![Action::Override];
        let fits = |d: &&DecisionObservation| d.action == Action::Override && d.decided_on == needed.digest;
        if let Some(decision) = self.of.decisions.iter().find(fits) {
            let exception = format!(
                "not enforced: {which}: accepted by {} (Decision {}): {}",
                decision.by, decision.name, decision.reason
            );
            next.status.decision = None;
            next.blocks.clear();
            next.status.accepted.extend(lacking);
            next.status.accepted.truncate(ACCEPTED_LIMIT);
            next.status.exceptions.push(crate::api::conditions::shorten(&exception, 600));
            next.status.exceptions.truncate(EXCEPTIONS_LIMIT);
        }
        true
    }

    /// Requirements that nobody has to accept are recorded before anything else is done. What people accepted is an exception.
    fn records_requirements(&self, next: &mut Next) -> bool {
        for exception in ratchet::exceptions(self.seen, self.id) {
            except(next, exception);
        }
        let Ratchet::Records(records) = ratchet::judge(self.plan, self.seen, self.id) else { return false };
        self.effect(next, Effect::Accept { records });
        // Where they cannot be recorded just now nothing moves. What is recovered is looked after all the same.
        next.effect.is_some() || self.of.status.stage != Stage::Recovered
    }

    /// The plan requires less than was last accepted: nothing is loosened any further until a person has accepted just that, and
    /// from then on it is an exception. What is recovered stays so; who isolated it again, or which of its gates fails, comes first.
    fn is_loosened(&self, next: &mut Next) -> bool {
        let Ratchet::Loosened { lost, before, records } = ratchet::judge(self.plan, self.seen, self.id)
        else {
            // Nothing is on record that could be compared: nothing moves.
            return false;
        };
        if self.of.status.stage == Stage::Recovered {
            self.recovered(next);
        }
        let message = format!(
            "{}. AcceptLoosening takes the verb acceptloosening on recoveryplans/{} in namespace {}; or put it back in the plan",
            loosened(&lost),
            self.plan.name,
            self.plan.namespace
        );
        let evidence = digest(&(&before, &*self.service().requirements));
        self.need(next, Reason::Loosened, &self.service().name, &message, Some(&evidence));
        let Some(needed) = next.status.decision.as_mut().filter(|needed| needed.reason == Reason::Loosened)
        else {
            return true;
        };
        needed.actions = vec![Action::AcceptLoosening];
        let fits =
            |d: &&DecisionObservation| d.action == Action::AcceptLoosening && d.decided_on == needed.digest;
        if let Some(decision) = self.of.decisions.iter().find(fits) {
            let by = format!("{} (Decision {})", decision.by, decision.name);
            let what = crate::api::conditions::shorten(&lost.join("; "), 300);
            let exception = format!("loosened: {what}: accepted by {by}: {}", decision.reason);
            let exception = crate::api::conditions::shorten(&exception, 600);
            next.status.decision = None;
            next.blocks.retain(|block| block.reason != Reason::Loosened);
            except(next, &exception);
            let records = ratchet::accepted_by(records, &by, &exception);
            self.effect(next, Effect::Accept { records });
        }
        true
    }

    /// What its workloads ask of their node is looked at once in each attempt, before anything of it starts.
    fn looks_at_host_access(&self, next: &mut Next) {
        if has_host_clearance(self.plan, self.of, self.id) {
            return;
        }
        let Some(found) = &self.of.host_access else {
            // Until it has been looked at again, what was found before stands.
            let before =
                self.of.status.decision.as_ref().filter(|before| before.reason == Reason::HostAccess);
            if next.status.decision.is_none() && before.is_some() {
                next.status.decision = before.cloned();
                next.blocks.extend(
                    self.of.status.blocked_by.iter().filter(|b| b.reason == Reason::HostAccess).cloned(),
                );
            }
            self.effect(next, Effect::LookAtHostAccess { attempt: self.of.status.attempt });
            return;
        };
        let culprit = found.first().map_or("", String::as_str);
        let more = if found.len() > 1 { format!(" (and {} more)", found.len() - 1) } else { String::new() };
        let message = format!(
            "{}{more}: Pod Security baseline forbids it. Mend it and Retry, or list cleanRoom.hostAccess in the plan and accept that",
            crate::api::conditions::shorten(culprit, 300)
        );
        self.need(next, Reason::HostAccess, &self.service().name, &message, Some(&digest(found)));
    }

    fn asked(&self) -> Option<Isolation> {
        self.of.asked.filter(|asked| asked.attempt == self.of.status.attempt).map(|asked| asked.isolation)
    }

    /// Somebody on call holds a namespace of it, or did: what it was on its way to was taken back, and it begins anew.
    fn is_held(&self, next: &mut Next) -> bool {
        let recovered = self.of.status.stage == Stage::Recovered;
        if let Some((namespace, level)) = held(self.of) {
            let message = format!(
                "namespace {namespace} is held at {}: who may release quarantines/{namespace} ends that by taking spec.hold away",
                level.as_str()
            );
            self.need(next, Reason::Held, namespace, &message, None);
            // No Decision moves what the Quarantine itself holds.
            next.status.decision.iter_mut().for_each(|decision| decision.actions.clear());
            if !recovered {
                next.ask.clear();
            }
            return true;
        }
        let was = |q: &&QuarantineObservation| q.found.as_ref().is_some_and(|found| found.overruled);
        if recovered || self.of.status.stage == Stage::Isolated {
            return false;
        }
        let Some(was) = self.of.quarantines.iter().find(was) else { return false };
        let namespace = &was.namespace;
        let message = format!(
            "namespace {namespace} was held while this attempt was under way: retry brings it back through its gates"
        );
        self.need(next, Reason::IsolatedAgain, namespace, &message, None);
        next.ask.clear();
        true
    }

    /// Under way, and a namespace is not claimed for it: its Quarantine was made anew, or the plan names another namespace
    /// than when this attempt began. Nothing was proved of that one.
    fn lost_its_claim(&self, next: &mut Next) -> bool {
        if matches!(self.of.status.stage, Stage::Isolated | Stage::Recovered) {
            return false;
        }
        let mine = ClaimState::Mine { attempt: self.of.status.attempt };
        let is_lost = |found: &QuarantineState| found.claim != mine;
        let Some(lost) = self.of.quarantines.iter().find(|q| q.found.as_ref().is_some_and(is_lost)) else {
            return false;
        };
        let namespace = &lost.namespace;
        let message =
            format!("namespace {namespace} is not claimed for this attempt any more: retry claims it anew");
        self.need(next, Reason::ClaimLost, namespace, &message, None);
        next.ask.clear();
        true
    }

    /// Its namespace is open, and nobody has decided about it in this plan: the plan bears another name than the one that
    /// recovered it, or somebody deleted its ServiceRecovery. What runs is not stopped for that.
    fn is_open_already(&self, next: &mut Next) -> bool {
        let decided =
            self.of.status.history.first().is_some_and(|past| past.reason != Reason::PlanReplaced.as_str());
        let is_open = |found: &QuarantineState| found.isolation == Some(Isolation::Open);
        let open = self.of.quarantines.iter().find(|q| q.found.as_ref().is_some_and(is_open));
        let Some(open) = open.filter(|_| !decided) else { return false };
        let namespace = &open.namespace;
        let message = format!(
            "namespace {namespace} is open already: retry seals it and brings it back through its gates"
        );
        self.need(next, Reason::AlreadyOpen, namespace, &message, None);
        true
    }

    fn isolated(&self, next: &mut Next) {
        if self.is_open_already(next) {
            return;
        }
        let attempt = self.of.status.attempt;
        let mine = |q: Option<&QuarantineState>| q.is_some_and(|q| q.claim == ClaimState::Mine { attempt });
        // A unit that has not begun may have its slot only because a member is just being written: the others wait for that.
        if !self.unit.go || self.members().any(|(_, m)| m.busy) {
            return;
        }
        if found(self.of).all(mine) {
            next.status.stage = Stage::PreChecks;
            next.status.claimed_at = Some(time(self.seen.now));
            next.ask = phases(Stage::PreChecks).to_vec();
        } else {
            self.effect(next, Effect::Claim { attempt });
        }
    }

    fn pre_checks(&self, next: &mut Next) {
        self.looks_at_host_access(next);
        let mut asked = self.ask(next, Phase::BeforeRestore);
        asked.passed &= has_host_clearance(self.plan, self.of, self.id);
        let all = self.members().all(|(id, m)| {
            m.status.stage > Stage::PreChecks
                || (m.status.stage == Stage::PreChecks
                    && passes(self.plan, m, id, Phase::BeforeRestore)
                    && has_host_clearance(self.plan, m, id))
        });
        if asked.passed && !all {
            self.wait_for_group(next, Stage::PreChecks, Phase::BeforeRestore);
        }
        if asked.passed && all && self.unit.go {
            keep(&mut next.status.gates, Phase::BeforeRestore, asked.statuses);
            if self.service().namespaces.is_empty() {
                next.status.stage = Stage::PostChecks;
            } else {
                next.status.stage = Stage::Restoring;
                // The first step's intent is written along: one write less.
                next.status.steps = self.service().steps.iter().map(|s| pending(&s.name)).collect();
                if let Some(first) = next.status.steps.first_mut() {
                    first.state = StepState::Running;
                }
            }
            next.ask = phases(next.status.stage).to_vec();
        }
    }

    fn restoring(&self, next: &mut Next) {
        match self.asked() {
            Some(Isolation::CleanRoom) => self.steps(next),
            Some(Isolation::Sealed | Isolation::Contained | Isolation::Open) | None => {
                self.enter_clean_room(next)
            }
        }
    }

    /// Sealed first, captured; then, with every gate of every member passed in this attempt, the clean room.
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

    /// In the clean room: steps, in order, each with its intent written first.
    fn steps(&self, next: &mut Next) {
        next.ask.clear();
        if !self.enforced(Isolation::CleanRoom) {
            self.wait_for_isolation(next, Isolation::CleanRoom);
            return;
        }
        for &before in &self.service().steps_after {
            let other = &self.seen.services[before].status;
            let done = other.stage > Stage::Restoring
                || (!other.steps.is_empty() && other.steps.iter().all(|s| s.state == StepState::Done));
            if !done {
                next.block(Reason::Steps, &self.plan.services[before].name, "its steps come first");
                return;
            }
        }
        let names = self.service().steps.iter().map(|step| step.name.as_str());
        if !names.eq(next.status.steps.iter().map(|step| step.name.as_str())) {
            let message =
                "the plan's steps changed while they were being carried out: retry carries out those of now";
            self.need(next, Reason::StepsChanged, &self.service().name, message, None);
            return;
        }
        for (index, step) in next.status.steps.iter_mut().enumerate() {
            if step.state == StepState::Running {
                match self.of.steps.get(&index) {
                    Some(StepOutcome::Done) => step.state = StepState::Done,
                    Some(StepOutcome::Failed(message)) => {
                        step.state = StepState::Failed;
                        step.message = crate::api::conditions::shorten(message, 512);
                    }
                    Some(StepOutcome::Again { message, .. }) => {
                        step.message = crate::api::conditions::shorten(message, 512);
                    }
                    None => {}
                }
            }
        }
        let Some((index, step)) = next
            .status
            .steps
            .iter()
            .enumerate()
            .find(|(_, s)| s.state != StepState::Done)
            .map(|(i, s)| (i, s.clone()))
        else {
            next.status.stage = Stage::PostChecks;
            next.ask = phases(Stage::PostChecks).to_vec();
            return;
        };
        let effect = Effect::Step {
            index,
            attempt: self.of.status.attempt,
            dependencies: self.plan.dependencies_of(self.id),
        };
        match step.state {
            StepState::Failed => self.need(next, Reason::StepFailed, &step.name, &step.message, None),
            StepState::Pending if self.unit.go => {
                next.status.steps[index].state = StepState::Running;
                self.effect(next, effect);
            }
            StepState::Running if self.unit.go => match self.of.steps.get(&index) {
                Some(StepOutcome::Again { message, at }) => {
                    next.block(Reason::StepAgain, &step.name, message.clone());
                    next.wake.push(*at);
                    if *at <= self.seen.now {
                        self.effect(next, effect);
                    }
                }
                Some(StepOutcome::Done | StepOutcome::Failed(_)) | None => self.effect(next, effect),
            },
            StepState::Pending | StepState::Running | StepState::Done => {}
        }
    }

    fn post_checks(&self, next: &mut Next) {
        let asked = self.ask(next, Phase::BeforeRelease);
        if !asked.passed || !self.unit.go {
            return;
        }
        if self.all_releasable() {
            keep(&mut next.status.gates, Phase::BeforeRelease, asked.statuses);
            next.status.stage = Stage::Reconnecting;
        } else {
            self.wait_for_group(next, Stage::PostChecks, Phase::BeforeRelease);
        }
    }

    /// One opens when all can.
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
            if self.enforced(Isolation::Open) {
                self.recover(next);
            } else {
                self.wait_for_isolation(next, Isolation::Open);
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
        next.status.recovered_at = Some(time(self.seen.now));
        if let Some(reason) = &self.service().ungated {
            except(next, &format!("ungated: {reason}"));
        }
        for lost in self.of.quarantines.iter().filter_map(lost_pods) {
            except(next, &lost);
        }
        next.ask = phases(Stage::Recovered).to_vec();
    }

    fn recovered(&self, next: &mut Next) {
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
            if state.failed {
                let message = format!("continuous gate '{name}' fails: {}", state.message);
                self.need(next, Reason::Regressed, name, &message, None);
            }
        }
    }

    /// Asks the gates of a phase; says what blocks; a gate that failed for good needs a Decision.
    fn ask(&self, next: &mut Next, phase: Phase) -> Asked {
        let mut statuses = Vec::new();
        let mut passed = self.service().ungated.is_some() || self.service().gates_of(phase).next().is_some();
        for gate in self.service().gates_of(phase) {
            let name = &gate.spec.name;
            let Some(state) = self.of.gates.get(&gate.key) else {
                passed = false;
                next.block(Reason::GateUnknown, name, "not asked yet");
                continue;
            };
            next.wake.extend(state.changes_at);
            statuses.push(GateStatus {
                phase,
                name: name.clone(),
                verdict: state.verdict,
                reason: crate::api::conditions::shorten(&state.reason, 64),
                message: crate::api::conditions::shorten(&state.message, 512),
                evidence: state.evidence.clone(),
                since: time(state.since),
            });
            match state.verdict {
                Verdict::Pass => {}
                Verdict::Fail if state.failed => {
                    passed = false;
                    self.need(next, Reason::GateFailed, name, &state.message, state.evidence.as_deref());
                }
                Verdict::Fail => {
                    passed = false;
                    next.block(Reason::GateFailing, name, state.message.clone());
                }
                Verdict::Unknown => {
                    passed = false;
                    if state.is_overdue {
                        self.need(next, Reason::GateUnknown, name, &state.message, None);
                    } else {
                        next.block(Reason::GateUnknown, name, state.message.clone());
                    }
                }
            }
        }
        if next.status.decision.is_some() {
            keep(&mut next.status.gates, phase, statuses.clone());
        }
        Asked { passed, statuses }
    }

    /// A person is needed. The first reason stands.
    fn need(&self, next: &mut Next, reason: Reason, culprit: &str, message: &str, evidence: Option<&str>) {
        next.block(reason, culprit, message);
        if next.status.decision.is_some() {
            return;
        }
        let what = (
            &self.plan.uid,
            &self.service().name,
            self.of.status.attempt,
            self.of.status.stage,
            reason,
            culprit,
            evidence,
        );
        let digest = digest(&what);
        let since = match &self.of.status.decision {
            Some(before) if before.digest == digest => before.since.clone(),
            _ => time(self.seen.now),
        };
        next.status.decision = Some(DecisionNeeded { reason, digest, actions: vec![Action::Retry], since });
        next.effect = None;
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
                next.block(Reason::Together, &self.plan.services[id].name, message);
            }
        }
    }

    /// Begins an effect, unless it was refused a moment ago: then says so, and waits.
    fn effect(&self, next: &mut Next, effect: Effect) {
        if let Some(refused) = &self.of.refused {
            next.block(refused.reason, &self.service().name, refused.message.clone());
            next.wake.push(refused.again_at);
            if refused.again_at > self.seen.now {
                return;
            }
        }
        next.effect = Some(effect);
    }

    fn asking(&self, isolation: Isolation) -> Effect {
        let dependencies = self.plan.dependencies_of(self.id);
        let reachable = if isolation == Isolation::CleanRoom {
            room::wanted(self.plan, self.seen, self.id).reachable
        } else {
            Vec::new()
        };
        Effect::Ask { isolation, attempt: self.of.status.attempt, reachable, dependencies }
    }
}

/// What is said of pods that were stopped and that nothing brings back: whoever ran them has to start them.
fn lost_pods(quarantine: &QuarantineObservation) -> Option<String> {
    let pods = &quarantine.found.as_ref().filter(|found| !found.unmanaged_pods.is_empty())?.unmanaged_pods;
    let text = format!(
        "namespace {}: pods were stopped that no workload brings back: {}",
        quarantine.namespace,
        pods.join(", ")
    );
    Some(crate::api::conditions::shorten(&text, 600))
}

/// Has the Quarantine of every namespace of a service reached this level, with all that belongs to it?
fn enforced(of: &ServiceObservation, level: Isolation) -> bool {
    of.quarantines.iter().all(|q| {
        q.found.as_ref().is_some_and(|found| holds(of, &q.namespace, found) && found.isolation == Some(level))
    })
}

/// The Quarantines of a service, `None` for one that is missing.
fn found(of: &ServiceObservation) -> impl Iterator<Item = Option<&QuarantineState>> {
    of.quarantines.iter().map(|q| q.found.as_ref())
}

/// Do all gates of a phase pass now? Empty is not passed, unless the plan says so out loud.
pub(super) fn passes(plan: &Plan, of: &ServiceObservation, id: ServiceId, phase: Phase) -> bool {
    let service = &plan.services[id];
    let mut gates = service.gates_of(phase).peekable();
    (gates.peek().is_some() || service.ungated.is_some())
        && gates.all(|gate| of.gates.get(&gate.key).is_some_and(|state| state.verdict == Verdict::Pass))
}

/// Keeps what the gates of one phase said, in place of what they said before.
fn keep(gates: &mut Vec<GateStatus>, phase: Phase, statuses: Vec<GateStatus>) {
    gates.retain(|gate| gate.phase != phase);
    gates.extend(statuses);
}

/// Does nothing of it ask for what Pod Security `baseline` forbids, or was that accepted along with its requirements?
fn has_host_clearance(plan: &Plan, of: &ServiceObservation, id: ServiceId) -> bool {
    let service = &plan.services[id];
    service.namespaces.is_empty()
        || service.host_access.is_some()
        || of.host_access.as_ref().is_some_and(Vec::is_empty)
}

/// What would be lost, in one sentence that leaves room for who may accept it.
fn loosened(lost: &[String]) -> String {
    let what = crate::api::conditions::shorten(&lost.join("; "), 280);
    format!("the plan requires less than was last accepted: {what}")
}

/// Lets something pass, and says so once.
fn except(next: &mut Next, exception: &str) {
    if !next.status.exceptions.iter().any(|known| known == exception) {
        next.status.exceptions.push(exception.to_owned());
        next.status.exceptions.truncate(EXCEPTIONS_LIMIT);
    }
}

/// Digest of what is decided on. Strings and numbers always serialise; were it ever otherwise, nobody could decide on an empty one
/// by chance.
fn digest(what: &impl Serialize) -> String {
    let digest = Sha256::digest(serde_json::to_vec(what).unwrap_or_default());
    format!("sha256:{}", digest.iter().map(|b| format!("{b:02x}")).collect::<String>())
}

fn pending(name: &str) -> StepStatus {
    StepStatus { name: name.to_owned(), state: StepState::Pending, message: String::new() }
}
