//! Paths of fields: `spec.template.spec.containers[web].image`. A name in brackets is a key with other characters than letters, digits,
//! `-` and `_`, or names an item of a list.

use serde_json::Value;

/// Fields that may identify the items of a list, in order of preference.
const IDENTITIES: [&str; 5] = ["name", "mountPath", "key", "ip", "containerPort"];

/// A path, from the object to the field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Vec<String>);

impl Path {
    /// Parses a path. `None`: it is empty, or a bracket is not closed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (mut segments, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let (segment, after) = if let Some(inner) = rest.strip_prefix('[') {
                inner.split_once(']')?
            } else {
                let rest = rest.strip_prefix('.').unwrap_or(rest);
                rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len()))
            };
            if segment.is_empty() {
                return None;
            }
            segments.push(segment.to_owned());
            rest = after;
        }
        (!segments.is_empty()).then_some(Self(segments))
    }

    /// Returns the path of a field or item below this one.
    #[must_use]
    pub fn below(&self, segment: &str) -> Self {
        let mut path = self.clone();
        path.0.push(segment.to_owned());
        path
    }

    /// Returns the segments.
    #[must_use]
    pub fn segments(&self) -> &[String] {
        &self.0
    }
}

impl std::fmt::Display for Path {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            let is_plain = segment.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
            // Indices and names of items look alike.
            let is_field = is_plain && !segment.starts_with(|c: char| c.is_ascii_digit());
            match (index, is_field) {
                (0, true) => write!(f, "{segment}")?,
                (_, true) => write!(f, ".{segment}")?,
                (_, false) => write!(f, "[{segment}]")?,
            }
        }
        Ok(())
    }
}

/// Returns the name of each item of a list: its identity if each item has one of its own in the same field, else its position.
#[must_use]
pub fn item_names(items: &[Value]) -> Option<Vec<String>> {
    IDENTITIES.iter().find_map(|field| {
        let names: Option<Vec<String>> = items.iter().map(|item| identity(item, field)).collect();
        let names = names?;
        let mut unique: Vec<&String> = names.iter().collect();
        unique.sort();
        unique.dedup();
        (unique.len() == names.len() && !names.is_empty()).then_some(names)
    })
}

fn identity(item: &Value, field: &str) -> Option<String> {
    match item.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Returns whether an item may be meant by this segment of a pattern.
pub(super) fn is_item(item: &Value, index: usize, pattern: &str) -> bool {
    matches(&index.to_string(), pattern)
        || IDENTITIES.iter().any(|field| identity(item, field).is_some_and(|name| matches(&name, pattern)))
}

/// Returns whether a segment matches a pattern, in which a `*` at the end stands for anything.
pub(super) fn matches(segment: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => segment.starts_with(start),
        None => segment == pattern,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn paths_are_read_as_they_are_written() {
        for text in [
            "spec.template.spec.containers[1web].image",
            "metadata.annotations[sidecar.istio.io/status]",
            "data[app.properties]",
            "[tls.crt]",
        ] {
            assert_eq!(Path::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Path::parse("spec.containers[web].image"), Path::parse("spec.containers.web.image"));
        for text in ["", "spec[", "spec..x", "spec[]", "."] {
            assert_eq!(Path::parse(text), None, "{text}");
        }
    }

    #[test]
    fn items_are_named_by_what_tells_them_apart() {
        let names = |items: Value| item_names(items.as_array().unwrap());
        assert_eq!(names(json!([{"name": "a"}, {"name": "b"}])).unwrap(), ["a", "b"]);
        let mounts = json!([{"name": "a", "mountPath": "/x"}, {"name": "a", "mountPath": "/y"}]);
        assert_eq!(names(mounts).unwrap(), ["/x", "/y"]);
        for items in
            [json!([]), json!(["a", "b"]), json!([{"name": "a"}, {"name": "a"}]), json!([{"name": {}}])]
        {
            assert_eq!(names(items.clone()), None, "{items}");
        }
        assert!(matches("sidecar.istio.io/status", "sidecar.istio.io/*") && matches("x", "*"));
        assert!(!matches("ab", "a") && !matches("b", "a*"));
    }
}
