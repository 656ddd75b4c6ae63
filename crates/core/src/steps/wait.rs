//! Step `wait`: whether an object is current by kstatus, or a condition of it is true.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::core::{ApiResource, GroupVersionKind};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{StepContext, StepProblem, namespace_of};
use crate::api::step::WaitSpec;
use crate::engine::StepProgress;
use crate::gates::kstatus::{self, Progress, WorkloadStatus};

/// The object that a step waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Kind and resource.
    pub resource: ApiResource,
    /// Namespace, one of the service's.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl Target {
    /// Returns kind, namespace and name, for messages.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}

/// Returns why the object can never be waited for.
pub(super) fn problem(spec: &WaitSpec, namespaces: &[String]) -> Option<String> {
    find(spec, namespaces).err().map(|error| error.to_string())
}

/// Returns the object that the step waits for.
///
/// # Errors
/// It is a Secret, malformed, or not in one of the service's namespaces.
pub fn target(spec: &WaitSpec, context: &StepContext) -> Result<Target, StepProblem> {
    find(spec, &context.namespaces)
}

/// Returns kind and resource of the object.
#[must_use]
pub fn resource(spec: &WaitSpec) -> ApiResource {
    let (group, version) = spec.api_version.split_once('/').unwrap_or(("", &spec.api_version));
    let kind = GroupVersionKind::gvk(group, version, &spec.kind);
    match &spec.resource {
        Some(plural) => ApiResource::from_gvk_with_plural(&kind, plural),
        None => ApiResource::from_gvk(&kind),
    }
}

fn find(spec: &WaitSpec, namespaces: &[String]) -> Result<Target, StepProblem> {
    let resource = resource(spec);
    let (group, version) = (resource.group.as_str(), resource.version.as_str());
    if group.is_empty() && (spec.kind.eq_ignore_ascii_case("Secret") || resource.plural == "secrets") {
        return Err(StepProblem::Unusable("waits for a Secret, which no step reads".to_owned()));
    }
    let path = [group, version, &resource.plural, &spec.name];
    let is_path = |part: &&str| part.contains(['/', '?', '#', '%']) || *part == ".." || *part == ".";
    if path.iter().any(is_path) || spec.name.is_empty() || resource.plural.is_empty() {
        return Err(StepProblem::Unusable(format!(
            "waits for {} '{}', which is no name of an object",
            spec.kind, spec.name
        )));
    }
    let namespace = namespace_of(spec.namespace.as_ref(), namespaces, "object")?;
    Ok(Target { resource, namespace: namespace.to_owned(), name: spec.name.clone() })
}

/// Returns the progress. `object`: as it was read, if it exists.
#[must_use]
pub fn judge(spec: &WaitSpec, target: &Target, object: Option<&Value>) -> StepProgress {
    let title = target.title();
    let Some(object) = object else {
        return StepProgress::Running(format!("{title} does not exist yet"));
    };
    let (api_version, kind) = (object["apiVersion"].as_str(), object["kind"].as_str());
    if (api_version, kind) != (Some(&target.resource.api_version), Some(&target.resource.kind)) {
        let (api_version, kind) = (api_version.unwrap_or("none"), kind.unwrap_or("none"));
        return StepProgress::Failed(format!("{title} is of kind {kind} in {api_version}"));
    }
    let progress = match &spec.condition {
        Some(type_) => condition(object, type_),
        None => current(object, &target.resource),
    };
    match progress {
        Progress::Current => StepProgress::Succeeded,
        Progress::Moving(message) | Progress::Lacking(message) => {
            StepProgress::Running(format!("{title}: {message}"))
        }
        Progress::Suspended => StepProgress::Running(format!("{title}: it is suspended")),
        Progress::Failed { message, .. } => StepProgress::Failed(format!("{title} has failed: {message}")),
    }
}

/// Returns why the object's status says nothing about its spec of today.
fn unsettled(object: &Value) -> Option<Progress> {
    if object["metadata"]["deletionTimestamp"].is_string() {
        return Some(Progress::Moving("it is being deleted".to_owned()));
    }
    let generation = object["metadata"]["generation"].as_i64()?;
    let observed = object["status"]["observedGeneration"].as_i64()?;
    (observed < generation).then(|| behind("its status", observed, generation))
}

fn behind(what: &str, observed: i64, generation: i64) -> Progress {
    Progress::Moving(format!("{what} is of generation {observed}, and the object of generation {generation}"))
}

fn condition_of<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)
}

/// Returns the status of a condition with its reason and message.
fn described(condition: &Value, type_: &str) -> String {
    let text = |key: &str| condition[key].as_str().unwrap_or_default();
    let (status, reason, message) = (text("status"), text("reason"), text("message"));
    let reason = if reason.is_empty() { String::new() } else { format!(" ({reason})") };
    let message = if message.is_empty() { String::new() } else { format!(": {message}") };
    format!("its condition {type_} is {status}{reason}{message}")
}

