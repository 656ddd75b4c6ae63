//! I4: nothing is loosened but by the operator, as it was asked to, or by a person.

use judge::Rule;
use serde_json::json;

use crate::maker::{FLUX, LEAD, Maker, OPERATOR};

/// What is amiss, where, and what makes it so.
type Case = (&'static str, &'static str, fn(&mut serde_json::Value));

#[test]
fn only_operator_and_people_may_open() {
    let mut log = Maker::clean();
    log.label("again", OPERATOR, "db", "sealed").label("open", FLUX, "db", "");
    assert_eq!(log.rules(), [Rule::Opener]);
    log.change("open", |event| event["user"]["username"] = json!("system:admin"));
    assert_eq!(log.rules(), [Rule::Opener]);
    log.change("open", |event| event["user"]["username"] = json!(LEAD));
    assert_eq!(log.rules(), []);
    log.change("open", |event| {
        event["impersonatedUser"] = json!({"username": "system:serviceaccount:recovery:recovery"});
    });
    assert_eq!(log.rules(), [Rule::Opener], "who is impersonated did it");
}

#[test]
fn a_namespace_deleted_while_isolated_was_loosened() {
    let mut log = Maker::sealed();
    log.delete("delete", FLUX, "namespaces//web-a");
    // What follows of a namespace that is going says nothing.
    log.label("late", OPERATOR, "web-a", "sealed").change("late", |event| event["verb"] = json!("update"));
    log.change("late", |event| event["responseStatus"]["code"] = json!(200));
    assert_eq!(log.rules(), [Rule::Opener, Rule::Order]);
}

/// Each loosening of the operator's needs a claim, an ask that is as loose, all in one attempt, and no hold.
#[test]
fn operator_loosens_only_what_an_attempt_claimed_and_requested() {
    let entered = || {
        let mut log = Maker::sealed();
        log.at(10_000).begin("dns", 1).enter("dns");
        log
    };
    assert_eq!(entered().messages(), "");
    let quarantine = "claim dns";
    let ask = "dns asks for CleanRoom";
    let cases: [Case; 6] = [
        ("without a claim for dns", quarantine, |o| o["status"]["claimedBy"] = json!(null)),
        ("without a claim for dns", quarantine, |o| o["status"]["claimedBy"]["service"] = json!("db")),
        ("across attempts or plans", quarantine, |o| o["status"]["claimedBy"]["attempt"] = json!(2)),
        ("across attempts or plans", quarantine, |o| o["status"]["claimedBy"]["planUid"] = json!("u-2")),
        ("while its Quarantine was held", quarantine, |o| o["spec"]["hold"] = json!("Sealed")),
        ("and dns had asked for sealed", ask, |o| o["spec"]["isolation"] = json!("Sealed")),
    ];
    for (problems, tag, mutant) in cases {
        let mut log = entered();
        log.change(tag, |event| mutant(&mut event["responseObject"]));
        let messages = log.messages();
        assert!(
            messages.contains(&format!("I4 opener: dns went from sealed to clean-room {problems}")),
            "{problems}: {messages}"
        );
    }
}

#[test]
fn the_operator_opens_only_a_clean_room() {
    let mut log = Maker::sealed();
    log.at(10_000)
        .begin("dns", 1)
        .enter("dns")
        .step("dns")
        .label("back", OPERATOR, "dns", "sealed")
        .open("dns");
    assert_eq!(log.messages(), "I4 opener: dns went from sealed to open without having been a clean room\n");
}

#[test]
fn only_a_quarantine_that_a_person_deleted_is_released() {
    let released = |user| {
        let mut log = Maker::sealed();
        // The finalizer keeps it until it is carried out.
        log.write("going", user, "quarantines//dns", |o| o["metadata"]["deletionTimestamp"] = json!("now"));
        log.change("going", |event| event["verb"] = json!("delete"));
        log.write("policy back", OPERATOR, "networkpolicies/dns/allow", |_| {});
        log.label("open", OPERATOR, "dns", "");
        log.rules()
    };
    assert_eq!(released(LEAD), []);
    assert_eq!(released(OPERATOR), [Rule::Opener]);
    assert_eq!(released(FLUX), [Rule::Opener]);
}
