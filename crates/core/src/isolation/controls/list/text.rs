//! Text format of the isolation lists: one key per level, with a heading and one line per namespace. A policy finds a namespace by
//! substring search, whose cost hardly grows with the number of namespaces. With one key per namespace, the API server would iterate over
//! all keys for every write in the cluster.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Map, Value, json};

use crate::api::Isolation;

/// Namespaces with their level. `Open` removes a namespace.
pub type Levels = BTreeMap<String, Isolation>;

/// Levels on a list, tightest first. If a namespace has several, the tightest counts.
const LEVELS: [Isolation; 3] = [Isolation::Sealed, Isolation::Contained, Isolation::CleanRoom];
/// First line of each text. It ensures that each namespace is between two line breaks.
const HEADING: &str = "# One namespace a line. This line stays.\n";

/// Returns the key of a level. It starts with a character that no namespace name starts with: earlier versions had one key per namespace.
fn key(level: Isolation) -> Option<String> {
    level.label().map(|label| format!("_{label}"))
}

fn text(list: &ConfigMap, key: &str) -> Option<String> {
    list.data.as_ref()?.get(key).cloned()
}

/// Returns the namespaces in a text.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    // Policies search for a name between two line breaks, so that text before the first one does not count.
    text.split('\n').skip(1).filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Returns the level of each namespace on a list, as the value of the label.
#[must_use]
pub fn levels(list: &ConfigMap) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for level in LEVELS {
        let Some((label, key)) = level.label().zip(key(level)) else { continue };
        for name in lines(&text(list, &key).unwrap_or_default()) {
            found.entry(name.to_owned()).or_insert_with(|| label.to_owned());
        }
    }
    found
}

/// Returns the data to merge into a list so that it has these levels; other namespaces are unchanged. `None`: nothing to change. Keys of
/// earlier versions are removed.
#[must_use]
pub fn changed(list: &ConfigMap, wanted: &Levels) -> Option<Value> {
    let mut data = Map::new();
    for level in LEVELS {
        let Some(key) = key(level) else { continue };
        let before = text(list, &key);
        let there: BTreeSet<&str> = lines(before.as_deref().unwrap_or_default()).collect();
        let stays = |name: &&&str| wanted.get(**name).is_none_or(|wanted| *wanted == level);
        let kept: Vec<&str> = there.iter().filter(stays).copied().collect();
        let new = wanted.iter().filter(|(name, wanted)| **wanted == level && !there.contains(name.as_str()));
        let new: Vec<&str> = new.map(|(name, _)| name.as_str()).collect();
        if kept.len() != there.len() || !new.is_empty() {
            data.insert(key, json!(written(kept.into_iter().chain(new))));
        }
    }
    let earlier = list.data.iter().flat_map(BTreeMap::keys).filter(|key| !key.starts_with('_'));
    data.extend(earlier.map(|key| (key.clone(), Value::Null)));
    (!data.is_empty()).then_some(Value::Object(data))
}

/// Returns the data to merge into a list so that it has these namespaces, at this level unless they are on it already. Existing text is
/// kept byte for byte, as callers with the right to isolate may only append. `None`: nothing to change.
#[must_use]
pub fn appended(list: &ConfigMap, namespaces: &[String], level: Isolation) -> Option<Value> {
    let key = key(level)?;
    let there = levels(list);
    let new: BTreeSet<&str> =
        namespaces.iter().map(String::as_str).filter(|name| !there.contains_key(*name)).collect();
    if new.is_empty() {
        return None;
    }
    let mut text = text(list, &key).unwrap_or_else(|| HEADING.to_owned());
    if !text.ends_with('\n') {
        text.push('\n');
    }
    for name in new {
        text.push_str(name);
        text.push('\n');
    }
    Some(json!({key: text}))
}

fn written<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.fold(HEADING.to_owned(), |mut text, name| {
        text.push_str(name);
        text.push('\n');
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use Isolation::{CleanRoom, Contained, Open, Sealed};

    fn list(data: Value) -> ConfigMap {
        serde_json::from_value(json!({"data": data})).unwrap()
    }

    fn wanted(levels: &[(&str, Isolation)]) -> Levels {
        levels.iter().map(|(name, level)| ((*name).to_owned(), *level)).collect()
    }

    #[test]
    fn namespace_is_at_its_tightest_listed_level() {
        let list = list(
            json!({"_sealed": "# x\na\n", "_contained": "# x\na\nb\n\n", "_clean-room": "lost\nb\nc\n", "_roles": "r *", "d": "sealed"}),
        );
        let expected = [("a", "sealed"), ("b", "contained"), ("c", "clean-room")];
        assert_eq!(levels(&list), expected.map(|(name, level)| (name.to_owned(), level.to_owned())).into());
        assert!(levels(&ConfigMap::default()).is_empty());
    }

    #[test]
    fn writing_a_level_leaves_other_namespaces_unchanged() {
        let head = |names: &str| format!("{HEADING}{names}");
        let before = list(
            json!({"_sealed": head("a\nb\n"), "_clean-room": head("c\n"), "_roles": "r *", "d": "sealed"}),
        );
        let change =
            changed(&before, &wanted(&[("a", CleanRoom), ("c", Open), ("e", Contained), ("f", Open)]));
        let expected =
            json!({"_sealed": head("b\n"), "_contained": head("e\n"), "_clean-room": head("a\n"), "d": null});
        assert_eq!(change, Some(expected));
        let sound = list(json!({"_sealed": head("a\n"), "_roles": "r *"}));
        assert_eq!(changed(&sound, &wanted(&[("a", Sealed), ("b", Open)])), None);
        assert_eq!(
            changed(&ConfigMap::default(), &wanted(&[("b", Open)])),
            None,
            "it has nothing to be taken off"
        );
    }

    #[test]
    fn appending_keeps_existing_text_byte_for_byte() {
        let names = ["b", "a", "c", "c"].map(str::to_owned);
        let before = list(json!({"_contained": "# mine\na\n", "_clean-room": "# x\nb\n"}));
        assert_eq!(appended(&before, &names, Contained), Some(json!({"_contained": "# mine\na\nc\n"})));
        assert_eq!(appended(&before, &names[..2], Contained), None);
        let new = appended(&ConfigMap::default(), &names, Contained);
        assert_eq!(new, Some(json!({"_contained": format!("{HEADING}a\nb\nc\n")})));
    }
}
