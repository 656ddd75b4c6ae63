//! Step `scale`: the workloads that it starts, and how.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{StepContext, StepProblem};
use crate::api::step::ScaleSpec;
use crate::isolation::controls::workloads::Workload;

/// Returns the patches to write. All are decided before any is written, so that one unknown number of replicas fails the whole step.
///
/// # Errors
/// A namespace has no workload, the labels select none, or the replicas of one were not recorded.
pub fn decide<'a>(
    found: &'a [Workload],
    spec: &ScaleSpec,
    context: &StepContext,
) -> Result<Vec<(&'a Workload, Value)>, StepProblem> {
    // An empty namespace is an error: the workloads to restore are missing.
    let is_empty = |namespace: &&String| !found.iter().any(|w| w.meta.namespace.as_ref() == Some(namespace));
    if let Some(empty) = context.namespaces.iter().find(is_empty) {
        return Err(StepProblem::Unusable(format!("namespace {empty} holds no workload to scale")));
    }
    let selected: Vec<_> = found.iter().filter(|w| matches(w, &spec.match_labels)).collect();
    if selected.is_empty() {
        let labels: Vec<_> = spec.match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return Err(StepProblem::Unusable(format!(
            "no workload with the labels {} in {}",
            labels.join(","),
            context.namespaces.join(", ")
        )));
    }
    let (mut writes, mut unknown) = (Vec::new(), Vec::new());
    for workload in selected {
        let seal = workload.meta.namespace.as_ref().and_then(|ns| context.seals.get(ns));
        match workload.start(seal.map(String::as_str), spec.replicas) {
            Ok(Some(patch)) => writes.push((workload, patch)),
            Ok(None) => {}
            Err(error) => unknown.push(error),
        }
    }
    if unknown.is_empty() { Ok(writes) } else { Err(StepProblem::NotRecorded(unknown)) }
}

fn matches(workload: &Workload, labels: &BTreeMap<String, String>) -> bool {
    let own = workload.meta.labels.as_ref();
    labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ObjectMeta;

    use crate::isolation::controls::workloads::{Kind, Shape};

    fn stopped(namespace: &str, name: &str, label: &str) -> Workload {
        let mut meta = ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            labels: Some([("app".to_owned(), label.to_owned())].into()),
            ..ObjectMeta::default()
        };
        meta.annotations = Some(
            [
                (crate::api::RECORDED_ANNOTATION.to_owned(), "2".to_owned()),
                (crate::api::SEAL_ANNOTATION.to_owned(), format!("seal-of-{namespace}")),
            ]
            .into(),
        );
        Workload { kind: Kind::Deployment, meta, shape: Shape::Replicas(0), drops_claims: false }
    }

    fn context() -> StepContext {
        StepContext {
            namespaces: vec!["a".into(), "b".into()],
            seals: [("a".into(), "seal-of-a".into()), ("b".into(), "seal-of-b".into())].into(),
            ..StepContext::default()
        }
    }

    #[test]
    fn each_namespace_goes_by_its_own_seal() {
        let found = [stopped("a", "one", "x"), stopped("b", "two", "y")];
        assert_eq!(decide(&found, &ScaleSpec::default(), &context()).unwrap().len(), 2);
        let mut other = context();
        other.seals.insert("b".into(), "seal-of-a".into());
        let error = decide(&found, &ScaleSpec::default(), &other).unwrap_err().to_string();
        assert!(error.contains("Deployment b/two") && !error.contains("a/one"), "{error}");
    }

    #[test]
    fn labels_select_and_selecting_nothing_is_an_error() {
        let found = [stopped("a", "one", "x"), stopped("b", "two", "y")];
        let only = |label: &str| ScaleSpec {
            replicas: None,
            match_labels: [("app".to_owned(), label.to_owned())].into(),
        };
        let writes = decide(&found, &only("y"), &context()).unwrap();
        assert_eq!(writes.iter().map(|(w, _)| w.to_string()).collect::<Vec<_>>(), ["Deployment b/two"]);
        let error = decide(&found, &only("z"), &context()).unwrap_err().to_string();
        assert_eq!(error, "no workload with the labels app=z in a, b");
    }
}
