//! Writes that the API server never answered: what came of them is told by what is seen later, and counts.

use judge::{Report, Rule, WriteOutcome};
use serde_json::{Value, json};

use crate::maker::{LEAD, Maker, OPERATOR, REPLICASETS, key};

/// The write took effect, and its client never learned so.
fn lost(log: &mut Maker, tag: &str, code: u64) {
    log.change(tag, |event| {
        event["responseStatus"] = json!({"code": code, "message": "context canceled"});
        event["responseObject"] = json!({"kind": "Status", "code": code});
    });
}

fn came(report: &Report) -> Vec<(String, WriteOutcome)> {
    report.unanswered.iter().map(|u| (u.object.clone(), u.came)).collect()
}

fn of(namespace: &str, came: WriteOutcome) -> Vec<(String, WriteOutcome)> {
    vec![(format!("namespaces/{namespace}"), came)]
}

#[test]
fn a_lost_answer_changes_nothing_about_what_is_counted() {
    for code in [500, 503, 504, 0] {
        for tag in [
            "clean room dns",
            "open dns",
            "clean room web-a",
            "open web-b",
            "web recovered",
            "dns BeforeRestore",
        ] {
            let mut log = Maker::clean();
            // What the operator reads when it comes back.
            for ns in ["dns", "web-a", "web-b"] {
                log.read("back", OPERATOR, &format!("namespaces//{ns}"));
            }
            log.read("back", OPERATOR, &key("web"));
            let whole = log.judge().unwrap();
            lost(&mut log, tag, code);
            let report = log.judge().unwrap();
            assert!(report.is_clean(), "{tag}: {report}");
            assert_eq!((&report.loosened, report.asks), (&whole.loosened, whole.asks), "{tag}: {report}");
            assert_eq!(report.figures.recovered, 3, "{tag}");
            let all: Vec<WriteOutcome> = report.unanswered.iter().map(|u| u.came).collect();
            assert_eq!(all, [WriteOutcome::Happened], "{tag}: {report}");
        }
    }
}

#[test]
fn unanswered_write_happened_if_the_next_builds_on_it() {
    let mut log = Maker::clean();
    // Nobody reads it back, but to open it the operator names the revision that the clean room has.
    lost(&mut log, "clean room dns", 504);
    let report = log.judge().unwrap();
    assert_eq!(came(&report), of("dns", WriteOutcome::Happened), "{report}");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.loosened["dns"], 2);
    insta::assert_snapshot!("unanswered", report);
}

#[test]
fn unanswered_write_failed_if_the_next_builds_on_the_old_state() {
    let mut log = Maker::sealed();
    log.at(10_000).begin("dns", 1).enter("dns");
    // Asked for a second time, and now answered: the store has no trace of the first.
    let mut first = log.events.iter().find(|(tag, _)| tag == "clean room dns").unwrap().clone();
    first.1["responseStatus"]["code"] = json!(504);
    first.1["responseObject"] = json!({"kind": "Status"});
    let at = log.events.len() - 1;
    log.events.insert(at, first);
    let report = log.judge().unwrap();
    assert_eq!(came(&report), of("dns", WriteOutcome::DidNot), "{report}");
    assert_eq!((report.is_clean(), report.loosened["dns"]), (true, 1), "{report}");
}

#[test]
fn consecutive_unanswered_writes_are_resolved_by_the_next() {
    let mut log = Maker::clean();
    for tag in ["web claimed", "web BeforeRestore", "web asks for CleanRoom", "web BeforeRelease"] {
        lost(&mut log, tag, 504);
    }
    for tag in ["clean room web-a", "seal web-a"] {
        lost(&mut log, tag, 504);
    }
    let whole = Maker::clean().judge().unwrap();
    let report = log.judge().unwrap();
    assert!(report.is_clean(), "{report}");
    assert!(report.unanswered.iter().all(|u| u.came == WriteOutcome::Happened), "{report}");
    let order = |report: &Report| report.unanswered.iter().map(|u| u.revision).collect::<Vec<_>>();
    assert!(order(&report).is_sorted() && order(&report).len() == 6, "{report}");
    assert_eq!((report.loosened, report.asks, report.steps), (whole.loosened, whole.asks, whole.steps));
}

#[test]
fn unknown_recreation_is_no_violation() {
    let mut log = Maker::clean();
    lost(&mut log, "policy back dns", 504);
    let report = log.judge().unwrap();
    assert_eq!(came(&report), [("networkpolicies/dns/allow".to_owned(), WriteOutcome::Unknown)]);
    assert!(report.is_clean(), "{report}");
}

