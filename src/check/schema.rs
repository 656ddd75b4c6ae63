//! Compares the schema of an installed CRD with this binary's, field by field. Pure.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::Value;

/// Paths of fields in which an installed schema differs from this binary's.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Fields of this binary that the API server drops or refuses.
    pub lacking: Vec<String>,
    /// Fields that this binary does not know.
    pub further: Vec<String>,
    /// Fields with another schema.
    pub changed: Vec<String>,
}

/// Documentation keys, which do not affect the API server.
const WORDS: [&str; 3] = ["description", "title", "example"];

/// Compares an installed CRD with this binary's.
#[must_use]
pub fn compare(own: &CustomResourceDefinition, installed: &CustomResourceDefinition) -> Difference {
    let mut difference = Difference::default();
    for version in &own.spec.versions {
        let found = installed.spec.versions.iter().find(|v| v.name == version.name && v.served);
        let Some(found) = found else {
            difference.lacking.push(format!("version {}", version.name));
            continue;
        };
        let schema = |version: &Option<_>| serde_json::to_value(version).unwrap_or_default();
        let at = |value: &Value| value["openAPIV3Schema"].clone();
        fields("", &at(&schema(&version.schema)), &at(&schema(&found.schema)), &mut difference);
    }
    difference
}

fn fields(path: &str, own: &Value, installed: &Value, difference: &mut Difference) {
    const INNER: [&str; 3] = ["properties", "items", "additionalProperties"];
    let is_compared = |key: &str| !WORDS.contains(&key) && !INNER.contains(&key);
    let rest = |value: &Value| {
        let pairs = value.as_object().into_iter().flatten().filter(|(key, _)| is_compared(key));
        pairs.map(|(key, value)| (key.clone(), value.clone())).collect::<serde_json::Map<_, _>>()
    };
    if rest(own) != rest(installed) {
        difference.changed.push(if path.is_empty() { ".".to_owned() } else { path.to_owned() });
    }
    let (mine, theirs) = (own["properties"].as_object(), installed["properties"].as_object());
    for (name, inner) in mine.into_iter().flatten() {
        let path = format!("{path}.{name}");
        match theirs.and_then(|theirs| theirs.get(name)) {
            Some(found) => fields(&path, inner, found, difference),
            None => difference.lacking.push(path),
        }
    }
    for (name, _) in theirs.into_iter().flatten() {
        if mine.is_none_or(|mine| !mine.contains_key(name)) {
            difference.further.push(format!("{path}.{name}"));
        }
    }
    for (key, suffix) in [("items", "[]"), ("additionalProperties", "{}")] {
        if own[key].is_object() {
            fields(&format!("{path}{suffix}"), &own[key], &installed[key], difference);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api;

    #[test]
    fn crd_fits_unless_a_field_is_missing_or_differs() {
        let own = api::crds().into_iter().find(|crd| crd.spec.names.kind == "Quarantine").unwrap();
        assert_eq!(compare(&own, &own), Difference::default());

        let edited = |edit: &dyn Fn(&mut Value)| {
            let mut value = serde_json::to_value(&own).unwrap();
            edit(&mut value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]);
            compare(&own, &serde_json::from_value(value).unwrap())
        };
        let words = edited(&|spec| spec["properties"]["reason"]["description"] = "another".into());
        assert_eq!(words, Difference::default());
        let older = edited(&|spec| drop(spec["properties"].as_object_mut().unwrap().remove("hold")));
        assert_eq!(older.lacking, [".spec.hold"]);
        let newer = edited(&|spec| spec["properties"]["colour"] = serde_json::json!({"type": "string"}));
        assert_eq!(newer, Difference { further: vec![".spec.colour".to_owned()], ..Difference::default() });
        let other = edited(&|spec| spec["properties"]["reason"]["maxLength"] = 7.into());
        assert_eq!(other.changed, [".spec.reason"]);
        let mut unserved = own.clone();
        unserved.spec.versions[0].served = false;
        assert_eq!(compare(&own, &unserved).lacking, ["version v1alpha1"]);
    }
}
