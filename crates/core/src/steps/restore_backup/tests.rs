use super::*;
use crate::api::DnsLabel;
use crate::api::step::ExpectedObject;

fn context() -> StepContext {
    StepContext {
        plan_namespace: "recovery".to_owned(),
        account: "restorer".to_owned(),
        plan_uid: "u".to_owned(),
        service: "shop".to_owned(),
        step: "restore".to_owned(),
        attempt: 2,
        claimed_at: Some("2026-11-30T10:00:00Z".parse().unwrap()),
        namespaces: vec!["shop-new".to_owned()],
        ..StepContext::default()
    }
}

fn spec() -> RestoreBackupSpec {
    RestoreBackupSpec {
        backup_name: "nightly-20261120".to_owned(),
        from: Some(DnsLabel("shop".to_owned())),
        ..RestoreBackupSpec::default()
    }
}

#[test]
fn restore_creates_and_changes_nothing_else() {
    let restore = wanted(&spec(), &context()).unwrap();
    assert_eq!(restore["metadata"]["name"], name(&context()));
    assert_eq!(restore["metadata"]["namespace"], "velero");
    let of = &restore["spec"];
    for (field, value) in [
        ("backupName", json!("nightly-20261120")),
        ("includedNamespaces", json!(["shop"])),
        ("namespaceMapping", json!({"shop": "shop-new"})),
        ("includeClusterResources", json!(false)),
        ("existingResourcePolicy", json!("none")),
        ("skipDefaultResourceModifier", json!(true)),
    ] {
        assert_eq!(of[field], value, "{field}");
    }
    assert!(
        of["excludedResources"].as_array().unwrap().contains(&json!("networkpolicies.networking.k8s.io"))
    );
    assert!(of.get("scheduleName").is_none() && of.get("itemOperationTimeout").is_none());

    let day = Some("1d".parse().unwrap());
    let same = RestoreBackupSpec { from: None, item_operation_timeout: day, ..spec() };
    let restore = wanted(&same, &context()).unwrap();
    assert_eq!(restore["spec"]["includedNamespaces"], json!(["shop-new"]));
    assert!(restore["spec"].get("namespaceMapping").is_none());
    assert_eq!(restore["spec"]["itemOperationTimeout"], "86400000ms", "Go has no days");
}

#[test]
fn step_outside_of_a_clean_room_or_the_service_never_works() {
    let namespaces = ["shop-new".to_owned()];
    assert_eq!(problem(&spec(), StepPhase::CleanRoom, &namespaces), None);
    assert!(problem(&spec(), StepPhase::AfterRelease, &namespaces).is_some());
    let elsewhere = RestoreBackupSpec { namespace: Some(DnsLabel("identity".to_owned())), ..spec() };
    assert!(problem(&elsewhere, StepPhase::CleanRoom, &namespaces).is_some());
    assert!(problem(&spec(), StepPhase::CleanRoom, &[]).is_some());
}

#[test]
fn account_needs_an_explicit_grant_and_no_wildcard() {
    assert_eq!(not_granted(&spec(), "shop-new", true, false), None);
    let (reason, message) = not_granted(&spec(), "shop-new", false, false).unwrap();
    assert_eq!(reason, Reason::VeleroNotGranted);
    for part in
        ["system:serviceaccount:velero:velero", "--resource-name=shop-new", "--serviceaccount=velero:velero"]
    {
        assert!(message.contains(part), "{part}: {message}");
    }
    for recover in [true, false] {
        let (reason, message) = not_granted(&spec(), "shop-new", recover, true).unwrap();
        assert_eq!(reason, Reason::WildcardHolder, "{message}");
        assert!(message.chars().count() <= 512, "{message}");
    }
}

#[test]
fn backup_counts_only_if_it_is_complete() {
    let phase = |phase: &str| json!({"status": {"phase": phase}});
    assert_eq!(backup_problem(Some(&phase("Completed")), &spec()), None);
    for (backup, named) in [
        (None, "does not exist"),
        (Some(json!({})), "has not begun"),
        (Some(phase("PartiallyFailed")), "is PartiallyFailed"),
        (Some(phase("InProgress")), "is InProgress"),
        (Some(phase("Deleting")), "is Deleting"),
    ] {
        let why = backup_problem(backup.as_ref(), &spec()).unwrap();
        assert!(why.starts_with("Backup velero/nightly-20261120 ") && why.contains(named), "{why}");
    }
}

/// The Restore of the context with this status.
fn restore(status: &Value) -> Value {
    let mut restore = wanted(&spec(), &context()).unwrap();
    restore["status"] = status.clone();
    restore
}

