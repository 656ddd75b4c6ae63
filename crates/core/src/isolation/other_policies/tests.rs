use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

const BOTH: Option<&str> = Some("allows ingress and egress");
const INGRESS: Option<&str> = Some("allows ingress");
const EGRESS: Option<&str> = Some("allows egress");
const NOTHING: Option<&str> = None;

/// Namespace `housing`, of tier 1.
fn housing() -> NamespaceLabels {
    NamespaceLabels::new("housing", &BTreeMap::from([("tier".to_owned(), "1".to_owned())]))
}

fn judged(group: &str, kind: &str, namespace: Option<&str>, object: Value) -> Option<String> {
    let policy = ObservedPolicy {
        group: group.into(),
        kind: kind.into(),
        namespace: namespace.map(str::to_owned),
        object,
    };
    allowance(&policy, &housing())
}

fn is_unknown(why: Option<&str>) -> bool {
    why.is_some_and(|why| why.starts_with("what it allows is not known"))
}

#[test]
fn a_cilium_policy_allows_by_rules_that_are_not_empty() {
    let all = json!({});
    for (spec, expected) in [
        (
            json!({"endpointSelector": all, "ingress": [{"fromEntities": ["world", "cluster"]}], "egress": [{"toEntities": ["world"]}]}),
            BOTH,
        ),
        (json!({"endpointSelector": all, "ingress": [{"fromEndpoints": [{}]}]}), INGRESS),
        (json!({"endpointSelector": all, "ingress": [{"fromEndpoints": []}]}), INGRESS),
        (
            json!({"endpointSelector": {"matchLabels": {"app": "web"}}, "egress": [{"toFQDNs": [{"matchName": "example"}]}]}),
            EGRESS,
        ),
        (
            json!({"endpointSelector": all, "egress": [{}, {"toPorts": [{"ports": [{"port": "53"}]}]}]}),
            EGRESS,
        ),
        (json!({"endpointSelector": all, "ingress": [{}], "egress": [{}]}), NOTHING),
        (
            json!({"endpointSelector": all, "ingressDeny": [{"fromEntities": ["all"]}], "egressDeny": [{"toEntities": ["all"]}]}),
            NOTHING,
        ),
        (json!({"endpointSelector": all, "ingress": [], "egress": null}), NOTHING),
        (json!({"endpointSelector": all, "enableDefaultDeny": {"ingress": false}}), NOTHING),
    ] {
        let judged = judged("cilium.io", "CiliumNetworkPolicy", Some("housing"), json!({"spec": spec}));
        assert_eq!(judged.as_deref(), expected, "{spec}");
    }
    for object in [
        json!({}),
        json!({"spec": "allow"}),
        json!({"spec": {"endpointSelector": {}, "ingress": {"fromEntities": ["world"]}}}),
        json!({"spec": {"endpointSelector": {}, "ingressAllowAll": true}}),
        json!({"specs": {"endpointSelector": {}}}),
        json!({"specs": ["allow"]}),
        json!({"specs": []}),
    ] {
        let judged = judged("cilium.io", "CiliumNetworkPolicy", Some("housing"), object.clone());
        assert!(is_unknown(judged.as_deref()), "{object}: {judged:?}");
    }
    let specs = json!({"specs": [
        {"endpointSelector": {}, "ingressDeny": [{}]},
        {"endpointSelector": {}, "egress": [{"toEntities": ["world"]}]},
    ]});
    assert_eq!(judged("cilium.io", "CiliumNetworkPolicy", Some("housing"), specs).as_deref(), EGRESS);
}

