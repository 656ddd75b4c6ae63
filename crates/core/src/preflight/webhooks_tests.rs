use serde_json::{Value, json};

use super::*;

const ALL: [&str; 3] = ["CREATE", "UPDATE", "DELETE"];

fn rule(groups: &[&str], resources: &[&str], operations: &[&str]) -> Value {
    json!({"apiGroups": groups, "apiVersions": ["*"], "resources": resources, "operations": operations})
}

/// A validating webhook that fails, with these fields too.
fn configuration(fields: Value) -> ValidatingWebhookConfiguration {
    let mut hook = json!({
        "name": "check.policy.example", "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": "https://127.0.0.1:9/validate"},
        "rules": [rule(&[""], &["pods"], &["CREATE"])],
    });
    hook.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(json!({"metadata": {"name": "policy"}, "webhooks": [hook]})).unwrap()
}

/// Namespace `housing`, of tier 1.
fn matching(fields: Value) -> Vec<MatchingWebhook> {
    let labels = BTreeMap::from([("tier".to_owned(), "1".to_owned())]);
    webhooks_matching(&[configuration(fields)], &[], "housing", &labels)
}

fn kinds(fields: Value) -> Vec<String> {
    matching(fields).into_iter().flat_map(|webhook| webhook.kinds).collect()
}

#[test]
fn a_webhook_matches_by_the_writes_that_isolating_makes() {
    for (rules, expected) in [
        (json!([rule(&[""], &["namespaces"], &["UPDATE"])]), vec!["namespaces (UPDATE)"]),
        (json!([rule(&[""], &["namespaces"], &["CREATE", "DELETE"])]), vec![]),
        (json!([rule(&[""], &["pods"], &["*"])]), vec!["pods (CREATE, UPDATE, DELETE)"]),
        (
            json!([rule(&[""], &["pods", "serviceaccounts"], &["CREATE"])]),
            vec!["pods (CREATE)", "serviceaccounts (CREATE)"],
        ),
        (json!([rule(&[""], &["pods/exec", "pods/status"], &["CONNECT", "UPDATE"])]), vec![]),
        (json!([rule(&[""], &["pods/*"], &["DELETE"])]), vec!["pods (DELETE)"]),
        (json!([rule(&["*"], &["*/scale"], &["*"])]), vec![]),
        (
            json!([rule(&["apps"], &["*"], &["UPDATE"])]),
            vec![
                "deployments.apps (UPDATE)",
                "statefulsets.apps (UPDATE)",
                "daemonsets.apps (UPDATE)",
                "replicasets.apps (UPDATE)",
            ],
        ),
        (
            json!([rule(&["batch"], &["jobs"], &["UPDATE"]), rule(&["batch"], &["cronjobs"], &["CREATE"])]),
            vec!["jobs.batch (UPDATE)"],
        ),
        (
            json!([rule(&["networking.k8s.io"], &["*/*"], &["CREATE"])]),
            vec!["networkpolicies.networking.k8s.io (CREATE)"],
        ),
        (
            json!([rule(&["resurgam.dev"], &["quarantines/*"], &["UPDATE"])]),
            vec!["quarantines.resurgam.dev (UPDATE)", "quarantines/status.resurgam.dev (UPDATE)"],
        ),
        (json!([rule(&["apps"], &["pods"], &["CREATE"])]), vec![]),
        (json!([rule(&[""], &["services", "persistentvolumeclaims"], &ALL)]), vec![]),
        (json!([]), vec![]),
        (json!([{}]), vec![]),
    ] {
        assert_eq!(kinds(json!({"rules": rules})), expected, "{rules}");
    }
    let everything = kinds(json!({"rules": [rule(&["*"], &["*/*"], &["*"])]}));
    assert_eq!(everything.len(), WRITES.len());
}

#[test]
fn the_scope_and_version_of_a_rule_count() {
    let scoped = |scope: &str| {
        let mut rule = rule(&[""], &["namespaces", "pods"], &["UPDATE"]);
        rule["scope"] = json!(scope);
        kinds(json!({"rules": [rule]}))
    };
    assert_eq!(scoped("*"), ["namespaces (UPDATE)", "pods (UPDATE)"]);
    assert_eq!(scoped("Cluster"), ["namespaces (UPDATE)"]);
    assert_eq!(scoped("Namespaced"), ["pods (UPDATE)"]);
    let versioned = |policy: &str, version: &str| {
        let mut rule = rule(&["apps"], &["deployments"], &["UPDATE"]);
        rule["apiVersions"] = json!([version]);
        !kinds(json!({"rules": [rule], "matchPolicy": policy})).is_empty()
    };
    assert!(versioned("Exact", "v1") && versioned("Exact", "*") && !versioned("Exact", "v1beta1"));
    assert!(versioned("Equivalent", "v1") && versioned("Equivalent", "v1beta1"));
}

