//! I5: intent first; nothing is done twice, and nothing lost.

use judge::Rule;
use serde_json::{Value, json};

use crate::maker::{ACCOUNT, ADMIN, LEAD, Maker, OPERATOR, PLAN, reference, time};

/// In the clean room, before its step.
fn entered() -> Maker {
    let mut log = Maker::sealed();
    log.at(10_000).begin("dns", 1).enter("dns");
    log
}

fn scale(log: &mut Maker, replicas: u64) {
    log.write("scale", ACCOUNT, "deployments/dns/app", |o| o["spec"]["replicas"] = json!(replicas));
}

#[test]
fn step_writes_after_its_intent_and_only_in_a_clean_room() {
    let mut log = entered();
    scale(&mut log, 2);
    assert_eq!(log.messages(), "");
    log.change("dns asks for CleanRoom", |event| {
        event["responseObject"]["status"]["steps"] = json!([{"name": "start", "state": "Pending"}]);
    });
    let expected = "I5 once: a step of dns writes to deployments/dns/app before its intent was written\n";
    assert_eq!(log.messages(), expected);
    let mut log = entered();
    log.status("too late", "dns", |status| status["stage"] = json!("PostChecks"));
    scale(&mut log, 2);
    assert_eq!(log.messages(), expected);
    let mut log = entered();
    log.label("back", OPERATOR, "dns", "sealed");
    scale(&mut log, 2);
    let expected =
        "I5 once: a step of dns writes to deployments/dns/app while dns is sealed, and not clean-room\n";
    assert_eq!(log.messages(), expected);
}

/// A step of a kind that this judge has never heard of is judged alike.
#[test]
fn whatever_a_step_creates_is_judged_as_its_write() {
    for object in ["jobs/dns/step-load-1-0a1b2c3d", "configmaps/dns/settings", "databases/dns/main"] {
        let mut log = entered();
        log.write("create", ACCOUNT, object, |_| {});
        assert_eq!(log.messages(), "", "{object}");
        let mut log = entered();
        log.label("back", OPERATOR, "dns", "sealed").write("create", ACCOUNT, object, |_| {});
        let expected =
            format!("I5 once: a step of dns writes to {object} while dns is sealed, and not clean-room\n");
        assert_eq!(log.messages(), expected);
        let mut log = entered();
        log.status("done", "dns", |status| {
            status["steps"] = json!([{"name": "start", "state": "Done"}]);
        });
        log.write("create", ACCOUNT, object, |_| {});
        assert_eq!(
            log.messages(),
            format!("I5 once: a step of dns writes to {object} before its intent was written\n")
        );
    }
}

#[test]
fn step_after_release_writes_while_its_service_is_open_and_reconnecting() {
    let released = |level: &str| {
        let mut log = Maker::sealed();
        log.at(10_000).begin("dns", 1).enter("dns").step("dns").open("dns");
        log.status("tells", "dns", |status| {
            status["steps"] =
                json!([{"name": "start", "state": "Done"}, {"name": "tell", "state": "Running"}]);
        });
        log.label("level", OPERATOR, "dns", level);
        log.write("tell", ACCOUNT, "configmaps/dns/told", |_| {}).messages()
    };
    assert_eq!(released(""), "");
    let message = released("clean-room");
    assert!(message.contains("while dns is clean-room, and not open"), "{message}");
}

#[test]
fn step_repeated_after_a_crash_changes_nothing() {
    let mut log = entered();
    scale(&mut log, 2);
    // The same again: the API server answers with what is there.
    let again = log.events.last().unwrap().1.clone();
    log.events.push(("again".to_owned(), again));
    assert_eq!(log.messages(), "");
    scale(&mut log, 3);
    assert_eq!(log.messages(), "I5 once: deployments/dns/app is changed twice in attempt 1 of dns\n");
}

#[test]
fn another_step_may_change_the_workload_once_more() {
    let mut log = entered();
    scale(&mut log, 2);
    log.status("goes on", "dns", |status| {
        status["steps"] = json!([{"name": "start", "state": "Done"}, {"name": "pin", "state": "Running"}]);
    });
    scale(&mut log, 3);
    assert_eq!(log.messages(), "");
    scale(&mut log, 4);
    assert_eq!(log.messages(), "I5 once: deployments/dns/app is changed twice in attempt 1 of dns\n");
}

