//! Control `Lock`: the label that the admission policies select by, and the annotations with the reason, on the namespace itself.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use serde_json::{Value, json};

use crate::api::{
    INCIDENT_ANNOTATION, ISOLATION_LABEL, Isolation, QuarantineSpec, REASON_ANNOTATION, SEAL_ANNOTATION,
};

/// Maximum size of an object's annotations in bytes, as the API server enforces it.
const ANNOTATIONS_LIMIT: usize = 256 << 10;

/// Size beyond which no further incident or reason is named, in bytes. The API server drops a fence's message of more than 5 KiB.
const MARK_LIMIT: usize = 1024;

/// Returns the label and annotations that a namespace needs at a level. `None`: the key must be absent.
fn marks(
    namespace: &Namespace,
    spec: &QuarantineSpec,
    level: Isolation,
) -> (Option<&'static str>, BTreeMap<&'static str, Option<String>>) {
    let label = level.label();
    let incidents = spec.incidents();
    let incidents = (!incidents.is_empty()).then(|| joined(&incidents, ", "));
    let further = spec.further_incidents.iter().map(|further| further.reason.as_str());
    let reasons: Vec<String> = std::iter::once(spec.reason.as_str()).chain(further).map(line).collect();
    let annotations = [(REASON_ANNOTATION, Some(joined(&reasons, "; "))), (INCIDENT_ANNOTATION, incidents)];
    let mut annotations: BTreeMap<_, _> =
        annotations.map(|(key, value)| (key, value.filter(|_| label.is_some()))).into();
    if label.is_none() {
        annotations.insert(SEAL_ANNOTATION, None);
    }
    // A tenant may have used up the space for annotations. The label alone isolates.
    if !fit(namespace, &annotations) {
        annotations.values_mut().for_each(|value| *value = None);
    }
    (label, annotations)
}

/// Returns the text as a single line, as the fence's message contains it.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Joins the first texts, as many as fit, and says how many more there are. The first one is never left out.
fn joined(all: &[String], separator: &str) -> String {
    let mut joined = String::new();
    for (index, text) in all.iter().enumerate() {
        if index > 0 && joined.len() + separator.len() + text.len() > MARK_LIMIT {
            return format!("{joined}{separator}and {} more", all.len() - index);
        }
        joined = if index == 0 { text.clone() } else { format!("{joined}{separator}{text}") };
    }
    joined
}

/// Returns whether these annotations fit beside the namespace's others.
fn fit(namespace: &Namespace, ours: &BTreeMap<&'static str, Option<String>>) -> bool {
    let others = namespace.annotations().iter().filter(|(key, _)| !ours.contains_key(key.as_str()));
    let others = others.map(|(key, value)| key.len() + value.len());
    let ours = ours.iter().filter_map(|(key, value)| Some(key.len() + value.as_ref()?.len()));
    others.chain(ours).sum::<usize>() <= ANNOTATIONS_LIMIT
}

/// Returns whether the namespace has the label and annotations of this level.
#[must_use]
pub fn is_labelled(namespace: &Namespace, spec: &QuarantineSpec, level: Isolation) -> bool {
    let (label, annotations) = marks(namespace, spec, level);
    namespace.labels().get(ISOLATION_LABEL).map(String::as_str) == label
        && annotations.iter().all(|(key, value)| namespace.annotations().get(*key) == value.as_ref())
}

