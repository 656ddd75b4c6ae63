//! What the environment can do to a plan, and what becomes of it.

use stateright::{Model as Explorable, Property};

use super::judge::{Invariant, Judge};
use super::quarantine::enforcement;
use super::shell::{Model, NOW, allows, days_ago, steps_on_their_way};
use super::state::{Goes, Local, Op, Says, Services, State, Witness};
use crate::api::service_recovery::StepState;
use crate::api::{Action, Health, Isolation, Reason, Stage, Verdict};
use crate::engine::{
    AcceptedState, Asked, ClaimState, DecisionObservation, Effect, GateState, QuarantineState, Refusal, Room,
    ServiceObservation, StepProgress, pod_security,
};
use crate::plan::loosening::Allowance;
use crate::plan::{GateKey, Plan, ServiceId};

/// What an exploration has to come to, at least once.
pub(super) const RECOVERS: &str = "everything recovers";

/// What happens next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Act {
    /// A status write lands.
    Written(ServiceId),
    /// An effect takes place, or is refused by what it reads.
    Done(ServiceId),
    /// The Quarantine controller brings a namespace to its target.
    Enforced(ServiceId),
    /// A gate answers.
    Answers(ServiceId, GateKey, Says),
    /// A step goes on.
    Step(ServiceId, usize, Goes),
    /// A person answers a question.
    Decides(ServiceId, Action),
    /// A person orders something.
    Orders(ServiceId, Action),
    /// On-call holds the Quarantine.
    Holds(ServiceId),
    /// On-call ends that.
    Releases(ServiceId),
    /// A status write conflicts: nothing was written.
    Conflicts(ServiceId),
    /// An effect is refused, and has been for long.
    Refused(ServiceId),
    /// The operator crashes and starts anew.
    Crashes,
    /// The plan is amended.
    Amended(u8),
    /// `compromisedSince` turns out to be earlier.
    Moves,
}

impl Act {
    /// Returns whether this is one of the few adversities. Progress and answers are free, but for what would go round in circles.
    fn is_adverse(&self, state: &Services) -> bool {
        match self {
            Self::Written(_) | Self::Done(_) | Self::Enforced(_) | Self::Releases(_) => false,
            Self::Answers(_, _, says) => *says != Says::Pass,
            Self::Step(_, _, goes) => *goes != Goes::Succeeds,
            Self::Decides(id, action) => {
                let asked = state[*id].of.status.decision.as_ref().map(|question| question.reason);
                asked == Some(Reason::ApprovalNeeded) && *action != Action::Approve
            }
            Self::Orders(..)
            | Self::Holds(_)
            | Self::Conflicts(_)
            | Self::Refused(_)
            | Self::Crashes
            | Self::Amended(_)
            | Self::Moves => true,
        }
    }
}

/// All that a person decides on, and what an order of theirs would refer to.
fn decidable(of: &ServiceObservation) -> impl Iterator<Item = (Action, &str)> {
    let question = of.status.decision.iter();
    let answers = question.flat_map(|asked| asked.actions.iter().map(|&action| (action, asked.digest.as_str())));
    let orders = of.status.standing_orders.iter().flat_map(|orders| {
        [Action::Hold, Action::Abort].map(|action| (action, orders.digest.as_str()))
    });
    let is_new = |&(action, digest): &(Action, &str)| {
        !of.decisions.iter().any(|made| made.action == action && made.decided_on == digest)
    };
    answers.chain(orders).filter(is_new)
}

fn gate_says(says: Says, before: Option<&GateState>) -> GateState {
    let has_passed = says == Says::Pass || before.is_some_and(|before| before.has_passed);
    GateState {
        verdict: says.verdict(),
        failed: says.verdict() == Verdict::Fail,
        has_passed,
        // What is not overdue yet is the same as what was not asked yet.
        is_overdue: says == Says::Unknown,
        unsettled: None,
        reason: "Told",
        message: String::new(),
        evidence: says.evidence().map(str::to_owned),
        exceptions: Vec::new(),
        since: NOW,
        changes_at: None,
    }
}

fn says(state: &GateState) -> Says {
    match state.verdict {
        Verdict::Pass => Says::Pass,
        Verdict::Unknown => Says::Unknown,
        Verdict::Fail if state.evidence.as_deref() == Says::Fail.evidence() => Says::Fail,
        Verdict::Fail => Says::FailsOtherwise,
    }
}

fn refusal(reason: Reason, days: i64) -> Refusal {
    Refusal { reason, message: "refused".to_owned(), again_at: NOW, since: Some(days_ago(days)) }
}

