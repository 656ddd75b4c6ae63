//! When the values of an object's `data` were changed, by its managed fields.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use k8s_openapi::jiff::Timestamp;

/// Returns the latest time at which the value of `data.KEY` may have been changed. `None`: no manager with a time owns it.
///
/// Whoever changes a value owns it from then on, together with nobody but those who apply the same value later. The time of an entry is
/// that of its manager's last change to any field. So each owner's time is at or after the change, and the earliest is nearest to it.
#[must_use]
pub fn changed_at(entries: &[ManagedFieldsEntry], key: &str) -> Option<Timestamp> {
    let field = format!("f:{key}");
    let owns = |entry: &&ManagedFieldsEntry| {
        let is_of_object = entry.subresource.as_ref().is_none_or(String::is_empty);
        let fields = entry.fields_v1.as_ref().and_then(|fields| fields.0.get("f:data")?.get(&field));
        is_of_object && fields.is_some()
    };
    entries.iter().filter(owns).filter_map(|entry| entry.time.as_ref()).map(|time| time.0).min()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn changed(entries: &[Value]) -> Option<String> {
        let entries: Vec<ManagedFieldsEntry> =
            entries.iter().map(|entry| serde_json::from_value(entry.clone()).unwrap()).collect();
        changed_at(&entries, "tls.crt").map(|at| at.to_string())
    }

    fn entry(fields: &Value, time: Option<&str>) -> Value {
        let mut entry = json!({"manager": "kubectl", "operation": "Update", "fieldsType": "FieldsV1", "fieldsV1": fields});
        if let Some(time) = time {
            entry["time"] = json!(time);
        }
        entry
    }

    #[test]
    fn only_owners_of_the_value_say_when_it_was_changed() {
        let owns = json!({"f:data": {".": {}, "f:tls.crt": {}}});
        let (early, late) = (Some("2026-11-20T08:00:00Z"), Some("2026-11-20T09:00:00Z"));
        for (entries, at) in [
            (vec![], None),
            (vec![entry(&owns, late)], late),
            (vec![entry(&owns, late), entry(&owns, early)], early),
            (vec![entry(&owns, None)], None),
            (vec![entry(&owns, late), entry(&owns, None)], late),
            (vec![entry(&json!({"f:data": {"f:other": {}}}), late)], None),
            (vec![entry(&json!({"f:data": {}}), late)], None),
            (vec![entry(&json!({"f:metadata": {"f:tls.crt": {}}}), late)], None),
            (vec![entry(&json!(["f:data"]), late)], None),
        ] {
            assert_eq!(changed(&entries).as_deref(), at, "{entries:?}");
        }
        let mut of_status = entry(&owns, late);
        of_status["subresource"] = json!("status");
        assert_eq!(changed(&[of_status]), None);
    }
}
