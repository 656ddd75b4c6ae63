//! What makes a service wait before it begins, each with its culprit's name (I7), and none of it spreading further.

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use super::kstatus;
use super::story::{Story, plan, plan_with, story};
use super::{Look, look_at};
use crate::api::Reason;
use crate::api::conditions::{READY, RECONCILING, RECOVERED, STALLED, find};
use crate::api::{Isolation, Phase, ServiceRecoveryStatus, Stage, Verdict};
use crate::engine::{
    ClaimState, Decided, Effect, Observation, Presence, QuarantineState, Refusal, ServiceObservation, decide,
    unreadable,
};

/// Makes the Quarantine of `db` unfit before the story begins, and tells what must be said of it.
type Unfit = (&'static str, fn(&mut Story));

#[test]
fn an_unfit_quarantine_holds_its_service_and_no_other() {
    let rows: [Unfit; 4] = [
        ("QuarantineMissing: db", |s| s.seen("db").quarantines[0].found = None),
        ("QuarantineNotReady: db", |s| s.quarantine("db").ready = false),
        ("QuarantineNotReady: db", |s| s.quarantine("db").isolation = None),
        ("ClaimedByAnother: db", |s| {
            s.quarantine("db").claim = ClaimState::Other { holder: "recovery/other/db".to_owned() };
        }),
    ];
    for (block, make_unfit) in rows {
        let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}\n- {name: apart}");
        let fit = s.quarantine("db").clone();
        make_unfit(&mut s);
        s.run(600);
        assert_eq!(s.blocks("db"), [block]);
        if block.starts_with("QuarantineMissing") {
            let told = &s.status("db").blocked_by[0].message;
            assert_eq!(told, "namespace db has no Quarantine: on-call staff can create one");
        }
        assert_eq!(
            (s.stage("db"), s.done("db").len()),
            (Stage::Isolated, 1),
            "{block}: adopted, nothing else"
        );
        assert_eq!(s.stage("apart"), Stage::Recovered, "{block}");
        assert_eq!(s.status("web").waiting_for.as_deref(), Some("db"), "{block}");
        assert_eq!(s.world.status.blocked_by[0].name, "db");
        assert_eq!(s.world.status.blocked_by[0].holds, 1);
        assert_eq!(s.condition("db", READY).0, "Unknown", "{block}: nobody is asked to decide");
        assert_eq!((s.plan_condition(STALLED).0, s.plan_condition(RECONCILING).0), ("", "True"), "{block}");
        *s.seen("db").quarantines[0].found.as_mut().unwrap_or(&mut fit.clone()) = fit.clone();
        s.seen("db").quarantines[0].found = Some(fit);
        s.run(60);
        assert_eq!(s.stage("web"), Stage::Recovered, "{block}: goes on once mended");
    }
}

#[test]
fn one_of_two_namespaces_without_a_quarantine_is_enough_to_wait() {
    let mut s = story("- {name: db, namespaces: [a, b]}");
    s.seen("db").quarantines[1].found = None;
    s.run(60);
    assert_eq!((s.blocks("db"), s.stage("db")), (vec!["QuarantineMissing: b".to_owned()], Stage::Isolated));
}

#[test]
fn a_missing_incident_or_account_holds_everything_and_is_named() {
    let unknown = || Presence::Unknown("the API server does not answer".to_owned());
    for (incident, account, reason, block) in [
        (Presence::Missing, Presence::Present, "IncidentMissing", "IncidentMissing: nov"),
        (unknown(), Presence::Present, "IncidentUnknown", "IncidentUnknown: nov"),
        (Presence::Present, Presence::Missing, "ServiceAccountMissing", "ServiceAccountMissing: recovery"),
        (Presence::Present, unknown(), "ServiceAccountUnknown", "ServiceAccountUnknown: recovery"),
    ] {
        let mut s = story("- {name: db}");
        (s.world.seen.incident, s.world.seen.account) = (incident.clone(), account.clone());
        s.run(60);
        assert_eq!((s.blocks("db"), s.done("db").len()), (vec![block.to_owned()], 1));
        assert_eq!(s.plan_condition(READY), ("False", reason));
        assert_eq!(s.plan_condition(STALLED).0, "True");

        // The same when it vanishes half-way: nothing is loosened, no step begins.
        let mut s = story("- {name: db}");
        s.run(1);
        (s.world.seen.incident, s.world.seen.account) = (incident, account);
        let asked = s.asked("db");
        s.run(600);
        assert_eq!((s.asked("db"), s.steps_begun("db")), (asked, 0), "{reason}");
    }
}

