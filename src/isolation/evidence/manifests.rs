//! Captures all API objects of a namespace with UIDs, resourceVersions and managed fields, including events.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ApiResource, DynamicObject};
use kube::core::TypeMeta;
use kube::discovery::{ApiCapabilities, Discovery, Scope, verbs};
use kube::{Api, Client};
use serde_json::Value;

use super::pages::pages;
use super::secrets::{self, DigestKey};
use super::{CaptureError, Miss};
use crate::calls::{IoError, call};

/// Kinds listed at a time.
const PARALLEL: usize = 6;

/// Captured objects.
#[derive(Debug, Default)]
pub(super) struct Manifests {
    /// All objects, the namespace first.
    pub(super) objects: Vec<Value>,
    /// Kinds that could not be read.
    pub(super) missing: Vec<Miss>,
}

impl Manifests {
    /// Returns the objects of a kind of the core group, and an error for each that cannot be deserialized.
    pub(super) fn of<K: serde::de::DeserializeOwned>(&self, kind: &str) -> (Vec<K>, Vec<String>) {
        let of_kind =
            |object: &&Value| object["kind"] == kind && object["apiVersion"] == "v1" && object.is_object();
        let (mut read, mut malformed) = (Vec::new(), Vec::new());
        for object in self.objects.iter().filter(of_kind) {
            match serde_json::from_value(object.clone()) {
                Ok(object) => read.push(object),
                Err(error) => {
                    malformed.push(format!("logs of {kind} {}: {error}", object["metadata"]["name"]))
                }
            }
        }
        (read, malformed)
    }
}

/// Reads all objects of a namespace.
///
/// # Errors
/// The kinds are unknown, or the Pods, which are about to be deleted, cannot be read.
pub(super) async fn gather(
    client: &Client,
    namespace: &str,
    key: Option<&DigestKey>,
) -> Result<Manifests, CaptureError> {
    let mut kinds = kinds(client).await?;
    if key.is_none() {
        // Without a key, Secrets are not captured, so the operator needs no right to read them.
        kinds.retain(|kind| full_name(kind) != "secrets");
    }
    let lists: Vec<(ApiResource, Result<Vec<Value>, IoError>)> = stream::iter(kinds)
        .map(|kind| async {
            let objects = list(client, namespace, &kind, key).await;
            (kind, objects)
        })
        .buffered(PARALLEL)
        .collect()
        .await;
    let api: Api<Namespace> = Api::all(client.clone());
    let itself = call(format!("get namespace {namespace}"), api.get(namespace)).await?;
    let itself = serde_json::to_value(itself)
        .map_err(|error| CaptureError::Encode(namespace.to_owned(), error.to_string()))?;
    let mut found = Manifests { objects: vec![itself], missing: Vec::new() };
    if key.is_none() {
        found
            .missing
            .push(Miss { what: "secrets: no --evidence-key is configured".to_owned(), failure: false });
    }
    for (kind, list) in lists {
        match list {
            Ok(list) => found.objects.extend(list),
            Err(error) if full_name(&kind) == "pods" => {
                return Err(CaptureError::Pods(namespace.to_owned(), error.to_string()));
            }
            // A kind that the operator may not read, or that can never be read, is no failure. One that did not answer may do so shortly.
            Err(error) => found.missing.push(Miss {
                what: format!("{}: {error}", full_name(&kind)),
                failure: error.is_transient() && !is_malformed(&error),
            }),
        }
    }
    Ok(found)
}

/// Returns every namespaced kind that can be listed, in a stable order. Events are listed in one of their two groups only.
async fn kinds(client: &Client) -> Result<Vec<ApiResource>, IoError> {
    let discovery = call("discover kinds", Discovery::new(client.clone()).run_aggregated()).await?;
    let all = discovery.groups_alphabetical().into_iter().flat_map(|group| group.recommended_resources());
    let mut kinds: Vec<_> = all.filter(|(kind, can)| is_read(kind, can)).map(|(kind, _)| kind).collect();
    kinds.sort_by_key(full_name);
    Ok(kinds)
}