#[test]
fn clusterwide_cilium_policy_is_excluded_only_by_namespace() {
    let labels = "io.cilium.k8s.namespace.labels";
    for (selector, applies) in [
        (json!({"endpointSelector": {}}), true),
        (json!({"endpointSelector": {"matchLabels": {"app": "web"}}}), true),
        (json!({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "housing"}}}), true),
        (json!({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "parking"}}}), false),
        (
            json!({"endpointSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "parking", "app": "web"}}}),
            false,
        ),
        (json!({"endpointSelector": {"matchLabels": {"any:io.kubernetes.pod.namespace": "parking"}}}), false),
        (json!({"endpointSelector": {"matchLabels": {format!("k8s:{labels}.tier"): "1"}}}), true),
        (json!({"endpointSelector": {"matchLabels": {format!("k8s:{labels}.tier"): "2"}}}), false),
        (
            json!({"endpointSelector": {"matchLabels": {format!("{labels}.kubernetes.io/metadata.name"): "parking"}}}),
            false,
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": "k8s:io.kubernetes.pod.namespace", "operator": "In", "values": ["parking", "waste"]}]}}),
            false,
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": "k8s:io.kubernetes.pod.namespace", "operator": "In", "values": ["parking", "housing"]}]}}),
            true,
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": "k8s:io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["housing"]}]}}),
            false,
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": "k8s:io.kubernetes.pod.namespace", "operator": "NotIn", "values": ["kube-system"]}]}}),
            true,
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": "k8s:io.kubernetes.pod.namespace", "operator": "DoesNotExist"}]}}),
            false,
        ),
        // Cilium may have been told to drop that label of the namespace.
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": format!("{labels}.tier"), "operator": "NotIn", "values": ["1"]}]}}),
            true,
        ),
        (
            json!({"endpointSelector": {"matchExpressions": [
                {"key": format!("{labels}.tier"), "operator": "DoesNotExist"}]}}),
            true,
        ),
        (json!({"endpointSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}}), true),
        (
            json!({"endpointSelector": {"matchExpressions": [{"key": "io.kubernetes.pod.namespace", "operator": "Odd"}]}}),
            true,
        ),
        (json!({"endpointSelector": "all"}), true),
        (json!({"nodeSelector": {}}), false),
        (json!({"nodeSelector": {}, "endpointSelector": {}}), true),
        (json!({}), true),
    ] {
        let mut spec = selector.clone();
        spec["ingress"] = json!([{"fromEntities": ["world"]}]);
        let judged = judged("cilium.io", "CiliumClusterwideNetworkPolicy", None, json!({"spec": spec}));
        assert_eq!(judged.is_some(), applies, "{selector}: {judged:?}");
    }
}

#[test]
fn a_calico_policy_allows_by_any_action_but_deny_and_log() {
    let rules = |actions: &[&str]| actions.iter().map(|action| json!({"action": action})).collect::<Vec<_>>();
    for group in ["crd.projectcalico.org", "projectcalico.org"] {
        for (spec, expected) in [
            (json!({"ingress": rules(&["Allow"]), "egress": rules(&["Allow"])}), BOTH),
            (json!({"ingress": rules(&["Deny", "Allow"])}), INGRESS),
            (json!({"egress": rules(&["Pass"])}), EGRESS),
            (json!({"egress": rules(&["Permit"])}), EGRESS),
            (json!({"egress": [{"protocol": "TCP"}]}), EGRESS),
            (json!({"egress": ["Deny"]}), EGRESS),
            (json!({"ingress": rules(&["Deny"]), "egress": rules(&["Log", "Deny"])}), NOTHING),
            (json!({"types": ["Ingress", "Egress"]}), NOTHING),
        ] {
            for (kind, namespace) in [("NetworkPolicy", Some("housing")), ("GlobalNetworkPolicy", None)] {
                let judged = judged(group, kind, namespace, json!({"spec": spec}));
                assert_eq!(judged.as_deref(), expected, "{kind} {spec}");
            }
            for kind in ["StagedNetworkPolicy", "StagedGlobalNetworkPolicy", "StagedKubernetesNetworkPolicy"]
            {
                assert_eq!(judged(group, kind, None, json!({"spec": spec})), None, "{kind} is not enforced");
            }
        }
        for object in [json!({}), json!({"spec": []}), json!({"spec": {"ingress": "Allow"}})] {
            let judged = judged(group, "NetworkPolicy", Some("housing"), object.clone());
            assert!(is_unknown(judged.as_deref()), "{object}: {judged:?}");
        }
    }
}

#[test]
fn global_calico_policy_is_excluded_by_decidable_selectors() {
    for (field, selector, applies) in [
        ("namespaceSelector", "", true),
        ("namespaceSelector", "all()", true),
        ("namespaceSelector", "global()", false),
        ("namespaceSelector", "tier == '1'", true),
        ("namespaceSelector", "tier == \"2\"", false),
        ("namespaceSelector", "tier=='2'", false),
        ("namespaceSelector", "tier != '1'", false),
        ("namespaceSelector", "borough != 'rbkc'", true),
        ("namespaceSelector", "has(tier)", true),
        ("namespaceSelector", "has(borough)", false),
        ("namespaceSelector", "!has(tier)", false),
        ("namespaceSelector", "! has( borough )", true),
        ("namespaceSelector", "kubernetes.io/metadata.name == 'housing'", true),
        ("namespaceSelector", "projectcalico.org/name == 'parking'", false),
        ("namespaceSelector", "projectcalico.org/name in { 'parking', 'waste' }", false),
        ("namespaceSelector", "projectcalico.org/name in {'parking','housing'}", true),
        ("namespaceSelector", "projectcalico.org/name not in {\"kube-system\", \"calico-system\"}", true),
        ("namespaceSelector", "projectcalico.org/name not in {'housing'}", false),
        ("namespaceSelector", "has(tier) && tier == '2'", false),
        ("namespaceSelector", "tier == '2' || tier == '1'", true),
        ("namespaceSelector", "tier == '2' || has(borough)", false),
        ("namespaceSelector", "!(tier == '1' && has(tier))", false),
        ("namespaceSelector", "(tier == '2') || (tier == '3' && all())", false),
        // Not followed, so it may select.
        ("namespaceSelector", "tier contains '2'", true),
        ("namespaceSelector", "tier starts with '2'", true),
        ("namespaceSelector", "tier == '2", true),
        ("namespaceSelector", "tier == 2", true),
        ("namespaceSelector", "tier == '2' && tier contains 'x'", true),
        ("namespaceSelector", "tier == '2' trailing", true),
        ("namespaceSelector", "tier in {}", true),
        ("namespaceSelector", "some()", true),
        ("namespaceSelector", "()", true),
        ("selector", "projectcalico.org/namespace == 'parking'", false),
        ("selector", "projectcalico.org/namespace == 'housing'", true),
        ("selector", "projectcalico.org/namespace == 'parking' && app == 'web'", false),
        ("selector", "projectcalico.org/namespace == 'parking' || app == 'web'", true),
        ("selector", "app == 'web'", true),
        ("selector", "!has(app)", true),
        ("selector", "all()", true),
    ] {
        let spec = json!({field: selector, "ingress": [{"action": "Allow"}]});
        let judged = judged("projectcalico.org", "GlobalNetworkPolicy", None, json!({"spec": spec}));
        assert_eq!(judged.is_some(), applies, "{field}: {selector}");
    }
    let odd = json!({"spec": {"namespaceSelector": {"tier": "2"}, "egress": [{"action": "Allow"}]}});
    assert_eq!(judged("projectcalico.org", "GlobalNetworkPolicy", None, odd).as_deref(), EGRESS);
    let nested = format!("{}tier == '2'{}", "(".repeat(10_000), ")".repeat(10_000));
    let deep = json!({"spec": {"namespaceSelector": nested, "egress": [{"action": "Allow"}]}});
    assert_eq!(judged("projectcalico.org", "GlobalNetworkPolicy", None, deep).as_deref(), EGRESS);
}

#[test]
fn an_admin_policy_allows_by_any_action_but_deny_and_pass() {
    let subject = json!({"namespaces": {}});
    for (kind, spec, expected) in [
        (
            "AdminNetworkPolicy",
            json!({"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow"}]}),
            BOTH,
        ),
        ("AdminNetworkPolicy", json!({"ingress": [{"action": "Deny"}, {"action": "Allow"}]}), INGRESS),
        ("AdminNetworkPolicy", json!({"ingress": [{"action": "Deny"}, {"action": "Pass"}]}), NOTHING),
        ("AdminNetworkPolicy", json!({"egress": [{"action": "Permit"}]}), EGRESS),
        ("AdminNetworkPolicy", json!({"egress": [{"name": "no action"}]}), EGRESS),
        ("AdminNetworkPolicy", json!({}), NOTHING),
        ("ClusterNetworkPolicy", json!({"tier": "Admin", "egress": [{"action": "Accept"}]}), EGRESS),
        ("ClusterNetworkPolicy", json!({"tier": "Admin", "egress": [{"action": "Deny"}]}), NOTHING),
        ("ClusterNetworkPolicy", json!({"tier": "Baseline", "egress": [{"action": "Accept"}]}), NOTHING),
        ("ClusterNetworkPolicy", json!({"tier": "Application", "egress": [{"action": "Accept"}]}), EGRESS),
        ("ClusterNetworkPolicy", json!({"egress": [{"action": "Accept"}]}), EGRESS),
        ("AdminNetworkPolicy", json!({"tier": "Baseline", "egress": [{"action": "Allow"}]}), EGRESS),
        ("BaselineAdminNetworkPolicy", json!({"egress": [{"action": "Allow"}]}), NOTHING),
    ] {
        let mut spec = spec;
        spec["subject"] = subject.clone();
        let judged = judged("policy.networking.k8s.io", kind, None, json!({"spec": spec}));
        assert_eq!(judged.as_deref(), expected, "{kind} {spec}");
    }
    let malformed = json!({"spec": {"subject": subject, "egress": {"action": "Allow"}}});
    assert!(is_unknown(judged("policy.networking.k8s.io", "AdminNetworkPolicy", None, malformed).as_deref()));
}

