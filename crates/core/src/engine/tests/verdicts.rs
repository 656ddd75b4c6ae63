//! What became of each Decision: every way there is, and that what the engine acts on and what is said of it are the same.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;
use strum::VariantArray;

use super::decisions::CASES;
use super::story::{Story, plan_with, story};
use crate::api::conditions::{APPLIED, find};
use crate::api::service_recovery::AcceptedGate;
use crate::api::{Action, DecisionReason, DecisionStatus, Phase, Verdict};
use crate::engine::{DecisionVerdict, judge_decision, without_plan};

/// An old digest, or one that somebody made up.
const OTHER: &str = "sha256:other";

/// What became of the latest Decision about `web`.
fn verdict(story: &mut Story) -> Option<DecisionVerdict> {
    let decision = story.seen("web").decisions.last().cloned().unwrap();
    judge_decision(&story.world.plan, &story.world.seen.services, "web", &decision)
}

fn became(story: &mut Story) -> Option<DecisionReason> {
    verdict(story).map(|verdict| verdict.reason)
}

/// `web` asks about a gate that failed.
fn asks() -> Story {
    let mut story = story("- {name: web}");
    story.says("web", Phase::BeforeRestore, Verdict::Fail);
    story.run(120);
    assert_eq!(story.needs("web"), Some("GateFailed"));
    story
}

/// `web` asks two parties to approve.
fn asks_parties() -> Story {
    let mut story = story(
        "- {name: web, gates: {beforeRelease: [{name: councils, approval: {parties: [{name: rbkc, group: rbkc-leads}, \
         {name: wcc, group: wcc-leads}]}}]}}",
    );
    story.run(30);
    assert_eq!(story.needs("web"), Some("ApprovalNeeded"));
    story
}

/// A reason, and a story at whose end the latest Decision about `web` has it.
type Way = (DecisionReason, fn() -> Story);

const WAYS: &[Way] = &[
    (DecisionReason::TookEffect, || {
        let mut story = asks();
        story.answers("web", Action::Retry);
        story
    }),
    (DecisionReason::Counted, || {
        let mut story = asks_parties();
        story.approves("web", "ana", "rbkc-leads");
        story
    }),
    (DecisionReason::PlanNotActive, || {
        let mut story = Story::of(plan_with("", "- {name: web}"));
        story.decide("web", Action::Hold, OTHER);
        story
    }),
    (DecisionReason::AnsweredByAnother, || {
        let mut story = asks();
        let digest = story.status("web").decision.as_ref().unwrap().digest.clone();
        story.decide("web", Action::Retry, &digest);
        story.decide("web", Action::AcceptException, &digest);
        story
    }),
    (DecisionReason::NotAsked, || {
        let mut story = story("- {name: web}");
        story.run(30);
        story.decide("web", Action::Retry, OTHER);
        story
    }),
    (DecisionReason::StateChanged, || {
        let mut story = asks();
        story.decide("web", Action::Retry, OTHER);
        story
    }),
    (DecisionReason::ActionNotAllowed, || {
        let mut story = asks();
        let digest = story.status("web").decision.as_ref().unwrap().digest.clone();
        story.decide("web", Action::Skip, &digest);
        story
    }),
    (DecisionReason::RejectedTooOften, || {
        let mut story = asks_parties();
        for _ in 0..65 {
            story.answers("web", Action::Reject);
            story.run(2);
        }
        story.approves("web", "ana", "rbkc-leads");
        story
    }),
    (DecisionReason::CountsForNoParty, || {
        let mut story = asks_parties();
        story.approves("web", "eve", "no-leads");
        story
    }),
    (DecisionReason::LimitReached, || {
        let mut story = asks();
        let accepted = |n: u8| AcceptedGate { name: format!("gate-{n}"), finding: OTHER.to_owned() };
        story.seen("web").status.accepted_gates = (0..32).map(accepted).collect();
        story.answers("web", Action::AcceptException);
        story
    }),
];

#[test]
fn every_way_that_a_decision_can_go_is_told() {
    let mut told = String::new();
    let mut reasons = BTreeSet::new();
    let mut tell = |reason: DecisionReason, verdict: Option<DecisionVerdict>| {
        let verdict = verdict.unwrap_or_else(|| panic!("nothing is said where it is {reason}"));
        assert_eq!((verdict.reason, verdict.at.is_some()), (reason, reason.is_effect()), "{verdict:?}");
        told += &format!("{reason}: {}\n", verdict.message);
        reasons.insert(reason);
    };
    for (reason, arrange) in WAYS {
        let mut story = arrange();
        story.run(30);
        tell(*reason, verdict(&mut story));
    }
    let mut story = asks();
    story.answers("web", Action::Retry);
    let decision = story.seen("web").decisions[0].clone();
    let services = &story.world.seen.services;
    tell(DecisionReason::UnknownService, judge_decision(&story.world.plan, services, "wbe", &decision));
    tell(DecisionReason::UnknownPlan, without_plan("recovery", "plam", "web", &decision));
    assert_eq!(reasons, DecisionReason::VARIANTS.iter().copied().collect());
    insta::assert_snapshot!(told);
}