#[test]
fn stopped_workload_has_a_record_that_is_never_overwritten() {
    let mut log = Maker::sealed();
    log.change("stop dns", |event| {
        event["responseObject"]["metadata"]["annotations"] = json!({"resurgam.dev/seal": "s"});
    });
    let expected = "I5 once: deployments/dns/app is stopped, and what it was like is not recorded on it\n";
    assert_eq!(log.messages(), expected);
    // As the operator asks for it: to be answered with the metadata only.
    log.change("stop dns", |event| {
        event["responseObject"]["kind"] = json!("PartialObjectMetadata");
        event["responseObject"]["spec"] = json!(null);
    });
    assert_eq!(log.messages(), expected);

    let again = |seal: &str, was: &str| {
        let mut log = Maker::sealed();
        log.write("again", OPERATOR, "deployments/dns/app", |o| {
            o["metadata"]["annotations"] = json!({"resurgam.dev/seal": seal, "resurgam.dev/replicas": was});
        });
        log.messages()
    };
    assert_eq!(again("s", "2"), "");
    assert_eq!(again("another", "0"), "", "another seal has a record of its own");
    assert_eq!(
        again("s", "0"),
        "I5 once: the record of deployments/dns/app was '2', and is overwritten under the same seal: '0'\n"
    );
}

#[test]
fn isolation_is_undone_before_anything_is_let_in_or_out() {
    let cases = [
        ("account back dns", "dns went from sealed to clean-room without serviceaccounts/dns/app"),
        ("policy back dns", "dns went from clean-room to open without networkpolicies/dns/allow"),
    ];
    for (tag, problems) in cases {
        let mut log = Maker::sealed();
        log.recover("dns", 10_000, 11_000).without(tag);
        let messages = log.messages();
        assert!(messages.contains(problems), "{messages}");
        assert!(log.rules().iter().all(|rule| *rule == Rule::Once), "{messages}");
    }
    // Its own policies go for good, and what a tenant deleted is not the operator's to bring back.
    let mut log = Maker::sealed();
    log.write("own", OPERATOR, "networkpolicies/dns/resurgam-default-deny", |_| {});
    log.delete("own away", OPERATOR, "networkpolicies/dns/resurgam-default-deny");
    log.write("tenant's", ADMIN, "networkpolicies/dns/theirs", |_| {});
    log.delete("tenant's away", ADMIN, "networkpolicies/dns/theirs").recover("dns", 10_000, 11_000);
    assert_eq!(log.messages(), "");
}

#[test]
fn service_begins_only_once_all_its_quarantines_are_claimed() {
    let without: [fn(&mut Value); 3] = [
        |o| o["status"]["claimedBy"] = json!(null),
        |o| o["status"]["claimedBy"]["attempt"] = json!(7),
        |o| o["status"]["claimedBy"]["service"] = json!("db"),
    ];
    for mutant in without {
        let mut log = Maker::core();
        log.at(12_010).begin("web", 1).change("claim web-b", |event| mutant(&mut event["responseObject"]));
        assert_eq!(
            log.messages(),
            "I5 once: web leaves Isolated in attempt 1, for which the Quarantine of web-b is not claimed\n"
        );
    }
}

#[test]
fn a_claim_moves_to_another_plan_only_when_the_first_is_gone() {
    let moved = |gone: bool| {
        let mut log = Maker::sealed();
        log.begin("dns", 1);
        if gone {
            log.event(
                "gone",
                ADMIN,
                "delete",
                reference("recoveryplans/recovery/p"),
                (200, json!({"kind": "Status", "details": {"uid": "u-1"}})),
            );
        }
        log.write("moved", OPERATOR, "quarantines//dns", |o| {
            o["status"]["claimedBy"] =
                json!({"plan": "q", "planNamespace": "recovery", "planUid": "u-9", "service": "x"});
        });
        log.messages()
    };
    assert_eq!(moved(true), "");
    assert_eq!(
        moved(false),
        "I5 once: the claim on dns moves from recovery/p/dns to recovery/q/x, whose plan was not gone\n"
    );
}

#[test]
fn a_plan_of_another_namespace_that_is_gone_has_left_its_claim() {
    let mut log = Maker::sealed();
    log.begin("dns", 1);
    let claim = |plan: &str, uid: &str| json!({"plan": plan, "planNamespace": "elsewhere", "planUid": uid, "service": "x"});
    for (uid, plan) in [("u-8", "first"), ("u-9", "second"), ("u-10", "third")] {
        log.write("moved", OPERATOR, "quarantines//apart", |o| o["status"]["claimedBy"] = claim(plan, uid));
        if uid == "u-8" {
            let answer = (200, json!({"kind": "Status", "details": {"uid": uid}}));
            log.event("gone", ADMIN, "delete", reference("recoveryplans/elsewhere/first"), answer);
        }
    }
    assert_eq!(
        log.messages(),
        "I5 once: the claim on apart moves from elsewhere/second/x to elsewhere/third/x, whose plan was not gone\n"
    );
}

