//! Differences as text for people: object, field, was, is.

use std::fmt::Write;

use serde_json::Value;

use super::compare::{Change, Difference};
use super::path::Path;
use super::{ObjectKey, shortened};

/// Maximum length of a value in a report.
const VALUE: usize = 160;
/// What stands for the digest of a Secret's value.
const HIDDEN: &str = "(a value)";
/// Maximum length of a value in a message.
const SHORT_VALUE: usize = 48;

/// Returns all differences, by object, one line for each field.
#[must_use]
pub fn text(differences: &[Difference]) -> String {
    let mut text = String::new();
    let mut last: Option<&ObjectKey> = None;
    for Difference { object, change } in differences {
        // Writing to a String cannot fail.
        let _ = match change {
            Change::Added => writeln!(text, "+ {object}: it is not in the baseline"),
            Change::Missing => writeln!(text, "- {object}: it is not there any more"),
            Change::Changed(delta) => {
                if last != Some(object) {
                    let _ = writeln!(text, "~ {object}");
                }
                let value = |value: &Option<Value>| shown(object, &delta.field, value.as_ref(), VALUE);
                let (was, mut is) = (value(&delta.was), value(&delta.is));
                if was == HIDDEN && is == HIDDEN {
                    is = "(another value)".to_owned();
                }
                writeln!(text, "    {}\n      was {was}\n      is  {is}", delta.field)
            }
        };
        last = Some(object);
    }
    text
}

/// Returns what differs, as one sentence without the object. Values that may be confidential are left out.
#[must_use]
pub fn sentence(object: &ObjectKey, change: &Change) -> String {
    let delta = match change {
        Change::Added => return "it is not in the baseline".to_owned(),
        Change::Missing => return "it is in the baseline, and it is gone".to_owned(),
        Change::Changed(delta) => delta,
    };
    let field = &delta.field;
    if is_confidential(object, field) {
        return match (&delta.was, &delta.is) {
            (None, _) => format!("{field} was added"),
            (_, None) => format!("{field} was removed"),
            (Some(_), Some(_)) => format!("{field} has another value"),
        };
    }
    let value = |value: &Option<Value>| shown(object, field, value.as_ref(), SHORT_VALUE);
    match (&delta.was, &delta.is) {
        (None, is) => format!("{field} was added: {}", value(is)),
        (was, None) => format!("{field} was removed: {}", value(was)),
        (was, is) => format!("{field} was {}, is {}", value(was), value(is)),
    }
}

/// Returns whether the field may hold what not every reader of a status may read.
fn is_confidential(object: &ObjectKey, field: &Path) -> bool {
    let segments: Vec<&str> = field.segments().iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["data" | "binaryData" | "stringData" | "digests", ..] => true,
        _ if object.kind == "Secret" => {
            !matches!(segments.first(), Some(&("metadata" | "type" | "immutable")))
        }
        _ => segments.contains(&"env"),
    }
}

fn shown(object: &ObjectKey, field: &Path, value: Option<&Value>, limit: usize) -> String {
    let is_digest = object.kind == "Secret" && field.segments().first().is_some_and(|of| of == "digests");
    match value {
        None => "(nothing)".to_owned(),
        Some(_) if is_digest => HIDDEN.to_owned(),
        Some(Value::String(text)) => shortened(&format!("'{text}'"), limit),
        Some(value) => shortened(&value.to_string(), limit),
    }
}
