//! I4 for what runs: nothing isolated gets a pod.

use judge::Rule;
use serde_json::json;

use crate::maker::{ADMIN, FLUX, LEAD, Maker, OPERATOR, REPLICASETS};

#[test]
fn pod_in_an_isolated_namespace_is_a_violation() {
    for user in [REPLICASETS, OPERATOR, LEAD] {
        for level in ["sealed", "contained"] {
            let mut log = Maker::sealed();
            log.at(8_000).label("again", OPERATOR, "web-a", level).at(9_500).pod("pod", user, "web-a");
            assert_eq!(log.rules(), [Rule::Pods], "{user} {level}");
        }
    }
}

#[test]
fn a_pod_made_by_server_side_apply_counts_as_made() {
    let mut log = Maker::sealed();
    log.pod("pod", LEAD, "web-a").change("pod", |event| event["verb"] = json!("patch"));
    assert_eq!(log.rules(), [Rule::Pods]);
    log.change("pod", |event| event["responseStatus"]["code"] = json!(200));
    assert_eq!(log.rules(), [], "a change to a pod that is there makes none");
}

#[test]
fn pod_in_a_clean_room_must_come_from_a_built_in_controller() {
    let mut log = Maker::sealed();
    log.at(10_000).begin("dns", 1).enter("dns");
    log.pod("good", REPLICASETS, "dns").pod("flux", FLUX, "dns").pod("lead", LEAD, "dns");
    assert_eq!(log.rules(), [Rule::Pods, Rule::Pods]);
}

#[test]
fn pod_created_while_the_label_took_effect_is_no_violation() {
    let mut log = Maker::default();
    log.write("made", ADMIN, "namespaces//db", |_| {}).at(3_000).label("seal", OPERATOR, "db", "sealed");
    log.at(3_008).pod("pod", REPLICASETS, "db").at(4_500).pod("late", REPLICASETS, "db");
    let report = log.judge().unwrap();
    assert_eq!(report.slipped.iter().map(|s| s.after_ms).collect::<Vec<_>>(), [8]);
    assert_eq!(report.violations.len(), 1, "the second came too late to have slipped in");
}
