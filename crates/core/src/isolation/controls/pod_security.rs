//! Host access in the clean room: the namespace enforces the Pod Security Standard `baseline` while it is a clean room, unless a person
//! has accepted host access. So no pod starts that uses its node's network, processes or files. The previous level is noted on the
//! namespace, which is locked, and restored when it opens.

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use serde_json::{Value, json};

/// Label that Pod Security admission reads.
pub const ENFORCE_LABEL: &str = "pod-security.kubernetes.io/enforce";
/// Annotation on the namespace with the level that it enforced before, or [`NOTHING`].
pub(crate) const BEFORE_ANNOTATION: &str = "resurgam.dev/pod-security";
/// Value of [`BEFORE_ANNOTATION`] where the namespace enforced no level.
pub(crate) const NOTHING: &str = "none";

/// Returns whether the namespace enforces the level of a clean room. `privileged`: a person has accepted host access.
#[must_use]
pub fn is_enforced(namespace: &Namespace, privileged: bool) -> bool {
    change(namespace, privileged).is_none()
}

/// Returns the merge patch that enforces it. `None`: it is enforced.
#[must_use]
pub fn change(namespace: &Namespace, privileged: bool) -> Option<Value> {
    let enforced = namespace.labels().get(ENFORCE_LABEL).map(String::as_str);
    let before = namespace.annotations().get(BEFORE_ANNOTATION).map(String::as_str);
    match (privileged, enforced) {
        (false, Some("baseline" | "restricted")) => None,
        (false, enforced) => Some(patch(namespace, Some("baseline"), before.or(enforced).or(Some(NOTHING)))),
        // Host access is accepted: the namespace enforces what it did before the clean room.
        (true, _) => before.map(|before| patch(namespace, Some(before).filter(|was| *was != NOTHING), None)),
    }
}

fn patch(namespace: &Namespace, enforced: Option<&str>, before: Option<&str>) -> Value {
    json!({"metadata": {
        "uid": namespace.metadata.uid,
        "resourceVersion": namespace.metadata.resource_version,
        "labels": {ENFORCE_LABEL: enforced},
        "annotations": {BEFORE_ANNOTATION: before},
    }})
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn namespace(enforced: Option<&str>, before: Option<&str>) -> Namespace {
        let labels: BTreeMap<_, _> = enforced.map(|value| (ENFORCE_LABEL, value)).into_iter().collect();
        let annotations: BTreeMap<_, _> =
            before.map(|value| (BEFORE_ANNOTATION, value)).into_iter().collect();
        let value = json!({"metadata": {"name": "library", "labels": labels, "annotations": annotations}});
        serde_json::from_value(value).unwrap()
    }

    fn after(namespace: &Namespace, privileged: bool) -> Option<(Value, Value)> {
        let patch = change(namespace, privileged)?;
        let meta = &patch["metadata"];
        Some((meta["labels"][ENFORCE_LABEL].clone(), meta["annotations"][BEFORE_ANNOTATION].clone()))
    }

    #[test]
    fn clean_room_enforces_baseline_and_restores_the_level() {
        for (enforced, before, expected) in [
            (None, None, Some((json!("baseline"), json!(NOTHING)))),
            (Some("privileged"), None, Some((json!("baseline"), json!("privileged")))),
            (Some("anything"), None, Some((json!("baseline"), json!("anything")))),
            (Some("baseline"), None, None),
            (Some("restricted"), None, None),
            // The label was loosened in the meantime: the noted level stays the original one.
            (Some("privileged"), Some(NOTHING), Some((json!("baseline"), json!(NOTHING)))),
        ] {
            assert_eq!(after(&namespace(enforced, before), false), expected, "{enforced:?} {before:?}");
        }
        for (before, expected) in [
            (Some(NOTHING), Some((Value::Null, Value::Null))),
            (Some("privileged"), Some((json!("privileged"), Value::Null))),
            (None, None),
        ] {
            assert_eq!(after(&namespace(Some("baseline"), before), true), expected, "{before:?}");
        }
        assert!(is_enforced(&namespace(Some("restricted"), None), false));
        assert!(!is_enforced(&namespace(None, None), false));
        assert!(is_enforced(&namespace(None, None), true));
    }
}
