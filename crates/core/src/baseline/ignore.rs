//! What a plan leaves out of the comparison with a baseline.

use serde_json::Value;

use super::path::{Path, is_item, matches};
use super::{Object, ObjectKey};
use crate::api::gate::BaselineIgnore;

/// Entries of a plan, parsed.
#[derive(Clone, Debug, Default)]
pub struct IgnoreList(Vec<Entry>);

#[derive(Clone, Debug)]
struct Entry {
    kind: String,
    namespace: Option<String>,
    name: Option<String>,
    fields: Vec<Path>,
}

impl IgnoreList {
    /// Parses the entries of a plan.
    ///
    /// # Errors
    /// A field that is no path.
    pub fn parse(entries: &[BaselineIgnore]) -> Result<Self, String> {
        let parsed = entries.iter().map(|entry| {
            let path = |text: &String| {
                Path::parse(text).ok_or_else(|| format!("ignore: '{text}' is no path of a field"))
            };
            Ok(Entry {
                kind: entry.kind.clone(),
                namespace: entry.namespace.clone(),
                name: entry.name.clone(),
                fields: entry.fields.iter().map(path).collect::<Result<_, _>>()?,
            })
        });
        parsed.collect::<Result<_, String>>().map(Self)
    }

    /// Returns whether the whole object is left out.
    #[must_use]
    pub fn leaves_out(&self, key: &ObjectKey) -> bool {
        self.of(key).any(|entry| entry.fields.is_empty())
    }

    /// Returns whether every object of a kind is left out, so that none has to be read.
    #[must_use]
    pub fn leaves_out_kind(&self, kind: &str) -> bool {
        let all = |entry: &Entry| {
            entry.kind == kind && entry.fields.is_empty() && entry.name.is_none() && entry.namespace.is_none()
        };
        self.0.iter().any(all)
    }

    /// Returns the object without the fields that are left out.
    #[must_use]
    pub fn reduced(&self, object: &Object) -> Value {
        self.without_fields(&object.key(), object.content.clone())
    }

    /// Removes the fields that are left out from the content of an object.
    #[must_use]
    pub fn without_fields(&self, key: &ObjectKey, mut content: Value) -> Value {
        for field in self.of(key).flat_map(|entry| &entry.fields) {
            remove(&mut content, field.segments());
        }
        content
    }

    fn of(&self, key: &ObjectKey) -> impl Iterator<Item = &Entry> {
        let names = |pattern: &Option<String>, text: &str| {
            pattern.as_ref().is_none_or(|pattern| matches(text, pattern))
        };
        self.0.iter().filter(move |entry| {
            entry.kind == key.kind && names(&entry.namespace, &key.namespace) && names(&entry.name, &key.name)
        })
    }
}

/// Removes what a path matches, and what is empty after that. Returns whether anything was removed.
pub(super) fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((first, rest)) = path.split_first() else { return false };
    match value {
        Value::Object(fields) => {
            let before = fields.len();
            let mut changed = false;
            fields.retain(|key, field| {
                if !matches(key, first) {
                    return true;
                }
                if rest.is_empty() {
                    return false;
                }
                let removed = remove(field, rest);
                changed |= removed;
                !(removed && is_empty(field))
            });
            changed || fields.len() != before
        }
        Value::Array(items) => {
            let before = items.len();
            let (mut changed, mut index) = (false, 0);
            items.retain_mut(|item| {
                let is_meant = is_item(item, index, first);
                index += 1;
                if !is_meant {
                    return true;
                }
                if rest.is_empty() {
                    return false;
                }
                changed |= remove(item, rest);
                true
            });
            changed || items.len() != before
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(kind: &str, name: Option<&str>, fields: &[&str]) -> BaselineIgnore {
        BaselineIgnore {
            kind: kind.to_owned(),
            name: name.map(str::to_owned),
            namespace: None,
            fields: fields.iter().map(ToString::to_string).collect(),
        }
    }

    fn key(kind: &str, name: &str) -> ObjectKey {
        ObjectKey { namespace: "shop".into(), kind: kind.into(), group: String::new(), name: name.into() }
    }

    #[test]
    fn only_what_is_listed_is_left_out() {
        let list = IgnoreList::parse(&[
            entry("PolicyReport", None, &[]),
            entry("Secret", Some("renewed-*"), &["digests"]),
            entry("Pod", None, &["spec.containers[istio-proxy]", "metadata.annotations[sidecar.istio.io/*]"]),
        ])
        .unwrap();
        assert!(list.leaves_out(&key("PolicyReport", "any")));
        assert!(list.leaves_out_kind("PolicyReport") && !list.leaves_out_kind("Secret"));
        assert!(!list.leaves_out(&key("Secret", "renewed-tls")) && !list.leaves_out(&key("Report", "any")));
        let without = |key: &ObjectKey, content: Value| list.without_fields(key, content);
        let secret = json!({"type": "Opaque", "digests": {"a": null}});
        assert_eq!(without(&key("Secret", "renewed-tls"), secret.clone()), json!({"type": "Opaque"}));
        assert_eq!(without(&key("Secret", "other"), secret.clone()), secret);
        let pod = json!({
            "metadata": {"annotations": {"sidecar.istio.io/status": "x"}},
            "spec": {"containers": [{"name": "web"}, {"name": "istio-proxy"}]},
        });
        assert_eq!(without(&key("Pod", "web"), pod), json!({"spec": {"containers": [{"name": "web"}]}}));
        assert!(IgnoreList::parse(&[entry("Pod", None, &["spec["])]).unwrap_err().contains("'spec['"));
    }
}
