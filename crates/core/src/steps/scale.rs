//! Step `scale`: the workloads that it starts, and how.

use std::collections::BTreeMap;

use kube::core::ObjectMeta;
use serde_json::Value;

use super::{StepContext, StepProblem};
use crate::api::Phase;
use crate::api::step::ScaleSpec;
use crate::isolation::controls::workloads::Workload;
use crate::isolation::seal;

/// Returns the patches to write. All are decided before any is written, so that one unknown number of replicas fails the whole step.
///
/// # Errors
/// A namespace lacks the workloads that it had, the labels select none, or the replicas of one were not recorded.
pub fn decide<'a>(
    found: &'a [Workload],
    spec: &ScaleSpec,
    context: &StepContext,
) -> Result<Vec<(&'a Workload, Value)>, StepProblem> {
    let is_empty = |namespace: &&String| !found.iter().any(|w| w.meta.namespace.as_ref() == Some(namespace));
    // Pods that no workload brings back are not this step's to start.
    let missing = |namespace: &String| seal::missing(&context.seals, namespace, Phase::BeforeRestore);
    if let Some(missing) = context.namespaces.iter().filter(is_empty).find_map(missing) {
        return Err(StepProblem::Unusable(missing));
    }
    let selected: Vec<_> = found.iter().filter(|w| selects(&spec.match_labels, &w.meta)).collect();
    if selected.is_empty() && !spec.match_labels.is_empty() {
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
        let number = spec.replicas.filter(|_| !has_controller(&workload.meta));
        match workload.start(seal.map(|seal| seal.uid.as_str()), number) {
            Ok(Some(patch)) => writes.push((workload, patch)),
            Ok(None) => {}
            Err(error) => unknown.push(error),
        }
    }
    if unknown.is_empty() { Ok(writes) } else { Err(StepProblem::NotRecorded(unknown)) }
}

/// Returns whether an object has these labels.
pub fn selects(labels: &BTreeMap<String, String>, meta: &ObjectMeta) -> bool {
    let own = meta.labels.as_ref();
    labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}

/// Returns whether a controller owns the object, of whatever kind. Such a workload is one revision among several: a number in the plan
/// does not apply to it.
pub fn has_controller(meta: &ObjectMeta) -> bool {
    meta.owner_references.iter().flatten().any(|owner| owner.controller == Some(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::ObjectMeta;

    use crate::api::quarantine::Contents;
    use crate::isolation::Seal;
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
        Workload {
            kind: Kind::Deployment,
            meta,
            shape: Shape::Replicas(0),
            drops_claims: false,
            rollout: None,
        }
    }

    fn sealed(namespace: &str, contents: Option<(i32, i32)>) -> Seal {
        let contents = contents.map(|(workloads, unmanaged_pods)| Contents { workloads, unmanaged_pods });
        Seal { uid: format!("seal-of-{namespace}"), contents, ..Seal::default() }
    }

    fn context() -> StepContext {
        StepContext {
            namespaces: vec!["a".into(), "b".into()],
            seals: ["a", "b"].map(|namespace| (namespace.to_owned(), sealed(namespace, None))).into(),
            ..StepContext::default()
        }
    }

    #[test]
    fn each_namespace_goes_by_its_own_seal() {
        let found = [stopped("a", "one", "x"), stopped("b", "two", "y")];
        assert_eq!(decide(&found, &ScaleSpec::default(), &context()).unwrap().len(), 2);
        let mut other = context();
        other.seals.insert("b".into(), sealed("a", None));
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

    #[test]
    fn a_namespace_without_workloads_is_restored_only_if_it_had_none() {
        let found = [stopped("a", "one", "x")];
        for (contents, works) in
            [(None, false), (Some((1, 0)), false), (Some((0, 0)), true), (Some((0, 2)), true)]
        {
            let mut context = context();
            context.seals.insert("b".into(), sealed("b", contents));
            assert_eq!(decide(&found, &ScaleSpec::default(), &context).is_ok(), works, "{contents:?}");
        }
    }

    #[test]
    fn number_of_the_plan_is_not_for_revisions_of_another_controller() {
        let mut old = stopped("a", "api-old", "x");
        old.meta.annotations.as_mut().unwrap().insert(crate::api::RECORDED_ANNOTATION.into(), "0".into());
        old.meta.owner_references = Some(vec![
            serde_json::from_value(serde_json::json!(
                {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "api", "uid": "r", "controller": true}
            ))
            .unwrap(),
        ]);
        let mut current = stopped("a", "api-new", "x");
        current.meta.owner_references = old.meta.owner_references.clone();
        let found = [old, current, stopped("b", "web", "x")];
        let spec = ScaleSpec { replicas: Some(5), ..ScaleSpec::default() };
        let writes = decide(&found, &spec, &context()).unwrap();
        let started: Vec<_> = writes
            .iter()
            .map(|(w, patch)| (w.meta.name.clone().unwrap(), patch["spec"]["replicas"].clone()))
            .collect();
        assert_eq!(started, [("api-new".into(), 2.into()), ("web".into(), 5.into())]);
    }

    #[test]
    fn zero_is_a_number_like_any_other() {
        let mut idle = stopped("a", "green", "x");
        idle.meta.annotations.as_mut().unwrap().insert(crate::api::RECORDED_ANNOTATION.into(), "0".into());
        let found = [idle, stopped("b", "blue", "x")];
        let names = |replicas| {
            let writes = decide(&found, &ScaleSpec { replicas, ..ScaleSpec::default() }, &context()).unwrap();
            writes.iter().map(|(w, _)| w.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(None), ["Deployment b/blue"], "one that was at zero stays there");
        assert_eq!(names(Some(0)), [] as [&str; 0], "the plan leaves both at zero");
    }
}
