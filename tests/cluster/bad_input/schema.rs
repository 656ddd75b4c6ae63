//! The fields of our kinds, by their schemas: where each is, and what would be right or wrong in it.

use resurgam::api::GATE_TYPES;
use serde_json::{Value, json};

/// Fields of which an object has exactly one, with what the least is in the first.
fn unions() -> [Vec<&'static str>; 2] {
    let mut gates: Vec<&str> = GATE_TYPES.iter().map(|of| of.name).collect();
    gates.sort_by_key(|name| *name != "workloads");
    [gates, vec!["approved", "approvedFrom"]]
}

/// A step on the way to a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    Field(String),
    /// The first of a list.
    Item,
    /// One of a map, by any key.
    Entry,
}

/// A field that holds no others.
#[derive(Clone, Debug)]
pub struct Field {
    way: Vec<Step>,
    schema: Value,
}

/// All fields of a kind's spec and status.
pub fn fields(crd: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    for part in ["spec", "status"] {
        walk(&root(crd)["properties"][part], vec![Step::Field(part.to_owned())], &mut found);
    }
    found
}

/// A kind's schema.
pub fn root(crd: &Value) -> &Value {
    &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
}

fn walk(schema: &Value, way: Vec<Step>, found: &mut Vec<Field>) {
    let further = |step| way.iter().cloned().chain([step]).collect();
    if let Some(fields) = schema["properties"].as_object() {
        for (name, schema) in fields {
            walk(schema, further(Step::Field(name.clone())), found);
        }
    } else if schema["items"].is_object() {
        walk(&schema["items"], further(Step::Item), found);
    } else if schema["additionalProperties"].is_object() {
        walk(&schema["additionalProperties"], further(Step::Entry), found);
    } else if schema.is_object() {
        found.push(Field { way, schema: schema.clone() });
    }
}

impl Field {
    /// `spec` or `status`.
    pub fn part(&self) -> &str {
        if let Some(Step::Field(part)) = self.way.first() { part } else { "" }
    }

    /// In words.
    pub fn name(&self) -> String {
        let step = |step: &Step| match step {
            Step::Field(name) => format!(".{name}"),
            Step::Item => "[]".to_owned(),
            Step::Entry => "{}".to_owned(),
        };
        self.way.iter().map(step).collect()
    }

    /// Something else that its type and its bounds allow.
    pub fn right(&self) -> Value {
        another(&self.schema)
    }

    /// Something of another type.
    pub fn of_another_type(&self) -> Value {
        if self.schema["type"] == "string" || self.schema["x-kubernetes-int-or-string"] == true {
            json!(true)
        } else {
            json!("é\u{202e}🙃")
        }
    }

    /// Something of its type, far out of any bounds; or what the API server takes all the same: a list, where there is to be a time.
    pub fn out_of_bounds(&self) -> Value {
        match self.schema["type"].as_str() {
            Some("string") if self.schema["format"] == "date-time" => json!([true]),
            Some("integer") => json!(i64::MIN),
            Some("string") => json!("🙃".repeat(70_000)),
            _ => json!(u64::MAX),
        }
    }

    /// The object, with that in this field. What is missing on the way is made as the schema wants it.
    pub fn put(&self, crd: &Value, object: &Value, value: Value) -> Value {
        let mut object = object.clone();
        let (mut node, mut schema) = (&mut object, root(crd));
        for step in &self.way {
            if node.is_null() {
                *node = least(schema);
            }
            (node, schema) = match step {
                Step::Field(name) => {
                    for union in unions().iter().filter(|union| union.contains(&name.as_str())) {
                        node.as_object_mut()
                            .unwrap()
                            .retain(|field, _| field == name || !union.contains(&field.as_str()));
                    }
                    (&mut node[name], &schema["properties"][name])
                }
                Step::Entry => (&mut node["key"], &schema["additionalProperties"]),
                Step::Item => {
                    let items = node.as_array_mut().unwrap();
                    if items.is_empty() {
                        items.push(Value::Null);
                    }
                    (&mut items[0], &schema["items"])
                }
            };
        }
        *node = value;
        object
    }
}

/// The least that a schema allows.
fn least(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let one_of = unions()
                .map(|union| union[0])
                .into_iter()
                .filter(|first| schema["properties"][first].is_object());
            required.chain(one_of).map(|name| (name.to_owned(), least(&schema["properties"][name]))).collect()
        }
        Some("array") => json!([]),
        _ => another(schema),
    }
}

fn another(schema: &Value) -> Value {
    if let Some(last) = schema["enum"].as_array().and_then(|all| all.last()) {
        return last.clone();
    }
    match schema["type"].as_str() {
        Some("integer") => schema.get("minimum").cloned().unwrap_or(json!(1)),
        Some("boolean") => json!(true),
        Some("object") => json!({}),
        _ => json!(text(schema)),
    }
}

/// Of each form that our schemas name, one.
fn text(schema: &Value) -> String {
    let of_form = |form: &str| schema["pattern"].as_str().is_some_and(|pattern| pattern.contains(form));
    if schema["format"] == "date-time" {
        "2025-11-20T01:02:03Z".to_owned()
    } else if of_form("sha256") {
        format!("sha256:{}", "5e".repeat(32))
    } else if of_form("https?") {
        "http://127.0.0.1:1/".to_owned()
    } else if of_form("ms|s") {
        "7s".to_owned()
    } else {
        "edited".to_owned()
    }
}