/// Returns the merge patch that sets the label and annotations of this level, with a resourceVersion precondition.
#[must_use]
pub fn patch(namespace: &Namespace, spec: &QuarantineSpec, level: Isolation) -> Value {
    let (label, annotations) = marks(namespace, spec, level);
    json!({"metadata": {
        "resourceVersion": namespace.metadata.resource_version,
        "uid": namespace.metadata.uid,
        "labels": {ISOLATION_LABEL: label},
        "annotations": annotations,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn namespace(label: Option<&str>, annotations: &[(&str, &str)]) -> Namespace {
        let annotations: BTreeMap<_, _> = annotations.iter().copied().collect();
        let labels: BTreeMap<_, _> = label.map(|label| (ISOLATION_LABEL, label)).into_iter().collect();
        read(
            json!({"metadata": {"name": "library", "uid": "its-own", "labels": labels, "annotations": annotations}}),
        )
    }

    #[test]
    fn label_and_annotations_match_the_level_and_vanish_when_open() {
        let spec: QuarantineSpec = read(
            json!({"isolation": "Sealed", "reason": "breach,\n of one", "incidentRef": {"name": "nov"}}),
        );
        let (why, incident) = ((REASON_ANNOTATION, "breach, of one"), (INCIDENT_ANNOTATION, "nov"));
        let sealed = namespace(Some("sealed"), &[why, incident]);
        let bare = namespace(None, &[("team", "library")]);
        assert!(is_labelled(&sealed, &spec, Isolation::Sealed));
        assert!(is_labelled(&bare, &spec, Isolation::Open));
        for (drifted, level) in [
            (sealed.clone(), Isolation::Contained),
            (sealed, Isolation::Open),
            (bare, Isolation::Sealed),
            (namespace(None, &[why, incident]), Isolation::Sealed),
            (namespace(Some("clean-room"), &[why, incident]), Isolation::Sealed),
            (namespace(Some("sealed"), &[why]), Isolation::Sealed),
            (namespace(Some("sealed"), &[(REASON_ANNOTATION, "a drill"), incident]), Isolation::Sealed),
            (namespace(None, &[why]), Isolation::Open),
            (namespace(None, &[incident]), Isolation::Open),
            (namespace(None, &[(SEAL_ANNOTATION, "its-own")]), Isolation::Open),
        ] {
            assert!(!is_labelled(&drifted, &spec, level), "{level:?}: {:?}", drifted.metadata);
        }
    }

    #[test]
    fn every_incident_and_reason_is_named_as_far_as_they_fit() {
        let of = |further: Vec<Value>| -> QuarantineSpec {
            let incident = json!({"name": "nov"});
            read(json!({"reason": "breach", "incidentRef": incident, "furtherIncidents": further}))
        };
        let marked = |spec: &QuarantineSpec| {
            let patch = patch(&namespace(None, &[]), spec, Isolation::Sealed);
            let of = |key: &str| patch["metadata"]["annotations"][key].as_str().unwrap().to_owned();
            (of(INCIDENT_ANNOTATION), of(REASON_ANNOTATION))
        };
        let two = of(vec![json!({"name": "dec", "reason": "another\nintruder"})]);
        assert_eq!(marked(&two), ("nov, dec".to_owned(), "breach; another intruder".to_owned()));
        let many = (0..16).map(|n| json!({"name": format!("dec-{n}"), "reason": "x".repeat(512)}));
        let (incidents, reasons) = marked(&of(many.collect()));
        assert!(incidents.ends_with("dec-14, dec-15"), "{incidents}");
        assert!(reasons.starts_with("breach; x") && reasons.ends_with("x; and 15 more"), "{reasons}");
        assert!(reasons.len() < 2 * MARK_LIMIT);
    }

    #[test]
    fn namespace_without_annotation_space_is_still_labelled() {
        let spec: QuarantineSpec = read(json!({"isolation": "Sealed", "reason": "breach"}));
        let with = |room: usize, more: &[(&str, &str)]| {
            let filler = "x".repeat(ANNOTATIONS_LIMIT - "filler".len() - room);
            namespace(Some("sealed"), &[&[("filler", filler.as_str())], more].concat())
        };
        let (why, needed) = ([(REASON_ANNOTATION, "breach")], REASON_ANNOTATION.len() + "breach".len());
        for (room, expected) in [(0, true), (needed - 1, true), (needed, false)] {
            assert_eq!(is_labelled(&with(room, &[]), &spec, Isolation::Sealed), expected, "{room}");
        }
        assert!(is_labelled(&with(needed, &why), &spec, Isolation::Sealed));
    }
}