impl Explorable for Model {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let plan = &self.plans[0].plan;
        let first = Services::new(plan.services.iter().map(Local::first));
        let (services, broken) = self.look(first, 0, false);
        let mut state = State { services, plan: 0, has_moved: false, left: self.adversities, broken };
        // The first requirements are accepted without anybody: in which order says nothing.
        for id in 0..plan.services.len() {
            state = self.next_state(&state, Act::Written(id)).unwrap();
            state = self.next_state(&state, Act::Done(id)).unwrap();
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Act>) {
        // What comes after something broke says nothing.
        if state.broken != 0 {
            return;
        }
        let services = self.services(state);
        let plan = self.plan(state);
        for (id, local) in services.iter().enumerate() {
            let Local { of, op, ask, witness, .. } = local;
            match op {
                Some(Op { write: Some(_), .. }) => actions.extend([Act::Written(id), Act::Conflicts(id)]),
                Some(Op { write: None, .. }) => actions.extend([Act::Done(id), Act::Refused(id)]),
                None => {}
            }
            if enforcement(plan, &services, id).is_some() {
                actions.push(Act::Enforced(id));
            }
            for gate in plan.services[id].gates.iter().filter(|gate| ask.contains(&gate.phase)) {
                if gate.spec.approval.is_some() {
                    continue;
                }
                let now = of.gates.get(&gate.key).map(says);
                let has_accepted = witness.has_accepted(gate);
                let may = |next: &Says| now != Some(*next) && (*next != Says::FailsOtherwise || has_accepted);
                let next = [Says::Pass, Says::Fail, Says::FailsOtherwise, Says::Unknown];
                actions.extend(next.into_iter().filter(may).map(|next| Act::Answers(id, gate.key.clone(), next)));
            }
            for index in steps_on_their_way(of) {
                let is_seen = matches!(of.steps.get(&index), Some(StepProgress::Running(_)));
                actions.push(Act::Step(id, index, Goes::Succeeds));
                if is_seen {
                    actions.extend([Goes::Fails, Goes::Pauses, Goes::Unseen].map(|goes| Act::Step(id, index, goes)));
                }
            }
            actions.extend(decidable(of).map(|(action, _)| match action {
                Action::Hold | Action::Abort => Act::Orders(id, action),
                _ => Act::Decides(id, action),
            }));
            for found in of.quarantines.iter().filter_map(|q| q.found.as_ref()) {
                actions.push(if found.hold.is_some() { Act::Releases(id) } else { Act::Holds(id) });
            }
        }
        actions.push(Act::Crashes);
        if state.plan == 0 {
            actions.extend((1..self.plans.len()).map(|to| Act::Amended(u8::try_from(to).unwrap())));
        }
        if !state.has_moved {
            actions.push(Act::Moves);
        }
        actions.retain(|act| state.left > 0 || !act.is_adverse(&services));
    }

    fn next_state(&self, state: &State, act: Act) -> Option<State> {
        let mut services = self.services(state);
        let (mut plan, mut has_moved) = (state.plan, state.has_moved);
        let left = state.left - u8::from(act.is_adverse(&services));
        let mut broken = 0;
        let stated = &self.plans[usize::from(plan)];
        match act {
            Act::Written(id) => services[id].is_written(),
            Act::Done(id) => {
                let op = services[id].op.clone()?;
                let effect = op.effect?;
                let refused = self.refusal_of(&effect, &services, id, op.plan != plan);
                if refused.is_none() {
                    broken |= Judge { stated, services: &services }.done(id, &effect);
                }
                let compiled = &self.plans[usize::from(plan)].plan;
                services[id].takes_place(compiled, id, effect, refused);
            }
            Act::Enforced(id) => {
                let next = enforcement(self.plan(state), &services, id)?;
                let judge = Judge { stated, services: &services };
                broken |= next.isolation.map_or(0, |level| judge.enforced(id, level));
                services[id].of.quarantines[0].found = Some(next);
            }
            Act::Answers(id, key, answer) => {
                let gates = &mut services[id].of.gates;
                let next = gate_says(answer, gates.get(&key));
                gates.insert(key, next);
            }
            Act::Step(id, index, goes) => services[id].step_goes(index, goes),
            Act::Decides(id, action) | Act::Orders(id, action) => services[id].is_decided(action),
            Act::Holds(id) => services[id].is_held(Some(Isolation::Contained)),
            Act::Releases(id) => services[id].is_held(None),
            Act::Conflicts(id) => {
                let conflict = Refusal { since: Some(NOW), ..refusal(Reason::Conflict, 0) };
                services[id].ends(Some(conflict));
            }
            Act::Refused(id) => services[id].ends(Some(refusal(Reason::ApiServer, 9))),
            Act::Crashes => (0..services.len()).for_each(|id| services[id].crashes()),
            Act::Amended(to) => {
                plan = to;
                (0..services.len()).for_each(|id| services[id].of.inspection = None);
            }
            Act::Moves => {
                has_moved = true;
                (0..services.len()).for_each(|id| services[id].of.gates.clear());
            }
        }
        let (services, broken_then) = self.look(services, plan, has_moved);
        Some(State { services, plan, has_moved, left, broken: broken | broken_then })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all: Vec<Property<Self>> =
            Invariant::ALL.iter().map(|of| Property::always(of.name(), holds(*of))).collect();
        // Where nothing ever recovers, nothing was explored.
        all.push(Property::sometimes(RECOVERS, |model, state| {
            model.services(state).iter().all(|local| local.of.status.stage == Stage::Recovered)
        }));
        all
    }
}

