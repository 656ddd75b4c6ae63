//! What became of Decisions: the operator says it of each, and `resurgam decide` passes it on.

use control_plane::Identity;
use futures::StreamExt;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use rehearsal::{condition, eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS, cluster};
use crate::quarantine_cli::support::resurgam;

/// A digest that nothing has.
fn other() -> String {
    format!("sha256:{}", "0a".repeat(32))
}

/// `db`, whose image is not approved; and `app`, which asks two parties before its release.
fn services(bench: &Bench) -> Value {
    let mut db = bench.service("db", &[]);
    db["gates"] = json!({"beforeRestore": [
        {"name": "images", "imageDigests": {"approved": [other()]}, "interval": "500ms", "failureLimit": 1}]});
    let mut app = bench.service("app", &[]);
    app["gates"] = json!({"beforeRelease": [{"name": "councils", "approval": {"parties": [
        {"name": "rbkc", "group": "rbkc-leads"}, {"name": "wcc", "group": "wcc-leads"}]}}]});
    json!([db, app])
}

/// The recovery lead makes a Decision by hand.
async fn decide(bench: &Bench, name: &str, (plan, service, action): (&str, &str, &str), decided_on: &str) {
    let decision = json!({
        "apiVersion": KINDS, "kind": "Decision", "metadata": {"name": name, "namespace": bench.case},
        "spec": {"by": "recovery-lead", "plan": plan, "service": service, "action": action, "reason": "a test",
            "decidedOn": decided_on},
    });
    let decisions = kind(&bench.lead().await, KINDS, "Decision", Some(bench.case));
    decisions.create(&PostParams::default(), &serde_json::from_value(decision).unwrap()).await.unwrap();
}

/// Waits until a Decision says what became of it, in these words.
async fn became(bench: &Bench, name: &str, status: &str, reason: &str, words: &str) -> Value {
    let decisions = kind(&bench.admin, KINDS, "Decision", Some(bench.case));
    let is_it = |o: &Value| {
        let conditions = field(o, "/status/conditions").as_array();
        conditions.into_iter().flatten().any(|c| {
            c["type"] == "Applied"
                && (c["status"] == status && c["reason"] == reason && c["observedGeneration"] == 1)
                && text(c, "/message").contains(words)
        })
    };
    let what = format!("{name} to say {status}, {reason}: {words}");
    eventually(&decisions, name, &what, rehearsal::DEADLINE, is_it).await.unwrap()
}

