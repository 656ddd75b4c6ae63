//! `condition` on a real API server, with expressions that run away in real processes.

use std::path::PathBuf;
use std::time::Instant;

use super::*;

/// The object of all questions here, and another account's.
fn condition_reader() -> Value {
    json!([{"apiGroups": ["", "apps", "example.org"], "verbs": ["get"],
        "resources": ["configmaps", "configmapses", "deployments", "secrets", "widgets"]}])
}

fn asker() -> Asker {
    Asker::new(Vec::new()).unwrap().with_evaluator(PathBuf::from(env!("CARGO_BIN_EXE_resurgam")))
}

fn spec(condition: Value) -> GateSpec {
    let mut condition = condition;
    for (field, default) in [
        ("apiVersion", "v1"),
        ("kind", "ConfigMap"),
        ("name", "settings"),
        ("cel", "object.data.mode == 'safe'"),
    ] {
        if condition[field].is_null() {
            condition[field] = json!(default);
        }
    }
    serde_json::from_value(json!({"name": "says", "condition": condition})).unwrap()
}

async fn ask(bench: &Bench, asker: &Asker, condition: Value) -> Answer {
    let namespaces = vec![bench.namespace.into()];
    let question = Question::new(bench.namespace, namespaces, Phase::BeforeRelease, spec(condition));
    asker.ask(&bench.account, &question).await
}

#[tokio::test]
async fn object_is_judged_by_what_it_says_now() {
    let (bench, asker) = (Bench::new("condition-now", condition_reader()).await, asker());
    let says_now = async |condition: Value| ask(&bench, &asker, condition).await;
    let answer = says_now(json!({})).await;
    assert_eq!(says(&answer), (Unknown, "ObjectMissing"), "{answer:?}");
    bench.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"mode": "safe"}})).await;
    let answer = says_now(json!({})).await;
    assert_eq!(says(&answer), (Pass, "ConditionHolds"), "{answer:?}");
    assert_eq!(answer.message, "ConfigMap condition-now/settings: the expression is true");
    let patch = Patch::Merge(json!({"data": {"mode": "evil"}}));
    bench.api::<ConfigMap>().patch("settings", &PatchParams::default(), &patch).await.unwrap();
    let answer = says_now(json!({})).await;
    assert_eq!(says(&answer), (Fail, "ConditionFalse"), "{answer:?}");

    // A status of an earlier generation is no answer.
    bench.create::<Deployment>(workload("web", 1, &template(GOOD, &json!({})))).await;
    bench.reaches("web", rolled_out(1)).await;
    let web = |cel: &str| json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "cel": cel});
    let ready = "object.status.conditions.exists(c, c.type == 'Available' && c.status == 'True')";
    assert_eq!(says(&says_now(web(ready)).await), (Pass, "ConditionHolds"));
    let numbers = "object.status.readyReplicas == object.spec.replicas && object.metadata.generation >= 1";
    assert_eq!(says(&says_now(web(numbers)).await), (Pass, "ConditionHolds"));
    let absent = says_now(web("object.status.noSuchField == 1")).await;
    assert_eq!(says(&absent), (Unknown, "EvaluationFailed"), "{absent:?}");
    assert!(absent.message.contains("noSuchField"), "{absent:?}");
    assert_eq!(says(&says_now(web("has(object.status.noSuchField)")).await), (Fail, "ConditionFalse"));
}

#[tokio::test]
async fn every_way_not_to_know_what_an_object_says_is_unknown() {
    let (bench, asker) = (Bench::new("condition-unknown", condition_reader()).await, asker());
    bench.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"mode": "safe"}})).await;
    let secret = json!({"metadata": {"name": "settings"}, "stringData": {"mode": "safe"}});
    bench.create::<k8s_openapi::api::core::v1::Secret>(secret).await;
    for (what, condition, reason) in [
        ("another kind", json!({"apiVersion": "example.org/v1", "kind": "Widget"}), "KindMissing"),
        ("another version", json!({"apiVersion": "v7"}), "KindMissing"),
        ("another plural", json!({"resource": "configmapses"}), "KindMissing"),
        ("another scope", json!({"scope": "Cluster"}), "Forbidden"),
        ("another object's kind", json!({"kind": "Widget", "resource": "configmaps"}), "Unreadable"),
        ("a Secret", json!({"kind": "Secret"}), "SecretRefused"),
        ("a Secret by its resource", json!({"resource": "secrets"}), "SecretRefused"),
        ("one that may not be read", json!({"kind": "Service"}), "Forbidden"),
        ("no CEL", json!({"cel": "object.data.mode =="}), "DoesNotCompile"),
        ("no boolean", json!({"cel": "object.data.mode"}), "NotBoolean"),
        ("null", json!({"cel": "null"}), "NotBoolean"),
        ("an absent field", json!({"cel": "object.status.ready"}), "EvaluationFailed"),
        ("another type", json!({"cel": "object.data.mode > 1"}), "EvaluationFailed"),
        ("an unknown variable", json!({"cel": "oldObject == null"}), "EvaluationFailed"),
        (
            "a function that is not there",
            json!({"cel": "timestamp('2026-11-20T00:00:00Z') == null"}),
            "EvaluationFailed",
        ),
    ] {
        let answer = ask(&bench, &asker, condition).await;
        assert_eq!(says(&answer), (Unknown, reason), "{what}: {answer:?}");
        assert!(!answer.message.contains("safe"), "{what}: no value of the object is shown: {answer:?}");
    }
    let nobody = Asker::new(Vec::new()).unwrap().with_evaluator(PathBuf::from("/nowhere/resurgam"));
    assert_eq!(says(&ask(&bench, &nobody, json!({})).await), (Unknown, "EvaluatorFailed"));
    for program in ["/bin/true", "/bin/false"] {
        let silent = Asker::new(Vec::new()).unwrap().with_evaluator(PathBuf::from(program));
        assert_eq!(says(&ask(&bench, &silent, json!({})).await), (Unknown, "EvaluatorFailed"), "{program}");
    }
    let name = bench.api::<ConfigMap>();
    let finalizer = Patch::Merge(json!({"metadata": {"finalizers": ["example.org/wait"]}}));
    name.patch("settings", &PatchParams::default(), &finalizer).await.unwrap();
    name.delete("settings", &Default::default()).await.unwrap();
    assert_eq!(says(&ask(&bench, &asker, json!({})).await), (Unknown, "InProgress"), "it is being deleted");
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    name.patch("settings", &PatchParams::default(), &release).await.unwrap();
}

