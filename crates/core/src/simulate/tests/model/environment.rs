//! What the environment can do to a plan, and what becomes of it.

use stateright::{Model as Explorable, Property};

use super::judge::{Invariant, Judge};
use super::quarantine::enforcement;
use super::service::refusal;
use super::shell::{Model, NOW, allows, steps_on_their_way};
use super::state::{Goes, Local, Op, Says, Services, State};
use crate::api::{Action, Isolation, Reason, Stage, Verdict};
use crate::engine::{Effect, GateState, Refusal, ServiceObservation, StepProgress};
use crate::plan::loosening::Allowance;
use crate::plan::{Gate, GateKey, ServiceId};

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

impl Act {
    /// Returns the service that goes on by this, if one does: by itself, as soon as it can.
    fn goes_on(&self) -> Option<ServiceId> {
        match self {
            Self::Written(id) | Self::Done(id) | Self::Enforced(id) => Some(*id),
            Self::Answers(id, _, Says::Pass) | Self::Step(id, _, Goes::Succeeds) => Some(*id),
            _ => None,
        }
    }
}

/// All that a person decides on, and what an order of theirs would refer to.
pub(super) fn decidable(of: &ServiceObservation) -> impl Iterator<Item = (Action, &str)> {
    let question = of.status.decision.iter();
    let answers =
        question.flat_map(|asked| asked.actions.iter().map(|&action| (action, asked.digest.as_str())));
    let orders = of
        .status
        .standing_orders
        .iter()
        .flat_map(|orders| [Action::Hold, Action::Abort].map(|action| (action, orders.digest.as_str())));
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
        is_judged_anew: false,
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

impl Explorable for Model {
    type State = State;
    type Action = Act;

    fn init_states(&self) -> Vec<State> {
        let plan = &self.plans[0].plan;
        let first = Services::new(plan.services.iter().map(Local::first));
        let (services, broken) = self.look(first, 0, false);
        let mut state =
            State { services, plan: 0, has_moved: false, left: self.adversities, unsettled: 0, broken };
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
        let goes_on: Vec<Vec<Act>> =
            (0..services.len()).map(|id| self.goes_on(state, &services, id)).collect();
        if state.left > 0 || self.in_every_order {
            actions.extend(goes_on.into_iter().flatten());
        } else {
            let is_free = |(id, _): &(ServiceId, &Vec<Act>)| state.unsettled & (1 << id) != 0;
            actions.extend(
                goes_on.iter().enumerate().filter(is_free).flat_map(|(_, acts)| acts.iter().cloned()),
            );
            if actions.is_empty() {
                actions.extend(goes_on.into_iter().find(|acts| !acts.is_empty()).into_iter().flatten());
            }
            if !actions.is_empty() {
                return;
            }
        }
        (0..services.len()).for_each(|id| self.may_happen(state, &services, id, actions));
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
        let unsettled = match act.goes_on() {
            _ if left > 0 || self.in_every_order => 0,
            Some(id) => state.unsettled & !(1 << id),
            None if state.left > 0 => u8::MAX,
            None => state.unsettled,
        };
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
            Act::Refused(id) => {
                services[id].op.as_ref()?.effect.as_ref()?;
                services[id].ends(Some(refusal(Reason::ApiServer, 9)));
            }
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
        Some(State { services, plan, has_moved, left, unsettled, broken: broken | broken_then })
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

    /// How a service can go on: what comes sooner or later.
    fn goes_on(&self, state: &State, services: &Services, id: ServiceId) -> Vec<Act> {
        let plan = self.plan(state);
        let Local { of, op, .. } = &services[id];
        let mut acts = Vec::new();
        match op {
            Some(Op { write: Some(_), .. }) => acts.push(Act::Written(id)),
            Some(Op { write: None, .. }) => acts.push(Act::Done(id)),
            None => {}
        }
        if enforcement(plan, services, id).is_some() {
            acts.push(Act::Enforced(id));
        }
        let silent = self.asked(state, services, id).filter(|gate| !of.gates.contains_key(&gate.key));
        acts.extend(silent.map(|gate| Act::Answers(id, gate.key.clone(), Says::Pass)));
        acts.extend(steps_on_their_way(of).map(|index| Act::Step(id, index, Goes::Succeeds)));
        acts
    }

    /// What people may do to a service, and what may go wrong with it.
    fn may_happen(&self, state: &State, services: &Services, id: ServiceId, actions: &mut Vec<Act>) {
        let Local { of, op, witness, .. } = &services[id];
        match op {
            Some(Op { write: Some(_), .. }) => actions.push(Act::Conflicts(id)),
            Some(Op { write: None, .. }) => actions.push(Act::Refused(id)),
            None => {}
        }
        for gate in self.asked(state, services, id) {
            let now = of.gates.get(&gate.key).map(says);
            let turns = [Says::Fail, Says::Unknown].into_iter().chain(now.map(|_| Says::Pass));
            // Another failure than the first only says more once the first was accepted.
            let other = witness.has_accepted(gate).then_some(Says::FailsOtherwise);
            let turns = turns.chain(other).filter(|next| now != Some(*next));
            actions.extend(turns.map(|next| Act::Answers(id, gate.key.clone(), next)));
        }
        for index in steps_on_their_way(of) {
            if matches!(of.step_progress(index), Some(StepProgress::Running(_))) {
                actions
                    .extend([Goes::Fails, Goes::Pauses, Goes::Unseen].map(|goes| Act::Step(id, index, goes)));
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

    /// The gates of a service that are evaluated. Approvals are not: people decide about them.
    fn asked<'a>(
        &'a self,
        state: &State,
        services: &'a Services,
        id: ServiceId,
    ) -> impl Iterator<Item = &'a Gate> {
        let gates = self.plans[usize::from(state.plan)].plan.services[id].gates.iter();
        gates.filter(move |gate| gate.spec.approval.is_none() && services[id].ask.contains(&gate.phase))
    }

    /// Why an effect does not take place: by what the shell reads live.
    fn refusal_of(
        &self,
        effect: &Effect,
        services: &Services,
        id: ServiceId,
        is_old: bool,
    ) -> Option<Reason> {
        let of = &services[id].of;
        let reads = match effect {
            Effect::Ask { isolation, .. } => *isolation >= Isolation::CleanRoom,
            Effect::Follow { dependencies, .. } => !dependencies.is_empty(),
            Effect::Step { .. } | Effect::Resume { .. } => true,
            Effect::Claim { .. } => {
                let is_held =
                    of.quarantines.iter().filter_map(|q| q.found.as_ref()).any(|found| found.hold.is_some());
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