#[test]
fn namespace_selector_matches_the_isolated_labels() {
    let term = |key: &str, operator: &str, values: &[&str]| {
        let mut term = json!({"key": key, "operator": operator});
        if !values.is_empty() {
            term["values"] = json!(values);
        }
        json!({"matchExpressions": [term]})
    };
    let name = "kubernetes.io/metadata.name";
    for (selector, matches) in [
        (json!({}), true),
        (json!({"matchLabels": {"tier": "1"}}), true),
        (json!({"matchLabels": {"tier": "2"}}), false),
        (json!({"matchLabels": {name: "housing"}}), true),
        (json!({"matchLabels": {name: "parking"}}), false),
        (json!({"matchLabels": {"tier": "1", name: "parking"}}), false),
        (term(name, "In", &["housing", "parking"]), true),
        (term(name, "NotIn", &["kube-system"]), true),
        (term(name, "NotIn", &["kube-system", "housing"]), false),
        (term("borough", "Exists", &[]), false),
        (term("borough", "DoesNotExist", &[]), true),
        (term("borough", "NotIn", &["rbkc"]), true),
        // An administrator may except what is isolated.
        (term(ISOLATION_LABEL, "DoesNotExist", &[]), false),
        (term(ISOLATION_LABEL, "Exists", &[]), true),
        (term(ISOLATION_LABEL, "In", &["sealed"]), true),
        (term(ISOLATION_LABEL, "In", &["clean-room"]), false),
        // Not decidable: it may match.
        (term("tier", "Odd", &["2"]), true),
    ] {
        let found = kinds(json!({
            "namespaceSelector": selector, "rules": [rule(&[""], &["namespaces", "pods"], &["UPDATE"])],
        }));
        assert_eq!(found.is_empty(), !matches, "{selector}: {found:?}");
    }
    // Kinds without a namespace are not selected by one.
    let quarantines = json!({
        "namespaceSelector": {"matchLabels": {"tier": "2"}},
        "rules": [rule(&["resurgam.dev"], &["quarantines"], &["CREATE"])],
    });
    assert_eq!(kinds(quarantines), ["quarantines.resurgam.dev (CREATE)"]);
    let isolated = BTreeMap::from([(ISOLATION_LABEL.to_owned(), "clean-room".to_owned())]);
    let only_clean_rooms =
        configuration(json!({"namespaceSelector": {"matchLabels": {ISOLATION_LABEL: "clean-room"}}}));
    assert_eq!(webhooks_matching(&[only_clean_rooms], &[], "housing", &isolated).len(), 1);
}

#[test]
fn undecidable_selectors_count_as_matching() {
    let selected = |labels: Value| {
        kinds(json!({
            "objectSelector": {"matchLabels": labels}, "rules": [rule(&[""], &["namespaces", "pods"], &["UPDATE"])],
        }))
    };
    assert_eq!(selected(json!({"tier": "1"})), ["namespaces (UPDATE)", "pods (UPDATE)"]);
    assert_eq!(selected(json!({"tier": "2"})), ["pods (UPDATE)"], "labels of a namespace are known");
    let conditional = matching(json!({"matchConditions": [{"name": "x", "expression": "false"}]}));
    assert!(
        conditional[0].conditional
            && conditional[0].to_string().contains("unless its matchConditions except them")
    );
}

#[test]
fn only_fail_webhooks_match_and_name_their_endpoint() {
    assert_eq!(matching(json!({"failurePolicy": "Ignore"})), []);
    assert_eq!(matching(json!({"failurePolicy": null})).len(), 1, "Fail is the default");
    assert_eq!(matching(json!({}))[0].served_by, "https://127.0.0.1:9/validate");
    let service = json!({"service": {"namespace": "mesh-system", "name": "injector", "path": "/inject"}});
    let injector = &matching(json!({"clientConfig": service}))[0];
    assert_eq!(injector.served_by, "Service mesh-system/injector");
    assert!(
        injector
            .is_named_in("Internal error occurred: failed calling webhook \"check.policy.example\": timeout")
    );
    assert!(!injector.is_named_in("failed calling webhook \"other.policy.example\": check.policy.example"));
    let mut mutating = serde_json::to_value(configuration(json!({}))).unwrap();
    mutating["kind"] = json!("MutatingWebhookConfiguration");
    let mutating = serde_json::from_value(mutating).unwrap();
    let found = webhooks_matching(&[configuration(json!({}))], &[mutating], "housing", &BTreeMap::new());
    let configurations: Vec<_> = found.iter().map(|webhook| webhook.configuration.as_str()).collect();
    assert_eq!(
        configurations,
        ["MutatingWebhookConfiguration policy", "ValidatingWebhookConfiguration policy"]
    );
}
