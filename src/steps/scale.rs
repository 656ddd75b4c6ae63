//! `scale`: workloads back to what was recorded when they were stopped, or to a number in the plan.

use std::collections::BTreeMap;
use std::fmt::Debug;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::ReplicationController;
use kube::api::{Patch, PatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{StepContext, StepError};
use crate::access::Right;
use crate::api::field_manager;
use crate::api::step::ScaleSpec;
use crate::calls::{IoError, call};
use crate::isolation::workloads::{self, Kind, Workload};

/// What [`run`] takes. Which kinds a namespace holds is not known from the plan, so that it is all that can be scaled.
pub(super) fn rights(context: &StepContext) -> Vec<Right> {
    let of = |namespace: &String| {
        let writes = [
            Right::patch::<Deployment>(namespace, None),
            Right::patch::<StatefulSet>(namespace, None),
            Right::patch::<ReplicaSet>(namespace, None),
            Right::patch::<ReplicationController>(namespace, None),
            Right::patch::<DaemonSet>(namespace, None),
        ];
        workloads::inventory_rights(namespace).into_iter().chain(writes)
    };
    context.namespaces.iter().flat_map(of).collect()
}

/// Everything is read and decided before anything is written, so that what is not known stops the step as a whole.
pub(super) async fn run(client: &Client, spec: &ScaleSpec, context: &StepContext) -> Result<(), StepError> {
    let mut found = Vec::new();
    for namespace in &context.namespaces {
        let here = workloads::list(client, namespace).await?;
        // An empty namespace is a finding, not a success: what was to be restored is not there.
        if here.is_empty() {
            return Err(StepError::Nothing(format!("namespace {namespace} holds no workload to scale")));
        }
        found.extend(here);
    }
    for (workload, patch) in decide(&found, spec, context)? {
        write(client, workload, &patch).await?;
    }
    Ok(())
}

/// What has to be written, and to what.
fn decide<'a>(
    found: &'a [Workload],
    spec: &ScaleSpec,
    context: &StepContext,
) -> Result<Vec<(&'a Workload, Value)>, StepError> {
    let selected: Vec<_> = found.iter().filter(|w| matches(w, &spec.match_labels)).collect();
    if selected.is_empty() {
        let labels: Vec<_> = spec.match_labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        return Err(StepError::Nothing(format!(
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
    if unknown.is_empty() { Ok(writes) } else { Err(StepError::NotRecorded(unknown)) }
}

fn matches(workload: &Workload, labels: &BTreeMap<String, String>) -> bool {
    let own = workload.meta.labels.as_ref();
    labels.iter().all(|(key, value)| own.and_then(|own| own.get(key)) == Some(value))
}

async fn write(client: &Client, workload: &Workload, patch: &Value) -> Result<(), IoError> {
    match workload.kind {
        Kind::Deployment => write_as::<Deployment>(client, workload, patch).await,
        Kind::StatefulSet => write_as::<StatefulSet>(client, workload, patch).await,
        Kind::ReplicaSet => write_as::<ReplicaSet>(client, workload, patch).await,
        Kind::ReplicationController => write_as::<ReplicationController>(client, workload, patch).await,
        Kind::DaemonSet => write_as::<DaemonSet>(client, workload, patch).await,
        // Never resumed by this step: a resumed CronJob fires its missed run.
        Kind::CronJob | Kind::Job => Ok(()),
    }
}

async fn write_as<K>(client: &Client, workload: &Workload, patch: &Value) -> Result<(), IoError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let namespace = workload.meta.namespace.as_deref().unwrap_or_default();
    let name = workload.meta.name.as_deref().unwrap_or_default();
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let params =
        PatchParams { field_manager: Some(field_manager::STEP.to_owned()), ..PatchParams::default() };
    call(format!("scale {workload}"), api.patch(name, &params, &Patch::Merge(patch))).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isolation::workloads::Shape;
    use kube::core::ObjectMeta;

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
