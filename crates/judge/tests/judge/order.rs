//! I1: nothing is loosened, and no step starts, before what it depends on is Recovered and Healthy.

use judge::Rule;
use serde_json::json;

use crate::maker::{ACCOUNT, LEAD, Maker, OPERATOR, conditions, key};

/// What is amiss, and what makes it so at a moment.
type Case = (&'static str, fn(&mut Maker, &str));

/// What was read of `db`, said otherwise.
fn answered(stage: &'static str, truths: &'static [&'static str]) -> impl Fn(&mut serde_json::Value) {
    move |event| {
        event["responseObject"]["status"]["stage"] = json!(stage);
        event["responseObject"]["status"]["conditions"] = conditions(truths);
    }
}

#[test]
fn whatever_begins_before_its_dependency_violates_order() {
    let mut log = Maker::sealed();
    log.recover("dns", 10_000, 11_000).recover("db", 10_100, 12_000);
    log.conditions("db fails", "db", "Recovered", &["Recovered"]);
    log.recover("web", 12_010, 15_010);
    let report = log.judge().unwrap();
    insta::assert_snapshot!("too_early", report);
    assert!(report.violations.iter().all(|v| v.rule == Rule::Order));
}

#[test]
fn live_reads_are_fresh_and_find_the_dependency_ready() {
    for moment in ["web reads for CleanRoom", "web reads for its step", "web reads for Open"] {
        let cases: [Case; 5] = [
            ("was not read live", |log, moment| {
                log.without(moment);
            }),
            ("was not read live", |log, moment| {
                // Before the service's own last write: what it rests on was decided after that.
                log.change(moment, |event| {
                    event["requestReceivedTimestamp"] = json!("2026-11-23T20:00:12.000000Z");
                });
            }),
            ("was not ready by the live read", |log, moment| {
                log.change(moment, answered("Recovered", &["Recovered"]));
            }),
            ("was not ready by the live read", |log, moment| {
                log.change(moment, answered("PostChecks", &["Healthy"]));
            }),
            ("was not there by the live read", |log, moment| {
                log.change(moment, |event| event["responseStatus"]["code"] = json!(404));
            }),
        ];
        for (problems, mutant) in cases {
            let mut log = Maker::clean();
            mutant(&mut log, moment);
            let messages = log.messages();
            assert!(messages.contains(problems), "{moment}: {problems}: {messages}");
            assert!(log.rules().iter().all(|rule| *rule == Rule::Order), "{moment}: {messages}");
        }
    }
}

#[test]
fn live_read_of_another_user_does_not_count() {
    let mut log = Maker::clean();
    log.change("web reads for Open", |event| event["user"]["username"] = json!(LEAD));
    assert_eq!(log.rules(), [Rule::Order]);
}

#[test]
fn dependency_with_stale_gates_satisfies_no_dependent() {
    let mut log = Maker::core();
    log.recover("web", 60_000, 63_000);
    let messages = log.messages();
    assert!(
        messages.contains("its dependency db has a continuous gate up that had not looked into db lately"),
        "{messages}"
    );
    assert!(log.rules().iter().all(|rule| *rule == Rule::Order), "{messages}");

    let mut log = Maker::core();
    log.at(59_000).look("db looks on", "db").recover("web", 60_000, 63_000);
    assert_eq!(log.messages(), "");

    // By what the operator watches, and what its plan's account may list: neither is enough without the other.
    let review = |log: &mut Maker| {
        let object = json!({"resource": "selfsubjectrulesreviews", "apiGroup": "authorization.k8s.io"});
        log.event("review", ACCOUNT, "create", object, (201, json!({})));
        log.change("review", |event| event["requestObject"] = json!({"spec": {"namespace": "db"}}));
    };
    let watch = |log: &mut Maker| {
        log.list("watch", OPERATOR, "pods", "").change("watch", |event| event["verb"] = json!("watch"));
    };
    for (watches, reviews) in [(true, true), (true, false), (false, true)] {
        let mut log = Maker::core();
        log.at(59_000);
        if watches {
            watch(&mut log);
        }
        if reviews {
            review(&mut log);
        }
        log.recover("web", 60_000, 63_000);
        assert_eq!(log.messages().is_empty(), watches && reviews, "{}", log.messages());
    }
}

#[test]
fn a_dependency_whose_record_was_deleted_holds() {
    let mut log = Maker::clean();
    log.begin("web", 1).label("again", OPERATOR, "web-a", "sealed").delete("gone", LEAD, &key("db"));
    log.label("open again", LEAD, "web-a", "");
    assert_eq!(log.rules(), [Rule::Order]);
}

#[test]
fn a_person_opening_too_early_breaks_the_order_too() {
    let mut log = Maker::sealed();
    log.label("open", LEAD, "web-a", "");
    assert_eq!(log.rules(), [Rule::Order]);
}

#[test]
fn widening_a_clean_room_is_judged_like_entering_it() {
    let more = |with_a_read: bool| {
        let mut log = Maker::core();
        log.at(12_010).begin("web", 1).enter("web");
        if with_a_read {
            log.live("read", "web");
        }
        log.write("more", OPERATOR, &key("web"), |o| o["spec"]["reachable"] = json!(["db"]));
        log.messages()
    };
    assert_eq!(more(true), "");
    assert_eq!(
        more(false),
        "I1 order: web asks for more in its clean room while its dependency db was not read live before\n"
    );
}

#[test]
fn group_members_do_not_wait_for_each_other() {
    let mut log = Maker::sealed();
    log.at(10_000).begin("db", 1).enter("db").step("db");
    assert_eq!(log.messages(), "");
}