/// At each stage, whatever is asked: a Decision of each action on just that is said to have an effect if the action answers it.
#[test]
fn what_is_said_of_a_decision_is_what_the_engine_acts_on() {
    for case in CASES {
        for &action in Action::VARIANTS {
            let mut story = (case.arrange)();
            let question = story.status("web").decision.clone();
            let orders = story.status("web").standing_orders.clone().unwrap().digest;
            let answers = question.as_ref().is_some_and(|question| question.actions.contains(&action));
            let digest = match &question {
                Some(question) if !action.is_standing_order() => question.digest.clone(),
                _ => orders,
            };
            story.decide("web", action, &digest);
            if action == Action::Approve {
                story.seen("web").decisions.last_mut().unwrap().group = Some("leads".to_owned());
            }
            let early = verdict(&mut story);
            assert!(early.is_none_or(|early| !early.reason.is_effect()), "before the engine has acted");
            story.run(120);
            let context = format!("{} at {:?}, {:?}", action.as_str(), case.stage, case.asked);
            let verdict = verdict(&mut story).unwrap_or_else(|| panic!("nothing is said: {context}"));
            let has_effect = answers || action.is_standing_order();
            assert_eq!(verdict.reason.is_effect(), has_effect, "{context}: {verdict:?}");
            // It stays, whatever comes.
            story.run(600);
            let later = super::verdicts::verdict(&mut story);
            assert_eq!(later.is_some_and(|later| later.reason.is_effect()), has_effect, "{context}");
        }
    }
}

#[test]
fn nothing_is_said_before_the_operator_has_considered_it() {
    let mut untaken = story("- {name: web}");
    untaken.decide("web", Action::Hold, OTHER);
    assert_eq!(became(&mut untaken), None, "it is not taken up yet");

    let mut story = asks();
    story.answers("web", Action::Retry);
    assert_eq!(became(&mut story), None, "it answers, and nobody has acted on it");
    story.seen("web").busy = true;
    story.decide("web", Action::Retry, OTHER);
    assert_eq!(became(&mut story), None, "a write is under way");
    story.seen("web").busy = false;
    assert_eq!(became(&mut story), Some(DecisionReason::StateChanged));
    let began = story.status("web").applied_decisions.as_ref().unwrap().since.0;
    let second = |at: i64| Some(Timestamp::from_second(began.as_second() + at).unwrap());
    story.seen("web").decisions.last_mut().unwrap().created_at = second(-1);
    assert_eq!(became(&mut story), None, "it may have taken effect before the record began");
    story.seen("web").decisions.last_mut().unwrap().created_at = second(0);
    assert_eq!(became(&mut story), Some(DecisionReason::StateChanged));
    story.seen("web").other_plan = Some("uid-0".to_owned());
    assert_eq!(became(&mut story), None, "the service is another plan's");
}

#[test]
fn approval_of_one_person_counts_once_for_each_party() {
    let mut story = asks_parties();
    story.approves("web", "ana", "rbkc-leads");
    story.run(5);
    story.approves("web", "ana", "rbkc-leads");
    story.run(5);
    assert_eq!(became(&mut story), Some(DecisionReason::CountsForNoParty));
    story.decide("web", Action::Approve, &story.status("web").decision.clone().unwrap().digest);
    story.run(5);
    assert_eq!(became(&mut story), Some(DecisionReason::CountsForNoParty), "it is in no group's name");
    let question = story.question("web");
    assert!(question.contains("approved by ana (Decision d0); still needs"), "{question}");
    story.approves("web", "bo", "wcc-leads");
    story.run(60);
    assert_eq!(became(&mut story), Some(DecisionReason::Counted));
}

#[test]
fn record_is_bounded_and_rid_of_those_whose_status_tells() {
    let mut story = story("- {name: web}");
    story.run(30);
    for _ in 0..40 {
        story.orders("web", Action::Hold);
        story.run(5);
    }
    let latest = |story: &Story| {
        let record = story.status("web").applied_decisions.clone().unwrap();
        (record.latest.len(), record.latest[0].name.clone())
    };
    assert_eq!(latest(&story), (32, "d39".to_owned()));
    story.seen("web").decisions.iter_mut().take(39).for_each(|of| of.is_applied = true);
    story.orders("web", Action::Hold);
    story.run(5);
    assert_eq!(latest(&story), (2, "d40".to_owned()));
}

#[test]
fn verdict_is_written_where_it_changed_and_an_effect_stays() {
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    let no = |reason| DecisionVerdict { reason, message: "m".to_owned(), at: None };
    let yes =
        DecisionVerdict { reason: DecisionReason::TookEffect, message: "m".to_owned(), at: Some(at(30)) };
    let told = |status: &DecisionStatus| {
        let applied = find(&status.conditions, APPLIED).unwrap();
        (applied.status.clone(), applied.reason.clone(), applied.last_transition_time.0)
    };
    let first = no(DecisionReason::NotAsked).status(None, Some(1), at(10)).unwrap();
    assert_eq!(told(&first), ("False".to_owned(), "NotAsked".to_owned(), at(10)));
    assert_eq!(first.observed_generation, Some(1));
    assert_eq!(no(DecisionReason::NotAsked).status(Some(&first), Some(1), at(20)), None);
    let other = no(DecisionReason::StateChanged).status(Some(&first), Some(1), at(20)).unwrap();
    assert_eq!(told(&other), ("False".to_owned(), "StateChanged".to_owned(), at(10)));
    let effect = yes.status(Some(&other), Some(1), at(40)).unwrap();
    assert_eq!(told(&effect), ("True".to_owned(), "TookEffect".to_owned(), at(30)));
    assert_eq!(no(DecisionReason::StateChanged).status(Some(&effect), Some(1), at(50)), None);
}