/// Returns the progress by one condition.
fn condition(object: &Value, type_: &str) -> Progress {
    if let Some(moving) = unsettled(object) {
        return moving;
    }
    let Some(condition) = condition_of(object, type_) else {
        return Progress::Moving(format!("it has no condition {type_} yet"));
    };
    let generation = object["metadata"]["generation"].as_i64();
    if let (Some(observed), Some(generation)) = (condition["observedGeneration"].as_i64(), generation)
        && observed < generation
    {
        return behind(&format!("its condition {type_}"), observed, generation);
    }
    if condition["status"] == "True" {
        return Progress::Current;
    }
    Progress::Moving(described(condition, type_))
}

/// Returns the progress by kstatus: by its rules for the kinds of Kubernetes, and by the usual conditions for all others.
fn current(object: &Value, resource: &ApiResource) -> Progress {
    match (resource.api_version.as_str(), resource.kind.as_str()) {
        ("apps/v1", "Deployment") => typed::<Deployment>(object, |of| kstatus::deployment(of, false)),
        ("apps/v1", "StatefulSet") => typed::<StatefulSet>(object, kstatus::stateful_set),
        ("apps/v1", "DaemonSet") => typed::<DaemonSet>(object, kstatus::daemon_set),
        ("apps/v1", "ReplicaSet") => typed::<ReplicaSet>(object, kstatus::replica_set),
        ("v1", "ReplicationController") => {
            typed::<ReplicationController>(object, kstatus::replication_controller)
        }
        ("batch/v1", "Job") => typed::<Job>(object, kstatus::job),
        ("v1", "Pod") => typed::<Pod>(object, kstatus::pod),
        ("v1", "PersistentVolumeClaim") => claim(object),
        _ => generic(object, &resource.group),
    }
}

fn typed<K: DeserializeOwned>(object: &Value, status: impl Fn(&K) -> WorkloadStatus) -> Progress {
    match serde_json::from_value::<K>(object.clone()) {
        Ok(object) => status(&object).progress,
        Err(error) => Progress::Moving(format!("it cannot be read: {error}")),
    }
}

fn claim(object: &Value) -> Progress {
    if let Some(moving) = unsettled(object) {
        return moving;
    }
    match object["status"]["phase"].as_str() {
        Some("Bound") => Progress::Current,
        phase => Progress::Moving(format!("it is {}, not Bound", phase.unwrap_or("in no phase yet"))),
    }
}

/// Returns the progress of a kind without rules of its own. kstatus takes an object for current that says nothing at all; here that holds
/// for the kinds of Kubernetes only, since a custom resource looks the same before its controller has acted.
fn generic(object: &Value, group: &str) -> Progress {
    if let Some(moving) = unsettled(object) {
        return moving;
    }
    let holds = |type_: &str| condition_of(object, type_).filter(|condition| condition["status"] == "True");
    if let Some(stalled) = holds("Stalled") {
        return Progress::Failed {
            reason: crate::api::GateReason::InProgress,
            message: described(stalled, "Stalled"),
        };
    }
    if let Some(reconciling) = holds("Reconciling") {
        return Progress::Moving(described(reconciling, "Reconciling"));
    }
    match condition_of(object, "Ready") {
        Some(ready) if ready["status"] == "True" => Progress::Current,
        Some(ready) => Progress::Moving(described(ready, "Ready")),
        None if is_of_kubernetes(group) || object["status"]["observedGeneration"].is_i64() => Progress::Current,
        None => Progress::Moving(
            "it says nothing of being current: it has neither a condition Ready nor an observedGeneration. If it never has, name a \
             condition in the step"
                .to_owned(),
        ),
    }
}

