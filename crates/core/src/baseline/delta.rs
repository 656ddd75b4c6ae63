//! Fields in which two values differ.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::path::{Path, item_names};

/// A field that differs.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// The field.
    pub field: Path,
    /// Its approved value. `None`: it was not there.
    pub was: Option<Value>,
    /// Its value. `None`: it is not there.
    pub is: Option<Value>,
}

/// Returns every field in which the values differ, in the order of their names. Equal values have none, others at least one.
pub fn deltas(was: &Value, is: &Value) -> Vec<Delta> {
    let mut all = Vec::new();
    collect(&Path::default(), was, is, &mut all);
    all
}

fn collect(at: &Path, was: &Value, is: &Value, all: &mut Vec<Delta>) {
    if was == is {
        return;
    }
    let before = all.len();
    match (was, is) {
        (Value::Object(was), Value::Object(is)) => {
            let keys: BTreeSet<&String> = was.keys().chain(is.keys()).collect();
            for key in keys {
                pair(&at.below(key), was.get(key), is.get(key), all);
            }
        }
        (Value::Array(was), Value::Array(is)) => lists(at, was, is, all),
        _ => {}
    }
    // The items are the same and their order is not, or these are plain values.
    if all.len() == before {
        all.push(Delta { field: at.clone(), was: Some(was.clone()), is: Some(is.clone()) });
    }
}

fn pair(at: &Path, was: Option<&Value>, is: Option<&Value>, all: &mut Vec<Delta>) {
    match (was, is) {
        (Some(was), Some(is)) => collect(at, was, is, all),
        (None, Some(is @ Value::Object(fields))) if is_map(at) && !fields.is_empty() => {
            collect(at, &Value::Object(Map::new()), is, all);
        }
        (Some(was @ Value::Object(fields)), None) if is_map(at) && !fields.is_empty() => {
            collect(at, was, &Value::Object(Map::new()), all);
        }
        (was, is) => all.push(Delta { field: at.clone(), was: was.cloned(), is: is.cloned() }),
    }
}

/// Returns whether a field is a map that is left out where it is empty, so that its entries are what differs.
fn is_map(at: &Path) -> bool {
    let last = at.segments().last().map(String::as_str);
    matches!(last, Some("metadata" | "annotations" | "labels" | "data" | "binaryData" | "digests"))
}

fn lists(at: &Path, was: &[Value], is: &[Value], all: &mut Vec<Delta>) {
    let scalar = |items: &[Value]| items.iter().all(|item| !item.is_object() && !item.is_array());
    if scalar(was) && scalar(is) {
        // A command reads better as a whole.
        return;
    }
    let names = |items: &[Value]| if items.is_empty() { Some(Vec::new()) } else { item_names(items) };
    match (names(was), names(is)) {
        (Some(of_was), Some(of_is)) => {
            let item = |names: &[String], items: &[Value], name: &str| {
                names.iter().position(|of| of == name).and_then(|index| items.get(index).cloned())
            };
            let added = of_is.iter().filter(|name| !of_was.contains(name));
            for name in of_was.iter().chain(added) {
                pair(
                    &at.below(name),
                    item(&of_was, was, name).as_ref(),
                    item(&of_is, is, name).as_ref(),
                    all,
                );
            }
        }
        _ => {
            for index in 0..was.len().max(is.len()) {
                pair(&at.below(&index.to_string()), was.get(index), is.get(index), all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fields(was: Value, is: Value) -> Vec<String> {
        deltas(&was, &is).iter().map(|delta| delta.field.to_string()).collect()
    }

    #[test]
    fn every_field_that_differs_is_named() {
        let container = |name: &str, image: &str| json!({"name": name, "image": image});
        for (was, is, expected) in [
            (json!({"a": 1}), json!({"a": 1}), vec![]),
            (json!({"a": 1}), json!({"a": 2}), vec!["a"]),
            (json!({"a": {"b": 1, "c": 2}}), json!({"a": {"c": 3, "d": 4}}), vec!["a.b", "a.c", "a.d"]),
            (json!({"a": null}), json!({}), vec!["a"]),
            (json!({}), json!({"metadata": {"labels": {"x": "1"}}}), vec!["metadata.labels.x"]),
            (json!({"data": {"x": "1"}}), json!({}), vec!["data.x"]),
            (json!({}), json!({"data": {}}), vec!["data"]),
            (json!({"args": ["a", "b"]}), json!({"args": ["a", "c"]}), vec!["args"]),
            (
                json!({"c": [container("web", "1"), container("log", "1")]}),
                json!({"c": [container("web", "2"), container("miner", "1")]}),
                vec!["c.web.image", "c.log", "c.miner"],
            ),
            // A path for init containers: order matters.
            (
                json!({"c": [container("a", "1"), container("b", "1")]}),
                json!({"c": [container("b", "1"), container("a", "1")]}),
                vec!["c"],
            ),
            (
                json!({"r": [{"verbs": ["get"]}]}),
                json!({"r": [{"verbs": ["get", "list"]}]}),
                vec!["r[0].verbs"],
            ),
            (json!({"r": []}), json!({"r": [{"verbs": ["*"]}]}), vec!["r[0]"]),
            (json!({"a": "1"}), json!({"a": 1}), vec!["a"]),
        ] {
            assert_eq!(fields(was.clone(), is.clone()), expected, "{was} {is}");
        }
    }
}