/// From cel-rust's issue 306: repeated four times, earlier versions of the library needed more than 1 GiB to refuse it.
const BOMB: &str = "!!(!!!!!!(!!!!(((((!!(!!(!!!!((";

/// Expressions that take more than there is, on an object with a large list.
fn runaways() -> Vec<(&'static str, String)> {
    let over = |depth: usize, inner: &str| {
        let mut cel = inner.to_owned();
        for level in 0..depth {
            cel = format!("object.data.list.split.all(v{level}, {cel})");
        }
        cel
    };
    let list = format!("[{}]", vec!["0"; 100].join(","));
    let nested = (0..8).fold("false".to_owned(), |inner, level| format!("l.exists(v{level}, {inner})"));
    let doubling = (0..28).fold("'xxxxxxxx'".to_owned(), |inner, _| format!("[{inner}].map(s, s + s)[0]"));
    vec![
        ("nested comprehensions", format!("[{list}].exists(l, {nested})")),
        ("a string that doubles", format!("size({doubling}) > 0")),
        ("brackets without end", "[".repeat(1024)),
        ("parentheses", format!("{}true{}", "(".repeat(500), ")".repeat(500))),
        ("a bomb of 125 bytes", BOMB.repeat(4) + "1"),
        ("a bomb of 156 bytes", BOMB.repeat(5) + "1"),
        ("a bomb of 1,000 bytes", "!!(".repeat(340)),
        ("a list of lists", "[".repeat(62) + "1" + &"]".repeat(62)),
        ("ternaries", "true ? ".repeat(140) + "1"),
        ("selections", "object".to_owned() + &".a".repeat(500)),
        ("a field of a string", over(3, "true")),
        (
            "a pattern that is large once compiled",
            "object.data.mode.matches('((s{100}){100}){100}')".to_owned(),
        ),
    ]
}

#[tokio::test]
async fn expression_that_runs_away_is_unknown_and_harms_nobody() {
    let (bench, asker) = (Bench::new("condition-runaway", condition_reader()).await, asker());
    let large = "x".repeat(900_000);
    bench
        .create::<ConfigMap>(
            json!({"metadata": {"name": "settings"}, "data": {"mode": "safe", "list": large}}),
        )
        .await;
    for (what, cel) in runaways() {
        assert!(cel.len() <= 1024, "{what}: {} characters", cel.len());
        let began = Instant::now();
        let answer = ask(&bench, &asker, json!({"cel": cel})).await;
        eprintln!("{what}: {} after {:?}: {}", answer.reason, began.elapsed(), answer.message);
        assert_eq!(answer.verdict, Unknown, "{what}: {answer:?}");
        assert!(began.elapsed() < Duration::from_secs(15), "{what}");
    }
    // Those who come after them are answered.
    let answer = ask(&bench, &asker, json!({})).await;
    assert_eq!(says(&answer), (Pass, "ConditionHolds"), "{answer:?}");
    let all = "object.data.list.size() == 900000 && object.data.all(key, object.data[key] != '')";
    assert_eq!(says(&ask(&bench, &asker, json!({"cel": all})).await), (Pass, "ConditionHolds"));
    for (pattern, verdict) in [("^sa.e$", Pass), ("^sa$", Fail)] {
        let cel = format!("object.data.mode.matches('{pattern}')");
        assert_eq!(ask(&bench, &asker, json!({"cel": cel})).await.verdict, verdict, "{pattern}");
    }
}

#[tokio::test]
async fn deadline_of_the_gate_kills_the_evaluation() {
    let bench = Bench::new("condition-deadline", condition_reader()).await;
    bench.create::<ConfigMap>(json!({"metadata": {"name": "settings"}, "data": {"mode": "safe"}})).await;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("sleeps");
    let pid = folder.path().join("pid");
    std::fs::write(&program, format!("#!/bin/sh\necho $$ > {}\nexec sleep 600\n", pid.display())).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let asker = Asker::new(Vec::new()).unwrap().with_evaluator(program);
    let mut spec = spec(json!({}));
    spec.timeout = Some("500ms".parse().unwrap());
    let question = Question::new(bench.namespace, vec![bench.namespace.into()], Phase::BeforeRelease, spec);
    let answer = asker.ask(&bench.account, &question).await;
    assert_eq!(says(&answer), (Unknown, "TimedOut"), "{answer:?}");
    let pid = std::fs::read_to_string(&pid).unwrap_or_default();
    within("the process to end", async {
        while !pid.is_empty() && is_running(pid.trim()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// Returns whether a process is there and has not ended.
fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}