#[test]
fn suspended_plan_starts_nothing_and_finishes_running_work() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.run(1);
    s.world.plan.suspend = true;
    s.run(600);
    assert_eq!((s.stage("db"), s.stage("web")), (Stage::Recovered, Stage::Isolated));
    assert_eq!((s.blocks("web"), s.done("web")), (vec!["Suspended: p".to_owned()], vec![Effect::Adopt]));
    s.world.plan.suspend = false;
    s.run(60);
    assert_eq!(s.stage("web"), Stage::Recovered);
}

#[test]
fn a_dormant_plan_does_nothing_and_is_ready() {
    let mut s = Story::of(plan_with("", "- {name: db}"));
    s.world.plan.generation = Some(7);
    s.run(600);
    let status = &s.world.status;
    let told = (status.total, status.progress.as_deref(), status.observed_generation);
    assert_eq!(told, (1, Some("0/1"), Some(7)));
    assert!(s.world.facts.is_empty());
    assert_eq!(
        (s.plan_condition(READY), s.plan_condition(RECOVERED)),
        (("True", "Dormant"), ("False", "Dormant"))
    );
    let mut broken = Story::of(plan_with("", "- {name: db, dependsOn: [nowhere]}"));
    broken.run(1);
    assert_eq!(
        (broken.plan_condition(READY), broken.plan_condition(STALLED)),
        (("False", "UnknownService"), ("True", "UnknownService"))
    );
}

#[test]
fn problem_stalls_its_service_and_holds_dependents_only() {
    let mut s = story(
        "- {name: a, dependsOn: [b]}\n- {name: b, dependsOn: [a]}\n- {name: behind, dependsOn: [a]}\n- {name: apart}",
    );
    s.run(600);
    for (service, stage) in [
        ("a", Stage::Isolated),
        ("b", Stage::Isolated),
        ("behind", Stage::Isolated),
        ("apart", Stage::Recovered),
    ] {
        assert_eq!(s.stage(service), stage, "{service}");
    }
    assert_eq!(
        (s.condition("a", STALLED).0.as_str(), s.condition("a", RECONCILING).0.as_str()),
        ("True", "")
    );
    assert_eq!(s.condition("behind", RECONCILING).0, "True", "it only waits");
    assert_eq!((s.plan_condition(READY), s.plan_condition(STALLED).0), (("False", "Cycle"), "True"));
}

#[test]
fn slots_go_to_the_lowest_tier_then_to_what_most_depends_on() {
    let top = "incidentRef: {name: nov}\nmaxParallel: 1";
    let mut s = Story::of(plan_with(
        top,
        "- {name: late, tier: 5}\n- {name: plain, tier: 1}\n- {name: root, tier: 1}\n- {name: leaf, tier: 1, dependsOn: [root]}",
    ));
    s.run(120);
    let mut order = ["late", "plain", "root", "leaf"];
    order.sort_by_key(|service| s.reached(service, Stage::PreChecks));
    assert_eq!(order, ["root", "plain", "leaf", "late"]);
}

#[test]
fn waiting_service_names_the_root_blocker() {
    let mut s = story(
        "- {name: a, owner: team-a}\n- {name: b, dependsOn: [a]}\n- {name: c, dependsOn: [b]}\n- {name: d, dependsOn: [c]}",
    );
    s.says("a", Phase::BeforeRestore, Verdict::Fail);
    s.run(120);
    assert_eq!(s.status("b").waiting_for.as_deref(), Some("a"));
    assert_eq!(s.status("d").waiting_for.as_deref(), Some("c (held up by a)"));
    let told = &s.status("d").blocked_by[0].message;
    assert!(told.contains("a (GateFailed") && told.contains("team-a can clear it"), "{told}");
    assert_eq!(s.world.status.blocked_by.len(), 1);
    assert_eq!((s.world.status.blocked_by[0].name.as_str(), s.world.status.blocked_by[0].holds), ("a", 3));
}