#[test]
fn restore_is_followed_to_its_end() {
    let judged = |status: Value| judge(Some(&restore(&status)), &spec(), &context());
    assert_eq!(judged(json!({"phase": "Completed", "warnings": 1})), Followed::Completed);
    for (status, said) in [
        (json!({}), "has not begun"),
        (json!({"phase": "New"}), "New"),
        (
            json!({"phase": "InProgress", "progress": {"itemsRestored": 3, "totalItems": 12}}),
            "InProgress, 3 of 12 items",
        ),
        (json!({"phase": "WaitingForPluginOperations"}), "WaitingForPluginOperations"),
        (
            json!({"phase": "WaitingForPluginOperationsPartiallyFailed"}),
            "WaitingForPluginOperationsPartiallyFailed",
        ),
        // All is restored, and its hooks may never end.
        (json!({"phase": "Finalizing"}), "Finalizing"),
        (json!({"phase": "FinalizingPartiallyFailed"}), "FinalizingPartiallyFailed"),
        (json!({"phase": "OfAnotherVersion"}), "OfAnotherVersion"),
    ] {
        let Followed::Progress(StepProgress::Running(message)) = judged(status.clone()) else {
            panic!("{status} has ended")
        };
        assert!(message.starts_with("Restore velero/step-restore-2-") && message.contains(said), "{message}");
    }
    for (status, said) in [
        (
            json!({"phase": "PartiallyFailed", "errors": 2, "warnings": 1}),
            "PartiallyFailed: 2 errors, 1 warnings",
        ),
        (
            json!({"phase": "Failed", "failureReason": "found a restore with status InProgress"}),
            "Failed: found a restore",
        ),
        (
            json!({"phase": "FailedValidation", "validationErrors": ["a", "b", "c", "d"]}),
            "FailedValidation: a, b, c and 1 more",
        ),
        (
            json!({"phase": "PartiallyFailed", "hookStatus": {"hooksAttempted": 2, "hooksFailed": 1}}),
            "1 failed hooks",
        ),
        (json!({"phase": "Failed", "failureReason": "x".repeat(2000)}), "…"),
    ] {
        let Followed::Progress(StepProgress::Failed(message)) = judged(status.clone()) else {
            panic!("{status} has not failed")
        };
        assert!(message.contains(said) && message.chars().count() <= 512, "{message}");
    }
}

#[test]
fn restore_of_somebody_else_is_not_taken_for_its_own() {
    let is_failed = |restore: Option<&Value>, context: &StepContext| {
        matches!(judge(restore, &spec(), context), Followed::Progress(StepProgress::Failed(_)))
    };
    let complete = restore(&json!({"phase": "Completed"}));
    assert!(!is_failed(Some(&complete), &context()));
    assert!(is_failed(None, &context()), "it was deleted");
    let next = StepContext { attempt: 3, ..context() };
    assert_ne!(name(&next), name(&context()));
    assert!(is_failed(Some(&complete), &next));
    let mut planted = complete.clone();
    planted["metadata"].as_object_mut().unwrap().remove("annotations");
    assert!(is_failed(Some(&planted), &context()));
    let unclaimed = StepContext { claimed_at: None, ..context() };
    let of_nobody = wanted(&spec(), &unclaimed).unwrap();
    assert!(is_failed(Some(&of_nobody), &unclaimed), "no claim is on record");
}

fn object(api_version: &str, kind: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": "shop-new", "uid": format!("{kind}-{name}")}})
}

fn restored(mut object: Value) -> Value {
    object["metadata"]["labels"] =
        json!({"velero.io/restore-name": name(&context()), "velero.io/backup-name": "b"});
    object
}

fn owned(mut object: Value, owner: &Value) -> Value {
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": true,
    }]);
    object
}

/// What Kubernetes, Resurgam and `resurgam access` put into a namespace.
fn empty() -> Vec<Value> {
    let mut binding = object("rbac.authorization.k8s.io/v1", "RoleBinding", "resurgam:restorer");
    binding["roleRef"] = json!({"kind": "Role", "name": "resurgam:restorer"});
    binding["subjects"] = json!([{"kind": "ServiceAccount", "name": "restorer", "namespace": "recovery"}]);
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop-new"}}),
        object("v1", "ConfigMap", "kube-root-ca.crt"),
        object("v1", "ServiceAccount", "default"),
        object("networking.k8s.io/v1", "NetworkPolicy", "resurgam-default-deny"),
        object("networking.k8s.io/v1", "NetworkPolicy", "resurgam-clean-room"),
        object("rbac.authorization.k8s.io/v1", "Role", "resurgam:restorer"),
        binding,
    ]
}

fn after(objects: Vec<Value>) -> StepProgress {
    left(objects, &spec(), &context()).unwrap().progress(&spec(), &context())
}

fn with(objects: Vec<Value>) -> Vec<Value> {
    empty().into_iter().chain(objects).collect()
}

