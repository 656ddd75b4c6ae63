use k8s_openapi::api::core::v1::ConfigMap;

use super::*;
use crate::api::{GateSpec, Phase, Verdict};
use crate::isolation::Seal;

fn at(text: &str) -> Timestamp {
    format!("2026-11-20T{text}:00Z").parse().unwrap()
}

fn digest(value: &str) -> String {
    format!("hmac-sha256:{value:0>64}")
}

fn spec(secrets: Value) -> CredentialsRotatedSpec {
    let spec = json!({"secrets": secrets, "capturedFrom": {"configMap": {"name": "captured"}}});
    serde_json::from_value(spec).unwrap()
}

fn question() -> Question {
    let seal = Seal { uid: "seal".to_owned(), created_at: Some(at("08:00")), ..Seal::default() };
    Question {
        compromised_since: Some(at("07:00")),
        seals: [("library".to_owned(), seal)].into(),
        ..Question::new("recovery", vec!["library".into()], Phase::BeforeRestore, GateSpec::default())
    }
}

fn record() -> DigestRecord {
    let keys =
        |all: &[(&str, &str)]| all.iter().map(|(key, value)| ((*key).to_owned(), digest(value))).collect();
    DigestRecord {
        format: record::FORMAT.to_owned(),
        namespace: "library".to_owned(),
        quarantine: "seal".to_owned(),
        capture: "sha256:00".to_owned(),
        at: "2026-11-20T08:01:00Z".to_owned(),
        secrets: [
            ("db".to_owned(), keys(&[("password", "01"), ("user", "02")])),
            ("other".to_owned(), keys(&[("token", "03")])),
            ("tls".to_owned(), keys(&[("tls.crt", "04"), ("tls.key", "05")])),
        ]
        .into(),
    }
}

fn value(of: &str) -> ValueFacts {
    ValueFacts { is_empty: false, digest: digest(of), changed_at: Some(at("09:00")), issued: Issued::Undated }
}

fn facts(values: &[(&str, ValueFacts)]) -> SecretFacts {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect();
    SecretFacts { uid: "uid".to_owned(), is_tls: false, values }
}

fn judged(secret: Value, facts: Option<SecretFacts>, question: &Question) -> Answer {
    let spec = spec(json!([secret]));
    let secrets: Vec<_> =
        targets(&spec, question).unwrap().into_iter().map(|at| (at, facts.clone())).collect();
    judge(question, &[("library".to_owned(), record())].into(), &secrets)
}

fn list(text: Option<String>) -> ConfigMap {
    let data = text.map(|text| [("library".to_owned(), text)].into());
    ConfigMap { data, ..ConfigMap::default() }
}

#[test]
fn only_a_value_that_is_new_and_changed_since_passes() {
    use GateReason::{CapturedValue, ChangeTimeUnknown, IssuedBefore, KeyMissing, MalformedCredential};
    use GateReason::{NotChanged, NothingCaptured, Rotated, ValueEmpty};
    use Verdict::{Fail, Pass, Unknown};
    let changed = |at: Option<Timestamp>| ValueFacts { changed_at: at, ..value("99") };
    let issued = |issued: Issued| ValueFacts { issued, ..value("99") };
    for (what, key, value, verdict, reason) in [
        ("new", "password", value("99"), Pass, Rotated),
        ("as captured", "password", value("01"), Fail, CapturedValue),
        ("another captured value", "password", value("03"), Fail, CapturedValue),
        ("a captured value under a new key", "pass", value("01"), Fail, CapturedValue),
        ("of a key that was not captured", "pass", value("99"), Unknown, NothingCaptured),
        ("empty", "password", ValueFacts { is_empty: true, ..value("99") }, Unknown, ValueEmpty),
        ("changed before", "password", changed(Some(at("07:59"))), Fail, NotChanged),
        ("changed at the isolation", "password", changed(Some(at("08:00"))), Fail, NotChanged),
        ("changed at an unknown time", "password", changed(None), Unknown, ChangeTimeUnknown),
        ("issued since", "password", issued(Issued::At("notBefore", at("08:30"))), Pass, Rotated),
        ("issued before", "password", issued(Issued::At("iat", at("08:00"))), Fail, IssuedBefore),
        ("unreadable", "password", issued(Issued::Malformed("why".to_owned())), Unknown, MalformedCredential),
    ] {
        let answer = judged(json!({"name": "db", "keys": [key]}), Some(facts(&[(key, value)])), &question());
        assert_eq!((answer.verdict, answer.reason), (verdict, reason), "{what}: {answer:?}");
        assert_eq!(answer.evidence.is_some(), verdict != Unknown, "{what}");
        if verdict != Pass {
            assert!(answer.message.starts_with(&format!("Secret library/db, key {key}: ")), "{answer:?}");
        }
    }
    let password = json!({"name": "db", "keys": ["password"]});
    let answer = judged(password.clone(), Some(facts(&[("user", value("99"))])), &question());
    assert_eq!((answer.verdict, answer.reason), (Unknown, KeyMissing));
    let answer = judged(password, None, &question());
    assert_eq!((answer.verdict, answer.reason), (Unknown, GateReason::SecretMissing));
    let answer = judged(json!({"name": "db"}), Some(facts(&[])), &question());
    assert_eq!((answer.verdict, answer.reason), (Unknown, KeyMissing), "empty is not passed");
}

