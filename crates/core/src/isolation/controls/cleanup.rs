//! Removes from the objects of a released namespace what isolating wrote on them: records of stopped workloads, marks, and the
//! operator's entries in `managedFields`. The patches change no other value. A workload that is still stopped keeps its record, for
//! people to start it.

use std::collections::{BTreeMap, BTreeSet};

use kube::core::ObjectMeta;
use serde_json::{Value, json};

use super::workloads::{Inventory, Shape, Workload};
use crate::api::{
    RECORDED_ANNOTATION, RELEASED_ANNOTATION, ROLLOUT_ANNOTATION, SEAL_ANNOTATION, SEALED_LABEL,
    WHEN_SCALED_ANNOTATION, field_manager,
};

/// Annotations of a record on a workload.
const RECORD: [&str; 5] =
    [RECORDED_ANNOTATION, SEAL_ANNOTATION, WHEN_SCALED_ANNOTATION, ROLLOUT_ANNOTATION, RELEASED_ANNOTATION];

/// Values to set, or with `None` to remove, by key.
type Changes = BTreeMap<&'static str, Option<&'static str>>;

/// Returns the `managedFields` without the operator's entries. `None`: it has none.
fn other_managers(meta: &ObjectMeta) -> Option<Value> {
    let is_ours = |manager: &Option<String>| {
        manager.as_deref().is_some_and(|manager| field_manager::ALL.contains(&manager))
    };
    let all = meta.managed_fields.as_deref()?;
    let others: Vec<_> = all.iter().filter(|entry| !is_ours(&entry.manager)).collect();
    match others.len() {
        count if count == all.len() => None,
        // The API server ignores an empty list; one empty entry removes all.
        0 => Some(json!([{}])),
        _ => Some(json!(others)),
    }
}

/// Returns the merge patch with these changes that also removes the operator's field managers, with a resourceVersion precondition.
/// `None`: there is nothing to change. A value that the patch sets is managed by the operator again.
fn patch(meta: &ObjectMeta, annotations: &Changes, labels: &Changes) -> Option<Value> {
    let mut metadata = serde_json::Map::new();
    for (field, changes) in [("annotations", annotations), ("labels", labels)] {
        if !changes.is_empty() {
            metadata.insert(field.to_owned(), json!(changes));
        }
    }
    if let Some(others) = other_managers(meta) {
        metadata.insert("managedFields".to_owned(), others);
    }
    if metadata.is_empty() {
        return None;
    }
    metadata.insert("uid".to_owned(), json!(meta.uid));
    metadata.insert("resourceVersion".to_owned(), json!(meta.resource_version));
    Some(json!({"metadata": metadata}))
}

/// Returns the merge patch that removes the operator's field managers. `None`: there are none.
#[must_use]
pub fn managers(meta: &ObjectMeta) -> Option<Value> {
    patch(meta, &Changes::new(), &Changes::new())
}

/// Returns the merge patch that removes our mark and field managers from a ServiceAccount. `None`: there are none.
#[must_use]
pub fn account(meta: &ObjectMeta) -> Option<Value> {
    let is_marked = meta.labels.as_ref().is_some_and(|labels| labels.contains_key(SEALED_LABEL));
    let labels = if is_marked { Changes::from([(SEALED_LABEL, None)]) } else { Changes::new() };
    patch(meta, &Changes::new(), &labels)
}

fn annotation<'a>(workload: &'a Workload, key: &str) -> Option<&'a str> {
    workload.meta.annotations.as_ref()?.get(key).map(String::as_str)
}

/// Returns whether the workload is stopped and its record says that it ran before, so that somebody has to start it.
#[must_use]
pub fn awaits_start(workload: &Workload) -> bool {
    let Some(was) = annotation(workload, RECORDED_ANNOTATION) else { return false };
    let was_stopped = match workload.shape {
        Shape::Replicas(_) => was == "0",
        Shape::Nodes(_) => false,
        Shape::Suspend(_) => was == "true",
    };
    workload.is_stopped() && !was_stopped
}

