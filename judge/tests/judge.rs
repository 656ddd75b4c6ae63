//! The judge, tried on logs made here: a clean one, one that breaks each rule, and some that prove nothing.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, its helpers too")]

use judge::{CannotJudge, Options, Report, Rule, judge};
use serde_json::{Value, json};

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
const REPLICASETS: &str = "system:serviceaccount:kube-system:replicaset-controller";
const FLUX: &str = "system:serviceaccount:flux-system:kustomize-controller";
const LEAD: &str = "recovery-lead";

/// `web` waits for the group of `db` and `dns`; `db`'s edge to `dns` is within the group.
const PLAN: &str = "
apiVersion: resurgam.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: p, namespace: recovery}
spec:
  maxParallel: 2
  services:
  - {name: db, together: core, dependsOn: [dns]}
  - {name: dns, together: core}
  - {name: web, namespaces: [web-a, web-b], dependsOn: [db]}
";

/// A log in the making: a clock and the store's revision.
#[derive(Default)]
struct Maker {
    lines: Vec<String>,
    ms: u64,
    revision: u64,
}

impl Maker {
    fn at(&mut self, ms: u64) -> &mut Self {
        self.ms = ms;
        self
    }

    fn event(&mut self, user: &str, verb: &str, object: Value, code: u16, response: Value) -> &mut Self {
        let time =
            |ms: u64| format!("2026-11-23T20:{:02}:{:02}.{:03}000Z", ms / 60_000, ms / 1000 % 60, ms % 1000);
        let event = json!({
            "kind": "Event", "apiVersion": "audit.k8s.io/v1", "level": "RequestResponse", "auditID": "x",
            "stage": "ResponseComplete", "requestURI": "/x?fieldManager=y", "verb": verb,
            "user": {"username": user, "groups": ["system:authenticated"]}, "objectRef": object,
            "responseStatus": {"metadata": {}, "code": code}, "responseObject": response,
            "requestReceivedTimestamp": time(self.ms), "stageTimestamp": time(self.ms),
        });
        self.lines.push(event.to_string());
        self.ms += 1;
        self
    }

    fn last(&mut self, change: impl FnOnce(&mut Value)) -> &mut Self {
        let mut event = serde_json::from_str(&self.lines.pop().unwrap()).unwrap();
        change(&mut event);
        self.lines.push(event.to_string());
        self
    }

    fn next(&mut self) -> String {
        self.revision += 1;
        self.revision.to_string()
    }

    fn namespace(&mut self, user: &str, verb: &str, name: &str, level: &str) -> &mut Self {
        let mut labels = json!({"kubernetes.io/metadata.name": name});
        if !level.is_empty() {
            labels["resurgam.dev/isolation"] = level.into();
        }
        let response = json!({"kind": "Namespace", "apiVersion": "v1",
            "metadata": {"name": name, "resourceVersion": self.next(), "labels": labels}});
        let object = json!({"resource": "namespaces", "namespace": name, "name": name, "apiVersion": "v1"});
        self.event(user, verb, object, if verb == "create" { 201 } else { 200 }, response)
    }

    fn label(&mut self, name: &str, level: &str) -> &mut Self {
        self.namespace(OPERATOR, "patch", name, level)
    }

    fn pod(&mut self, user: &str, namespace: &str) -> &mut Self {
        let response = json!({"kind": "Pod",
            "metadata": {"name": "pod-x", "namespace": namespace, "resourceVersion": self.next()}});
        self.event(user, "create", json!({"resource": "pods", "namespace": namespace}), 201, response)
    }

    fn service(&mut self, name: &str, stage: &str, truths: &[&str]) -> &mut Self {
        let condition = |type_: &&str| json!({"type": type_, "status": if truths.contains(type_) { "True" } else { "False" }});
        let conditions: Vec<Value> =
            ["Recovered", "Healthy", "NeedsDecision"].iter().map(condition).collect();
        let response = json!({"kind": "ServiceRecovery",
            "metadata": {"name": format!("p.{name}"), "namespace": "recovery", "resourceVersion": self.next()},
            "status": {"stage": stage, "conditions": conditions}});
        let object = json!({"resource": "servicerecoveries", "namespace": "recovery", "name": format!("p.{name}"),
            "apiGroup": "resurgam.dev", "subresource": "status"});
        self.event(OPERATOR, "patch", object, 200, response)
    }

