//! Who keeps a slot, where there are fewer than units that want one.

use super::story::{Story, plan_with, story};
use crate::api::conditions::{HEALTHY, RECOVERED};
use crate::api::{Isolation, Stage, Verdict};
use crate::engine::slots::{satisfies_dependents, views};
use crate::engine::{ClaimState, ServiceObservation};

type State = (&'static str, fn(&mut ServiceObservation));

/// A service as it may be found, the one that keeps its slot before all that follow first.
const STATES: [State; 6] = [
    ("has begun, and acts", |of| (of.status.stage, of.busy) = (Stage::PreChecks, true)),
    ("has begun", |of| of.status.stage = Stage::PreChecks),
    ("is claimed, and acts", |of| {
        claim(of);
        of.busy = true;
    }),
    ("is claimed", claim),
    ("is being claimed", |of| of.busy = true),
    ("waits", |_| {}),
];

fn claim(of: &mut ServiceObservation) {
    of.quarantines[0].found.as_mut().unwrap().claim = ClaimState::Mine { attempt: 1 };
}

#[test]
fn service_further_on_keeps_its_slot() {
    let one =
        plan_with("incidentRef: {name: nov}\nmaxParallel: 1", "- {name: a, tier: 1}\n- {name: b, tier: 2}");
    for (first, (further, set_further)) in STATES.into_iter().enumerate() {
        for (behind, set_behind) in STATES.into_iter().skip(first + 1) {
            let mut s = Story::of(one.clone());
            for service in ["a", "b"] {
                let of = s.seen(service);
                (of.exists, of.status.attempt) = (true, 1);
            }
            set_behind(s.seen("a"));
            set_further(s.seen("b"));
            let goes: Vec<bool> = views(&s.world.plan, &s.world.seen).iter().map(|unit| unit.go).collect();
            assert_eq!(goes, [false, true], "one {behind}, the other {further}");
        }
    }
}

fn says_false(of: &mut ServiceObservation, type_: &str) {
    let condition = of.status.conditions.iter_mut().find(|condition| condition.type_ == type_);
    condition.unwrap().status = "False".to_owned();
}

/// Its status and what is seen of it agree, or nobody builds on it.
#[test]
fn dependents_proceed_only_if_record_and_health_agree() {
    let carries = |change: fn(&mut ServiceObservation)| {
        let mut s = story("- {name: db}");
        s.run(60);
        change(s.seen("db"));
        satisfies_dependents(&s.world.plan, &s.world.seen, 0)
    };
    assert!(carries(|_| {}));
    let doubts: [State; 7] = [
        ("its stage", |of| of.status.stage = Stage::Reconnecting),
        ("whose it is", |of| of.other_plan = Some("uid-0".to_owned())),
        ("its isolation", |of| {
            of.quarantines[0].found.as_mut().unwrap().isolation = Some(Isolation::Contained)
        }),
        ("Recovered", |of| says_false(of, RECOVERED)),
        ("Healthy", |of| says_false(of, HEALTHY)),
        ("a gate", |of| of.gates.values_mut().for_each(|state| state.verdict = Verdict::Unknown)),
        ("no gate's answer", |of| of.gates.clear()),
    ];
    for (what, change) in doubts {
        assert!(!carries(change), "{what} speaks against it");
    }
}