#[test]
fn isolated_again_by_an_abort_or_by_the_plans_own_policy_only() {
    let isolated = |reason: &str, plan: &str, between: fn(&mut Maker)| {
        let mut log = Maker::sealed();
        let orders = json!({"digest": "sha256:orders", "number": 0});
        log.at(10_000).begin("dns", 1).status("orders", "dns", |s| s["standingOrders"] = orders.clone());
        between(&mut log);
        log.status("isolating", "dns", |s| {
            s["isolating"] = json!({"reason": reason, "level": "Sealed"});
            if reason == "Contained" {
                s["containedAt"] = json!(time(20_000));
            }
        });
        log.status("next", "dns", |s| *s = json!({"attempt": 2, "stage": "Isolated"}));
        let report = log.judge_with(plan, &judge::Options::default()).unwrap();
        report.violations.iter().map(|of| format!("{}\n", of.message)).collect::<String>()
    };
    fn abort(log: &mut Maker, digest: &str) {
        log.write("abort", LEAD, "decisions/recovery/d", |o| {
            o["spec"] = json!({"action": "Abort", "plan": "p", "service": "dns", "decidedOn": digest});
        });
    }
    let contains = PLAN.replace("{name: dns,", "{name: dns, onRegression: Contain,");
    let nobody = |found: String| assert!(found.contains("dns is aborted, and nobody decided so"), "{found}");
    assert_eq!(isolated("Aborted", PLAN, |log| abort(log, "sha256:orders")), "");
    nobody(isolated("Aborted", PLAN, |log| abort(log, "sha256:other")));
    nobody(isolated("Aborted", PLAN, |_| {}));
    assert_eq!(isolated("Contained", &contains, |_| {}), "");
    let unasked = isolated("Contained", PLAN, |_| {});
    assert!(unasked.contains("dns isolates itself, and the plan does not say so"), "{unasked}");
    let twice = isolated("Contained", &contains, |log| {
        log.status("earlier", "dns", |s| s["containedAt"] = json!(time(15_000)));
    });
    assert!(twice.contains("dns isolates itself twice within an hour"), "{twice}");
}

#[test]
fn next_attempt_needs_a_retry_or_a_recreated_plan() {
    let next = |attempt: u64, between: fn(&mut Maker)| {
        let mut log = Maker::sealed();
        log.at(10_000)
            .begin("dns", 1)
            .status("asks", "dns", |s| s["decision"] = json!({"digest": "sha256:1"}));
        between(&mut log);
        log.status("next", "dns", |s| *s = json!({"attempt": attempt, "stage": "Isolated"}));
        log.messages()
    };
    fn retry(log: &mut Maker, digest: &str) {
        log.write("retry", LEAD, "decisions/recovery/d", |o| {
            o["spec"] =
                json!({"by": LEAD, "action": "Retry", "plan": "p", "service": "dns", "decidedOn": digest});
        });
    }
    let broken = |to| {
        format!(
            "I5 once: dns goes from attempt 1 to {to} without a Retry that was decided on what it asked\n"
        )
    };
    assert_eq!(next(2, |log| retry(log, "sha256:1")), "");
    assert_eq!(next(2, |log| retry(log, "sha256:2")), broken(2));
    assert_eq!(next(2, |_| {}), broken(2));
    assert_eq!(next(3, |log| retry(log, "sha256:1")), broken(3));
    let anew = |log: &mut Maker| {
        log.write("plan", ADMIN, "recoveryplans/recovery/p", |o| o["metadata"]["uid"] = json!("u-2"));
    };
    assert_eq!(next(2, anew), "");
}

#[test]
fn cron_job_is_resumed_only_after_its_intent_is_recorded() {
    let resumed = |written: bool| {
        let mut log = Maker::sealed();
        log.write("job", ADMIN, "cronjobs/dns/nightly", |o| o["spec"] = json!({"suspend": false}));
        log.recover("dns", 10_000, 11_000);
        if written {
            log.status("resuming", "dns", |s| {
                s["resumes"] =
                    json!([{"kind": "CronJob", "namespace": "dns", "name": "nightly", "state": "Resuming"}]);
            });
        }
        log.write("resume", ACCOUNT, "cronjobs/dns/nightly", |o| o["spec"]["suspend"] = json!(true));
        log.messages()
    };
    assert_eq!(resumed(true), "");
    assert_eq!(
        resumed(false),
        "I5 once: a step of dns writes to cronjobs/dns/nightly before its intent was written\n"
    );
}