    fn retry(&mut self, service: &str) -> &mut Self {
        let response = json!({"kind": "Decision",
            "metadata": {"name": "d", "namespace": "recovery", "resourceVersion": self.next()},
            "spec": {"by": LEAD, "action": "Retry", "plan": "p", "service": service}});
        let object = json!({"resource": "decisions", "namespace": "recovery", "apiGroup": "resurgam.dev"});
        self.event(LEAD, "create", object, 201, response)
    }

    /// Everything made and sealed, and a second gone by.
    fn sealed() -> Self {
        let mut log = Self::default();
        for namespace in ["db", "dns", "web-a", "web-b"] {
            log.namespace("platform-administrator", "create", namespace, "");
            log.pod(REPLICASETS, namespace);
        }
        for namespace in ["db", "dns", "web-a", "web-b"] {
            log.label(namespace, "sealed");
        }
        log.at(5_000);
        log
    }

    /// The whole way of a service: claimed, clean room, its pods, open, Recovered.
    fn recover(&mut self, name: &str, namespaces: &[&str], from: u64, to: u64) -> &mut Self {
        self.at(from).service(name, "PreChecks", &[]);
        for namespace in namespaces {
            self.label(namespace, "clean-room").pod(REPLICASETS, namespace);
        }
        for namespace in namespaces {
            self.label(namespace, "");
        }
        self.at(to).service(name, "Recovered", &["Recovered", "Healthy"])
    }

    fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }

    fn judge(&self) -> Result<Report, CannotJudge> {
        judge(self.text().as_bytes(), PLAN, &Options::default())
    }

    fn rules(&self) -> Vec<Rule> {
        self.judge().unwrap().violations.iter().map(|v| v.rule).collect()
    }
}

/// A run without fault: the group in 2 s, then `web` after 10 ms in 3 s.
fn clean() -> Maker {
    let mut log = Maker::sealed();
    log.recover("dns", &["dns"], 10_000, 11_000);
    log.recover("db", &["db"], 10_100, 12_000);
    log.recover("web", &["web-a", "web-b"], 12_010, 15_010);
    log
}

#[test]
fn a_run_in_order_is_clean_and_measured() {
    let report = clean().judge().unwrap();
    insta::assert_snapshot!("clean", report);
    assert!(report.is_clean());
}

#[test]
fn order_is_by_the_stores_revision_and_not_by_the_line_or_the_clock() {
    // The log's lines are in the order of the answers: here each pair of neighbours has changed places.
    let mut log = clean();
    for pair in log.lines.chunks_mut(2) {
        pair.reverse();
    }
    assert_eq!(log.rules(), []);
}

#[test]
fn a_clean_room_before_the_dependency_is_recovered_breaks_the_order() {
    let mut log = Maker::sealed();
    log.recover("dns", &["dns"], 10_000, 11_000).label("web-a", "clean-room");
    log.recover("db", &["db"], 11_000, 12_000);
    let report = log.judge().unwrap();
    insta::assert_snapshot!("too_early", report);
    assert_eq!(report.violations.iter().map(|v| v.rule).collect::<Vec<_>>(), [Rule::Order]);
}

#[test]
fn a_dependency_that_is_recovered_and_not_healthy_holds() {
    let mut log = clean();
    log.label("web-a", "sealed").service("db", "Recovered", &["Recovered"]).label("web-a", "");
    assert_eq!(log.rules(), [Rule::Order]);
}

#[test]
fn a_dependency_whose_record_was_deleted_holds() {
    let mut log = clean();
    log.label("web-a", "sealed");
    let object = json!({"resource": "servicerecoveries", "namespace": "recovery", "name": "p.db",
        "apiGroup": "resurgam.dev"});
    log.event(LEAD, "delete", object, 200, json!({"kind": "Status"})).label("web-a", "");
    assert_eq!(log.rules(), [Rule::Order]);
}

#[test]
fn a_person_opening_too_early_breaks_the_order_too() {
    let mut log = Maker::sealed();
    log.namespace(LEAD, "patch", "web-a", "");
    assert_eq!(log.rules(), [Rule::Order]);
}

