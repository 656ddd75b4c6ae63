use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::*;
use crate::api::gate::BaselineIgnore;
use crate::api::{GateSpec, Verdict};
use crate::baseline::envelope::Signature;
use crate::baseline::{FORMAT, Source, observe};
use crate::isolation::Seal;

fn raw() -> Vec<Value> {
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web", "namespace": "shop"}, "data": {"a": "1"}}),
    ]
}

fn inventory() -> Baseline {
    Baseline {
        baseline: FORMAT.to_owned(),
        captured_at: Time("2026-03-01T00:00:00Z".parse().unwrap()),
        source: Source::Cluster,
        namespaces: vec!["shop".to_owned()],
        secret_key: Some("key".to_owned()),
        outside: true,
        kinds: Vec::new(),
        objects: observe(raw(), &Marks::default()).objects,
    }
}

fn question(spec: &BaselineSpec, phase: Phase) -> Question {
    let gate = GateSpec { name: "approved".into(), baseline: Some(spec.clone()), ..GateSpec::default() };
    let mut question = Question::new("recovery", vec!["shop".into()], phase, gate);
    question.seals.insert("shop".into(), Seal { uid: "seal".into(), ..Seal::default() });
    question.compromised_since = Some("2026-06-01T00:00:00Z".parse().unwrap());
    question
}

fn observed(raw: Vec<Value>) -> Observed {
    observe(raw, &Marks::default())
}

fn asked(
    spec: &BaselineSpec,
    baseline: Baseline,
    raw: Vec<Value>,
    change: impl FnOnce(&mut Question),
) -> Answer {
    let mut question = question(spec, Phase::BeforeRelease);
    change(&mut question);
    let approved = Approved { baseline, digest: "sha256:1".into() };
    judge(spec, &question, &approved, observed(raw), true)
}

#[test]
fn only_what_is_as_approved_passes() {
    let spec = BaselineSpec::default();
    for phase in [Phase::BeforeRestore, Phase::BeforeRelease, Phase::Continuous] {
        let answer = asked(&spec, inventory(), raw(), |question| question.phase = phase);
        assert_eq!(
            (answer.verdict, answer.reason),
            (Verdict::Pass, GateReason::MatchesBaseline),
            "{answer:?}"
        );
        assert!(answer.message.starts_with("2 objects are as the baseline of 2026-03-01"), "{answer:?}");
        assert!(answer.message.contains("not compared: content of volumes"), "{answer:?}");
    }
    let mut tampered = raw();
    tampered[1]["data"]["a"] = json!("2");
    let answer = asked(&spec, inventory(), tampered, |_| ());
    assert_eq!((answer.verdict, answer.reason), (Verdict::Fail, GateReason::DiffersFromBaseline));
    assert_eq!(answer.message, "ConfigMap shop/web: data.a has another value");
    assert!(answer.evidence.is_some());
}

#[test]
fn every_way_to_unknown_is_unknown() {
    let since = |text: &'static str| {
        move |question: &mut Question| question.compromised_since = Some(text.parse().unwrap())
    };
    let spec = BaselineSpec::default();
    let bad_list = BaselineSpec {
        ignore: vec![BaselineIgnore { kind: "Pod".into(), fields: vec!["a[".into()], ..Default::default() }],
        ..spec.clone()
    };
    type Edit = Box<dyn FnOnce(&mut Question)>;
    let none = || Box::new(|_: &mut Question| ()) as Edit;
    let cases: Vec<(&BaselineSpec, Vec<Value>, Edit, GateReason)> = vec![
        (&spec, Vec::new(), none(), GateReason::NothingFound),
        (&spec, raw(), Box::new(|question| question.namespaces.clear()), GateReason::NothingFound),
        (
            &spec,
            raw(),
            Box::new(|question| question.namespaces.push("other".into())),
            GateReason::NotInBaseline,
        ),
        (&bad_list, raw(), none(), GateReason::Malformed),
        // Nobody says whether the attacker was inside already.
        (&spec, raw(), Box::new(|question| question.compromised_since = None), GateReason::NoCompromiseTime),
        (&spec, raw(), Box::new(since("2026-03-01T00:00:00Z")), GateReason::CapturedAfterCompromise),
        // The time was moved back.
        (&spec, raw(), Box::new(since("2025-01-01T00:00:00Z")), GateReason::CapturedAfterCompromise),
    ];
    for (spec, raw, change, reason) in cases {
        let answer = asked(spec, inventory(), raw, change);
        assert_eq!((answer.verdict, answer.reason), (Verdict::Unknown, reason), "{answer:?}");
        assert_eq!(answer.evidence, None);
    }
}

