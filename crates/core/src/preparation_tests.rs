use super::*;
use crate::api::conditions::{READY, STALLED, is_true};
use crate::engine::tests::kstatus;

const ACCOUNT: &str = "recovery/nobody";

fn fact(need: Need, answer: Answer) -> Fact {
    Fact { need, answer }
}

fn right(verb: &str, object: &str, namespace: Option<&str>) -> Need {
    Need::Right { verb: verb.to_owned(), object: object.to_owned(), namespace: namespace.map(str::to_owned) }
}

fn namespace(name: &str, service: &str) -> Need {
    Need::Namespace { name: name.to_owned(), service: service.to_owned() }
}

fn list() -> Need {
    Need::GateInput { gate: "images".to_owned(), input: "ConfigMap recovery/approved".to_owned() }
}

fn recover(name: &str) -> String {
    format!("quarantines.resurgam.dev/{name}")
}

#[test]
fn each_gap_is_named() {
    let unusable = Answer::Unusable("ConfigMap recovery/approved approves no digest at all".to_owned());
    for (need, answer, says) in [
        (Need::Account, Answer::Missing, "ServiceAccount recovery/nobody does not exist"),
        (
            Need::Impersonation,
            Answer::Missing,
            "the operator may not impersonate ServiceAccount recovery/nobody",
        ),
        (Need::Incident("nov".into()), Answer::Missing, "Incident nov does not exist"),
        (namespace("web", "web"), Answer::Missing, "namespace web does not exist"),
        (namespace("db", "web"), Answer::Missing, "namespace db (service web) does not exist"),
        (list(), Answer::Missing, "ConfigMap recovery/approved does not exist (gate images)"),
        (list(), unusable, "ConfigMap recovery/approved approves no digest at all (gate images)"),
        (
            right("recover", &recover("web"), None),
            Answer::Missing,
            "recovery/nobody may not recover quarantines.resurgam.dev/web",
        ),
        (
            right("list", "pods", Some("web")),
            Answer::Missing,
            "recovery/nobody may not list pods in namespace web",
        ),
        (
            Need::ExplicitGrant { object: recover("web") },
            Answer::Missing,
            "recovery/nobody may recover quarantines.resurgam.dev/web by a wildcard only, which does not count",
        ),
    ] {
        let found = judge(ACCOUNT, &[fact(Need::Account, Answer::Met), fact(need, answer)]);
        assert_eq!((found.state, found.reason), (State::False, Reason::NotPrepared));
        assert!(found.message.starts_with(&format!("1 missing: {says}. ")), "{}", found.message);
    }
}

#[test]
fn all_gaps_are_reported_at_once_and_alike_ones_together() {
    let mut facts = vec![
        fact(Need::Account, Answer::Missing),
        fact(list(), Answer::Missing),
        fact(namespace("web", "web"), Answer::Missing),
        fact(namespace("db", "web"), Answer::Missing),
    ];
    for name in ["db", "web"] {
        facts.push(fact(right("recover", &recover(name), None), Answer::Missing));
        for object in ["pods", "deployments.apps"] {
            facts.push(fact(right("list", object, Some(name)), Answer::Missing));
        }
    }
    insta::assert_snapshot!(judge(ACCOUNT, &facts).message);
}

#[test]
fn only_complete_facts_are_prepared() {
    let unknown = || Answer::Unknown("no answer within 15 s".to_owned());
    let met = || fact(Need::Account, Answer::Met);
    for (facts, state, reason) in [
        (vec![met()], State::True, Reason::Prepared),
        (vec![], State::Unknown, Reason::PreparationUnknown),
        (vec![met(), fact(Need::Impersonation, unknown())], State::Unknown, Reason::PreparationUnknown),
        (
            vec![fact(Need::Account, Answer::Missing), fact(Need::Impersonation, unknown())],
            State::False,
            Reason::NotPrepared,
        ),
    ] {
        let found = judge(ACCOUNT, &facts);
        assert_eq!((found.state, found.reason), (state, reason), "{facts:?}");
        let has_unknown = facts.iter().any(|fact| fact.answer == unknown());
        assert_eq!(found.message.contains("no answer within 15 s"), has_unknown, "{}", found.message);
    }
}

#[test]
fn message_is_bounded_and_counts_what_it_leaves_out() {
    let long = "x".repeat(2_000);
    let mut facts: Vec<Fact> = (0..40)
        .map(|n| {
            let input = format!("ConfigMap recovery/{}-{n}", "approved".repeat(6));
            fact(Need::GateInput { gate: format!("g{n}"), input }, Answer::Missing)
        })
        .collect();
    let found = judge(ACCOUNT, &facts);
    assert!(found.message.len() <= MESSAGE_LIMIT, "{}", found.message.len());
    let shown = found.message.matches("does not exist").count();
    assert!(shown > 5 && found.message.contains(&format!("and {} more", 40 - shown)), "{}", found.message);
    facts.push(fact(Need::Account, Answer::Unknown(long.clone())));
    assert!(judge(ACCOUNT, &facts).message.len() <= MESSAGE_LIMIT);
    assert!(judge(&long, &[fact(Need::Account, Answer::Missing)]).message.len() <= MESSAGE_LIMIT);
}

#[test]
fn condition_of_the_same_generation_stands_until_it_is_checked_again() {
    let now = Timestamp::from_second(100).unwrap();
    let of = |generation| RecoveryPlanStatus { observed_generation: Some(generation), ..Default::default() };
    let prepared = judge(ACCOUNT, &[fact(Need::Account, Answer::Met)]);
    let mut before = of(1);
    put(&mut before, &of(1), Some(&prepared), now);
    for (generation, expected) in [(1, "True"), (2, "Unknown")] {
        let mut status = of(generation);
        put(&mut status, &before, None, now);
        assert_eq!(find(&status.conditions, PREPARED).unwrap().status, expected, "{generation}");
    }
}

#[test]
fn a_gap_changes_neither_ready_nor_stalled() {
    let now = Timestamp::from_second(100).unwrap();
    for judgement in [
        judge(ACCOUNT, &[fact(Need::Account, Answer::Missing)]),
        judge(ACCOUNT, &[]),
        judge(ACCOUNT, &[fact(Need::Account, Answer::Met)]),
    ] {
        let mut status = RecoveryPlanStatus { observed_generation: Some(1), ..Default::default() };
        set(&mut status.conditions, READY, State::True, "Dormant", "", Some(1), now);
        put(&mut status, &RecoveryPlanStatus::default(), Some(&judgement), now);
        kstatus::check_plan(&status);
        assert!(is_true(&status.conditions, READY) && !is_true(&status.conditions, STALLED));
    }
}
