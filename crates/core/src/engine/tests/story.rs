//! A plan in a world whose gates and steps say what the test tells them to, second by second.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::kstatus;
use crate::api::conditions::find;
use crate::api::{Action, Isolation, Phase, RecoveryPlanSpec, ServiceRecoveryStatus, Stage, Verdict};
use crate::engine::{DecisionObservation, Effect, QuarantineState, ServiceObservation, StepProgress};
use crate::plan::Plan;
use crate::simulate::{Event, Limits, Script, Takes, World};

type Verdicts = Rc<RefCell<BTreeMap<(String, Phase), Verdict>>>;
/// By service, and by the index of a step where its own differs.
type Outcomes = Rc<RefCell<BTreeMap<(String, Option<usize>), StepProgress>>>;

/// A running world.
pub(super) struct Story {
    pub world: World<'static>,
    verdicts: Verdicts,
    outcomes: Outcomes,
}

/// An armed plan whose services have an integrity and a health gate, unless they say otherwise.
pub(super) fn plan(services: &str) -> Plan {
    plan_with("incidentRef: {name: nov}", services)
}

pub(super) fn plan_with(top: &str, services: &str) -> Plan {
    let yaml = format!(
        "serviceAccountName: recovery\n{top}\ndefaults:\n  gates:\n    beforeRestore: [{{name: images, imageDigests: \
         {{approvedFrom: {{configMap: {{name: images}}}}}}}}]\n    beforeRelease: [{{name: up, \
         workloads: {{}}, startupGrace: 0s}}]\nservices:\n{services}"
    );
    let spec: RecoveryPlanSpec = serde_yaml::from_str(&yaml).unwrap_or_else(|e| panic!("{e}\n{yaml}"));
    Plan::compile("recovery", "p", "uid-1", &spec)
}

pub(super) fn story(services: &str) -> Story {
    Story::of(plan(services))
}

/// A write takes 10 ms, a claim 20 ms, an isolation 1 s, a step 5 s, an answer 10 ms.
fn latency(takes: Takes) -> Duration {
    Duration::from_millis(match takes {
        Takes::Write | Takes::Answer => 10,
        Takes::Claim => 20,
        Takes::Isolation => 1_000,
        Takes::Step(_) => 5_000,
    })
}

impl Story {
    pub(super) fn of(plan: Plan) -> Self {
        let (verdicts, outcomes) = (Verdicts::default(), Outcomes::default());
        let names: Vec<String> = plan.services.iter().map(|s| s.name.clone()).collect();
        let (says, ends, of) = (verdicts.clone(), outcomes.clone(), names.clone());
        let script = Script {
            gate: Box::new(move |q| {
                let key = (names[q.service].clone(), q.gate.phase);
                says.borrow().get(&key).copied().unwrap_or(Verdict::Pass)
            }),
            latency: Box::new(|takes, _| latency(takes)),
            step: Box::new(move |id, index, now| {
                let outcome = |index| ends.borrow().get(&(of[id].clone(), index)).cloned();
                match outcome(Some(index)).or_else(|| outcome(None)).unwrap_or(StepProgress::Succeeded) {
                    StepProgress::Retry { message, at, since, denied } => {
                        let again = now.checked_add(SignedDuration::from_secs(20)).unwrap();
                        StepProgress::Retry { message, at: at.max(again), since, denied }
                    }
                    outcome => outcome,
                }
            }),
        };
        let world = World::new(plan, script, Limits { looks: 20_000 }, Timestamp::UNIX_EPOCH);
        Self { world, verdicts, outcomes }
    }

    /// From now on, all gates of this phase of this service say so.
    pub(super) fn says(&mut self, service: &str, phase: Phase, verdict: Verdict) {
        self.verdicts.borrow_mut().insert((service.to_owned(), phase), verdict);
    }

    /// From now on, all steps of this service end so.
    pub(super) fn steps_end(&mut self, service: &str, outcome: StepProgress) {
        self.outcomes.borrow_mut().insert((service.to_owned(), None), outcome);
    }

    /// From now on, this step of this service ends so.
    pub(super) fn step_ends(&mut self, service: &str, index: usize, outcome: StepProgress) {
        self.outcomes.borrow_mut().insert((service.to_owned(), Some(index)), outcome);
    }

    /// Lets so many seconds pass, and checks every status that was written in them.
    pub(super) fn run(&mut self, seconds: i64) -> &mut Self {
        let until = self.world.seen.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        let from = self.world.facts.len();
        self.world.run(until).unwrap();
        self.world.seen.now = until;
        for fact in &self.world.facts[from..] {
            if let Event::Written(status) = &fact.event {
                kstatus::check(status);
            }
        }
        kstatus::check_plan(&self.world.status);
        self
    }

    pub(super) fn id(&self, service: &str) -> usize {
        self.world.plan.index[service]
    }

    pub(super) fn seen(&mut self, service: &str) -> &mut ServiceObservation {
        let id = self.id(service);
        &mut self.world.seen.services[id]
    }

    pub(super) fn status(&self, service: &str) -> &ServiceRecoveryStatus {
        &self.world.seen.services[self.id(service)].status
    }

    pub(super) fn stage(&self, service: &str) -> Stage {
        self.status(service).stage
    }