#[test]
fn unknown_outcome_that_may_have_loosened_is_no_pass() {
    let mut log = Maker::clean();
    lost(&mut log, "open web-b", 504);
    let report = log.judge().unwrap();
    assert_eq!(came(&report), of("web-b", WriteOutcome::Unknown), "{report}");
    assert_eq!((report.is_clean(), report.violations.len()), (false, 0));
    insta::assert_snapshot!("unknown", report.to_string().lines().take(4).collect::<Vec<_>>().join("\n"));

    let mut log = Maker::clean();
    lost(&mut log, "web recovered", 504);
    let report = log.judge().unwrap();
    assert_eq!(came(&report), [("servicerecoveries/recovery/p.web".to_owned(), WriteOutcome::Unknown)]);
    assert!(report.is_clean(), "it loosened nothing: {report}");
}

#[test]
fn what_took_effect_without_an_answer_is_judged_like_any_other() {
    let mut log = Maker::sealed();
    log.label("open", LEAD, "web-a", "").read("back", OPERATOR, "namespaces//web-a");
    lost(&mut log, "open", 504);
    assert_eq!(log.rules(), [Rule::Order]);
    let mut log = Maker::sealed();
    log.label("open", "system:serviceaccount:kube-system:x", "db", "").read(
        "back",
        OPERATOR,
        "namespaces//db",
    );
    lost(&mut log, "open", 504);
    assert_eq!(log.rules(), [Rule::Opener]);
}

#[test]
fn what_is_seen_must_fit_what_was_asked() {
    let mut log = Maker::sealed();
    log.label("open", LEAD, "web-a", "").read("back", OPERATOR, "namespaces//web-a");
    lost(&mut log, "open", 504);
    // Somebody's write is missing in the log: what is seen is not what this one asked for.
    log.change("back", |event| event["responseObject"]["metadata"]["labels"] = json!({"other": "x"}));
    log.change("open", |event| event["requestObject"]["metadata"]["labels"] = json!({"mine": "x"}));
    let error = log.judge().unwrap_err().to_string();
    assert!(error.contains("which no write in it made: writes are missing"), "{error}");
}

#[test]
fn unanswered_deletion_happened_if_the_object_is_missing_later() {
    let deleted = |later: fn(&mut Maker)| {
        let mut log = Maker::sealed();
        log.event("delete", LEAD, "delete", crate::maker::reference("namespaces//web-a"), (504, Value::Null));
        later(&mut log);
        let report = log.judge().unwrap();
        (report.unanswered[0].came, report.loosenings)
    };
    let gone = |log: &mut Maker| {
        log.objects.remove("namespaces//web-a");
        log.read("back", OPERATOR, "namespaces//web-a");
    };
    assert_eq!(deleted(gone), (WriteOutcome::Happened, 1));
    let still = |log: &mut Maker| {
        log.label("later", OPERATOR, "web-a", "contained");
    };
    assert_eq!(deleted(still), (WriteOutcome::DidNot, 0));
    assert_eq!(deleted(|_| {}), (WriteOutcome::Unknown, 0));
}

#[test]
fn a_log_from_which_a_write_is_missing_is_no_pass() {
    let mut log = Maker::clean();
    log.without("clean room dns");
    let error = log.judge().unwrap_err().to_string();
    assert!(error.contains("shows namespaces/dns at revision"), "{error}");
}

#[test]
fn a_refusal_is_an_answer() {
    let mut log = Maker::sealed();
    log.pod("pod", REPLICASETS, "web-a");
    for code in [403, 404, 409, 422, 429] {
        lost(&mut log, "pod", code);
        let report = log.judge().unwrap();
        assert!(report.is_clean() && report.unanswered.is_empty(), "{report}");
    }
}

#[test]
fn write_that_a_webhook_refused_was_not_stored() {
    let messages = [
        r#"Internal error occurred: failed calling webhook "x.example.org": failed to call webhook: context deadline exceeded"#,
        r#"admission webhook "x.example.org" denied the request: not now"#,
        r#"admission webhook "x.example.org" denied the request without explanation"#,
    ];
    let refuse = |log: &mut Maker, message: &'static str| {
        lost(log, "open", 500);
        log.change("open", |event| event["responseStatus"]["message"] = json!(message));
    };
    for message in messages {
        let mut log = Maker::sealed();
        log.label("open", LEAD, "web-a", "");
        refuse(&mut log, message);
        let report = log.judge().unwrap();
        assert!(report.is_clean() && report.unanswered.is_empty(), "{report}");

        // Of a collection, one may have been deleted before another was refused.
        log.change("open", |event| event["verb"] = json!("deletecollection"));
        assert_eq!(log.judge().unwrap().unanswered.len(), 1, "{message}");
    }
    for message in
        ["x: admission webhook \"y\" denied the request", "Internal error occurred: etcdserver: timeout"]
    {
        let mut log = Maker::sealed();
        log.label("open", LEAD, "web-a", "");
        refuse(&mut log, message);
        assert_eq!(came(&log.judge().unwrap()), of("web-a", WriteOutcome::Unknown), "{message}");
    }
}