#[test]
fn dependents_learn_the_decision_behind_an_overdue_gate() {
    let mut s = story("- {name: a}\n- {name: b, dependsOn: [a]}");
    s.says("a", Phase::BeforeRestore, Verdict::Unknown);
    s.run(5);
    assert_eq!(s.status("b").blocked_by[0].message, "not recovered yet");
    s.run(3_600);
    assert_eq!(s.needs("a"), Some("GateUnknown"));
    let told = &s.status("b").blocked_by[0].message;
    assert!(told.starts_with("held up (GateUnknown: images says Unknown"), "{told}");
    assert!(s.world.status.blocked_by[0].message.contains("images says Unknown"));
}

#[test]
fn waiting_for_names_two_services_and_counts_the_rest() {
    let waits_for = |services: &str| {
        let mut s = story(services);
        s.run(1);
        s.status("web").waiting_for.clone().unwrap()
    };
    assert_eq!(waits_for("- {name: a}\n- {name: b}\n- {name: web, dependsOn: [a, b]}"), "a, b");
    let three = "- {name: a}\n- {name: b}\n- {name: c}\n- {name: web, dependsOn: [a, b, c]}";
    assert_eq!(waits_for(three), "a, b +1");
}

/// A moment at which one service is observed so.
fn observed(change: impl FnOnce(&mut ServiceObservation)) -> Observation {
    let story = story("- {name: db}");
    let mut of = story.world.seen.services[0].clone();
    of.exists = true;
    of.generation = Some(1);
    change(&mut of);
    let now = Timestamp::from_second(1_000).unwrap();
    Observation {
        now,
        incident: Presence::Present,
        compromised_since: None,
        account: Presence::Present,
        services: [of].into_iter().collect(),
    }
}

/// One look at one service, observed so.
fn one(change: impl FnOnce(&mut ServiceObservation)) -> Look {
    look_at(&plan("- {name: db}"), &observed(change), 0)
}

fn look(change: impl FnOnce(&mut ServiceObservation)) -> Decided {
    let decided = decide(&plan("- {name: db}"), &observed(change));
    kstatus::check_plan(&decided.plan);
    decided
}

#[test]
fn unknown_generation_is_never_current() {
    let decided = one(|of| of.generation = None);
    assert_eq!(decided.status.observed_generation, Some(-1));
}

#[test]
fn a_busy_service_is_left_alone() {
    let idle = one(|_| {});
    assert!(idle.write && idle.effect.is_some());
    let busy = one(|of| of.busy = true);
    assert!(!busy.write && busy.effect.is_none());
    assert_eq!(busy.status, ServiceRecoveryStatus::default());
}

#[test]
fn adopted_service_evaluates_gates_once_recovered_or_claimed() {
    for (stage, ask) in [(Stage::Recovered, vec![Phase::Continuous]), (Stage::PostChecks, vec![])] {
        let adopted = one(|of| {
            of.other_plan = Some("uid-0".to_owned());
            of.status.stage = stage;
        });
        assert_eq!((adopted.effect, adopted.ask), (Some(Effect::Adopt), ask), "{stage:?}");
    }
}

#[test]
fn denied_effect_waits_for_its_retry_time_and_says_why() {
    let refusal = |at: i64| Refusal {
        reason: Reason::RecoverNotGranted,
        message: "recovery may not recover quarantine db".to_owned(),
        again_at: Timestamp::from_second(at).unwrap(),
        since: None,
    };
    let waits = one(|of| of.refused = Some(refusal(1_001)));
    assert_eq!(waits.effect, None);
    assert_eq!(waits.status.blocked_by[0].reason, Reason::RecoverNotGranted);
    assert_eq!(find(&waits.status.conditions, READY).unwrap().reason, "RecoverNotGranted");
    // A look is never asked for at the very moment of one: it would go on in a circle.
    let now = look(|of| of.refused = Some(refusal(1_000)));
    assert!(
        now.services[0].effect.is_some()
            && now.wake_at.is_none_or(|at| at > Timestamp::from_second(1_000).unwrap())
    );
    for (at, adopts) in [(1_000, true), (1_001, false)] {
        let adopted = one(|of| (of.exists, of.refused) = (false, Some(refusal(at))));
        assert_eq!(adopted.effect.is_some(), adopts, "{at}");
    }
}