#[tokio::test]
async fn decision_by_hand_says_why_it_has_no_effect() {
    let bench = Bench::new("verdicts", &["db", "app", "web"]).await;
    let mut all = services(&bench);
    all.as_array_mut().unwrap().push(bench.service("web", &[]));
    let plan = bench.plan("plan", all);
    bench.apply(&plan).await;
    let mut dormant = bench.plan("later", json!([bench.service("db", &[])]));
    dormant["spec"].as_object_mut().unwrap().remove("incidentRef");
    bench.apply(&dormant).await;
    bench.plan_says("later", "True", "Dormant", &[]).await;
    bench.recovers("plan", "web").await;
    let asks = bench.says("plan", "db", "GateFailed", &["images"]).await;
    let question = text(&asks, "/status/decision/digest").to_owned();
    let app = bench.says("plan", "app", "ApprovalNeeded", &["1 of party rbkc"]).await;
    let approval = text(&app, "/status/decision/digest").to_owned();

    decide(&bench, "no-plan", ("plam", "db", "Retry"), &question).await;
    decide(&bench, "no-service", ("plan", "dbb", "Retry"), &question).await;
    decide(&bench, "dormant", ("later", "db", "Retry"), &question).await;
    decide(&bench, "old", ("plan", "db", "Retry"), &other()).await;
    decide(&bench, "wrong-action", ("plan", "db", "Skip"), &question).await;
    decide(&bench, "mixed-up", ("plan", "db", "Hold"), &question).await;
    decide(&bench, "not-asked", ("plan", "web", "Retry"), &other()).await;
    decide(&bench, "no-party", ("plan", "app", "Approve"), &approval).await;
    let untold = became(&bench, "no-plan", "False", "UnknownPlan", "there is no RecoveryPlan plam").await;
    became(&bench, "no-service", "False", "UnknownService", "did you mean 'db'?").await;
    became(&bench, "dormant", "False", "PlanNotActive", "plan later is Dormant").await;
    became(&bench, "old", "False", "StateChanged", &question).await;
    became(&bench, "wrong-action", "False", "ActionNotAllowed", "Skip does not answer GateFailed").await;
    became(&bench, "mixed-up", "False", "ActionNotAllowed", "status.standingOrders.digest").await;
    became(&bench, "not-asked", "False", "NotAsked", "there is nothing to retry").await;
    became(&bench, "no-party", "False", "CountsForNoParty", "1 of party wcc").await;

    decide(&bench, "accepted", ("plan", "db", "AcceptException"), &question).await;
    became(&bench, "accepted", "True", "TookEffect", "goes on although the finding stands").await;
    decide(&bench, "late", ("plan", "db", "Retry"), &question).await;
    became(
        &bench,
        "late",
        "False",
        "AnsweredByAnother",
        "Decision accepted (AcceptException by recovery-lead)",
    )
    .await;
    bench.recovers("plan", "db").await;
    let still = became(&bench, "accepted", "True", "TookEffect", "attempt 1").await;
    let managers = field(&still, "/metadata/managedFields").as_array().unwrap();
    assert!(managers.iter().any(|m| m["manager"] == "resurgam-decision" && m["subresource"] == "status"));

    // Nobody else says it.
    let decisions = kind(&bench.admin, KINDS, "Decision", Some(bench.case));
    let forged = json!({"status": {"conditions": []}});
    let params = PatchParams::default();
    let refused = decisions.patch_status("no-plan", &params, &Patch::Merge(&forged)).await.unwrap_err();
    assert!(refused.to_string().contains("only the operator"), "{refused}");
    assert_eq!(condition(&became(&bench, "no-plan", "False", "UnknownPlan", "").await, "Applied"), "False");

    // It is written once, and told once.
    let uid = text(&untold, "/metadata/uid");
    let log = std::fs::read_to_string(cluster().await.audit_log()).unwrap();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(uid));
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let by = "system:serviceaccount:resurgam-system:resurgam";
    let is_write = |event: &Value| {
        text(event, "/user/username") == by
            && text(event, "/objectRef/resource") == "decisions"
            && text(event, "/objectRef/subresource") == "status"
            && text(event, "/stage") == "ResponseComplete"
    };
    assert_eq!(events.filter(is_write).count(), 1);
    let events = kind(&bench.admin, "events.k8s.io/v1", "Event", Some(bench.case));
    let of = watcher::Config::default().fields("regarding.name=no-plan");
    let mut told = std::pin::pin!(watcher::watcher(events, of).applied_objects());
    let event = tokio::time::timeout(rehearsal::DEADLINE, told.next()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.data["reason"], "UnknownPlan");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn decide_says_what_became_of_it_and_what_is_yours() {
    let bench = Bench::new("outcome", &["db", "app"]).await;
    let plan = bench.plan("plan", services(&bench));
    bench.apply(&plan).await;
    bench.says("plan", "db", "GateFailed", &["images"]).await;
    bench.says("plan", "app", "ApprovalNeeded", &["1 of party rbkc"]).await;
    let responder = cluster().await.kubeconfig(Identity::Responder).to_owned();
    let lead = cluster().await.kubeconfig(Identity::RecoveryLead).to_owned();
    let administrator = cluster().await.kubeconfig(Identity::PlatformAdministrator).to_owned();
    let shown = resurgam(&responder, &["decide", "db", "-n", "outcome"]).await;
    let possible = "Possible now: Retry (not yours), AcceptException (not yours), Hold, Abort";
    assert!(shown.code == 0 && shown.out.contains(possible), "{}\n{}", shown.out, shown.err);
    let shown = resurgam(&lead, &["decide", "db", "-n", "outcome"]).await;
    assert!(shown.out.contains("Possible now: Retry, AcceptException, Hold, Abort"), "{}", shown.out);
    // A wildcard is no grant.
    let shown = resurgam(&administrator, &["decide", "db", "-n", "outcome", "-o", "json"]).await;
    let report: Value = serde_json::from_str(&shown.out).unwrap();
    let retry = json!({"action": "Retry", "verb": "retry", "allowed": false});
    assert_eq!(report["actions"][0], retry, "{report}");
    assert_eq!(report["question"]["reason"], "GateFailed");
    assert!(text(&report, "/question/message").contains("images"), "{report}");
    assert!(text(&report, "/question/digest").starts_with("sha256:"), "{report}");

    let wait = ["-n", "outcome", "--yes", "--wait", "60s", "--reason", "a test"];
    let ran = resurgam(&lead, &[&["decide", "app", "approve"], &wait[..]].concat()).await;
    assert_eq!(ran.code, 1, "{}\n{}", ran.out, ran.err);
    assert!(
        ran.out.contains("has no effect: CountsForNoParty: recovery-lead approves for no group"),
        "{}",
        ran.out
    );
    let ran = resurgam(&lead, &[&["decide", "app", "approve", "-o", "json"], &wait[..]].concat()).await;
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["outcome"]["tookEffect"]), (1, &json!(false)), "{report}");
    assert!(ran.err.contains("you have decided this already"), "{}", ran.err);
    let ran = resurgam(&lead, &[&["decide", "db", "acceptexception"], &wait[..]].concat()).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    assert!(ran.out.contains("took effect: service db, attempt 1, since"), "{}", ran.out);
    bench.recovers("plan", "db").await;
    let made = ["decide", "db", "hold", "-n", "outcome", "--yes", "--reason", "a test", "--wait", "0s"];
    let ran = resurgam(&lead, &made).await;
    assert!(ran.code == 0 && ran.out.contains("is made. What became of it"), "{}\n{}", ran.out, ran.err);
    bench.judged(&plan).await;
}

