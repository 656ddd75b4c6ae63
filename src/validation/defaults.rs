//! Absent fields: their defaults, and `null`, as an API server takes them before it validates.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use serde_json::Value;

use super::{field, item};

/// Drops `null` where it is not allowed, and fills in the defaults of absent fields.
pub(super) fn apply(schema: &JSONSchemaProps, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                !value.is_null() || field(schema, name).is_none_or(|schema| schema.nullable == Some(true))
            });
            for (name, schema) in schema.properties.iter().flatten() {
                if let Some(default) = &schema.default {
                    fields.entry(name).or_insert_with(|| default.0.clone());
                }
            }
            for (name, value) in fields {
                if let Some(schema) = field(schema, name) {
                    apply(schema, value);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = item(schema) else { return };
            items.iter_mut().for_each(|value| apply(schema, value));
        }
        _ => {}
    }
}

/// Drops every `null`: for rules, such a field is absent.
pub(super) fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
