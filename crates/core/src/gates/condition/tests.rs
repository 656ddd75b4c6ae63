use super::*;
use crate::api::{GateSpec, Phase, Verdict};

fn spec(api_version: &str, kind: &str) -> ConditionSpec {
    ConditionSpec {
        api_version: api_version.to_owned(),
        kind: kind.to_owned(),
        name: "ledger".to_owned(),
        cel: "object.status.ready".to_owned(),
        ..ConditionSpec::default()
    }
}

fn cluster() -> Value {
    json!({
        "apiVersion": "postgresql.cnpg.io/v1", "kind": "Cluster",
        "metadata": {"name": "ledger", "namespace": "ledger-db", "uid": "uid", "generation": 3,
            "managedFields": [{}], "annotations": {LAST_APPLIED: "{}", "team": "finance"}},
        "status": {"observedGeneration": 3, "ready": true},
    })
}

fn cnpg() -> Target {
    target(&spec("postgresql.cnpg.io/v1", "Cluster"), &["ledger-db".to_owned()]).unwrap()
}

fn refusal<T: std::fmt::Debug>(result: Result<T, Answer>) -> (Verdict, GateReason) {
    let answer = result.unwrap_err();
    assert!(!answer.message.is_empty());
    (answer.verdict, answer.reason)
}

#[test]
fn target_is_named_as_manifests_name_it() {
    let target = cnpg();
    assert_eq!(target.title(), "Cluster ledger-db/ledger");
    assert_eq!(
        (target.resource.plural.as_str(), target.resource.group.as_str()),
        ("clusters", "postgresql.cnpg.io")
    );
    let of_cluster = ConditionSpec { scope: ObjectScope::Cluster, ..spec("v1", "Node") };
    assert_eq!(super::target(&of_cluster, &[]).unwrap().title(), "Node ledger");
    let irregular =
        ConditionSpec { resource: Some("policies-of-ours".to_owned()), ..spec("example.org/v1", "Policy") };
    assert_eq!(super::target(&irregular, &["a".to_owned()]).unwrap().resource.plural, "policies-of-ours");
}

#[test]
fn no_spelling_of_a_secret_is_read() {
    let one = ["library".to_owned()];
    for (kind, resource) in [
        ("Secret", None),
        ("secret", None),
        ("SECRET", None),
        ("Secrets", None),
        ("ConfigMap", Some("secrets")),
        ("ConfigMap", Some("Secrets")),
    ] {
        let spec = ConditionSpec { resource: resource.map(str::to_owned), ..spec("v1", kind) };
        assert_eq!(
            refusal(target(&spec, &one)),
            (Verdict::Unknown, GateReason::SecretRefused),
            "{kind} {resource:?}"
        );
    }
    for kind in ["Secret", "secret"] {
        let secret = json!({"apiVersion": "v1", "kind": kind, "metadata": {"uid": "uid"}});
        assert_eq!(refusal(input(&cnpg(), Some(secret))), (Verdict::Unknown, GateReason::SecretRefused));
    }
    assert!(target(&spec("example.org/v1", "Secret"), &one).is_ok(), "of another group it is another kind");
}

#[test]
fn target_that_is_ambiguous_or_no_name_is_malformed() {
    let two = ["a".to_owned(), "b".to_owned()];
    let of = |change: fn(&mut ConditionSpec)| {
        let mut spec = spec("v1", "ConfigMap");
        change(&mut spec);
        spec
    };
    for (spec, namespaces) in [
        (of(|_| {}), &two[..]),
        (of(|_| {}), &[]),
        (of(|spec| spec.name = "a/../../secrets/b".to_owned()), &two[..1]),
        (of(|spec| spec.name = "..".to_owned()), &two[..1]),
        (of(|spec| spec.name = String::new()), &two[..1]),
        (of(|spec| spec.resource = Some("configmaps/a?x=".to_owned())), &two[..1]),
        (of(|spec| spec.cel = "x".repeat(EXPRESSION_LIMIT + 1)), &two[..1]),
        (of(|spec| (spec.scope, spec.namespace) = (ObjectScope::Cluster, Some("a".to_owned()))), &two[..1]),
    ] {
        assert_eq!(refusal(target(&spec, namespaces)), (Verdict::Unknown, GateReason::Malformed), "{spec:?}");
    }
}

