//! Restores network policies that an operator of policy version 2 removed and recorded in a ConfigMap in the namespace. Only a record
//! under the Quarantine's UID counts, which nobody could know before isolation.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde::Deserialize;

use super::network;
use crate::api::{SEAL_ANNOTATION, field_manager};
use crate::calls::{IoError, call, call_opt};

/// Name of that ConfigMap.
pub const RECORD: &str = "resurgam-network-record";

#[derive(Deserialize)]
struct Recorded {
    policy: NetworkPolicy,
}

/// Restores missing policies recorded under this seal, and deletes the record.
///
/// # Errors
/// The API server refused, or did not answer. The next call continues.
pub async fn restore(client: &Client, namespace: &str, seal: &str) -> Result<(), IoError> {
    let records: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let found = call_opt(format!("get ConfigMap {namespace}/{RECORD}"), records.get(RECORD)).await?;
    let Some(record) =
        found.filter(|record| record.annotations().get(SEAL_ANNOTATION).is_some_and(|s| s == seal))
    else {
        return Ok(());
    };
    let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
    let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
    for policy in recorded(record.data.as_ref()) {
        let what = format!("restore NetworkPolicy {namespace}/{}", policy.name_any());
        match call(what, policies.create(&params, &policy)).await {
            Err(error) if !error.is_conflict() => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    let same = Preconditions { uid: record.uid(), resource_version: None };
    let delete = DeleteParams::default().preconditions(same);
    call_opt(format!("delete ConfigMap {namespace}/{RECORD}"), records.delete(RECORD, &delete)).await?;
    Ok(())
}

/// Returns the recorded policies without our additions. Entries `again-UID` are evidence only.
fn recorded(data: Option<&BTreeMap<String, String>>) -> Vec<NetworkPolicy> {
    let entries = data.into_iter().flatten().filter(|(name, _)| !name.starts_with("again-"));
    let read = entries.filter_map(|(_, text)| serde_json::from_str::<Recorded>(text).ok());
    read.map(|recorded| network::without_marks(recorded.policy)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn recorded_policies_are_restored_and_other_keys_ignored() {
        let ours = ["Exists", "DoesNotExist"]
            .map(|operator| json!({"key": network::NEUTRALISED, "operator": operator}));
        let policy = json!({"metadata": {"name": "allow"}, "spec": {"podSelector": {"matchExpressions": ours}, "ingress": [{}]}});
        let entry = json!({"uid": "u", "policy": policy}).to_string();
        let data = BTreeMap::from([
            ("allow".to_owned(), entry.clone()),
            ("again-u2".to_owned(), entry),
            ("planted".to_owned(), "no JSON".to_owned()),
        ]);
        let found = recorded(Some(&data));
        assert_eq!(found.len(), 1);
        assert!(!network::is_neutralised(&found[0]));
        assert_eq!(recorded(None).len(), 0);
    }
}