/// Returns the condition of an invariant. stateright takes functions only.
fn holds(invariant: Invariant) -> fn(&Model, &State) -> bool {
    match invariant {
        Invariant::Order => |_, state| state.broken & Invariant::Order.bit() == 0,
        Invariant::Gates => |_, state| state.broken & Invariant::Gates.bit() == 0,
        Invariant::Unknown => |_, state| state.broken & Invariant::Unknown.bit() == 0,
        Invariant::Monotone => |_, state| state.broken & Invariant::Monotone.bit() == 0,
        Invariant::Once => |_, state| state.broken & Invariant::Once.bit() == 0,
        Invariant::Orders => |_, state| state.broken & Invariant::Orders.bit() == 0,
        Invariant::Reported => |_, state| state.broken & Invariant::Reported.bit() == 0,
    }
}

impl Model {
    fn services(&self, state: &State) -> Services {
        self.store.services(&state.services)
    }

    /// Why an effect does not take place: by what the shell reads live.
    fn refusal_of(&self, effect: &Effect, services: &Services, id: ServiceId, is_old: bool) -> Option<Reason> {
        let of = &services[id].of;
        let reads = match effect {
            Effect::Ask { isolation, .. } => *isolation >= Isolation::CleanRoom,
            Effect::Follow { dependencies, .. } => !dependencies.is_empty(),
            Effect::Step { .. } | Effect::Resume { .. } => true,
            Effect::Claim { .. } => {
                let is_held = of.quarantines.iter().filter_map(|q| q.found.as_ref()).any(|found| found.hold.is_some());
                return is_held.then_some(Reason::Held);
            }
            _ => false,
        };
        if reads && is_old {
            return Some(Reason::PlanChanged);
        }
        let dependencies = match effect {
            Effect::Ask { dependencies, .. }
            | Effect::Follow { dependencies, .. }
            | Effect::Step { dependencies, .. }
            | Effect::Resume { dependencies, .. } => dependencies.as_slice(),
            _ => &[],
        };
        let plan = &self.plans[0].plan;
        let on = dependencies.iter().map(|key| plan.index[&key.service]);
        (reads && allows(services, on) != Allowance::Allowed).then_some(Reason::DependencyNotRecovered)
    }
}

impl Local {
    /// A service whose ServiceRecovery is to be made, in a namespace that is contained.
    fn first(service: &crate::plan::Service) -> Self {
        let contained = QuarantineState {
            isolation: Some(Isolation::Contained),
            ready: true,
            message: String::new(),
            unready_since: None,
            lacking: None,
            claim: ClaimState::Free,
            hold: None,
            overruled: false,
            unmanaged_pods: Vec::new(),
        };
        let quarantine = |namespace: &String| crate::engine::QuarantineObservation {
            namespace: namespace.clone(),
            exists: true,
            found: Some(contained.clone()),
        };
        let of = ServiceObservation {
            exists: true,
            generation: Some(1),
            quarantines: service.namespaces.iter().map(quarantine).collect(),
            // Texts that only inform are not written: they decide nothing.
            written_at: Some(NOW),
            ..ServiceObservation::default()
        };
        Self { of, ask: Vec::new(), health: Health::default(), op: None, witness: Witness::default() }
    }

    /// What was under way has ended.
    fn ends(&mut self, refused: Option<Refusal>) {
        self.of.refused = refused;
        self.op = None;
        self.of.busy = false;
    }

    fn is_written(&mut self) {
        let Some(Op { write: Some(status), effect, plan }) = self.op.take() else { return };
        let of = &mut self.of;
        if status.attempt != of.status.attempt {
            of.gates.clear();
            of.steps.clear();
            of.inspection = None;
            self.witness = Witness { is_aborted: self.witness.is_aborted, ..Witness::default() };
        }
        self.witness.is_aborted |= status.isolating.as_ref().is_some_and(|of| of.reason == Reason::Aborted);
        self.witness.started.retain(|&index| {
            // A recorded failure permits another start.
            !status.steps.get(index).is_some_and(|step| matches!(step.state, StepState::Failed | StepState::Pending))
        });
        of.status = *status;
        of.busy = effect.is_some();
        self.op = effect.map(|effect| Op { write: None, effect: Some(effect), plan });
    }