#[test]
fn within_a_group_nobody_waits() {
    let mut log = Maker::sealed();
    log.label("db", "clean-room").label("db", "");
    assert_eq!(log.rules(), []);
}

#[test]
fn a_namespace_deleted_while_isolated_was_loosened() {
    let mut log = Maker::sealed();
    let object = json!({"resource": "namespaces", "namespace": "web-a", "name": "web-a"});
    log.event(FLUX, "delete", object, 200, json!({"kind": "Namespace"}));
    // What follows of a namespace that is going says nothing.
    log.label("web-a", "sealed");
    assert_eq!(log.rules(), [Rule::Opener, Rule::Order]);
}

#[test]
fn a_pod_in_a_sealed_or_contained_namespace_is_a_violation_whoever_made_it() {
    for user in [REPLICASETS, OPERATOR, LEAD] {
        for level in ["sealed", "contained"] {
            let mut log = Maker::sealed();
            log.at(8_000).label("web-a", level).at(9_500).pod(user, "web-a");
            assert_eq!(log.rules(), [Rule::Pods], "{user} {level}");
        }
    }
}

#[test]
fn a_pod_made_by_server_side_apply_counts_as_made() {
    let mut log = Maker::sealed();
    log.pod(LEAD, "web-a").last(|event| event["verb"] = "patch".into());
    assert_eq!(log.rules(), [Rule::Pods]);
    log.last(|event| event["responseStatus"]["code"] = 200.into());
    assert_eq!(log.rules(), [], "a change to a pod that is there makes none");
}

#[test]
fn a_pod_in_a_clean_room_comes_from_a_built_in_controller_or_is_a_violation() {
    let mut log = clean();
    log.label("db", "clean-room").pod(REPLICASETS, "db").pod(FLUX, "db").pod(LEAD, "db");
    assert_eq!(log.rules(), [Rule::Pods, Rule::Pods]);
}

#[test]
fn a_pod_that_slipped_in_with_the_label_is_told_and_no_violation() {
    let mut log = Maker::default();
    log.namespace("platform-administrator", "create", "db", "").at(3_000).label("db", "sealed");
    log.at(3_008).pod(REPLICASETS, "db").at(4_500).pod(REPLICASETS, "db");
    let report = log.judge().unwrap();
    assert_eq!(report.slipped.iter().map(|s| s.after_ms).collect::<Vec<_>>(), [8]);
    assert_eq!(report.violations.len(), 1, "the second came too late to have slipped in");
}

#[test]
fn whoever_is_neither_the_operator_nor_a_person_opens_nothing() {
    let mut log = clean();
    log.label("db", "sealed").namespace(FLUX, "update", "db", "");
    assert_eq!(log.rules(), [Rule::Opener]);
    log.last(|event| event["user"]["username"] = "system:admin".into());
    assert_eq!(log.rules(), [Rule::Opener]);
    log.last(|event| event["user"]["username"] = LEAD.into());
    assert_eq!(log.rules(), []);
    log.last(|event| {
        event["impersonatedUser"] = json!({"username": "system:serviceaccount:recovery:recovery"})
    });
    assert_eq!(log.rules(), [Rule::Opener], "who is impersonated did it");
}

#[test]
fn what_was_refused_or_only_tried_did_not_happen() {
    let mut log = Maker::sealed();
    log.pod(FLUX, "web-a").last(|event| event["responseStatus"]["code"] = 403.into());
    log.pod(FLUX, "web-a").last(|event| event["requestURI"] = "/x?fieldManager=y&dryRun=All".into());
    log.label("web-a", "").last(|event| event["requestURI"] = "/x?dryRun=All".into());
    log.pod(FLUX, "web-a").last(|event| event["stage"] = "RequestReceived".into());
    let object = json!({"resource": "namespaces", "namespace": "web-a", "name": "web-a"});
    log.event(FLUX, "delete", object, 200, json!({"kind": "Namespace"}));
    log.last(|event| event["requestObject"] = json!({"dryRun": ["All"]}));
    assert_eq!(log.rules(), []);
}

/// The reason for which there is no judgement.
fn refused(text: &str) -> String {
    judge(text.as_bytes(), PLAN, &Options::default()).unwrap_err().to_string()
}