    /// Status, reason and message of a condition.
    pub(super) fn condition(&self, service: &str, type_: &str) -> (String, String, String) {
        let found = find(&self.status(service).conditions, type_);
        found.map_or_else(Default::default, |c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    }

    /// Status and reason of a condition of the plan.
    pub(super) fn plan_condition(&self, type_: &str) -> (&str, &str) {
        find(&self.world.status.conditions, type_).map_or(("", ""), |c| (&c.status, &c.reason))
    }

    pub(super) fn quarantine(&mut self, service: &str) -> &mut QuarantineState {
        self.seen(service).quarantines[0].found.as_mut().unwrap()
    }

    pub(super) fn isolation(&self, service: &str) -> Isolation {
        self.world.seen.services[self.id(service)].quarantines[0].found.as_ref().unwrap().isolation.unwrap()
    }

    /// Why a person is needed for a service, if one is.
    pub(super) fn needs(&self, service: &str) -> Option<&str> {
        self.status(service).decision.as_ref().map(|d| d.reason.as_str())
    }

    /// What a person is told.
    pub(super) fn question(&self, service: &str) -> String {
        self.condition(service, "NeedsDecision").2
    }

    /// `reason: name` of all that blocks a service.
    pub(super) fn blocks(&self, service: &str) -> Vec<String> {
        self.status(service).blocked_by.iter().map(|b| format!("{}: {}", b.reason, b.name)).collect()
    }

    /// A person decides on what a service asks now.
    pub(super) fn retry(&mut self, service: &str) {
        let digest = self.status(service).decision.as_ref().unwrap().digest.clone();
        self.decide_on(service, &digest);
    }

    /// A person goes on without a control, on what a service asks now.
    pub(super) fn go_on(&mut self, service: &str) {
        let digest = self.status(service).decision.as_ref().unwrap().digest.clone();
        self.decide(service, Action::Override, &digest);
    }

    pub(super) fn decide_on(&mut self, service: &str, digest: &str) {
        self.decide(service, Action::Retry, digest);
    }

    pub(super) fn decide(&mut self, service: &str, action: Action, digest: &str) {
        let name = format!("d{}", self.seen(service).decisions.len());
        self.seen(service).decisions.push(DecisionObservation {
            uid: format!("uid-{name}"),
            name,
            created_at: None,
            is_applied: false,
            by: "wren".to_owned(),
            action,
            reason: "put back the approved version".to_owned(),
            decided_on: digest.to_owned(),
            group: None,
        });
    }

    /// A person decides on what a service asks now.
    pub(super) fn answers(&mut self, service: &str, action: Action) {
        let question = self.status(service).decision.clone().unwrap();
        assert!(question.actions.contains(&action), "{action:?} is not offered: {question:?}");
        self.decide(service, action, &question.digest);
    }

    /// A person orders something that answers no question.
    pub(super) fn orders(&mut self, service: &str, action: Action) {
        let digest = self.status(service).standing_orders.as_ref().unwrap().digest.clone();
        self.decide(service, action, &digest);
    }

    /// Somebody of this group approves what a service asks now.
    pub(super) fn approves(&mut self, service: &str, by: &str, group: &str) {
        self.answers(service, Action::Approve);
        let decision = self.seen(service).decisions.last_mut().unwrap();
        decision.by = by.to_owned();
        decision.group = Some(group.to_owned());
    }

    /// The effects that took place for a service, in order, but for what is only put on record.
    pub(super) fn done(&self, service: &str) -> Vec<Effect> {
        let is_record = |effect: &Effect| matches!(effect, Effect::Accept { .. });
        self.timed(service)
            .into_iter()
            .map(|(_, effect)| effect)
            .filter(|effect| !is_record(effect))
            .collect()
    }

    /// The effects that took place for a service, and when.
    pub(super) fn timed(&self, service: &str) -> Vec<(Timestamp, Effect)> {
        let id = self.id(service);
        let of = self.world.facts.iter().filter(|f| f.service == id);
        of.filter_map(|f| match &f.event {
            Event::Done(effect) => Some((f.at, effect.clone())),
            _ => None,
        })
        .collect()
    }

    /// The isolations that were asked for a service, in order.
    pub(super) fn asked(&self, service: &str) -> Vec<Isolation> {
        let isolation = |effect: Effect| match effect {
            Effect::Ask { isolation, .. } => Some(isolation),
            _ => None,
        };
        self.done(service).into_iter().filter_map(isolation).collect()
    }

    /// How many steps were begun for a service.
    pub(super) fn steps_begun(&self, service: &str) -> usize {
        self.done(service).iter().filter(|e| matches!(e, Effect::Step { .. })).count()
    }

    /// Indices of the steps that were begun for a service, in order.
    pub(super) fn steps_in_order(&self, service: &str) -> Vec<usize> {
        let index = |effect: Effect| match effect {
            Effect::Step { index, .. } => Some(index),
            _ => None,
        };
        self.done(service).into_iter().filter_map(index).collect()
    }

    /// The stages that were written for a service, in order, each once.
    pub(super) fn stages(&self, service: &str) -> Vec<Stage> {
        let id = self.id(service);
        let mut stages: Vec<Stage> = Vec::new();
        for fact in self.world.facts.iter().filter(|f| f.service == id) {
            if let Event::Written(status) = &fact.event
                && stages.last() != Some(&status.stage)
            {
                stages.push(status.stage);
            }
        }
        stages
    }

    /// When a service's status first said this stage.
    pub(super) fn reached(&self, service: &str, stage: Stage) -> Timestamp {
        let id = self.id(service);
        let is = |event: &Event| matches!(event, Event::Written(status) if status.stage == stage);
        self.world.facts.iter().find(|f| f.service == id && is(&f.event)).unwrap().at
    }
}
