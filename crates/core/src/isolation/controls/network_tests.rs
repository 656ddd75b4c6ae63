use kube::ResourceExt;

use super::*;

fn policy(name: &str, spec: serde_json::Value) -> NetworkPolicy {
    let value = json!({
        "metadata": {"name": name, "namespace": "library", "uid": "u1", "resourceVersion": "1"}, "spec": spec,
    });
    serde_json::from_value(value).unwrap()
}

fn patched(policy: &NetworkPolicy, back: bool) -> Option<NetworkPolicy> {
    let patch = change(policy, back)?;
    let mut value = serde_json::to_value(policy).unwrap();
    let selector = &mut value["spec"]["podSelector"];
    match &patch["spec"]["podSelector"]["matchExpressions"] {
        serde_json::Value::Null => {
            selector.as_object_mut().unwrap().remove("matchExpressions");
        }
        requirements => selector["matchExpressions"] = requirements.clone(),
    }
    Some(serde_json::from_value(value).unwrap())
}

#[test]
fn a_neutralised_policy_comes_back_as_it_was() {
    let expression = json!({"key": "app", "operator": "In", "values": ["web"]});
    for selector in [
        json!({}),
        json!({"matchLabels": {"app": "web"}}),
        json!({"matchExpressions": [expression]}),
        json!({"matchLabels": {"app": "web"}, "matchExpressions": [expression, {"key": "x", "operator": "Exists"}]}),
    ] {
        let before =
            policy("allow", json!({"podSelector": selector, "ingress": [{}], "policyTypes": ["Ingress"]}));
        assert!(!is_neutralised(&before));
        assert_eq!(change(&before, true), None, "nothing to restore");
        let neutralised = patched(&before, false).unwrap();
        assert!(is_neutralised(&neutralised), "{selector}");
        assert_eq!(change(&neutralised, false), None, "nothing to do twice");
        assert_eq!(patched(&neutralised, true).unwrap(), before, "{selector}");
    }
}

#[test]
fn half_of_the_requirements_neutralises_nothing() {
    for operator in ["Exists", "DoesNotExist"] {
        let one = json!({"matchExpressions": [{"key": NEUTRALISED, "operator": operator}]});
        let planted = policy("planted", json!({"podSelector": one}));
        assert!(!is_neutralised(&planted));
        assert!(is_neutralised(&patched(&planted, false).unwrap()));
    }
}

#[test]
fn network_holds_only_if_own_policies_alone_select_pods() {
    let wanted = wanted("library", None);
    let deny = || policy(DEFAULT_DENY, json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}));
    let allow = || policy("allow", json!({"podSelector": {}, "ingress": [{}]}));
    let with = |change: serde_json::Value| {
        let mut value = serde_json::to_value(deny()).unwrap();
        for (key, field) in change.as_object().unwrap() {
            value["metadata"][key] = field.clone();
        }
        serde_json::from_value::<NetworkPolicy>(value).unwrap()
    };
    let owner = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "gone", "uid": "u"}]);
    for (there, message) in [
        (vec![deny()], "denied both ways"),
        (vec![deny(), patched(&allow(), false).unwrap()], "denied both ways"),
        (vec![], "NetworkPolicy resurgam-default-deny is not in place"),
        (vec![deny(), allow()], "NetworkPolicy allow still allows traffic"),
        (
            vec![policy(DEFAULT_DENY, json!({"podSelector": {}, "ingress": [{}]}))],
            "NetworkPolicy resurgam-default-deny is not in place",
        ),
        (
            vec![with(json!({"ownerReferences": owner}))],
            "NetworkPolicy resurgam-default-deny is not in place",
        ),
        (
            vec![with(json!({"finalizers": ["mallory.example/keep"]}))],
            "NetworkPolicy resurgam-default-deny is not in place",
        ),
        (
            vec![with(json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}))],
            "NetworkPolicy resurgam-default-deny is not in place",
        ),
        (
            vec![deny(), policy(CLEAN_ROOM, json!({"podSelector": {}, "egress": [{}]}))],
            "NetworkPolicy resurgam-clean-room still allows traffic",
        ),
    ] {
        let observed = PolicyObservation::new(&there, &wanted);
        assert_eq!(observed.message(), message);
        assert_eq!(observed.holds(), message == "denied both ways", "{message}");
    }
    let many: Vec<_> = (0..9).map(|n| policy(&format!("allow-{n}"), json!({"podSelector": {}}))).collect();
    let message = PolicyObservation::new(&many, &wanted).message();
    assert!(message.contains("allow-0, allow-1, allow-2 and 6 more"), "{message}");
}

#[test]
fn recorded_policy_keeps_all_that_can_be_created_again() {
    let mut before = policy("allow", json!({"podSelector": {}}));
    before.metadata.labels = Some([("team".to_owned(), "library".to_owned())].into());
    before.metadata.annotations = Some([("why".to_owned(), "opening hours".to_owned())].into());
    before.metadata.owner_references = Some(vec![Default::default()]);
    let restored = restorable(&before);
    before.metadata.uid = None;
    before.metadata.resource_version = None;
    assert_eq!(restored, before);
}

#[test]
fn ours_are_those_of_our_names() {
    for (name, expected) in [(DEFAULT_DENY, true), (CLEAN_ROOM, true), ("allow", false), ("", false)] {
        assert_eq!(is_ours(&policy(name, json!({}))), expected, "{name}");
    }
}

#[test]
fn a_clean_room_reaches_itself_and_what_is_reachable_only() {
    let room = CleanRoomAccess {
        reachable: vec!["library-db".to_owned(), "library-web".to_owned()],
        egress_exceptions: Vec::new(),
    };
    let all = wanted("library-web", Some(&room));
    let called = |policy: &NetworkPolicy| (policy.namespace().unwrap(), policy.name_any());
    let named = |name: &str| ("library-web".to_owned(), name.to_owned());
    assert_eq!(all.iter().map(called).collect::<Vec<_>>(), [named(DEFAULT_DENY), named(CLEAN_ROOM)]);
    assert!(all.iter().all(|policy| policy.labels()[MANAGED_BY_LABEL] == MANAGED_BY));
    let of = |namespaces: &[&str]| {
        let names = namespaces.iter().map(|&name| name.to_owned()).collect();
        pods_of(names, None)
    };
    let spec = all[1].spec.clone().unwrap();
    let egress = spec.egress.unwrap();
    assert_eq!(egress.len(), 1);
    assert_eq!(egress[0].to, Some(vec![of(&["library-db", "library-web"])]));
    // In comes the operator too, and of its namespace nobody else.
    let operator = NetworkPolicyPeer {
        pod_selector: Some(LabelSelector {
            match_labels: Some([("app.kubernetes.io/name".to_owned(), "resurgam".to_owned())].into()),
            match_expressions: None,
        }),
        ..of(&["resurgam-system"])
    };
    let ingress = spec.ingress.unwrap();
    assert_eq!(ingress.len(), 1);
    assert_eq!(ingress[0].from, Some(vec![of(&["library-db", "library-web"]), operator]));
    assert_eq!(wanted("library-web", None).len(), 1);
    let deny = wanted("library-web", None)[0].spec.clone().unwrap();
    assert_eq!((deny.ingress, deny.egress), (None, None));
}