/// Returns the annotations of the record that are to be changed on a workload of a released namespace.
fn record_changes(workload: &Workload) -> Changes {
    if awaits_start(workload) {
        let is_marked = annotation(workload, RELEASED_ANNOTATION).is_some();
        return if is_marked { Changes::new() } else { [(RELEASED_ANNOTATION, Some("true"))].into() };
    }
    let there = RECORD.into_iter().filter(|key| annotation(workload, key).is_some());
    there.map(|key| (key, None)).collect()
}

/// Returns whether a record is left on the workload of a released namespace, or lacks the mark that it is released. Field managers,
/// which the cluster cache does not hold, do not count.
#[must_use]
pub fn is_left(workload: &Workload) -> bool {
    !record_changes(workload).is_empty()
}

/// Returns the merge patch that removes our record and field managers from a workload that runs, or marks the record of a stopped one
/// as released. `None`: there is nothing to do.
#[must_use]
pub fn workload(workload: &Workload) -> Option<Value> {
    let changes = record_changes(workload);
    // The mark itself is managed by us, so that the patch would be repeated for ever.
    if changes.is_empty() && awaits_start(workload) {
        return None;
    }
    patch(&workload.meta, &changes, &Changes::new())
}

/// Returns the merge patch that removes our record and field managers from an object that was just started, given its metadata. `None`:
/// there is nothing to do.
#[must_use]
pub fn started(meta: &ObjectMeta) -> Option<Value> {
    let is_there = |key: &&str| meta.annotations.as_ref().is_some_and(|all| all.contains_key(*key));
    let changes = RECORD.into_iter().filter(is_there).map(|key| (key, None)).collect();
    patch(meta, &changes, &Changes::new())
}

/// Returns the merge patch for a ReplicaSet of a Deployment. The Deployment's controller copies annotations to it, and never removes
/// them, so that they are removed whatever its replicas.
#[must_use]
pub fn rollout(set: &Workload) -> Option<Value> {
    let there = RECORD.into_iter().filter(|key| annotation(set, key).is_some());
    let changes: Changes = there.map(|key| (key, None)).collect();
    if changes.is_empty() { None } else { patch(&set.meta, &changes, &Changes::new()) }
}

