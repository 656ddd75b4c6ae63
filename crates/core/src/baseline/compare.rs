//! How what is there differs from an inventory.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::content::is_empty;
pub use super::delta::Delta;
use super::delta::deltas;
use super::ignore::IgnoreList;
use super::{Baseline, Marks, Object, ObjectKey, Observed, reach, text};

/// One difference.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The object.
    pub object: ObjectKey,
    /// What differs.
    pub change: Change,
}

/// What differs.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object was not approved.
    Added,
    /// The object was approved and is not there.
    Missing,
    /// A field differs.
    Changed(Delta),
}

/// What is compared, and how strictly.
#[derive(Clone, Debug, Default)]
pub struct Scope<'a> {
    /// The namespaces.
    pub namespaces: &'a [String],
    /// What is left out.
    pub ignore: IgnoreList,
    /// What isolation may have left.
    pub marks: Marks,
    /// Whether digests of Secrets' values are compared.
    pub secret_values: bool,
    /// Whether what reaches in from outside is compared.
    pub outside: bool,
    /// Whether pods that nothing recreates may be gone: sealing ends every pod.
    pub pods_may_be_gone: bool,
}

/// Outcome of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Comparison {
    /// Differences, by object.
    pub differences: Vec<Difference>,
    /// Number of approved objects that were compared.
    pub compared: usize,
    /// Number of objects that the plan leaves out.
    pub left_out: usize,
}

/// Compares what is there with an inventory.
#[must_use]
pub fn compare(baseline: &Baseline, observed: Observed, scope: &Scope<'_>) -> Comparison {
    let mut approved = reach::within(baseline.objects.clone(), scope.namespaces, &BTreeSet::new());
    if !scope.outside {
        approved.retain(|object| !object.namespace.is_empty() || object.kind == "Namespace");
    }
    let known: BTreeSet<ObjectKey> = approved.iter().map(Object::key).collect();
    let mut live = reach::within(observed.objects, scope.namespaces, &known);
    if !scope.outside {
        live.retain(|object| !object.namespace.is_empty() || object.kind == "Namespace");
    }
    let mut live: BTreeMap<ObjectKey, Object> =
        live.into_iter().map(|object| (object.key(), object)).collect();
    let mut outcome = Comparison::default();
    for was in &approved {
        let key = was.key();
        let is = live.remove(&key);
        if scope.ignore.leaves_out(&key) {
            outcome.left_out += 1;
            continue;
        }
        outcome.compared += 1;
        let Some(is) = is else {
            if !scope.may_be_gone(was) {
                outcome.differences.push(Difference { object: key, change: Change::Missing });
            }
            continue;
        };
        let changes = deltas(&scope.content(was), &scope.content(&is)).into_iter();
        let changes = changes.map(|delta| Difference { object: key.clone(), change: Change::Changed(delta) });
        outcome.differences.extend(changes);
    }
    for key in live.into_keys() {
        if scope.ignore.leaves_out(&key) {
            outcome.left_out += 1;
        } else {
            outcome.differences.push(Difference { object: key, change: Change::Added });
        }
    }
    let drift = observed.drift.into_iter().filter(|difference| {
        scope.namespaces.contains(&difference.object.namespace) && scope.counts(difference)
    });
    outcome.differences.extend(drift);
    outcome.differences.sort_by(|a, b| a.object.cmp(&b.object));
    outcome
}

impl Scope<'_> {
    /// Returns the content that is compared.
    fn content(&self, object: &Object) -> Value {
        let mut content = self.ignore.reduced(object);
        if !self.secret_values
            && object.kind == "Secret"
            && let Some(digests) = content.get_mut("digests").and_then(Value::as_object_mut)
        {
            digests.values_mut().for_each(|digest| *digest = Value::Null);
        }
        content
    }

    /// Returns whether nothing follows from an approved object being gone.
    fn may_be_gone(&self, was: &Object) -> bool {
        match was.kind.as_str() {
            "Pod" => self.pods_may_be_gone && self.marks.isolated.contains(&was.namespace),
            "Job" => was.content.pointer("/spec/ttlSecondsAfterFinished").is_some(),
            // Sealing revokes tokens by recreating their accounts.
            "Secret" => text(&was.content, "/type") == TOKEN && self.marks.seals.contains_key(&was.namespace),
            _ => false,
        }
    }

    /// Returns whether a difference between a pod and its template is not left out.
    fn counts(&self, difference: &Difference) -> bool {
        if self.ignore.leaves_out(&difference.object) {
            return false;
        }
        let Change::Changed(delta) = &difference.change else { return true };
        // As the field in an object, so that it is left out as one of an object is.
        let nested = |value: &Option<Value>| value.as_ref().map(|value| nest(delta.field.segments(), value));
        let (was, is) = (nested(&delta.was), nested(&delta.is));
        let without =
            |value: Option<Value>| value.map(|value| self.ignore.without_fields(&difference.object, value));
        let (was_left, is_left) = (without(was.clone()), without(is.clone()));
        if was_left == was && is_left == is {
            return true;
        }
        let is_nothing = |value: &Option<Value>| value.as_ref().is_none_or(is_empty);
        was_left != is_left && !(is_nothing(&was_left) && is_nothing(&is_left))
    }
}

/// Type of Secrets with the token of an account.
const TOKEN: &str = "kubernetes.io/service-account-token";

/// Returns an object that has the value at this place.
fn nest(path: &[String], value: &Value) -> Value {
    path.iter().rev().fold(value.clone(), |inner, segment| {
        let mut fields = serde_json::Map::new();
        fields.insert(segment.clone(), inner);
        Value::Object(fields)
    })
}