#[test]
fn a_log_that_proves_nothing_is_no_pass() {
    let whole = clean().text();
    let reasons = [
        refused(""),
        refused(&whole[..whole.len() - 40]),
        refused(&whole[..whole.len() - 1]),
        refused(&format!("{whole}nonsense\n")),
        refused(&format!("{whole}{}\n", json!({"kind": "Pod"}))),
        refused(
            &whole
                .replace("\"db\"", "\"another\"")
                .replace("\"dns\"", "\"another\"")
                .replace("\"web-", "\"other-"),
        ),
        refused(&clean().lines[..8].iter().map(|line| format!("{line}\n")).collect::<String>()),
        refused(whole.split_once('\n').unwrap().1),
        refused(&whole.replace("\"sealed\"", "\"sealedd\"")),
        refused(&whole.replacen("\"kind\":\"Namespace\"", "\"kind\":\"Metadata\"", 1)),
        refused(&whole.replacen("\"resourceVersion\":\"2\"", "\"version\":\"2\"", 1)),
        refused(&whole.replacen("ResponseComplete", "Panic", 1)),
    ];
    insta::assert_snapshot!("refused", reasons.join("\n"));
}

#[test]
fn a_plan_that_cannot_be_read_is_no_pass() {
    for plan in ["", "kind: [", "kind: RecoveryPlan", "kind: Incident"] {
        assert!(matches!(
            judge(clean().text().as_bytes(), plan, &Options::default()),
            Err(CannotJudge::Plan(_))
        ));
    }
}

#[test]
fn time_waiting_for_a_person_is_taken_out_where_it_arose_and_downstream() {
    let mut log = Maker::sealed();
    log.at(10_000).service("dns", "PreChecks", &[]);
    // A person is waited for from 11 s to 71 s; then the group takes 1 s more, and web 3 s after 10 ms.
    log.at(11_000).service("dns", "PreChecks", &["NeedsDecision"]).at(71_000).retry("dns");
    // The operator's own delay in seeing the answer is not a person's.
    log.at(71_010).service("dns", "PreChecks", &["NeedsDecision"]).at(71_050).service(
        "dns",
        "PreChecks",
        &[],
    );
    log.label("dns", "clean-room").label("dns", "");
    log.at(71_400).service("dns", "Recovered", &["Recovered", "Healthy"]);
    log.recover("db", &["db"], 71_410, 72_000);
    log.recover("web", &["web-a", "web-b"], 72_010, 75_010);
    let report = log.judge().unwrap();
    assert!(report.is_clean(), "{report}");
    let figures = report.figures;
    assert_eq!((figures.wall_ms, figures.human_ms), (65_010.0, 60_000.0));
    assert_eq!((figures.makespan_ms, figures.critical_path_ms), (5_010.0, 5_000.0));
    assert_eq!(figures.critical_path, ["group core", "web"]);
    assert_eq!(figures.services["dns"].human_ms, 60_000.0);
    assert_eq!(figures.services["dns"].recovery_ms, 1_400.0);
    assert_eq!((figures.edges, figures.edge_p50_ms), (1, Some(10.0)));
}

#[test]
fn an_edge_that_waited_for_a_slot_is_not_counted_as_latency() {
    let plan = PLAN
        .replace("maxParallel: 2", "maxParallel: 1")
        .replace("- {name: web,", "- {name: other, namespaces: []}\n  - {name: web,");
    let mut log = Maker::sealed();
    log.recover("dns", &["dns"], 10_000, 11_000).recover("db", &["db"], 10_100, 12_000);
    // `other` took the slot first.
    log.at(12_001).service("other", "PreChecks", &[]).at(14_000).service(
        "other",
        "Recovered",
        &["Recovered", "Healthy"],
    );
    log.recover("web", &["web-a", "web-b"], 14_010, 15_010);
    let figures = judge(log.text().as_bytes(), &plan, &Options::default()).unwrap().figures;
    assert_eq!((figures.edges, figures.edges_waited, figures.edge_p50_ms), (0, 1, None));
}

#[test]
fn the_judge_shares_no_code_with_what_it_judges() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    assert!(!manifest.contains("resurgam"), "no dependency on the operator");
    for entry in std::fs::read_dir(folder.join("src")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains("resurgam::") && !text.contains("use resurgam"), "{}", path.display());
    }
}
