use std::collections::BTreeSet;
use std::sync::LazyLock;

use kube::CustomResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::api::{RecoveryPlan, crds};

const SMALLEST: &str = include_str!("../../examples/smallest.yaml");

const OCI: &str =
    "registry.example/payroll@sha256:0000000000000000000000000000000000000000000000000000000000000000";

const REVISION: &str = "main@sha1:0000000000000000000000000000000000000000";

fn smallest() -> Value {
    SMALLEST
        .split("\n---\n")
        .map(|document| serde_yaml::from_str::<Value>(document).unwrap())
        .find(|object| object["kind"] == "RecoveryPlan")
        .unwrap()
}

fn plans() -> &'static Validator {
    static PLANS: LazyLock<Validator> = LazyLock::new(|| Validator::new(RecoveryPlan::crd()).unwrap());
    &PLANS
}

/// Violations of the smallest example after a change.
fn after(change: impl FnOnce(&mut Value)) -> Vec<String> {
    let mut plan = smallest();
    change(&mut plan);
    plans().violations(plan).iter().map(ToString::to_string).collect()
}

#[test]
fn every_pattern_and_rule_of_our_kinds_compiles() {
    for crd in crds() {
        Validator::new(crd).map(drop).unwrap();
    }
}

#[test]
fn every_keyword_of_our_schemas_is_known() {
    fn keywords<'a>(schema: &'a Value, found: &mut BTreeSet<&'a str>) {
        for (keyword, value) in schema.as_object().unwrap() {
            found.insert(keyword);
            match keyword.as_str() {
                "properties" => value.as_object().unwrap().values().for_each(|v| keywords(v, found)),
                "items" | "additionalProperties" if value.is_object() => keywords(value, found),
                _ => {}
            }
        }
    }
    let crds = serde_json::to_value(crds()).unwrap();
    let mut found = BTreeSet::new();
    for crd in crds.as_array().unwrap() {
        keywords(&crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
    }
    let known = [
        "additionalProperties",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minProperties",
        "minimum",
        "nullable",
        "pattern",
        "properties",
        "required",
        "title",
        "type",
        "x-kubernetes-list-map-keys",
        "x-kubernetes-list-type",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-validations",
    ];
    assert_eq!(found.into_iter().collect::<Vec<_>>(), known);
}

#[test]
fn the_smallest_example_has_no_violation() {
    assert_eq!(after(|_| {}), Vec::<String>::new());
}

#[test]
fn what_an_api_server_refuses_is_named() {
    let step = |step: Value| move |plan: &mut Value| plan["spec"]["services"][0]["restore"] = json!([step]);
    let cases: Vec<(Vec<String>, &str)> = vec![
        (
            after(step(json!({"name": "load", "apply": {"configMaps": ["a"]}}))),
            "spec.services[library-db].restore[load].apply.configMaps[0]: has to be of type object",
        ),
        (
            after(step(
                json!({"name": "load", "apply": {"configMaps": [{"name": "a"}], "oci": {"reference": OCI}}}),
            )),
            "spec.services[library-db].restore[load].apply: name exactly one of configMaps, oci",
        ),
        (
            after(step(json!({"name": "load", "retries": 11, "manual": {"instructions": "call"}}))),
            "spec.services[library-db].restore[load].retries: is 11, and may be at most 10",
        ),
        (
            after(step(json!({"name": "load"}))),
            "spec.services[library-db].restore[load]: a step does exactly one of",
        ),
        (
            after(step(
                json!({"name": "back", "resume": {"flux": {"kind": "Kustomization", "namespace": "flux-system", "name": "a", "revision": REVISION}}}),
            )),
            "restore[back]: resume hands an open namespace back: it needs phase AfterRelease",
        ),
        (
            after(step(json!({"name": "-", "manual": {"instructions": "call"}}))),
            "spec.services[library-db].restore[-].name: does not match ^[a-z0-9]",
        ),
        (
            after(|plan| plan["spec"]["services"][1]["name"] = json!("library-db")),
            "spec.services: has name \"library-db\" twice",
        ),
        (after(|plan| plan["spec"]["services"] = json!([])), "spec.services: has 0 items"),
        (after(|plan| plan["spec"]["maxParallel"] = json!(0)), "spec.maxParallel: is 0"),
        (after(|plan| plan["spec"]["serviceAccountName"] = Value::Null), "serviceAccountName is missing"),
        (
            after(|plan| {
                plan["spec"]["services"][0]["cleanRoom"] =
                    json!({"allowEgressTo": [{"cidr": "192.0.2.7/24", "ports": [443]}]});
            }),
            "spec.services[library-db].cleanRoom.allowEgressTo[0]",
        ),
        (
            after(|plan| {
                plan["spec"]["services"][0]["cleanRoom"] =
                    json!({"allowEgressTo": [{"cidr": "0.0.0.0/0", "ports": [443]}]});
            }),
            "spec.services[library-db].cleanRoom.allowEgressTo[0]",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    }
}