#[test]
fn a_look_that_was_refused_ends_with_a_wake_up() {
    let mut s = story("- {name: db}\n- {name: web, dependsOn: [db]}");
    s.run(600);
    let seen = Observation {
        now: s.world.seen.now.checked_add(SignedDuration::from_secs(5)).unwrap(),
        services: s
            .world
            .seen
            .services
            .iter()
            .map(|of| ServiceObservation { exists: false, ..of.clone() })
            .collect(),
        ..s.world.seen.clone()
    };
    let mut refused = seen.clone();
    let again_at = seen.now.checked_add(SignedDuration::from_secs(1)).unwrap();
    for of in refused.services.iter_mut() {
        of.refused = Some(Refusal { reason: Reason::Conflict, message: "x".into(), again_at, since: None });
    }
    assert!(decide(&s.world.plan, &seen).services.iter().all(|of| of.effect.is_some()));
    let decided = decide(&s.world.plan, &refused);
    assert!(decided.services.iter().all(|of| of.effect.is_none()));
    assert_eq!(decided.wake_at, Some(again_at));
}

#[test]
fn unreadable_plan_is_reported_at_its_generation() {
    let status = unreadable(Some(3), "unknown field 'levitate'", Timestamp::UNIX_EPOCH);
    kstatus::check_plan(&status);
    assert_eq!(status.observed_generation, Some(3));
    for (type_, expected) in [(READY, "False"), (STALLED, "True"), (RECOVERED, "False")] {
        let condition = find(&status.conditions, type_).unwrap();
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            (expected, "Unreadable"),
            "{type_}"
        );
        assert!(condition.message.ends_with("unknown field 'levitate'"), "{}", condition.message);
    }
}

#[test]
fn every_namespace_short_of_its_level_is_a_blocker() {
    type Change = fn(&mut Option<QuarantineState>);
    let rows: [(Change, &[&str]); 4] = [
        (|_| {}, &[]),
        (|found| found.as_mut().unwrap().isolation = Some(Isolation::Sealed), &["Isolation: a"]),
        (|found| found.as_mut().unwrap().ready = false, &["Isolation: a"]),
        (|found| *found = None, &["QuarantineMissing: a"]),
    ];
    for (change, expected) in rows {
        let mut s = story("- {name: db, namespaces: [a, b]}");
        s.says("db", Phase::BeforeRelease, Verdict::Unknown);
        s.run(60);
        let of = s.seen("db");
        of.status.stage = Stage::Restoring;
        change(&mut of.quarantines[0].found);
        let decided = look_at(&s.world.plan, &s.world.seen, 0);
        let blocks: Vec<_> =
            decided.status.blocked_by.iter().map(|b| format!("{}: {}", b.reason, b.name)).collect();
        let waits: Vec<_> = blocks.iter().filter(|b| !b.starts_with("Gate")).collect();
        assert_eq!(waits, expected);
    }
}

#[test]
fn decision_needed_keeps_its_first_time() {
    let mut s = story("- {name: db, namespaces: [a, b]}");
    s.run(60);
    let hold = |s: &mut Story, namespace: usize, level: Option<Isolation>| {
        s.seen("db").quarantines[namespace].found.as_mut().unwrap().hold = level;
    };
    let since = |s: &Story| s.status("db").decision.as_ref().unwrap().since.0;
    hold(&mut s, 0, Some(Isolation::Open));
    s.run(60);
    let first = since(&s);
    s.run(60);
    assert_eq!(since(&s), first);
    hold(&mut s, 0, None);
    hold(&mut s, 1, Some(Isolation::Open));
    s.run(60);
    assert!(since(&s) > first, "another namespace is another matter");
}

#[test]
fn decision_that_does_not_match_the_plan_has_no_effect() {
    let s = story("- {name: db}\n- {name: web}");
    let mut seen = s.world.seen.clone();
    seen.services.pop();
    assert!(decide(&s.world.plan, &seen).services.is_empty());
}
