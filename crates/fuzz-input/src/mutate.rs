//! Objects gone wrong: a sound one, changed in a few places by the bytes of a fuzzer.

use serde_json::{Map, Value, json};

/// Texts on which parsers of ours could trip.
const TEXTS: [&str; 20] = [
    "",
    " ",
    "\0",
    "\n",
    "0",
    "-1",
    "18446744073709551616",
    "99999999999999999999d",
    "é\u{301}\u{202e}🙃",
    "*/0 * * * *",
    "@every 0s",
    "@every 1000000w",
    "0 0 30 2 *",
    "Mars/Olympus",
    "{\"uid\":1}",
    "sha256:",
    "a/b@sha256:zz",
    "9999-12-31T23:59:59Z",
    "-009999-01-01T00:00:00Z",
    "https://[::1]:99999/",
];

/// The sound object, with one change for each four bytes.
#[must_use]
pub fn spoiled(sound: &Value, bytes: &[u8]) -> Value {
    let mut value = sound.clone();
    for change in bytes.chunks_exact(4) {
        let at = usize::from(u16::from_le_bytes([change[0], change[1]])) % count(&value);
        if let Some(node) = nth(&mut value, &mut { at }) {
            spoil(node, change[2], change[3]);
        }
    }
    value
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum(),
        _ => 0,
    }
}

fn nth<'a>(value: &'a mut Value, at: &mut usize) -> Option<&'a mut Value> {
    if *at == 0 {
        return Some(value);
    }
    *at -= 1;
    let of: Vec<&mut Value> = match value {
        Value::Array(items) => items.iter_mut().collect(),
        Value::Object(fields) => fields.values_mut().collect(),
        _ => Vec::new(),
    };
    for one in of {
        let size = count(one);
        if *at < size {
            return nth(one, at);
        }
        *at -= size;
    }
    None
}

fn spoil(node: &mut Value, how: u8, what: u8) {
    let what = usize::from(what);
    match (how % 4, &mut *node) {
        // Like for like: what is still of the right type goes deepest.
        (0 | 1, Value::Number(_)) => {
            *node = [json!(0), json!(-1), json!(1), json!(i32::MIN), json!(i32::MAX), json!(i64::MAX)]
                [what % 6]
                .clone();
        }
        (0 | 1, Value::String(_)) => *node = json!(TEXTS[what % TEXTS.len()]),
        (0 | 1, Value::Bool(is)) => *is = !*is,
        (0, Value::Array(items)) => items.extend(items.clone()),
        (1, Value::Array(items)) if !items.is_empty() => drop(items.remove(what % items.len())),
        (0, Value::Object(fields)) => drop(fields.insert(TEXTS[what % TEXTS.len()].to_owned(), json!(what))),
        (1, Value::Object(fields)) => {
            let key = fields.keys().nth(what % fields.len().max(1)).cloned();
            fields.retain(|field, _| Some(field) != key.as_ref());
        }
        (2, Value::String(text)) => *text = text.repeat(1 + what % 40),
        _ => {
            let odd = [
                json!(null),
                json!([]),
                json!({}),
                json!([[{}]]),
                json!(1.5e300),
                json!(u64::MAX),
                json!(true),
                Value::Object(Map::new()),
            ];
            *node = odd[what % odd.len()].clone();
        }
    }
}