#[test]
fn object_that_says_nothing_about_itself_now_is_unknown() {
    let changed = |change: fn(&mut Value)| {
        let mut object = cluster();
        change(&mut object);
        Some(object)
    };
    for (object, reason) in [
        (None, GateReason::ObjectMissing),
        (Some(json!([])), GateReason::Unreadable),
        (changed(|object| object["kind"] = json!("Pooler")), GateReason::Unreadable),
        (changed(|object| object["apiVersion"] = json!("v1")), GateReason::Unreadable),
        (changed(|object| object["metadata"] = json!(null)), GateReason::Unreadable),
        (changed(|object| object["metadata"]["uid"] = json!("")), GateReason::Unreadable),
        (
            changed(|object| object["metadata"]["deletionTimestamp"] = json!("2026-11-20T00:00:00Z")),
            GateReason::InProgress,
        ),
        (changed(|object| object["status"]["observedGeneration"] = json!(2)), GateReason::InProgress),
        (changed(|object| object["spec"] = json!("x".repeat(OBJECT_LIMIT))), GateReason::ObjectTooLarge),
    ] {
        assert_eq!(refusal(input(&cnpg(), object)), (Verdict::Unknown, reason));
    }
    let read = input(&cnpg(), Some(cluster())).unwrap();
    assert_eq!(read["metadata"]["managedFields"], Value::Null);
    assert_eq!(read["metadata"]["annotations"], json!({"team": "finance"}));
    let large = changed(|object| object["metadata"]["managedFields"] = json!("x".repeat(OBJECT_LIMIT)));
    assert!(input(&cnpg(), large).is_ok(), "what is left out has no size");
}

#[test]
fn only_true_passes_and_only_false_fails() {
    let error = |of: fn(String) -> EvaluationError| Err(of("why".to_owned()));
    let question =
        Question::new("recovery", vec!["ledger-db".into()], Phase::BeforeRelease, GateSpec::default());
    let spec = spec("postgresql.cnpg.io/v1", "Cluster");
    for (value, verdict, reason) in [
        (Ok(true), Verdict::Pass, GateReason::ConditionHolds),
        (Ok(false), Verdict::Fail, GateReason::ConditionFalse),
        (error(EvaluationError::DoesNotCompile), Verdict::Unknown, GateReason::DoesNotCompile),
        (error(EvaluationError::NotBoolean), Verdict::Unknown, GateReason::NotBoolean),
        (error(EvaluationError::Failed), Verdict::Unknown, GateReason::EvaluationFailed),
        (error(EvaluationError::LimitExceeded), Verdict::Unknown, GateReason::LimitExceeded),
        (error(EvaluationError::Evaluator), Verdict::Unknown, GateReason::EvaluatorFailed),
    ] {
        let answer = judge(&spec, &question, &cnpg(), &cluster(), value);
        assert_eq!((answer.verdict, answer.reason), (verdict, reason));
        assert!(answer.message.starts_with("Cluster ledger-db/ledger: "), "{answer:?}");
        assert_eq!(answer.evidence.is_some(), verdict != Verdict::Unknown);
    }
}

#[test]
fn evidence_is_of_the_object_its_generation_and_the_expression() {
    let question =
        Question::new("recovery", vec!["ledger-db".into()], Phase::BeforeRelease, GateSpec::default());
    let spec = spec("postgresql.cnpg.io/v1", "Cluster");
    let of =
        |spec: &ConditionSpec, object: &Value| judge(spec, &question, &cnpg(), object, Ok(true)).evidence;
    let mut heartbeat = cluster();
    heartbeat["status"]["at"] = json!("later");
    heartbeat["metadata"]["resourceVersion"] = json!("2");
    assert_eq!(of(&spec, &cluster()), of(&spec, &heartbeat));
    let mut changed = cluster();
    changed["metadata"]["generation"] = json!(4);
    let mut another = cluster();
    another["metadata"]["uid"] = json!("another");
    let other = ConditionSpec { cel: "true".to_owned(), ..spec.clone() };
    for evidence in [of(&spec, &changed), of(&spec, &another), of(&other, &cluster())] {
        assert_ne!(evidence, of(&spec, &cluster()));
    }
}

#[test]
fn whatever_an_object_is_it_is_evaluated_or_unknown() {
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<Vec<u8>>().for_each(
        |bytes| match input(&cnpg(), Some(fuzz_input::spoiled(&cluster(), bytes))) {
            Ok(object) => assert_eq!(object["kind"], "Cluster"),
            Err(answer) => assert_eq!(answer.verdict, Verdict::Unknown),
        },
    );
}