#[test]
fn all_keys_count_unless_some_are_named() {
    let both = facts(&[("password", value("99")), ("user", value("02"))]);
    let answer = judged(json!({"name": "db"}), Some(both.clone()), &question());
    assert_eq!((answer.verdict, answer.reason), (Verdict::Fail, GateReason::CapturedValue));
    assert!(answer.message.contains("key user"), "{answer:?}");
    let answer = judged(json!({"name": "db", "keys": ["password"]}), Some(both), &question());
    assert_eq!(answer.verdict, Verdict::Pass, "{answer:?}");
}

#[test]
fn new_certificate_for_the_old_private_key_is_not_rotated() {
    let certificate = ValueFacts { issued: Issued::At("notBefore", at("08:30")), ..value("98") };
    let tls = |values: &[(&str, ValueFacts)]| Some(SecretFacts { is_tls: true, ..facts(values) });
    let named = || json!({"name": "tls", "keys": ["tls.crt"]});
    for (what, values, verdict, reason) in [
        (
            "both",
            [("tls.crt", certificate.clone()), ("tls.key", value("99"))],
            Verdict::Pass,
            GateReason::Rotated,
        ),
        (
            "old key",
            [("tls.crt", certificate), ("tls.key", value("05"))],
            Verdict::Fail,
            GateReason::CapturedValue,
        ),
        (
            "none",
            [("tls.crt", value("98")), ("tls.key", value("99"))],
            Verdict::Unknown,
            GateReason::MalformedCredential,
        ),
    ] {
        let answer = judged(named(), tls(&values), &question());
        assert_eq!((answer.verdict, answer.reason), (verdict, reason), "{what}: {answer:?}");
    }
}

#[test]
fn renamed_secret_is_compared_with_what_it_was() {
    let new = || Some(facts(&[("password", value("99"))]));
    let answer = judged(json!({"name": "db-2"}), new(), &question());
    assert_eq!((answer.verdict, answer.reason), (Verdict::Unknown, GateReason::NothingCaptured));
    let answer = judged(json!({"name": "db-2", "capturedAs": "db"}), new(), &question());
    assert_eq!(answer.verdict, Verdict::Pass, "{answer:?}");
}

#[test]
fn later_of_isolation_and_compromise_counts_and_both_are_known() {
    let new = || Some(facts(&[("password", value("99"))]));
    let judge = |question: &Question| {
        let answer = judged(json!({"name": "db"}), new(), question);
        (answer.verdict, answer.reason)
    };
    let moved = |since| Question { compromised_since: since, ..question() };
    assert_eq!(judge(&moved(Some(at("08:59")))), (Verdict::Pass, GateReason::Rotated));
    assert_eq!(judge(&moved(Some(at("09:00")))), (Verdict::Fail, GateReason::NotChanged));
    let unknown = (Verdict::Unknown, GateReason::IsolationTimeUnknown);
    assert_eq!(judge(&moved(None)), unknown);
    let mut undated = question();
    undated.seals.get_mut("library").unwrap().created_at = None;
    assert_eq!(judge(&undated), unknown);
    assert_eq!(judge(&Question { seals: BTreeMap::new(), ..question() }), unknown);
}