#[test]
fn a_baseline_from_after_the_compromise_passes_as_an_exception() {
    let since =
        |question: &mut Question| question.compromised_since = Some("2026-01-01T00:00:00Z".parse().unwrap());
    let reviewed = BaselineSpec { after_compromise: AfterCompromise::Reviewed, ..BaselineSpec::default() };
    let answer = asked(&reviewed, inventory(), raw(), since);
    assert_eq!((answer.verdict, answer.exceptions.len()), (Verdict::Pass, 1), "{answer:?}");
    // Manifests are not what was there.
    let manifests = Baseline { source: Source::Manifests, ..inventory() };
    let answer = asked(&BaselineSpec::default(), manifests, raw(), since);
    assert_eq!((answer.verdict, answer.exceptions.len()), (Verdict::Pass, 0), "{answer:?}");
}

#[test]
fn what_was_not_compared_is_said() {
    let spec = BaselineSpec {
        outside: Outside::LeaveOut,
        ignore: vec![BaselineIgnore { kind: "ConfigMap".into(), ..Default::default() }],
        ..BaselineSpec::default()
    };
    let baseline = Baseline { secret_key: None, outside: false, ..inventory() };
    let answer = asked(&spec, baseline, raw(), |_| ());
    for part in ["values of Secrets", "cluster-wide bindings", "1 objects by the plan's ignore list"] {
        assert!(answer.message.contains(part), "{part}: {answer:?}");
    }
}

#[test]
fn what_the_baseline_lacks_is_unknown_unless_the_plan_leaves_it_out() {
    let baseline = Baseline { secret_key: None, outside: false, ..inventory() };
    let left_out = BaselineSpec { outside: Outside::LeaveOut, ..BaselineSpec::default() };
    let secret = crate::api::ObjectName { name: "key".into() };
    let secret_key_from = Some(crate::api::gate::SecretKeyFrom { secret, key: "key".into() });
    let keyed = BaselineSpec { secret_key_from, ..left_out.clone() };
    for (spec, verdict) in
        [(BaselineSpec::default(), Verdict::Unknown), (keyed, Verdict::Unknown), (left_out, Verdict::Pass)]
    {
        let answer = asked(&spec, baseline.clone(), raw(), |_| ());
        assert_eq!(answer.verdict, verdict, "{answer:?}");
    }
}

#[test]
fn only_a_signed_envelope_is_opened() {
    let payload = serde_json::to_vec(&inventory()).unwrap();
    let mut signed = Envelope::new(payload.clone());
    signed.signatures = vec![Signature { keyid: String::new(), sig: k8s_openapi::ByteString(vec![1]) }];
    let verifies = |key: &u8, _: &[u8], signature: &[u8]| signature == [*key];
    let bytes = |envelope: &Envelope| serde_json::to_vec(envelope).unwrap();
    let spec = BaselineSpec::default();
    let open =
        |bytes: &[u8], keys: &[u8]| approved(&spec, "baseline in ConfigMap a/b", bytes, keys, verifies);
    assert_eq!(open(&bytes(&signed), &[1]).unwrap().baseline, inventory());
    let other = Envelope { signatures: signed.signatures.clone(), ..Envelope::new(b"{}".to_vec()) };
    for (bytes, keys, reason) in [
        (bytes(&signed), &[2][..], GateReason::SignatureInvalid),
        (bytes(&Envelope::new(payload)), &[1], GateReason::SignatureInvalid),
        (bytes(&signed)[..100].to_vec(), &[1], GateReason::BaselineMalformed),
        (Vec::new(), &[1], GateReason::BaselineMalformed),
        (bytes(&other), &[1], GateReason::BaselineMalformed),
    ] {
        let answer = open(&bytes, keys).unwrap_err();
        assert_eq!((answer.verdict, answer.reason), (Verdict::Unknown, reason), "{answer:?}");
        assert!(answer.message.starts_with("baseline in ConfigMap a/b: "), "{answer:?}");
    }
}