/// Returns whether a group is one of Kubernetes' own.
fn is_of_kubernetes(group: &str) -> bool {
    !group.contains('.') || group.ends_with(".k8s.io") && !group.ends_with(".x-k8s.io")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(api_version: &str, kind: &str, condition: Option<&str>) -> WaitSpec {
        WaitSpec {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "db".to_owned(),
            condition: condition.map(str::to_owned),
            ..WaitSpec::default()
        }
    }

    fn judged(spec: &WaitSpec, rest: Value) -> StepProgress {
        let mut object = json!({"apiVersion": spec.api_version, "kind": spec.kind});
        object.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
        judge(spec, &find(spec, &["shop".to_owned()]).unwrap(), Some(&object))
    }

    fn cluster(rest: Value) -> StepProgress {
        judged(&spec("postgresql.cnpg.io/v1", "Cluster", None), rest)
    }

    fn ready(status: &str) -> Value {
        json!({"type": "Ready", "status": status, "reason": "Why", "message": "as it said"})
    }

    #[test]
    fn missing_object_is_waited_for_and_named() {
        let spec = spec("postgresql.cnpg.io/v1", "Cluster", None);
        let progress = judge(&spec, &find(&spec, &["shop".to_owned()]).unwrap(), None);
        assert_eq!(progress, StepProgress::Running("Cluster shop/db does not exist yet".to_owned()));
    }

    #[test]
    fn custom_resource_is_current_only_if_it_says_so() {
        let running = |progress: StepProgress, words: &str| {
            let StepProgress::Running(message) = &progress else { panic!("{progress:?}") };
            assert!(message.contains(words), "{message}");
        };
        running(cluster(json!({})), "says nothing of being current");
        running(
            cluster(json!({"status": {"conditions": [ready("False")]}})),
            "its condition Ready is False (Why): as it said",
        );
        running(cluster(json!({"status": {"conditions": [ready("Unknown")]}})), "Ready is Unknown");
        let old = json!({"metadata": {"generation": 3}, "status": {"observedGeneration": 2, "conditions": [ready("True")]}});
        running(cluster(old), "its status is of generation 2, and the object of generation 3");
        let going = json!({"metadata": {"deletionTimestamp": "2026-11-30T10:00:00Z"}, "status": {"conditions": [ready("True")]}});
        running(cluster(going), "being deleted");
        let busy =
            json!({"status": {"conditions": [ready("True"), {"type": "Reconciling", "status": "True"}]}});
        running(cluster(busy), "Reconciling is True");
        assert_eq!(cluster(json!({"status": {"conditions": [ready("True")]}})), StepProgress::Succeeded);
        let observed = json!({"metadata": {"generation": 2}, "status": {"observedGeneration": 2}});
        assert_eq!(cluster(observed), StepProgress::Succeeded);
        let stalled =
            json!({"status": {"conditions": [{"type": "Stalled", "status": "True", "message": "no"}]}});
        let failed =
            StepProgress::Failed("Cluster shop/db has failed: its condition Stalled is True: no".to_owned());
        assert_eq!(cluster(stalled), failed);
    }

    #[test]
    fn kinds_of_kubernetes_go_by_their_own_rules() {
        let of = |api_version: &str, kind: &str, rest: Value| judged(&spec(api_version, kind, None), rest);
        assert_eq!(of("v1", "ConfigMap", json!({})), StepProgress::Succeeded);
        let claim = |phase: &str| of("v1", "PersistentVolumeClaim", json!({"status": {"phase": phase}}));
        assert_eq!(claim("Bound"), StepProgress::Succeeded);
        assert!(matches!(claim("Pending"), StepProgress::Running(_)));
        let deployment = |ready: i32| {
            let status = json!({"observedGeneration": 1, "replicas": 2, "updatedReplicas": 2, "readyReplicas": ready, "availableReplicas": ready});
            let spec = json!({"replicas": 2, "selector": {}, "template": {}});
            of(
                "apps/v1",
                "Deployment",
                json!({"metadata": {"generation": 1}, "spec": spec, "status": status}),
            )
        };
        assert_eq!(deployment(2), StepProgress::Succeeded);
        assert_eq!(deployment(1), StepProgress::Running("Deployment shop/db: 1 of 2 ready".to_owned()));
    }

    #[test]
    fn condition_counts_only_for_the_latest_generation() {
        let spec = spec("example.org/v1", "Database", Some("Restored"));
        let of = |generation: i64, condition: Value| {
            judged(
                &spec,
                json!({"metadata": {"generation": generation}, "status": {"conditions": [condition]}}),
            )
        };
        let restored =
            |observed: i64| json!({"type": "Restored", "status": "True", "observedGeneration": observed});
        assert_eq!(of(2, restored(2)), StepProgress::Succeeded);
        let StepProgress::Running(message) = of(3, restored(2)) else { panic!() };
        assert!(message.contains("its condition Restored is of generation 2"), "{message}");
        assert_eq!(of(2, json!({"type": "Restored", "status": "True"})), StepProgress::Succeeded);
        let StepProgress::Running(message) = of(2, json!({"type": "Ready", "status": "True"})) else {
            panic!()
        };
        assert_eq!(message, "Database shop/db: it has no condition Restored yet");
        assert!(matches!(of(2, json!({"type": "Restored", "status": "False"})), StepProgress::Running(_)));
    }

    #[test]
    fn secret_and_foreign_namespace_are_plan_problems() {
        let namespaces = ["shop".to_owned()];
        let message = problem(&spec("v1", "secret", None), &namespaces).unwrap();
        assert_eq!(message, "waits for a Secret, which no step reads");
        let mut other = spec("v1", "ConfigMap", None);
        other.resource = Some("secrets".to_owned());
        assert!(problem(&other, &namespaces).is_some());
        let mut foreign = spec("v1", "ConfigMap", None);
        foreign.namespace = Some(crate::api::DnsLabel("bank".to_owned()));
        let message = problem(&foreign, &namespaces).unwrap();
        assert_eq!(message, "names namespace bank, which is none of the service's");
        foreign.name = "../x".to_owned();
        assert!(problem(&foreign, &namespaces).unwrap().contains("no name of an object"));
    }

    #[test]
    fn answer_of_another_kind_fails_the_step() {
        let spec = spec("v1", "ConfigMap", None);
        let object = json!({"apiVersion": "v1", "kind": "Pod"});
        let progress = judge(&spec, &find(&spec, &["shop".to_owned()]).unwrap(), Some(&object));
        assert_eq!(progress, StepProgress::Failed("ConfigMap shop/db is of kind Pod in v1".to_owned()));
    }
}
