//! An engine that is kept decides as one that begins.

use std::sync::Arc;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;

use super::properties::config;
use super::random::{Case, case};
use crate::api::Reason;
use crate::api::quarantine::ControlName;
use crate::api::{Isolation, Verdict};
use crate::engine::{ClaimState, Engine, Observation, Presence, Refusal, ServiceDecided, decide};

/// What happens to one service, or to the plan.
#[derive(Clone, Debug)]
struct Edit {
    service: prop::sample::Index,
    what: u8,
    number: u8,
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let edit = (any::<prop::sample::Index>(), 0_u8..13, any::<u8>());
    prop::collection::vec(edit.prop_map(|(service, what, number)| Edit { service, what, number }), 1..40)
}

impl Edit {
    fn apply(&self, seen: &mut Observation) {
        let now = seen.now;
        let id = self.service.index(seen.services.len());
        if self.what < 2 {
            let presence = match self.number % 3 {
                0 => Presence::Missing,
                1 => Presence::Unknown(format!("error {}", self.number)),
                _ => Presence::Present,
            };
            *(if self.what == 0 { &mut seen.incident } else { &mut seen.account }) = presence;
            return;
        }
        let of = &mut seen.services[id];
        let even = self.number.is_multiple_of(2);
        match self.what {
            2 => of.busy = even,
            3 => of.exists = even,
            4 => of.other_plan = even.then(|| "uid-0".to_owned()),
            5 => {
                let again_at =
                    now.checked_add(SignedDuration::from_secs(i64::from(self.number % 2))).unwrap();
                let message = format!("refusal {}", self.number);
                of.refused = Some(Refusal { reason: Reason::ApiServer, message, again_at, since: None });
            }
            6 => of.refused = None,
            7 => {
                for gate in of.gates.values_mut() {
                    gate.verdict =
                        [Verdict::Pass, Verdict::Fail, Verdict::Unknown][usize::from(self.number % 3)];
                    gate.failed = gate.verdict == Verdict::Fail && even;
                    gate.message = format!("answer {}", self.number);
                }
            }
            8 => {
                let status = of.status.clone();
                of.status = decided_status(&status, self.number);
            }
            _ => {
                for found in of.quarantines.iter_mut().filter_map(|q| q.found.as_mut()) {
                    match self.what {
                        9 => {
                            found.ready = even;
                            found.message = format!("message {}", self.number);
                        }
                        10 => found.hold = even.then_some(Isolation::Sealed),
                        11 => found.lacking = even.then_some(ControlName::Network),
                        _ => {
                            found.claim = ClaimState::Other { holder: format!("holder {}", self.number) };
                        }
                    }
                }
            }
        }
    }
}

/// A status with the same words and another stage or attempt.
fn decided_status(
    status: &crate::api::ServiceRecoveryStatus,
    number: u8,
) -> crate::api::ServiceRecoveryStatus {
    use crate::api::Stage;
    let stages = [Stage::Isolated, Stage::PreChecks, Stage::Restoring, Stage::PostChecks, Stage::Recovered];
    let mut status = status.clone();
    status.stage = stages[usize::from(number) % stages.len()];
    status.decision = None;
    status
}

fn kept_decides_as_begun(case: &Case, until: i64, edits: &[Edit]) -> Result<(), TestCaseError> {
    let mut world = case.world();
    world.run(Timestamp::from_second(until).unwrap()).unwrap();
    let (plan, mut seen) = (world.plan.clone(), world.seen.clone());
    let mut engine = Engine::new(Arc::new(plan.clone()));
    let mut stands: Vec<ServiceDecided> = engine.decide(&seen).services;
    prop_assert_eq!(stands.len(), plan.services.len());
    for edit in edits {
        edit.apply(&mut seen);
        let again = engine.decide(&seen);
        let whole = decide(&plan, &seen);
        for of in again.services {
            let id = of.service;
            stands[id] = of;
        }
        prop_assert_eq!(&stands, &whole.services, "after {:?}", edit);
        prop_assert_eq!(&again.plan, &whole.plan, "after {:?}", edit);
        prop_assert_eq!(again.wake_at, whole.wake_at, "after {:?}", edit);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: config().cases * 4, ..config() })]

    #[test]
    fn engine_that_is_kept_decides_as_one_that_begins(
        case in case(), until in 0_i64..200, edits in edits()
    ) {
        kept_decides_as_begun(&case, until, &edits)?;
    }
}
