//! Every kind that can be in a namespace, by every way to write it.

use serde_json::json;

use crate::attack::attempt::{Ask, Attack, FENCE, attack};
use crate::attack::rig::{Level, estate};
use crate::attack::served::{Served, Snapshot};

/// What is created and does not stay, or has policies and tests of its own.
// A PodCertificateRequest has to prove that it holds a key, before any policy is asked.
const ELSEWHERE: &[&str] =
    &["Binding", "Decision", "Event", "LocalSubjectAccessReview", "PodCertificateRequest", "ServiceRecovery"];

/// Kinds that are served, and of which there is no object here to attack.
pub fn forgotten(served: &[Served], level: Level) -> Vec<String> {
    let there = estate(level.namespace);
    let missing = served.iter().filter(|s| s.can("create")).filter(|s| {
        !ELSEWHERE.contains(&s.kind.as_str()) && !there.iter().any(|object| object["kind"] == s.kind.as_str())
    });
    missing.map(|s| format!("{} {}", s.version, s.kind)).collect()
}

/// The attacks on one namespace, on what is there of it.
pub fn attacks(served: &[Served], level: Level, there: &Snapshot) -> Vec<Attack> {
    let namespace = level.namespace;
    let mut all = Vec::new();
    for object in estate(namespace) {
        let (kind, name) = (object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        let Some(served) = served.iter().find(|s| s.kind == kind) else {
            continue;
        };
        let path = served.path(namespace);
        let one = format!("{path}/{name}");
        let version = object["apiVersion"].clone();
        let labelled = |name: &str| json!({"name": name, "namespace": namespace, "labels": {"attack": "1"}});
        let mut new = object.clone();
        new["metadata"] = labelled("attack-new");
        if object["metadata"]["annotations"].is_object() {
            new["metadata"]["annotations"] = object["metadata"]["annotations"].clone();
        }
        let bare = json!({"apiVersion": version, "kind": kind, "metadata": labelled(name)});
        let mut named = |what: &str, path: &str, ask| {
            all.push(attack(&format!("{what} {kind} {name}"), path.to_owned(), ask, FENCE));
        };
        named("create a new", &path, Ask::Create(new.clone()));
        named("apply a new", &format!("{path}/attack-new"), Ask::Apply(new));
        named("delete every", &path, Ask::DeleteAll);
        if !there.contains_key(&one) {
            continue;
        }
        let label = json!({"metadata": {"labels": {"attack": "1"}}});
        // What has to be there anyhow is not part of such an apply, so that the kind may refuse it for its own reasons.
        if !["Role", "RoleBinding", "CSIStorageCapacity"].contains(&kind) {
            named("apply over", &one, Ask::Apply(bare));
        }
        named("patch", &one, Ask::Merge(label.clone()));
        named("replace", &one, Ask::Replace(label));
        named(
            "disown",
            &one,
            Ask::Merge(json!({"metadata": {"ownerReferences": [
            {"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "00000000-0000-0000-0000-000000000000"}]}})),
        );
        named("delete", &one, Ask::Delete);
    }
    all
}
