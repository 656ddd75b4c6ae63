//! What the API server serves, and what there is of it: every kind that can be in a namespace, so that none is forgotten.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use kube::Client;
use serde_json::Value;

/// A kind that the API server serves in namespaces.
#[derive(Clone, Debug)]
pub struct Served {
    pub version: String,
    pub plural: String,
    pub kind: String,
    pub verbs: Vec<String>,
}

impl Served {
    /// Path of its objects.
    pub fn path(&self, namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", root(&self.version), self.plural)
    }

    pub fn is_pod(&self) -> bool {
        self.kind == "Pod"
    }

    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|v| v == verb)
    }
}

/// Where a group's version is served.
pub fn root(version: &str) -> String {
    if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") }
}

/// Asks as whoever the client is.
pub async fn get(client: &Client, path: &str) -> kube::Result<Value> {
    client.request(http::Request::get(path).body(Vec::new()).unwrap()).await
}

/// Every kind that can be in a namespace, at the version that its group prefers.
pub async fn discover(client: &Client) -> Vec<Served> {
    let groups = get(client, "/apis").await.unwrap();
    let mut versions = vec!["v1".to_owned()];
    let preferred = groups["groups"].as_array().unwrap().iter();
    versions.extend(preferred.map(|g| g["preferredVersion"]["groupVersion"].as_str().unwrap().to_owned()));
    let mut all = Vec::new();
    for version in versions {
        let list = get(client, &root(&version)).await.unwrap();
        for resource in list["resources"].as_array().unwrap() {
            let text = |key: &str| resource[key].as_str().unwrap().to_owned();
            if resource["namespaced"] == true && !text("name").contains('/') {
                let verbs = resource["verbs"].as_array().unwrap();
                let verbs = verbs.iter().map(|v| v.as_str().unwrap().to_owned()).collect();
                let (plural, kind) = (text("name"), text("kind"));
                all.push(Served { version: version.clone(), plural, kind, verbs });
            }
        }
    }
    all
}

/// Everything in some namespaces, by path: what it is, but for what is told of it and who wrote it.
pub type Snapshot = BTreeMap<String, Value>;

/// Takes stock, as whoever may read everything.
pub async fn take_stock(client: &Client, served: &[Served], namespaces: &[&str]) -> Snapshot {
    let lists = served.iter().filter(|s| s.can("list") && s.kind != "Event");
    let asks = lists.flat_map(|kind| namespaces.iter().map(move |namespace| (kind, kind.path(namespace))));
    let found = stream::iter(asks).map(|(kind, path)| async move {
        let list = get(client, &path).await.unwrap_or_else(|error| panic!("list {path}: {error}"));
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.into_iter().map(|item| essence(kind, &path, item)).collect::<Vec<_>>()
    });
    found.buffer_unordered(8).collect::<Vec<_>>().await.into_iter().flatten().collect()
}

fn essence(kind: &Served, path: &str, mut item: Value) -> (String, Value) {
    let path = format!("{path}/{}", item["metadata"]["name"].as_str().unwrap());
    // These are told anew from time to time by whoever may: status, and who wrote it when.
    if ["Pod", "HorizontalPodAutoscaler", "RecoveryPlan"].contains(&kind.kind.as_str()) {
        item["status"] = Value::Null;
        item["metadata"]["resourceVersion"] = Value::Null;
    }
    item["metadata"]["managedFields"] = Value::Null;
    (path, item)
}

/// What differs between two stocktakings, for people.
pub fn differences(before: &Snapshot, after: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for (path, was) in before {
        match after.get(path) {
            None => all.push(format!("{path} is gone")),
            Some(is) if is != was => all.push(format!("{path} was\n  {was}\n  and is\n  {is}")),
            Some(_) => {}
        }
    }
    all.extend(after.keys().filter(|path| !before.contains_key(*path)).map(|path| format!("{path} is new")));
    all
}