fn is_read(kind: &ApiResource, can: &ApiCapabilities) -> bool {
    can.scope == Scope::Namespaced
        && can.supports_operation(verbs::LIST)
        && full_name(kind) != "events.events.k8s.io"
}

fn full_name(kind: &ApiResource) -> String {
    if kind.group.is_empty() { kind.plural.clone() } else { format!("{}.{}", kind.plural, kind.group) }
}

/// Returns whether an object of the kind can never be deserialized by the API server.
fn is_malformed(error: &IoError) -> bool {
    let said = |text: &str| error.status().is_some_and(|status| status.message.contains(text));
    ["conversion webhook", "unable to decode", "error decoding", "too large"].into_iter().any(said)
}

async fn list(
    client: &Client,
    namespace: &str,
    kind: &ApiResource,
    key: Option<&DigestKey>,
) -> Result<Vec<Value>, IoError> {
    if let (Some(key), "secrets") = (key, full_name(kind).as_str()) {
        return secrets::list(client, namespace, key).await;
    }
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    let api = &api;
    pages(&full_name(kind), |params| async move {
        let page = api.list(&params).await?;
        let next = page.metadata.continue_.clone();
        let values = page.items.into_iter().map(|mut object| {
            // Items of a list carry no type.
            object.types.get_or_insert_with(|| TypeMeta {
                api_version: kind.api_version.clone(),
                kind: kind.kind.clone(),
            });
            serde_json::to_value(object).map_err(kube::Error::SerdeError)
        });
        Ok((values.collect::<Result<_, _>>()?, next))
    })
    .await
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_cannot_be_read_hides_no_other() {
        let object = |version: &str, kind: &str, name: &str| json!({"apiVersion": version, "kind": kind, "metadata": {"name": name}});
        let mut found = Manifests {
            objects: vec![
                object("v1", "Namespace", "library"),
                object("v1", "Pod", "web"),
                object("example.org/v1", "Pod", "of whales"),
                object("v1", "Service", "web"),
            ],
            missing: Vec::new(),
        };
        let (pods, malformed) = found.of::<Pod>("Pod");
        assert_eq!(malformed, Vec::<String>::new());
        assert_eq!(pods.iter().map(|pod| pod.metadata.name.as_deref()).collect::<Vec<_>>(), [Some("web")]);
        found.objects.push(json!({"apiVersion": "v1", "kind": "Pod", "metadata": "none"}));
        let (pods, malformed) = found.of::<Pod>("Pod");
        assert_eq!((pods.len(), malformed.len()), (1, 1), "the others are read all the same");
    }

    fn kind(group: &str, plural: &str) -> ApiResource {
        ApiResource {
            group: group.to_owned(),
            version: "v1".to_owned(),
            api_version: "v1".to_owned(),
            kind: "Kind".to_owned(),
            plural: plural.to_owned(),
        }
    }

    #[test]
    fn listable_kinds_are_captured_and_events_once() {
        let can = |scope: Scope, verb: &str| ApiCapabilities {
            scope,
            subresources: Vec::new(),
            operations: vec![verb.to_owned()],
        };
        let (namespaced, list) = (Scope::Namespaced, "list");
        for (group, plural, scope, verb, read) in [
            ("", "configmaps", namespaced.clone(), list, true),
            ("", "nodes", Scope::Cluster, list, false),
            ("", "bindings", namespaced.clone(), "create", false),
            ("", "events", namespaced.clone(), list, true),
            ("events.k8s.io", "events", namespaced.clone(), list, false),
            ("events.k8s.io", "others", namespaced.clone(), list, true),
            ("example.org", "events", namespaced, list, true),
        ] {
            assert_eq!(is_read(&kind(group, plural), &can(scope, verb)), read, "{plural}.{group} {verb}");
        }
    }

    #[test]
    fn a_kind_is_named_with_its_group_unless_it_is_of_the_core() {
        assert_eq!(full_name(&kind("", "pods")), "pods");
        assert_eq!(full_name(&kind("apps", "deployments")), "deployments.apps");
    }
}
