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

/// Returns the label and annotations that a namespace needs at a level. `None`: the key must be absent.
fn marks(
    namespace: &Namespace,
    spec: &QuarantineSpec,
    level: Isolation,
) -> (Option<&'static str>, BTreeMap<&'static str, Option<String>>) {
    let label = level.label();
    let incident = spec.incident_ref.as_ref().map(|incident| incident.name.clone());
    // The fence's message contains these values and must be a single line.
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let annotations = [(REASON_ANNOTATION, Some(line(&spec.reason))), (INCIDENT_ANNOTATION, incident)];
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
