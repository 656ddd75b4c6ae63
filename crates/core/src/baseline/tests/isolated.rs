//! What isolation leaves on objects, and what it ends.

use super::*;

#[test]
fn what_isolation_wrote_is_undone_for_its_own_seal_only() {
    let isolated = |raw: &mut Vec<Value>, seal: &str| {
        let record = |was: &str| json!({"resurgam.dev/seal": seal, "resurgam.dev/replicas": was});
        let cron = find(raw, "CronJob");
        cron["spec"]["suspend"] = json!(true);
        cron["metadata"]["annotations"] = record("false");
        let agent = find(raw, "DaemonSet");
        agent["spec"]["template"]["spec"]["nodeSelector"] = json!({"resurgam.dev/nowhere": "true"});
        agent["metadata"]["annotations"] = record("{}");
        let policy = find(raw, "NetworkPolicy");
        let nothing = |operator: &str| json!({"key": "resurgam.dev/isolated", "operator": operator});
        policy["spec"]["podSelector"]["matchExpressions"] =
            json!([nothing("Exists"), nothing("DoesNotExist")]);
        let mut deny = policy.clone();
        let quota = find(raw, "ResourceQuota");
        quota["spec"]["hard"]["count/serviceaccounts"] = json!("1M");
        quota["metadata"]["annotations"] = json!({"resurgam.dev/quota": r#"{"count/serviceaccounts":"9"}"#});
        let namespace = find(raw, "Namespace");
        namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = json!("baseline");
        namespace["metadata"]["annotations"] = json!({"resurgam.dev/pod-security": "none"});
        deny["metadata"]["name"] = json!("resurgam-default-deny");
        raw.push(deny);
    };
    let marks = |seal: &str, isolated: bool| Marks {
        seals: [("shop".to_owned(), seal.to_owned())].into(),
        isolated: if isolated { BTreeSet::from(["shop".to_owned()]) } else { BTreeSet::new() },
    };
    let mut raw = estate();
    isolated(&mut raw, "mine");
    assert_eq!(differences_with(raw.clone(), marks("mine", true), &[]), Vec::<String>::new());
    // A record that somebody else wrote hides nothing; nor does a mark in a namespace that is open.
    let forged = differences_with(raw.clone(), marks("another", true), &[]);
    assert_eq!(forged.len(), 2, "{forged:?}");
    let open = differences_with(raw, marks("mine", false), &[]);
    for object in [
        "Namespace shop",
        "NetworkPolicy shop/web",
        "NetworkPolicy shop/resurgam-default-deny",
        "ResourceQuota shop/all",
    ] {
        assert!(open.iter().any(|line| line.starts_with(object)), "{object}: {open:?}");
    }
}

#[test]
fn what_sealing_ends_is_missing_only_where_it_was_not_sealed() {
    let namespaces = ["shop".to_owned()];
    let with = |objects: Vec<Value>| {
        let mut raw = estate();
        raw.extend(objects);
        baseline_of(raw)
    };
    let object = |kind: &str, body: Value| {
        let mut object = json!({"apiVersion": if kind == "Job" { "batch/v1" } else { "v1" }, "kind": kind,
            "metadata": {"name": "it", "namespace": "shop"}});
        object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        object
    };
    let sealed = Marks {
        seals: [("shop".to_owned(), "seal".to_owned())].into(),
        isolated: BTreeSet::from(["shop".to_owned()]),
    };
    for (was, when_sealed, when_open) in [
        (object("Pod", json!({"spec": {}})), 0, 1),
        (object("Secret", json!({"type": "kubernetes.io/service-account-token"})), 0, 1),
        (object("Secret", json!({"type": "Opaque"})), 1, 1),
        (object("Job", json!({"spec": {"ttlSecondsAfterFinished": 5}})), 0, 0),
        (object("Job", json!({"spec": {}})), 1, 1),
    ] {
        let baseline = with(vec![was.clone()]);
        for (marks, expected) in [(sealed.clone(), when_sealed), (Marks::default(), when_open)] {
            let scope = Scope {
                namespaces: &namespaces,
                pods_may_be_gone: true,
                marks: marks.clone(),
                ..Scope::default()
            };
            let outcome = compare(&baseline, observe(estate(), &marks), &scope);
            assert_eq!(outcome.differences.len(), expected, "{was} {marks:?}");
        }
    }
}
