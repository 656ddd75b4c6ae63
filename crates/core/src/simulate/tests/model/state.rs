//! States of the model. What is observed of a service is kept in the engine's own types, once for all states that share it: nothing is
//! left out that the engine could go by, and a state is a few numbers.

use std::collections::{BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Index, IndexMut};
use std::sync::{Arc, RwLock};

use crate::api::{Health, Phase, ServiceRecoveryStatus, Verdict};
use crate::engine::{Effect, GateKey, ServiceObservation, StepProgress};
use crate::plan::ServiceId;

/// One service in one state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Local {
    /// As the operator observes it.
    pub of: ServiceObservation,
    /// Phases whose gates are evaluated.
    pub ask: Vec<Phase>,
    /// Health as the operator last published it.
    pub health: Health,
    /// What is under way.
    pub op: Option<Op>,
    /// What the judge knows.
    pub witness: Witness,
}

/// A write, and the effect that begins once it has landed; or the effect alone.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Op {
    pub write: Option<Box<ServiceRecoveryStatus>>,
    pub effect: Option<Effect>,
    /// The plan that it was decided under.
    pub plan: u8,
}

/// What happened to a service in its attempt, as the judge saw it: not from anything that the engine keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Witness {
    /// Gates whose failure a person has accepted.
    pub accepted: Vec<GateKey>,
    /// Gates and steps that a person has approved since the last rejection.
    pub approved: BTreeSet<String>,
    /// Steps that this process has started, and whose failure is not recorded since.
    pub started: Vec<usize>,
    /// A person has decided `Abort`, it is recorded, and nobody has ended the hold since. Outlives the attempt.
    pub is_aborted: bool,
}

/// A state of the whole plan.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// Each service, by its number in the [`Store`].
    pub services: Vec<u32>,
    /// The plan that is in force: 0, or one of its amendments.
    pub plan: u8,
    /// `compromisedSince` has moved.
    pub has_moved: bool,
    /// How many adversities may still come.
    pub left: u8,
    /// Services that may still go on in any order, as bits: see [`super::shell::Model::in_every_order`].
    pub unsettled: u8,
    /// Invariants that the transition into this state breaks, as bits of [`super::judge::Invariant`].
    pub broken: u16,
}

/// The services of one state. Those that nothing changes are shared, and keep their number.
#[derive(Clone)]
pub(super) struct Services {
    all: Vec<Arc<Local>>,
    numbers: Vec<Option<u32>>,
}

impl Services {
    /// Services that have no number yet.
    pub(super) fn new(all: impl Iterator<Item = Local>) -> Self {
        let all: Vec<Arc<Local>> = all.map(Arc::new).collect();
        Self { numbers: vec![None; all.len()], all }
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Local> {
        self.all.iter().map(AsRef::as_ref)
    }
}

impl Index<ServiceId> for Services {
    type Output = Local;

    fn index(&self, id: ServiceId) -> &Local {
        &self.all[id]
    }
}

impl IndexMut<ServiceId> for Services {
    fn index_mut(&mut self, id: ServiceId) -> &mut Local {
        self.numbers[id] = None;
        Arc::make_mut(&mut self.all[id])
    }
}

/// All services in all states, each once.
#[derive(Default)]
pub(super) struct Store {
    kept: RwLock<Kept>,
}

#[derive(Default)]
struct Kept {
    all: Vec<Arc<Local>>,
    by_sketch: HashMap<u64, Vec<u32>>,
}

impl Store {
    pub(super) fn services(&self, numbers: &[u32]) -> Services {
        let kept = self.kept.read().unwrap();
        let all = numbers.iter().map(|&number| kept.all[number as usize].clone()).collect();
        Services { all, numbers: numbers.iter().copied().map(Some).collect() }
    }

