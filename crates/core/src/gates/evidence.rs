//! Digest of what a verdict is based on.

use std::fmt::Write;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Returns `sha256:…` of the value as JSON without blanks and with sorted keys, so that anyone with the value can compute it.
pub fn digest(value: &Value) -> String {
    digest_of_bytes(canonical_text(value).as_bytes())
}

/// Returns `sha256:…` of the bytes.
pub fn digest_of_bytes(bytes: &[u8]) -> String {
    let mut digest = "sha256:".to_owned();
    for byte in Sha256::digest(bytes) {
        // Writing to a String cannot fail.
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

/// Returns the value as JSON without blanks and with sorted keys.
pub fn canonical_text(value: &Value) -> String {
    let mut text = String::new();
    canonical(value, &mut text);
    text
}

/// Writes the value with sorted keys. `serde_json` sorts them only if no crate in the build enables `preserve_order`.
fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                canonical(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            text.push('{');
            for (index, (key, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                text.push_str(&Value::from(key.as_str()).to_string());
                text.push(':');
                canonical(field, text);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_digest_is_of_the_canonical_json() {
        let mut text = String::new();
        canonical(&json!({"b": [1, {"d": null, "c": "x\"y"}], "a": true}), &mut text);
        assert_eq!(text, r#"{"a":true,"b":[1,{"c":"x\"y","d":null}]}"#);
        // `printf '{}' | sha256sum`
        assert_eq!(
            digest(&json!({})),
            "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"
        );
    }

    #[test]
    fn any_other_value_has_another_digest() {
        assert_ne!(digest(&json!({"a": 1})), digest(&json!({"a": 2})));
        assert_ne!(digest(&json!(["a", "b"])), digest(&json!(["b", "a"])));
    }
}
