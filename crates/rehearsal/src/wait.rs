//! Waits for states that the API server reports, by watch and with a deadline, never by sleeping.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::wait::{self, Condition};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Time limit of everything, on a machine that is busy with other tests.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// Returns the API of a kind, in a namespace or cluster-wide.
#[must_use]
pub fn kind(client: &Client, api_version: &str, kind: &str, namespace: Option<&str>) -> Api<DynamicObject> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// Returns an object as JSON.
///
/// # Errors
/// It does not exist, or cannot be read.
pub async fn object(api: &Api<DynamicObject>, name: &str) -> Result<Value> {
    Ok(serde_json::to_value(api.get(name).await.with_context(|| format!("read {name}"))?)?)
}

/// Returns a field of an object.
#[must_use]
pub fn field<'a>(object: &'a Value, pointer: &str) -> &'a Value {
    object.pointer(pointer).unwrap_or(&Value::Null)
}

/// Returns a string field of an object, or an empty string.
#[must_use]
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    field(object, pointer).as_str().unwrap_or_default()
}

/// Returns the status of a condition, or an empty string.
#[must_use]
pub fn condition<'a>(object: &'a Value, type_: &str) -> &'a str {
    of_condition(object, type_, "status")
}

/// Returns a field of a condition, or an empty string.
#[must_use]
pub fn of_condition<'a>(object: &'a Value, type_: &str, field: &str) -> &'a str {
    let conditions = self::field(object, "/status/conditions").as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.and_then(|condition| condition[field].as_str()).unwrap_or_default()
}

/// Waits until an object satisfies a condition, without a deadline. Kubernetes asks to try again while it fills its cache of a kind that
/// is new or has changed.
///
/// # Errors
/// It cannot be watched.
pub async fn await_condition<K>(
    api: Api<K>,
    name: &str,
    condition: impl Condition<K>,
) -> Result<Option<K>, wait::Error>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let condition = |object: Option<&K>| condition.matches_object(object);
    loop {
        match wait::await_condition(api.clone(), name, &condition).await {
            Err(error) if format!("{error:?}").contains("initializing") => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Waits until an object satisfies a predicate, and returns it.
///
/// # Errors
/// It does not in time. With its last state.
pub async fn eventually(
    api: &Api<DynamicObject>,
    name: &str,
    what: &str,
    deadline: Duration,
    wanted: impl Fn(&Value) -> bool,
) -> Result<Value> {
    let is_wanted = |object: Option<&DynamicObject>| {
        object.and_then(|object| serde_json::to_value(object).ok()).is_some_and(|object| wanted(&object))
    };
    match tokio::time::timeout(deadline, await_condition(api.clone(), name, is_wanted)).await {
        Ok(Ok(Some(object))) => Ok(serde_json::to_value(object)?),
        Ok(Ok(None)) => bail!("waited for {what}, and it vanished"),
        Ok(Err(error)) => Err(error).with_context(|| format!("waiting for {what}")),
        Err(_) => {
            let last = object(api, name)
                .await
                .map_or_else(|e| format!("{e:#}"), |o| field(&o, "/status").to_string());
            bail!("waited {} s in vain for {what}; at last: {last}", deadline.as_secs())
        }
    }
}

/// Returns whether a workload is fully running.
pub(crate) fn is_running(kind: &str, object: &Value) -> bool {
    let number = |at: &str| field(object, at).as_i64();
    match kind {
        "Pod" => text(object, "/status/phase") == "Running",
        "DaemonSet" => {
            let wanted = number("/status/desiredNumberScheduled");
            wanted > Some(0) && number("/status/numberReady") == wanted
        }
        _ => {
            number("/status/observedGeneration") == number("/metadata/generation")
                && number("/status/readyReplicas") == number("/spec/replicas")
        }
    }
}
