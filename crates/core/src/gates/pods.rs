//! Why pods do not run, in the words of the scheduler or the kubelet, by the workload that they belong to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::inventory::{Inventory, ObjectRef};
use crate::api::conditions::shorten;

/// Maximum length of one problem, in characters.
const LIMIT: usize = 300;

/// Reasons of waiting containers that are part of every start.
const STARTING: [&str; 2] = ["ContainerCreating", "PodInitializing"];

/// Problems of pods, by the UID of the workload that they belong to.
pub struct PodProblems(BTreeMap<String, String>);

impl PodProblems {
    /// Finds the first problem of each workload.
    pub fn of(inventory: &Inventory) -> Self {
        let deployment_of: BTreeMap<&str, &str> = inventory
            .replica_sets
            .iter()
            .filter_map(|set| Some((set.metadata.uid.as_deref()?, controller(&set.metadata)?)))
            .collect();
        let mut first = BTreeMap::new();
        for pod in &inventory.pods {
            let Some(problem) = problem(pod) else { continue };
            let Some(owner) = controller(&pod.metadata) else { continue };
            let owner = deployment_of.get(owner).copied().unwrap_or(owner);
            first.entry(owner.to_owned()).or_insert(problem);
        }
        Self(first)
    }

    /// Returns the first problem of a workload's pods.
    pub fn first_of(&self, workload: &ObjectRef) -> Option<String> {
        self.0.get(&workload.uid).cloned()
    }
}

/// Returns the UID of an object's controller.
fn controller(meta: &ObjectMeta) -> Option<&str> {
    meta.owner_references
        .iter()
        .flatten()
        .find(|owner| owner.controller == Some(true))
        .map(|o| o.uid.as_str())
}

/// Returns why a pod does not run. `None`: it runs, has ended, or is just starting.
fn problem(pod: &Pod) -> Option<String> {
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let status = pod.status.as_ref()?;
    let unscheduled = status
        .conditions
        .iter()
        .flatten()
        .find(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
        .and_then(|condition| condition.message.as_deref());
    if let Some(why) = unscheduled {
        return Some(shorten(&format!("pod {name} cannot be scheduled: {why}"), LIMIT));
    }
    let mut containers =
        status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    containers.find_map(|container| Some(shorten(&format!("pod {name}, {}", waits(container)?), LIMIT)))
}

fn waits(container: &ContainerStatus) -> Option<String> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| !STARTING.contains(reason))?;
    let message = waiting.message.as_ref().map_or_else(String::new, |message| format!(": {message}"));
    Some(format!("container {}: {reason}{message}", container.name))
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn parsed<K: DeserializeOwned>(value: Value) -> K {
        serde_json::from_value(value).unwrap()
    }

    fn owned(name: &str, owner: &str) -> Value {
        let by = json!([{"apiVersion": "v1", "kind": "K", "name": owner, "uid": owner, "controller": true}]);
        json!({"name": name, "uid": name, "ownerReferences": by})
    }

    #[test]
    fn scheduler_and_kubelet_are_quoted_for_the_workload_of_the_pod() {
        let waiting = |reason: &str, message: &str| {
            json!({"containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": reason, "message": message}}}]})
        };
        let unscheduled = json!({"conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available: 3 Insufficient cpu."}]});
        for (status, wanted) in [
            (unscheduled, Some("pod p cannot be scheduled: 0/3 nodes are available: 3 Insufficient cpu.")),
            (
                waiting("ImagePullBackOff", "Back-off pulling image \"x\""),
                Some("pod p, container c: ImagePullBackOff: Back-off pulling image \"x\""),
            ),
            (
                waiting("CreateContainerConfigError", "secret \"s\" not found"),
                Some("pod p, container c: CreateContainerConfigError: secret \"s\" not found"),
            ),
            (waiting("ContainerCreating", ""), None),
            (json!({}), None),
        ] {
            let inventory = Inventory {
                replica_sets: vec![parsed(json!({"metadata": owned("set", "web")}))],
                pods: vec![parsed(json!({"metadata": owned("p", "set"), "status": status}))],
                ..Inventory::default()
            };
            let web = ObjectRef {
                kind: "Deployment".into(),
                namespace: "a".into(),
                name: "web".into(),
                uid: "web".into(),
            };
            assert_eq!(PodProblems::of(&inventory).first_of(&web).as_deref(), wanted, "{status}");
        }
    }
}