    /// Returns the numbers of services. Equal ones have the same.
    pub(super) fn numbers(&self, services: &mut Services) -> Vec<u32> {
        for (local, number) in services.all.iter_mut().zip(&mut services.numbers) {
            number.get_or_insert_with(|| self.number(local));
        }
        services.numbers.iter().copied().flatten().collect()
    }

    fn number(&self, local: &Arc<Local>) -> u32 {
        let sketch = sketch(local);
        let find = |kept: &Kept| {
            let same = kept.by_sketch.get(&sketch)?;
            same.iter().copied().find(|&number| kept.all[number as usize] == *local)
        };
        if let Some(number) = find(&self.kept.read().unwrap()) {
            return number;
        }
        let mut kept = self.kept.write().unwrap();
        if let Some(number) = find(&kept) {
            return number;
        }
        let number = u32::try_from(kept.all.len()).unwrap();
        kept.all.push(local.clone());
        kept.by_sketch.entry(sketch).or_default().push(number);
        number
    }
}

/// Returns a number that tells most services apart; equality decides.
fn sketch(local: &Local) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Local { of, ask, op, witness, .. } = local;
    sketch_status(&of.status, &mut hasher);
    of.asked.map(|asked| (asked.isolation, asked.attempt)).hash(&mut hasher);
    for found in of.quarantines.iter().filter_map(|q| q.found.as_ref()) {
        (found.isolation, found.hold, found.ready, found.overruled).hash(&mut hasher);
    }
    for (key, state) in &of.gates {
        (key, state.verdict as u8, &state.evidence, state.has_passed).hash(&mut hasher);
    }
    for (index, progress) in &of.steps {
        (index, std::mem::discriminant(progress)).hash(&mut hasher);
    }
    (ask, of.decisions.len(), of.accepted.len(), of.inspection.is_some(), of.refused.is_some())
        .hash(&mut hasher);
    (&witness.approved, witness.is_aborted, witness.accepted.len(), &witness.started).hash(&mut hasher);
    if let Some(op) = op {
        op.effect.as_ref().map(Effect::name).hash(&mut hasher);
        op.write.iter().for_each(|write| sketch_status(write, &mut hasher));
    }
    hasher.finish()
}

fn sketch_status(status: &ServiceRecoveryStatus, hasher: &mut DefaultHasher) {
    (status.stage as u8, status.attempt, status.history.len(), status.exceptions.len()).hash(hasher);
    status.decision.as_ref().map(|decision| decision.reason.as_str()).hash(hasher);
    status.standing_orders.as_ref().map(|orders| (orders.number, orders.hold.is_some())).hash(hasher);
    (status.isolating.is_some(), status.held_up_by.is_some(), status.blocked_by.len()).hash(hasher);
    status.steps.iter().for_each(|step| (step.state as u8).hash(hasher));
    status.conditions.iter().for_each(|of| (&of.type_, &of.status, &of.reason).hash(hasher));
}

/// What a gate says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Says {
    Pass,
    Fail,
    /// It fails for something else than what a person has accepted.
    FailsOtherwise,
    Unknown,
}

impl Says {
    pub(super) const fn verdict(self) -> Verdict {
        match self {
            Self::Pass => Verdict::Pass,
            Self::Fail | Self::FailsOtherwise => Verdict::Fail,
            Self::Unknown => Verdict::Unknown,
        }
    }

    pub(super) const fn evidence(self) -> Option<&'static str> {
        match self {
            Self::Pass | Self::Unknown => None,
            Self::Fail => Some("sha256:one"),
            Self::FailsOtherwise => Some("sha256:another"),
        }
    }
}

/// How a step goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goes {
    Succeeds,
    Fails,
    /// It failed, and may succeed when it is started again.
    Pauses,
    /// It cannot be observed.
    Unseen,
}

/// Returns whether a step is on its way, as this process observes it.
pub(super) fn is_on_its_way(progress: &StepProgress) -> bool {
    matches!(progress, StepProgress::Running(_) | StepProgress::Unobserved { .. })
}