/// Returns the ReplicaSets with copied annotations whose Deployment has no record any more. Earlier, they would be copied again.
#[must_use]
pub fn rollouts(inventory: &Inventory) -> Vec<&Workload> {
    let is_recorded = |workload: &&Workload| RECORD.iter().any(|key| annotation(workload, key).is_some());
    let recorded: BTreeSet<&str> = inventory
        .workloads
        .iter()
        .filter(is_recorded)
        .filter_map(|workload| workload.meta.uid.as_deref())
        .collect();
    let is_copied = |set: &&Workload| {
        let owners = set.meta.owner_references.iter().flatten();
        is_recorded(set) && !owners.into_iter().any(|owner| recorded.contains(owner.uid.as_str()))
    };
    inventory.rollouts.iter().filter(is_copied).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};

    use super::*;
    use crate::isolation::controls::workloads::Kind;

    fn managed_by(managers: &[&str]) -> ObjectMeta {
        let entry = |manager: &&str| ManagedFieldsEntry {
            manager: Some((*manager).to_owned()),
            ..ManagedFieldsEntry::default()
        };
        ObjectMeta {
            uid: Some("u".into()),
            resource_version: Some("7".into()),
            managed_fields: Some(managers.iter().map(entry).collect()),
            ..ObjectMeta::default()
        }
    }

    fn recorded(kind: Kind, shape: Shape, was: &str) -> Workload {
        let mut meta = managed_by(&["helm", field_manager::ISOLATION]);
        meta.annotations = Some(
            [(RECORDED_ANNOTATION.to_owned(), was.to_owned()), (SEAL_ANNOTATION.to_owned(), "s".into())]
                .into(),
        );
        Workload { kind, meta, shape, drops_claims: false, rollout: None }
    }

    #[test]
    fn only_our_field_managers_are_removed() {
        assert_eq!(managers(&managed_by(&["helm", "kube-controller-manager"])), None);
        assert_eq!(managers(&ObjectMeta::default()), None);
        let patch = managers(&managed_by(&["helm", field_manager::STEP, field_manager::ISOLATION])).unwrap();
        assert_eq!(patch["metadata"]["managedFields"], json!([{"manager": "helm"}]));
        assert_eq!(
            (&patch["metadata"]["resourceVersion"], &patch["metadata"]["uid"]),
            (&json!("7"), &json!("u"))
        );
        assert!(patch.get("spec").is_none());
        let patch = managers(&managed_by(&[field_manager::ISOLATION])).unwrap();
        assert_eq!(patch["metadata"]["managedFields"], json!([{}]), "an empty list would change nothing");
    }

    #[test]
    fn running_workload_loses_its_record_and_stopped_one_is_marked() {
        let running = workload(&recorded(Kind::Deployment, Shape::Replicas(2), "2")).unwrap();
        assert_eq!(
            running["metadata"]["annotations"],
            json!({RECORDED_ANNOTATION: null, SEAL_ANNOTATION: null})
        );
        assert_eq!(running["metadata"]["managedFields"], json!([{"manager": "helm"}]));
        let mut stopped = recorded(Kind::Deployment, Shape::Replicas(0), "2");
        let patch = workload(&stopped).unwrap();
        assert_eq!(patch["metadata"]["annotations"], json!({RELEASED_ANNOTATION: "true"}));
        stopped.meta.annotations.as_mut().unwrap().insert(RELEASED_ANNOTATION.into(), "true".into());
        assert_eq!(workload(&stopped), None, "once is enough");
        assert!(awaits_start(&stopped) && !is_left(&stopped));
    }

    #[test]
    fn what_was_stopped_before_isolation_awaits_no_start() {
        for (kind, shape, was) in
            [(Kind::Deployment, Shape::Replicas(0), "0"), (Kind::CronJob, Shape::Suspend(true), "true")]
        {
            let before = recorded(kind, shape, was);
            assert!(!awaits_start(&before) && is_left(&before), "{kind}");
            let patch = workload(&before).unwrap();
            assert_eq!(patch["metadata"]["annotations"][RECORDED_ANNOTATION], Value::Null, "{kind}");
        }
        for (kind, shape, was) in [
            (Kind::CronJob, Shape::Suspend(true), "false"),
            (
                Kind::DaemonSet,
                Shape::Nodes([(super::super::workloads::NOWHERE.to_owned(), "true".to_owned())].into()),
                "{}",
            ),
        ] {
            assert!(awaits_start(&recorded(kind, shape, was)), "{kind}");
        }
    }

    #[test]
    fn copied_records_are_removed_once_their_deployment_has_none() {
        let mut deployment = recorded(Kind::Deployment, Shape::Replicas(2), "2");
        deployment.meta.uid = Some("deployment".into());
        let mut set = recorded(Kind::ReplicaSet, Shape::Replicas(0), "2");
        set.meta.owner_references =
            Some(vec![OwnerReference { uid: "deployment".into(), ..OwnerReference::default() }]);
        let mut inventory =
            Inventory { workloads: vec![deployment], rollouts: vec![set], uids: BTreeSet::new() };
        assert!(rollouts(&inventory).is_empty(), "its controller would copy them again");
        inventory.workloads[0].meta.annotations = None;
        let copied = rollouts(&inventory);
        let patch = rollout(copied[0]).unwrap();
        assert_eq!(patch["metadata"]["annotations"][SEAL_ANNOTATION], Value::Null);
    }
}
