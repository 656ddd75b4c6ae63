//! Who wrote a field of an object, and when, as the API server recorded it.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

/// The last write of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Write {
    /// Name by which the writer called itself.
    pub(super) manager: String,
    /// By the API server's clock. A writer cannot choose it.
    pub(super) at: Timestamp,
}

/// Returns the latest write of a field by `managedFields`, such as `["status", "creationTime"]`. `None`: no entry with a time has it.
pub(super) fn last_write(object: &Value, path: &[&str]) -> Option<Write> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let writes = entries.iter().filter(|entry| has(&entry["fieldsV1"], path)).map(|entry| {
        let at = entry["time"].as_str()?.parse().ok()?;
        Some(Write { manager: entry["manager"].as_str().unwrap_or("somebody").to_owned(), at })
    });
    // An owner without a time may have written at any time.
    let writes: Option<Vec<Write>> = writes.collect();
    writes?.into_iter().max_by_key(|write| write.at)
}

/// Returns whether a set of fields contains a field. A set that does not say which of an object's fields it has contains all.
fn has(fields: &Value, path: &[&str]) -> bool {
    let Some((first, rest)) = path.split_first() else { return true };
    let Some(inner) = fields.get(format!("f:{first}")) else { return false };
    let is_whole = inner.as_object().is_none_or(|inner| !inner.keys().any(|key| key.starts_with("f:")));
    is_whole || has(inner, rest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(entries: &Value) -> Value {
        json!({"metadata": {"managedFields": entries}})
    }

    fn entry(manager: &str, time: &str, fields: &Value) -> Value {
        json!({"manager": manager, "time": time, "fieldsV1": fields})
    }

    #[test]
    fn latest_writer_of_a_field_is_found() {
        let status = json!({"f:status": {".": {}, "f:creationTime": {}}});
        let other = json!({"f:status": {"f:readyToUse": {}}, "f:spec": {"f:driver": {}}});
        let whole = json!({"f:status": {}});
        let (early, late) = ("2025-11-20T02:00:00Z", "2025-11-21T02:00:00Z");
        let written = |entries: Value| {
            last_write(&object(&entries), &["status", "creationTime"]).map(|write| write.manager)
        };
        for (entries, expected) in [
            (json!([entry("sidecar", early, &status)]), Some("sidecar")),
            (json!([entry("sidecar", early, &status), entry("kubectl", late, &other)]), Some("sidecar")),
            (json!([entry("kubectl", late, &status), entry("sidecar", early, &status)]), Some("kubectl")),
            (json!([entry("sidecar", early, &status), entry("curl", late, &whole)]), Some("curl")),
            (json!([entry("kubectl", late, &other)]), None),
            (json!([entry("sidecar", "soon", &status), entry("kubectl", early, &status)]), None),
            (json!([]), None),
            (json!(null), None),
        ] {
            assert_eq!(written(entries.clone()).as_deref(), expected, "{entries}");
        }
    }
}
