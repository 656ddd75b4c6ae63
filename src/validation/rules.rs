//! Rules in CEL, of `x-kubernetes-validations`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use cel::extractors::This;
use cel::{Context, Env, Program, Value as CelValue, extensions};
use ipnet::IpNet;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{JSONSchemaProps, ValidationRule};
use serde_json::Value;

use super::{Violation, walk, walk_schema};

/// The compiled rules of a schema.
pub(super) struct Rules {
    env: Arc<Env>,
    programs: BTreeMap<String, Program>,
}

impl Rules {
    pub(super) fn compile(schema: &JSONSchemaProps) -> Result<Self, String> {
        // The language as Kubernetes has it, as far as our rules need it.
        let mut env = Env::stdlib();
        env.add_extension(extensions::strings).map_err(|error| error.to_string())?;
        let mut texts = BTreeSet::new();
        walk_schema(schema, &mut |schema| texts.extend(of(schema).map(|rule| rule.rule.as_str())));
        let compile = |text: &str| {
            let program = env.compile(text).map_err(|errors| format!("{text}: {errors}"))?;
            Ok((text.to_owned(), program))
        };
        let programs = texts.into_iter().map(compile).collect::<Result<_, String>>()?;
        Ok(Self { env: Arc::new(env), programs })
    }

    fn hold(&self, rule: &str, value: &Value) -> Result<bool, String> {
        let program = self.programs.get(rule).ok_or("it is unknown")?;
        let mut context = Context::with_env(self.env.clone());
        context.add_variable("self", value).map_err(|error| error.to_string())?;
        cidr(&mut context).map_err(|error| error.to_string())?;
        match program.execute(&context) {
            Ok(CelValue::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("it is of type {}", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

pub(super) fn violations(schema: &JSONSchemaProps, rules: &Rules, object: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    walk(schema, object, "", &mut |schema, value, path| {
        for rule in of(schema) {
            let message = match rules.hold(&rule.rule, value) {
                Ok(true) => continue,
                Ok(false) => rule.message.clone().unwrap_or_else(|| format!("breaks the rule {}", rule.rule)),
                Err(why) => format!("the rule {} cannot be evaluated: {why}", rule.rule),
            };
            found.push(Violation { path: path.to_owned(), message });
        }
    });
    found
}

/// Returns the rules of a schema for new objects: others compare an object with how it was before.
fn of(schema: &JSONSchemaProps) -> impl Iterator<Item = &ValidationRule> {
    schema.x_kubernetes_validations.iter().flatten().filter(|rule| !rule.rule.contains("oldSelf"))
}

/// Adds what Kubernetes has for address ranges. A range is its text here, not a type of its own.
fn cidr(context: &mut Context<'_, '_>) -> Result<(), cel::DeclarationError> {
    fn parse(text: &str) -> Option<IpNet> {
        text.parse().ok()
    }
    context.add_function("isCIDR", |text: Arc<String>| parse(&text).is_some())?;
    context.add_function("cidr", |text: Arc<String>| {
        parse(&text).map_or_else(String::new, |range| range.to_string())
    })?;
    context.add_function("masked", |This(text): This<Arc<String>>| {
        parse(&text).map_or_else(String::new, |range| range.trunc().to_string())
    })?;
    context.add_function("prefixLength", |This(text): This<Arc<String>>| {
        parse(&text).map_or(-1, |range| i64::from(range.prefix_len()))
    })
}