/// Refuses the status of Decisions in the case's namespace, and a Decision named `probe`, by which it is seen to be in force.
fn refusal(case: &str) -> [Value; 2] {
    let name = format!("{case}-refuses");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": case}},
                "resourceRules": [{"apiGroups": ["resurgam.dev"], "apiVersions": ["*"],
                    "resources": ["decisions", "decisions/status"], "operations": ["CREATE", "UPDATE"]}],
            },
            "validations": [{"expression": "request.operation == 'CREATE' && object.metadata.name != 'probe'",
                "message": "the status of Decisions is refused"}],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    [policy, binding]
}

/// Waits until a Decision named `probe` is refused, or is not.
async fn until_refused(bench: &Bench, wanted: bool) {
    let probe = json!({
        "apiVersion": KINDS, "kind": "Decision", "metadata": {"name": "probe", "namespace": bench.case},
        "spec": {"by": "recovery-lead", "plan": "plan", "service": "db", "action": "Retry", "reason": "a test", "decidedOn": other()},
    });
    let probe = serde_json::from_value(probe).unwrap();
    let decisions = kind(&bench.lead().await, KINDS, "Decision", Some(bench.case));
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let waiting = async {
        while decisions.create(&dry, &probe).await.is_err() != wanted {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(rehearsal::DEADLINE, waiting).await.unwrap();
}

/// What became of a Decision follows from what was recorded with its effect, however much later it can be said.
#[tokio::test]
async fn refused_status_of_a_decision_delays_nothing_and_follows() {
    let bench = Bench::new("unwritten", &["db"]).await;
    let plan = bench.plan("plan", json!([services(&bench)[0]]));
    bench.apply(&plan).await;
    let asks = bench.says("plan", "db", "GateFailed", &["images"]).await;
    let question = text(&asks, "/status/decision/digest").to_owned();
    rehearsal::apply(&bench.admin, "platform", &refusal(bench.case)).await.unwrap();
    until_refused(&bench, true).await;
    decide(&bench, "accepted", ("plan", "db", "AcceptException"), &question).await;
    let recovered = bench.recovers("plan", "db").await;
    assert_eq!(text(&recovered, "/status/appliedDecisions/latest/0/name"), "accepted");
    let decisions = kind(&bench.admin, KINDS, "Decision", Some(bench.case));
    let untold = rehearsal::object(&decisions, "accepted").await.unwrap();
    assert_eq!(field(&untold, "/status"), &Value::Null, "nobody could say it");
    for of in ["ValidatingAdmissionPolicyBinding", "ValidatingAdmissionPolicy"] {
        let api = kind(&bench.admin, "admissionregistration.k8s.io/v1", of, None);
        api.delete("unwritten-refuses", &kube::api::DeleteParams::default()).await.unwrap();
    }
    until_refused(&bench, false).await;
    // Whatever is decided next wakes the plan.
    decide(&bench, "next", ("plan", "db", "Retry"), &other()).await;
    let since = text(&recovered, "/status/appliedDecisions/latest/0/at");
    let told = became(&bench, "accepted", "True", "TookEffect", since).await;
    assert_eq!(text(&told, "/status/conditions/0/lastTransitionTime"), since);
    became(&bench, "next", "False", "NotAsked", "").await;
    bench.judged(&plan).await;
}
