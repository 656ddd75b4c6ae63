//! Validates objects by the schema of their CustomResourceDefinition, without a cluster, as an API server does when one is created:
//! defaults, structure, and rules in CEL. Rules of updates are passed over.
//!
//! Keywords and order: "Extend the Kubernetes API with CustomResourceDefinitions" in the Kubernetes documentation.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::Value;

mod defaults;
mod rules;
mod structure;
#[cfg(test)]
mod tests;

use rules::Rules;
use structure::Patterns;

/// Maximum number of reported violations: an object has as many as the length of a list, otherwise.
const MOST: usize = 50;

/// What an API server would refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Path of the field. Items of a list go by name where they have one, and by index otherwise.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{separator}{}", self.path, self.message)
    }
}

/// Validates objects of one kind.
pub struct Validator {
    schema: JSONSchemaProps,
    patterns: Patterns,
    rules: Rules,
}

impl Validator {
    /// Returns the validator of a kind, by its first version.
    ///
    /// # Errors
    /// The kind has no schema, or one with a pattern or rule that this program cannot evaluate.
    pub fn new(crd: CustomResourceDefinition) -> Result<Self, String> {
        let version = crd.spec.versions.into_iter().next();
        let schema = version.and_then(|version| version.schema?.open_api_v3_schema);
        let schema = schema.ok_or_else(|| format!("{} has no schema", crd.spec.names.kind))?;
        Ok(Self { patterns: Patterns::compile(&schema)?, rules: Rules::compile(&schema)?, schema })
    }

    /// Returns what an API server would refuse in a new object. As there, rules are evaluated only if the structure is right. Unknown
    /// fields are not reported: the API server drops them.
    #[must_use]
    pub fn violations(&self, mut object: Value) -> Vec<Violation> {
        // A status is not taken from who creates an object.
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        defaults::apply(&self.schema, &mut object);
        let mut found = structure::violations(&self.schema, &self.patterns, &object);
        if found.is_empty() {
            defaults::drop_nulls(&mut object);
            found = rules::violations(&self.schema, &self.rules, &object);
        }
        found.truncate(MOST);
        found
    }
}

/// Calls `visit` for a schema and all schemas in it.
fn walk_schema<'a>(schema: &'a JSONSchemaProps, visit: &mut impl FnMut(&'a JSONSchemaProps)) {
    visit(schema);
    let fields = schema.properties.iter().flatten().map(|(_, schema)| schema);
    for inner in fields.chain(item(schema)).chain(entry(schema)) {
        walk_schema(inner, visit);
    }
}

/// Calls `visit` for a value and all values in it that have a schema.
fn walk<'a>(
    schema: &'a JSONSchemaProps,
    value: &'a Value,
    path: &str,
    visit: &mut impl FnMut(&'a JSONSchemaProps, &'a Value, &str),
) {
    visit(schema, value, path);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(schema) = field(schema, name) {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(schema, value, &path, visit);
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = item(schema) else { return };
            for (index, value) in items.iter().enumerate() {
                let label = match value["name"].as_str() {
                    Some(name) => name.to_owned(),
                    None => index.to_string(),
                };
                walk(schema, value, &format!("{path}[{label}]"), visit);
            }
        }
        _ => {}
    }
}

/// Returns the schema of a field.
fn field<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    let named = schema.properties.as_ref().and_then(|properties| properties.get(name));
    named.or_else(|| entry(schema))
}

/// Returns the schema of a map's entries.
fn entry(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.additional_properties.as_ref()? {
        JSONSchemaPropsOrBool::Schema(schema) => Some(schema),
        JSONSchemaPropsOrBool::Bool(_) => None,
    }
}

/// Returns the schema of a list's items.
fn item(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match schema.items.as_ref()? {
        JSONSchemaPropsOrArray::Schema(schema) => Some(schema),
        // CustomResourceDefinitions do not have it.
        JSONSchemaPropsOrArray::Schemas(_) => None,
    }
}