#[test]
fn namespace_that_holds_anything_else_is_not_restored_into() {
    before(empty(), &spec(), &context()).unwrap();
    let mut account = object("v1", "ServiceAccount", "default");
    account["imagePullSecrets"] = json!([{"name": "planted"}]);
    let mut binding = object("rbac.authorization.k8s.io/v1", "RoleBinding", "team");
    binding["roleRef"] = json!({"kind": "Role", "name": "resurgam:restorer"});
    binding["subjects"] = json!([
        {"kind": "ServiceAccount", "name": "restorer", "namespace": "recovery"},
        {"kind": "User", "name": "mallory"},
    ]);
    let mut nobody = binding.clone();
    nobody["subjects"] = json!([]);
    let slice = object("discovery.k8s.io/v1", "EndpointSlice", "web-x");
    let earlier = restored(object("v1", "Secret", "db"));
    for stranger in [
        object("v1", "ConfigMap", "settings"),
        object("v1", "PersistentVolumeClaim", "data-db-0"),
        object("networking.k8s.io/v1", "NetworkPolicy", "allow-all"),
        object("rbac.authorization.k8s.io/v1", "Role", "admin"),
        object("example.org/v1", "NetworkPolicy", "resurgam-default-denied"),
        account,
        binding,
        nobody,
        slice,
        object("v1", "Endpoints", "web"),
        earlier,
    ] {
        let named = format!("{} shop-new/{}", text(&stranger, "/kind"), text(&stranger, "/metadata/name"));
        let error = before(with(vec![stranger]), &spec(), &context()).unwrap_err().to_string();
        assert!(error.contains(&named) && error.contains("new namespace"), "{named}: {error}");
    }
    let expected = vec![ExpectedObject { kind: "RoleBinding".to_owned(), name: "team".to_owned() }];
    let spec = RestoreBackupSpec { expected, ..spec() };
    before(with(vec![object("rbac.authorization.k8s.io/v1", "RoleBinding", "team")]), &spec, &context())
        .unwrap();
    let many = (0..40).map(|i| object("v1", "ConfigMap", &format!("{}{i}", "c".repeat(240)))).collect();
    let error = before(with(many), &spec, &context()).unwrap_err().to_string();
    assert!(error.contains("and 32 more"), "{error}");
}

#[test]
fn complete_restore_succeeds_if_all_there_is_its_own() {
    let mut deployment = restored(object("apps/v1", "Deployment", "web"));
    deployment["spec"] = json!({"selector": {"matchLabels": {"app": "web"}}, "template": {"metadata": {"labels": {"app": "web"}}}});
    let mut set = owned(object("apps/v1", "ReplicaSet", "web-1"), &deployment);
    set["metadata"]["labels"] = json!({"app": "web"});
    set["spec"] = deployment["spec"].clone();
    let pod = owned(object("v1", "Pod", "web-1-x"), &set);
    let service = restored(object("v1", "Service", "web"));
    let slice = owned(object("discovery.k8s.io/v1", "EndpointSlice", "web-x"), &service);
    let mut account = object("v1", "ServiceAccount", "default");
    account["imagePullSecrets"] = json!([{"name": "of-the-backup"}]);
    let mut all = with(vec![deployment, set, pod, service, slice, object("v1", "Endpoints", "web")]);
    all.retain(|object| text(object, "/kind") != "ServiceAccount");
    all.push(account);
    assert_eq!(after(all.clone()), StepProgress::Succeeded);

    for stranger in [
        object("v1", "ConfigMap", "settings"),
        // Nobody owns it.
        object("discovery.k8s.io/v1", "EndpointSlice", "elsewhere"),
        owned(object("v1", "Pod", "web-2-x"), &object("apps/v1", "ReplicaSet", "gone")),
    ] {
        let named = format!("{} shop-new/{}", text(&stranger, "/kind"), text(&stranger, "/metadata/name"));
        let mut all = all.clone();
        all.push(stranger);
        let StepProgress::Failed(message) = after(all) else { panic!("{named} is not found") };
        assert!(message.contains(&named), "{named}: {message}");
    }
    // Of an earlier Restore.
    let mut other = object("v1", "Secret", "db");
    other["metadata"]["labels"] = json!({"velero.io/restore-name": "step-restore-1-00000000"});
    all.push(other);
    assert!(matches!(after(all), StepProgress::Failed(_)));
}

#[test]
fn complete_restore_of_nothing_has_failed() {
    let StepProgress::Failed(message) = after(empty()) else { panic!("nothing is a success") };
    assert!(message.contains("has nothing of namespace shop"), "{message}");
}

#[test]
fn only_what_two_readings_show_is_a_stranger() {
    let restored = || restored(object("v1", "Service", "web"));
    let read = |names: &[&str]| {
        let named = names.iter().map(|name| object("v1", "Pod", name));
        left(with(named.chain([restored()]).collect()), &spec(), &context()).unwrap()
    };
    assert!(!read(&[]).is_in_doubt());
    // Pods of a ReplicaSet that was created between two lists.
    let (first, again) = (read(&["web-1-a", "planted"]), read(&["web-2-b", "planted"]));
    assert!(first.is_in_doubt());
    let StepProgress::Failed(message) = first.and(&again).progress(&spec(), &context()) else {
        panic!("it is there in both")
    };
    assert!(message.ends_with("meanwhile: Pod shop-new/planted"), "{message}");
    let passing = read(&["web-1-a"]).and(&read(&["web-2-b"]));
    assert_eq!(passing.progress(&spec(), &context()), StepProgress::Succeeded);
}
