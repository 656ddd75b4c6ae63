//! ResourceQuotas that keep a control from being written. A quota that leaves no room for the objects that isolation creates is raised;
//! its previous value is recorded on itself and restored on release. The fence keeps others from changing it.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceQuota;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;
use serde_json::{Value, json};

/// Annotation on a raised quota with its previous limits as JSON.
pub const RAISED_ANNOTATION: &str = "resurgam.dev/quota";
/// Quota resources of the objects that isolation creates.
const NEEDED: [&str; 2] = ["count/networkpolicies.networking.k8s.io", "count/serviceaccounts"];
/// Raised limit: more than isolation ever needs.
const RAISED: &str = "1M";

fn hard(quota: &ResourceQuota) -> BTreeMap<String, Quantity> {
    quota.spec.as_ref().and_then(|spec| spec.hard.clone()).unwrap_or_default()
}

/// Returns the merge patch that raises a quota. `None`: it limits nothing that isolation creates, or is raised already.
#[must_use]
pub fn raising(quota: &ResourceQuota) -> Option<Value> {
    let hard = hard(quota);
    let bound: BTreeMap<_, _> = NEEDED
        .iter()
        .filter_map(|key| Some((*key, hard.get(*key)?.0.clone())))
        .filter(|(_, was)| was != RAISED)
        .collect();
    if bound.is_empty() {
        return None;
    }
    // The first record is the original value: tenants cannot write it while the fence is in force.
    let mut was: BTreeMap<String, String> = recorded(quota).unwrap_or_default();
    for (key, value) in &bound {
        was.insert((*key).to_owned(), value.clone());
    }
    let raised: BTreeMap<_, _> = bound.keys().map(|key| (*key, RAISED)).collect();
    Some(json!({
        "metadata": {
            "resourceVersion": quota.metadata.resource_version,
            "annotations": {RAISED_ANNOTATION: json!(was).to_string()},
        },
        "spec": {"hard": raised},
    }))
}

fn recorded(quota: &ResourceQuota) -> Option<BTreeMap<String, String>> {
    serde_json::from_str(quota.annotations().get(RAISED_ANNOTATION)?).ok()
}

/// Returns the merge patch that restores a quota. `None`: it was not raised. Limits that were changed since are kept.
#[must_use]
pub fn restoring(quota: &ResourceQuota) -> Option<Value> {
    quota.annotations().get(RAISED_ANNOTATION)?;
    let hard = hard(quota);
    let was: BTreeMap<_, _> = recorded(quota)
        .unwrap_or_default()
        .into_iter()
        .filter(|(key, _)| NEEDED.contains(&key.as_str()) && hard.get(key).is_some_and(|now| now.0 == RAISED))
        .collect();
    Some(json!({
        "metadata": {
            "resourceVersion": quota.metadata.resource_version,
            "annotations": {RAISED_ANNOTATION: null},
        },
        "spec": {"hard": was},
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota(hard: Value, annotation: Option<&str>) -> ResourceQuota {
        let annotations: BTreeMap<_, _> =
            annotation.map(|text| (RAISED_ANNOTATION, text)).into_iter().collect();
        serde_json::from_value(
            json!({"metadata": {"name": "q", "annotations": annotations}, "spec": {"hard": hard}}),
        )
        .unwrap()
    }

    #[test]
    fn a_quota_is_raised_once_and_set_back_to_what_it_was() {
        let key = NEEDED[0];
        let patch = raising(&quota(json!({key: "0", "pods": "5"}), None)).unwrap();
        assert_eq!(patch["spec"], json!({"hard": {key: RAISED}}));
        let recorded = patch["metadata"]["annotations"][RAISED_ANNOTATION].as_str().unwrap().to_owned();
        let raised = quota(json!({key: RAISED, "pods": "5"}), Some(&recorded));
        assert_eq!(raising(&raised), None);
        assert_eq!(restoring(&raised).unwrap()["spec"], json!({"hard": {key: "0"}}));
        assert_eq!(restoring(&quota(json!({key: "0"}), None)), None, "it was never raised");
    }

    #[test]
    fn changed_limits_and_malformed_records_are_kept() {
        let key = NEEDED[0];
        let record = json!({key: "0", "pods": "7"}).to_string();
        let changed = quota(json!({key: "9", "pods": "5"}), Some(&record));
        assert_eq!(restoring(&changed).unwrap()["spec"], json!({"hard": {}}));
        let planted = quota(json!({key: RAISED}), Some("no JSON"));
        assert_eq!(restoring(&planted).unwrap()["spec"], json!({"hard": {}}));
        assert_eq!(raising(&quota(json!({"pods": "0", "requests.cpu": "0"}), None)), None);
    }
}
