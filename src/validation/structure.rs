//! Structure: types, required fields, lengths, bounds, patterns, and duplicates in lists.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use regex::Regex;
use serde_json::Value;

use super::{Violation, walk, walk_schema};

/// The compiled patterns of a schema.
pub(super) struct Patterns(BTreeMap<String, Regex>);

impl Patterns {
    pub(super) fn compile(schema: &JSONSchemaProps) -> Result<Self, String> {
        let mut texts = BTreeSet::new();
        walk_schema(schema, &mut |schema| texts.extend(schema.pattern.as_deref()));
        let compile = |text: &str| Ok((text.to_owned(), Regex::new(text).map_err(|e| e.to_string())?));
        Ok(Self(texts.into_iter().map(compile).collect::<Result<_, String>>()?))
    }

    fn matches(&self, pattern: &str, text: &str) -> bool {
        self.0.get(pattern).is_some_and(|regex| regex.is_match(text))
    }
}

pub(super) fn violations(schema: &JSONSchemaProps, patterns: &Patterns, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    walk(schema, object, "", &mut |schema, value, path| {
        for message in check(schema, value, patterns) {
            found.push(Violation { path: path.to_owned(), message });
        }
    });
    found
}

/// Checks one value, without what is in it.
fn check(schema: &JSONSchemaProps, value: &Value, patterns: &Patterns) -> Vec<String> {
    // The values of an enum are all that there is, even where null is allowed otherwise.
    let is_null = value.is_null() && schema.nullable == Some(true);
    if let Some(expected) = &schema.type_
        && !is_null
        && !is_of_type(expected, value)
    {
        return vec![format!("has to be of type {expected}")];
    }
    let mut found = Vec::new();
    if let Some(values) = &schema.enum_
        && !values.iter().any(|allowed| allowed.0 == *value)
    {
        let allowed: Vec<String> = values.iter().map(|value| value.0.to_string()).collect();
        found.push(format!("{value} is none of {}", allowed.join(", ")));
    }
    match value {
        Value::Object(fields) => {
            found.extend(size(fields.len(), "entries", schema.min_properties, schema.max_properties));
            let absent = |name: &&String| !fields.contains_key(*name);
            let required = schema.required.iter().flatten();
            found.extend(required.filter(absent).map(|name| format!("{name} is missing")));
        }
        Value::Array(items) => {
            found.extend(size(items.len(), "items", schema.min_items, schema.max_items));
            found.extend(duplicates(schema, items));
        }
        Value::String(text) => found.extend(of_text(schema, text, patterns)),
        Value::Number(number) => found.extend(of_number(schema, number.as_f64().unwrap_or(f64::NAN))),
        Value::Bool(_) | Value::Null => {}
    }
    found
}

fn is_of_type(expected: &str, value: &Value) -> bool {
    match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "number" => value.is_number(),
        // As there, 1.0 is one.
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        _ => false,
    }
}

fn size(number: usize, of: &str, least: Option<i64>, most: Option<i64>) -> Option<String> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    match (least, most) {
        (Some(least), _) if number < least => {
            Some(format!("has {number} {of}, and has to have at least {least}"))
        }
        (_, Some(most)) if number > most => Some(format!("has {number} {of}, and may have at most {most}")),
        _ => None,
    }
}

fn of_text(schema: &JSONSchemaProps, text: &str, patterns: &Patterns) -> Vec<String> {
    let mut found = Vec::new();
    found.extend(size(text.chars().count(), "characters", schema.min_length, schema.max_length));
    if let Some(pattern) = schema.pattern.as_deref()
        && !patterns.matches(pattern, text)
    {
        found.push(format!("does not match {pattern}"));
    }
    if schema.format.as_deref() == Some("date-time") && text.parse::<k8s_openapi::jiff::Timestamp>().is_err()
    {
        found.push("is no time in RFC 3339".to_owned());
    }
    found
}

fn of_number(schema: &JSONSchemaProps, number: f64) -> Option<String> {
    match (schema.minimum, schema.maximum) {
        (Some(least), _) if number < least => Some(format!("is {number}, and has to be at least {least}")),
        (_, Some(most)) if number > most => Some(format!("is {number}, and may be at most {most}")),
        _ => None,
    }
}

/// Items that a list may have once only: by their keys, or as a whole.
fn duplicates(schema: &JSONSchemaProps, items: &[Value]) -> Vec<String> {
    let key = |item: &Value| -> Option<String> {
        match schema.x_kubernetes_list_type.as_deref()? {
            "set" => Some(item.to_string()),
            "map" => {
                let keys = schema.x_kubernetes_list_map_keys.iter().flatten();
                let named: Vec<String> = keys.map(|key| format!("{key} {}", item[key])).collect();
                Some(named.join(", "))
            }
            _ => None,
        }
    };
    let mut seen = BTreeSet::new();
    let twice = items.iter().filter_map(key).filter(|key| !seen.insert(key.clone()));
    twice.map(|key| format!("has {key} twice")).collect()
}
