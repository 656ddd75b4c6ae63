//! What counts of a log, and which log carries no judgement.

use judge::{CannotJudge, Options, Rule, judge};
use serde_json::json;

use crate::maker::{ADMIN, FLUX, Maker, OPERATOR, PLAN, REPLICASETS};

#[test]
fn what_was_refused_or_only_tried_did_not_happen() {
    let mut log = Maker::sealed();
    log.pod("refused", FLUX, "web-a").change("refused", |event| event["responseStatus"]["code"] = json!(403));
    log.pod("tried", FLUX, "web-a");
    log.change("tried", |event| event["requestURI"] = json!("/x?fieldManager=y&dryRun=All"));
    log.label("tried too", OPERATOR, "web-a", "");
    log.change("tried too", |event| event["requestURI"] = json!("/x?dryRun=All"));
    log.pod("begun", FLUX, "web-a").change("begun", |event| event["stage"] = json!("RequestReceived"));
    log.delete("tried last", FLUX, "namespaces//web-a");
    log.change("tried last", |event| event["requestObject"] = json!({"dryRun": ["All"]}));
    assert_eq!(log.messages(), "");
}

#[test]
fn table_answer_is_skipped_and_is_no_live_read() {
    let table =
        |event: &mut serde_json::Value| event["responseObject"] = json!({"kind": "Table", "rows": []});
    let mut log = Maker::clean();
    for key in ["namespaces//dns", "quarantines//dns", "servicerecoveries/recovery/p.dns"] {
        log.read("table", ADMIN, key);
    }
    log.change("table", table);
    assert!(log.judge().unwrap().is_clean());
    log.change("table", |event| event["responseObject"] = json!({"kind": "PartialObjectMetadata"}));
    assert!(log.judge().unwrap().is_clean());

    // The operator's own decision cannot rest on one.
    let mut log = Maker::clean();
    log.change("web reads for Open", table);
    assert!(log.rules().contains(&Rule::Order), "{}", log.messages());
}

#[test]
fn created_namespace_is_the_one_that_is_read_later() {
    let mut log = Maker::clean();
    log.change("made", |event| event["objectRef"] = json!({"resource": "namespaces"}));
    log.read("back", ADMIN, "namespaces//dns");
    let report = log.judge().unwrap();
    assert!(report.is_clean() && report.figures.recovered == 3, "{report}");
}

/// The reason for which there is no judgement.
fn refused(text: &str) -> String {
    judge(text.as_bytes(), PLAN, &Options::default()).unwrap_err().to_string()
}

/// A namespace that is there already, and nothing that names the revision it had.
fn beginning_only_told() -> String {
    let mut log = Maker::sealed();
    log.events.remove(0);
    log.events.iter_mut().for_each(|(_, event)| event["requestObject"] = json!(null));
    refused(&log.text())
}

#[test]
fn a_log_that_proves_nothing_is_no_pass() {
    let log = Maker::clean();
    let whole = log.text();
    let with = |tag: &str, change: fn(&mut serde_json::Value)| {
        let mut log = Maker::clean();
        log.change(tag, change);
        refused(&log.text())
    };
    let mut open = Maker::default();
    open.write("made", ADMIN, "namespaces//db", |_| {}).pod("pod", REPLICASETS, "db");
    let reasons = [
        refused(""),
        refused(&whole[..whole.len() - 40]),
        refused(&whole[..whole.len() - 1]),
        refused(&format!("{whole}nonsense\n")),
        refused(&format!("{whole}{}\n", json!({"kind": "Pod"}))),
        refused(&open.text().replace("\"db\"", "\"another\"")),
        refused(&open.text()),
        refused(whole.split_once('\n').unwrap().1),
        beginning_only_told(),
        with("clean room dns", |event| {
            event["responseObject"]["metadata"]["labels"]["resurgam.dev/isolation"] = json!("sealedd")
        }),
        with("made", |event| event["responseObject"] = json!({"kind": "Metadata"})),
        with("first pod db", |event| event["responseObject"]["metadata"] = json!({})),
        with("clean room dns", |event| event["stage"] = json!("Panic")),
        with("web reads for Open", |event| event["responseObject"] = json!(null)),
    ];
    insta::assert_snapshot!("refused", reasons.join("\n"));
}

#[test]
fn a_plan_that_cannot_be_read_is_no_pass() {
    let log = Maker::clean();
    let bad = PLAN.replace("imageDigests: {}", "imageDigests: {}, interval: often");
    for plan in ["", "kind: [", "kind: RecoveryPlan", "kind: Incident", &bad] {
        assert!(matches!(log.judge_with(plan, &Options::default()), Err(CannotJudge::Plan(_))), "{plan}");
    }
}