#[test]
fn record_that_does_not_prove_what_was_captured_is_unknown() {
    let good = record().signed("mac".to_owned());
    let other = DigestRecord { namespace: "archive".to_owned(), ..record() }.signed("mac".to_owned());
    let spec = spec(json!([{"name": "db"}, {"name": "other"}]));
    let read = |list: Option<&ConfigMap>, question: &Question, is_authentic: bool| {
        records(&spec, question, list, |text, mac| is_authentic && mac == "mac" && text.contains("library"))
    };
    assert_eq!(read(Some(&list(Some(good.clone()))), &question(), true).unwrap()["library"], record());
    let mut resealed = question();
    resealed.seals.get_mut("library").unwrap().uid = "another".to_owned();
    let nothing = Question { seals: BTreeMap::new(), ..question() };
    for (what, list, question, is_authentic, reason) in [
        ("missing", None, question(), true, GateReason::NothingCaptured),
        ("empty", Some(list(None)), question(), true, GateReason::NothingCaptured),
        (
            "of others",
            Some(ConfigMap {
                data: Some([("archive".to_owned(), good.clone())].into()),
                ..ConfigMap::default()
            }),
            question(),
            true,
            GateReason::NothingCaptured,
        ),
        ("no record", Some(list(Some("{}".to_owned()))), question(), true, GateReason::MalformedCapture),
        (
            "of another key",
            Some(list(Some(good.clone()))),
            question(),
            false,
            GateReason::CaptureNotAuthentic,
        ),
        ("of another namespace", Some(list(Some(other))), question(), true, GateReason::CaptureNotAuthentic),
        ("of another Quarantine", Some(list(Some(good.clone()))), resealed, true, GateReason::CaptureStale),
        ("of no Quarantine", Some(list(Some(good))), nothing, true, GateReason::CaptureStale),
    ] {
        let answer = read(list.as_ref(), &question, is_authentic).unwrap_err();
        assert_eq!((answer.verdict, answer.reason), (Verdict::Unknown, reason), "{what}");
        assert!(answer.message.starts_with("ConfigMap recovery/captured"), "{answer:?}");
    }
    let moved = DigestRecord { namespace: "archive".to_owned(), ..record() }.signed("mac".to_owned());
    let answer = records(&spec, &question(), Some(&list(Some(moved))), |_, _| true).unwrap_err();
    assert_eq!(answer.reason, GateReason::MalformedCapture, "a record of one namespace stands for no other");
}

#[test]
fn secret_is_in_one_of_the_namespaces_of_the_service() {
    let two = Question { namespaces: vec!["library".into(), "archive".into()], ..question() };
    for (secret, question) in [
        (json!([{"name": "db"}]), &two),
        (json!([{"name": "db", "namespace": "kube-system"}]), &two),
        (json!([]), &question()),
    ] {
        let answer = targets(&spec(secret), question).unwrap_err();
        assert_eq!((answer.verdict, answer.reason), (Verdict::Unknown, GateReason::Malformed));
    }
    let spec = spec(json!([{"name": "db", "namespace": "archive"}]));
    assert_eq!(targets(&spec, &two).unwrap()[0].namespace, "archive");
}

#[test]
fn evidence_is_of_the_values_and_what_they_were_compared_with() {
    let of = |value: ValueFacts, question: &Question| {
        judged(json!({"name": "db", "keys": ["password"]}), Some(facts(&[("password", value)])), question)
            .evidence
    };
    let one = of(value("99"), &question());
    assert_eq!(one, of(value("99"), &question()));
    assert_ne!(one, of(value("98"), &question()));
    assert_ne!(one, of(ValueFacts { changed_at: Some(at("09:01")), ..value("99") }, &question()));
    assert_ne!(one, of(value("99"), &Question { compromised_since: Some(at("08:10")), ..question() }));
}

#[test]
fn whatever_a_record_or_a_managed_field_is_it_is_judged() {
    let question = question();
    let spec = spec(json!([{"name": "db"}]));
    let sound = json!({
        "metadata": {"name": "db", "managedFields": [{"manager": "kubectl", "operation": "Update", "time": "2026-11-20T09:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:password": {}}}}]},
        "data": {"library": record().signed("mac".to_owned())},
    });
    let readable = fuzz_input::Readable::default();
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
        let Some(list) = readable.read::<ConfigMap>(fuzz_input::spoiled(&sound, bytes)) else { return };
        let changed_at =
            changes::changed_at(list.metadata.managed_fields.as_deref().unwrap_or_default(), "password");
        let Ok(records) = records(&spec, &question, Some(&list), |_, _| true) else { return };
        let value = ValueFacts { changed_at, ..value("01") };
        let secrets: Vec<_> = targets(&spec, &question)
            .unwrap()
            .into_iter()
            .map(|at| (at, Some(facts(&[("password", value.clone())]))))
            .collect();
        let _ = judge(&question, &records, &secrets);
    });
}
