//! What is measured.

use judge::Options;

use crate::maker::{LEAD, Maker, PLAN};
use serde_json::json;

fn retry(log: &mut Maker, service: &str) {
    log.write("retry", LEAD, "decisions/recovery/d", |o| {
        o["spec"] =
            json!({"by": LEAD, "action": "Retry", "plan": "p", "service": service, "decidedOn": "sha256:1"});
    });
}

#[test]
fn time_waiting_for_a_person_is_excluded_downstream_too() {
    let mut log = Maker::sealed();
    log.at(9_999).begin("dns", 1);
    // A person is waited for from 11 s to 71 s; then the group takes 1 s more, and web 3 s after 10 ms.
    log.at(11_000).conditions("asks", "dns", "PreChecks", &["NeedsDecision"]).at(71_000);
    retry(&mut log, "dns");
    // The operator's own delay in seeing the answer is not a person's.
    log.at(71_010).conditions("asks still", "dns", "PreChecks", &["NeedsDecision"]);
    log.at(71_050).conditions("goes on", "dns", "PreChecks", &[]);
    log.at(71_060).enter("dns").step("dns").open("dns").at(71_399).recovered("dns");
    log.recover("db", 71_410, 71_999).recover("web", 72_008, 75_008);
    let report = log.judge().unwrap();
    assert!(report.is_clean(), "{report}");
    let figures = report.figures;
    assert_eq!((figures.wall_ms, figures.human_ms), (65_010.0, 60_000.0));
    assert_eq!((figures.makespan_ms, figures.critical_path_ms), (5_010.0, 5_000.0));
    assert_eq!(figures.critical_path, ["group core", "web"]);
    assert_eq!(figures.services["dns"].human_ms, 60_000.0);
    assert_eq!(figures.services["dns"].recovery_ms, 1_400.0);
    assert_eq!((figures.edges, figures.edge_p50_ms), (1, Some(8.0)));
}

#[test]
fn an_edge_that_waited_for_a_slot_is_not_counted_as_latency() {
    let plan = PLAN
        .replace("maxParallel: 2", "maxParallel: 1")
        .replace("- {name: web,", "- {name: other, namespaces: []}\n  - {name: web,");
    let mut log = Maker::core();
    // `other` took the slot first.
    log.at(12_002).begin("other", 1).at(14_000).recovered("other");
    log.recover("web", 14_010, 15_010);
    let figures = log.judge_with(&plan, &Options::default()).unwrap().figures;
    assert_eq!((figures.edges, figures.edges_waited, figures.edge_p50_ms), (0, 1, None));
}