    fn takes_place(&mut self, plan: &Plan, id: ServiceId, effect: Effect, refused: Option<Reason>) {
        if let Some(reason) = refused {
            self.ends(Some(refusal(reason, 0)));
            return;
        }
        self.ends(None);
        let of = &mut self.of;
        match effect {
            Effect::Accept { records } => {
                let scopes = plan.scopes(id);
                of.accepted.resize(scopes.len(), AcceptedState::Missing);
                for (scope, seen) in scopes.iter().zip(&mut of.accepted) {
                    if let Some(new) = records.iter().find(|new| new.scope == *scope) {
                        let record = new.record.clone();
                        *seen = AcceptedState::Record { revision: "1".to_owned(), record };
                    }
                }
            }
            Effect::Inspect { .. } => drop(of.inspection.get_or_insert_default()),
            Effect::Claim { attempt } => {
                for found in of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
                    found.claim = ClaimState::Mine { attempt };
                    // It was of another claim.
                    found.overruled = false;
                }
            }
            Effect::Ask { isolation, attempt, reachable, .. } => {
                of.asked = Some(Asked { isolation, attempt });
                let allow_egress = plan.services[id].allow_egress.clone();
                of.room = match isolation {
                    Isolation::CleanRoom => {
                        Room { reachable, allow_egress, pod_security: pod_security(&plan.services[id]) }
                    }
                    Isolation::Sealed | Isolation::Contained | Isolation::Open => Room::default(),
                };
            }
            Effect::Follow { room, .. } => of.room = room,
            Effect::Step { index, .. } => {
                of.steps.insert(index, StepProgress::Running(String::new()));
                self.witness.started.push(index);
            }
            Effect::Adopt | Effect::Quarantine { .. } | Effect::LookAtSuspended { .. } | Effect::Resume { .. } => {
                unreachable!("no plan of the model has this effect: {effect:?}")
            }
        }
    }

    fn step_goes(&mut self, index: usize, goes: Goes) {
        let message = "told".to_owned();
        let progress = match goes {
            Goes::Succeeds => StepProgress::Succeeded,
            Goes::Fails => StepProgress::Failed(message),
            Goes::Pauses => StepProgress::Retry { message, at: NOW, since: NOW, denied: false },
            Goes::Unseen => StepProgress::Unobserved { message, since: days_ago(9) },
        };
        if goes == Goes::Pauses {
            self.witness.started.retain(|&started| started != index);
        }
        self.of.steps.insert(index, progress);
    }

    fn is_decided(&mut self, action: Action) {
        let digest = decidable(&self.of).find(|(of, _)| *of == action).map(|(_, digest)| digest.to_owned());
        let Some(decided_on) = digest else { return };
        match action {
            Action::AcceptException => {
                let failing = self.of.gates.iter().filter(|(_, state)| state.verdict == Verdict::Fail);
                self.witness.accepted = failing.map(|(key, _)| key.clone()).collect();
            }
            Action::Approve => drop(self.witness.approved.insert(self.asks_about())),
            Action::Reject => drop(self.witness.approved.remove(&self.asks_about())),
            Action::Unhold => self.witness.is_aborted = false,
            _ => {}
        }
        self.of.decisions.push(DecisionObservation {
            name: format!("d{}", self.of.decisions.len()),
            by: "wren".to_owned(),
            action,
            reason: "told".to_owned(),
            decided_on,
            group: Some("leads".to_owned()),
        });
    }

    /// The gate or the step that people are asked about.
    fn asks_about(&self) -> String {
        let status = &self.of.status;
        let reason = status.decision.as_ref().map(|question| question.reason);
        let block = status.blocked_by.iter().find(|block| Some(block.reason) == reason);
        block.map(|block| block.name.clone()).unwrap_or_default()
    }

    fn is_held(&mut self, level: Option<Isolation>) {
        for found in self.of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
            found.hold = level;
            found.ready = false;
        }
    }

    /// All that the operator has in memory is lost; what is recorded stays.
    fn crashes(&mut self) {
        self.ends(None);
        self.of.gates.clear();
        self.of.steps.clear();
        self.of.inspection = None;
        self.ask.clear();
        self.health = Health::default();
        // It may be started again: the effect has the same name.
        self.witness.started.clear();
    }
}