#[test]
fn admin_policy_is_excluded_by_one_decidable_subject() {
    let name = |operator: &str, values: &[&str]| json!({"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": operator, "values": values}]});
    for (subject, applies) in [
        (json!({"namespaces": {}}), true),
        (json!({"namespaces": {"matchLabels": {"tier": "1"}}}), true),
        (json!({"namespaces": {"matchLabels": {"tier": "2"}}}), false),
        (json!({"namespaces": {"matchLabels": {"kubernetes.io/metadata.name": "parking"}}}), false),
        (json!({"namespaces": name("In", &["housing"])}), true),
        (json!({"namespaces": name("In", &["parking"])}), false),
        (json!({"namespaces": name("NotIn", &["housing"])}), false),
        (json!({"namespaces": name("NotIn", &["kube-system"])}), true),
        (json!({"namespaces": name("Odd", &["parking"])}), true),
        (json!({"namespaces": {"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}}), false),
        (json!({"namespaces": {"matchExpressions": [{"key": "borough", "operator": "Exists"}]}}), false),
        (json!({"pods": {"namespaceSelector": {"matchLabels": {"tier": "2"}}, "podSelector": {}}}), false),
        (json!({"pods": {"namespaceSelector": {"matchLabels": {"tier": "1"}}, "podSelector": {}}}), true),
        (json!({"pods": {"podSelector": {"matchLabels": {"app": "web"}}}}), true),
        (json!({"namespaces": {"matchLabels": {"tier": "2"}}, "pods": {"namespaceSelector": {}}}), true),
        (json!({"namespaces": {"matchLabels": {"tier": "2"}}, "nodes": {}}), true),
        (json!({"namespaces": {"matchLabels": "tier"}}), true),
        (json!({"namespaces": null}), true),
        (json!({}), true),
        (Value::Null, true),
    ] {
        for kind in ["AdminNetworkPolicy", "ClusterNetworkPolicy"] {
            let spec = json!({"subject": subject, "ingress": [{"action": "Allow"}]});
            let judged = judged("policy.networking.k8s.io", kind, None, json!({"spec": spec}));
            assert_eq!(judged.is_some(), applies, "{kind} {subject}");
        }
    }
}

#[test]
fn an_antrea_policy_allows_by_any_action_but_drop_and_reject() {
    for (spec, expected) in [
        (json!({"ingress": [{"action": "Allow"}], "egress": [{"action": "Drop"}]}), INGRESS),
        (json!({"egress": [{"action": "Pass"}]}), EGRESS),
        (json!({"egress": [{"from": []}]}), EGRESS),
        (json!({"ingress": [{"action": "Reject"}], "egress": [{"action": "Drop"}]}), NOTHING),
        (json!({"tier": "baseline", "egress": [{"action": "Allow"}]}), NOTHING),
        (json!({"tier": "securityops", "egress": [{"action": "Allow"}]}), EGRESS),
    ] {
        for (kind, namespace) in [("NetworkPolicy", Some("housing")), ("ClusterNetworkPolicy", None)] {
            let judged = judged("crd.antrea.io", kind, namespace, json!({"spec": spec}));
            assert_eq!(judged.as_deref(), expected, "{kind} {spec}");
        }
    }
    for (applied_to, applies) in [
        (json!([{"namespaceSelector": {}}]), true),
        (json!([{"namespaceSelector": {"matchLabels": {"tier": "2"}}}]), false),
        (json!([{"namespaceSelector": {"matchLabels": {"tier": "2"}}}, {"podSelector": {}}]), true),
        (json!([{"podSelector": {"matchLabels": {"app": "web"}}}]), true),
        (json!([{"serviceAccount": {"name": "web", "namespace": "parking"}}]), false),
        (json!([{"serviceAccount": {"name": "web", "namespace": "housing"}}]), true),
        (json!([{"nodeSelector": {}}]), false),
        (json!([{"group": "boroughs"}]), true),
        (json!([]), true),
        (json!("all"), true),
    ] {
        let rule = json!([{"action": "Allow"}]);
        let of_spec = json!({"spec": {"appliedTo": applied_to, "ingress": rule}});
        let of_rule = json!({"spec": {"ingress": [{"action": "Allow", "appliedTo": applied_to}]}});
        for object in [of_spec, of_rule] {
            let judged = judged("crd.antrea.io", "ClusterNetworkPolicy", None, object.clone());
            assert_eq!(judged.is_some(), applies, "{object}");
        }
    }
}

#[test]
fn a_kind_that_is_not_known_counts_as_an_allow() {
    let deny = json!({"spec": {"ingress": [{"action": "Deny"}]}});
    for (group, kind) in [
        ("networking.gke.io", "FQDNNetworkPolicy"),
        ("network.openshift.io", "EgressNetworkPolicy"),
        ("cilium.io", "CiliumOtherNetworkPolicy"),
        ("policy.networking.k8s.io", "TenantNetworkPolicy"),
        ("implant.example", "BaselineAdminNetworkPolicy"),
        ("implant.example", "StagedNetworkPolicy"),
        ("", "NetworkPolicy"),
    ] {
        for namespace in [Some("housing"), None] {
            let judged = judged(group, kind, namespace, deny.clone());
            assert!(is_unknown(judged.as_deref()), "{group} {kind}: {judged:?}");
        }
        assert_eq!(judged(group, kind, Some("parking"), deny.clone()), None);
    }
}

#[test]
fn a_kind_that_only_restricts_allows_nothing() {
    let any = json!({"spec": {"podSelector": {}, "ingress": [{}]}});
    assert_eq!(judged("k8s.cni.cncf.io", "MultiNetworkPolicy", Some("housing"), any), None);
}

#[test]
fn any_policy_gets_a_verdict() {
    let full = json!({
        "spec": {
            "endpointSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "x"}, "matchExpressions": [{"key": "a", "operator": "In"}]},
            "namespaceSelector": "has(a) && !(b in {'c'} || d == 'e')", "selector": "f != 'g'",
            "subject": {"pods": {"namespaceSelector": {"matchLabels": {"a": "b"}}}}, "tier": "Admin",
            "appliedTo": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
            "ingress": [{"action": "Allow"}], "egress": [{"action": "Deny"}],
        },
        "specs": [{"endpointSelector": {}, "ingress": [{}]}],
    });
    let kinds = [
        ("cilium.io", "CiliumClusterwideNetworkPolicy"),
        ("projectcalico.org", "GlobalNetworkPolicy"),
        ("policy.networking.k8s.io", "ClusterNetworkPolicy"),
        ("crd.antrea.io", "ClusterNetworkPolicy"),
    ];
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<(u8, Vec<u8>, String)>().for_each(
        |(at, bytes, text)| {
            let (group, kind) = kinds[usize::from(*at) % kinds.len()];
            let mut object = fuzz_input::spoiled(&full, bytes);
            let _ = judged(group, kind, None, object.clone());
            if object.get("spec").is_some_and(Value::is_object) {
                object["spec"]["namespaceSelector"] = json!(text);
            }
            let _ = judged(group, kind, None, object);
            let _ = text.parse::<AcceptedPolicy>();
        },
    );
}

fn standing(namespace: Option<&str>, kind: &str, resource: &str, name: &str, why: &str) -> StandingPolicy {
    StandingPolicy {
        namespace: namespace.map(str::to_owned),
        kind: kind.into(),
        resource: resource.into(),
        name: name.into(),
        uid: "6f0d2c1e-5f0e-4c43-9f57-5d3bd1a2b001".into(),
        generation: Some(3),
        why: why.into(),
    }
}

#[test]
fn acceptance_needs_same_uid_generation_and_cluster_scope() {
    let accepted: AcceptedPolicy = "6f0d2c1e-5f0e-4c43-9f57-5d3bd1a2b001/3".parse().unwrap();
    let policy = |namespace| standing(namespace, "K", "ks.g", "x", "");
    assert!(accepted.covers(&policy(None)));
    assert!(!accepted.covers(&policy(Some("housing"))));
    assert!(!accepted.covers(&StandingPolicy { generation: Some(4), ..policy(None) }));
    assert!(!accepted.covers(&StandingPolicy { generation: Some(2), ..policy(None) }));
    assert!(!accepted.covers(&StandingPolicy { generation: None, ..policy(None) }));
    assert!(!accepted.covers(&StandingPolicy { uid: "other".into(), ..policy(None) }));
    assert_eq!(accepted.to_string().parse::<AcceptedPolicy>(), Ok(accepted));
    for wrong in ["", "/3", "a", "a/", "a/0", "a/-1", "a/x", "a/1/2", "a b/1", "*/1"] {
        assert!(wrong.parse::<AcceptedPolicy>().is_err(), "{wrong}");
    }
}

#[test]
fn the_message_names_the_policies_who_clears_them_and_how() {
    let cilium = |name: &str| {
        let resource = "ciliumnetworkpolicies.cilium.io";
        standing(Some("r18-lab"), "CiliumNetworkPolicy", resource, name, "allows ingress and egress")
    };
    let admin = || {
        let resource = "adminnetworkpolicies.policy.networking.k8s.io";
        standing(None, "AdminNetworkPolicy", resource, "monitoring", "allows ingress")
    };
    let message = |policies: &OtherPolicies| {
        let exceptions = policies.exceptions().unwrap_or_else(|| "-".to_owned());
        format!("{}\n{exceptions}\n", policies.message("r18-lab").unwrap_or_else(|| "-".to_owned()))
    };
    let fqdn = standing(
        Some("r18-lab"),
        "FQDNNetworkPolicy",
        "fqdnnetworkpolicies.networking.gke.io",
        "updates",
        "what it allows is not known here",
    );
    let refused =
        "the operator may not list CiliumNetworkPolicy. A cluster administrator gives a ClusterRole …";
    let texts = [
        OtherPolicies { standing: vec![cilium("allow-world")], ..OtherPolicies::default() },
        OtherPolicies { standing: vec![admin()], ..OtherPolicies::default() },
        OtherPolicies { standing: vec![fqdn], ..OtherPolicies::default() },
        OtherPolicies {
            standing: vec![admin(), cilium("a"), cilium("b"), cilium("c"), cilium("d")],
            accepted: vec![standing(None, "GlobalNetworkPolicy", "x", "dns", "allows egress")],
            unknown: vec![],
        },
        OtherPolicies { unknown: vec![refused.to_owned()], ..OtherPolicies::default() },
        OtherPolicies { accepted: vec![admin()], ..OtherPolicies::default() },
    ];
    for policies in &texts {
        assert_eq!(policies.is_cut(), policies.message("r18-lab").is_none());
    }
    insta::assert_snapshot!(texts.iter().map(message).collect::<Vec<_>>().join("\n"));
}
