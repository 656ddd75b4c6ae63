use super::*;

fn around() -> GitOpsContext {
    let of = |name: &str| (name.to_owned(), (format!("seal-of-{name}"), "sha256:now".to_owned()));
    GitOpsContext {
        isolated: [of("library-db"), of("library-web")].into(),
        plans: ["recovery".to_owned()].into(),
    }
}

fn kustomization(spec: Value, ids: &[&str]) -> GitOpsSource {
    let entries: Vec<_> = ids.iter().map(|id| json!({"id": id, "v": "v1"})).collect();
    let object = json!({
        "metadata": {"name": "library", "namespace": "flux-system"}, "spec": spec,
        "status": {"inventory": {"entries": entries}},
    });
    GitOpsSource::from_object("Kustomization", &object).unwrap()
}

fn verdict(found: &GitOpsSource) -> (GitOpsAction, String) {
    found.judge(&around())
}

const WEB: &str = "library-web_web_apps_Deployment";

#[test]
fn only_what_carries_nothing_but_what_is_isolated_is_suspended() {
    let cases: [(&[&str], GitOpsAction, &str); 9] = [
        (&[WEB], GitOpsAction::Suspend, "by us"),
        (&[WEB, "library-db_db_apps_StatefulSet", "_library-db__Namespace"], GitOpsAction::Suspend, "by us"),
        (&[WEB, "museum_web_apps_Deployment"], GitOpsAction::Leave, "it also carries namespace museum"),
        (&[WEB, "_museum__Namespace"], GitOpsAction::Leave, "it also carries namespace museum"),
        (
            &[WEB, "_web_rbac.authorization.k8s.io_ClusterRole"],
            GitOpsAction::Leave,
            "the whole cluster, kind ClusterRole",
        ),
        (&[WEB, "_disk__PersistentVolume"], GitOpsAction::Leave, "the whole cluster, kind PersistentVolume"),
        (&[WEB, "_library-web_resurgam.dev_Quarantine"], GitOpsAction::Leave, "the recovery itself"),
        (&[WEB, "recovery_approved__ConfigMap"], GitOpsAction::Leave, "the recovery itself"),
        (&[WEB, "resurgam-system_operator_apps_Deployment"], GitOpsAction::Leave, "the recovery itself"),
    ];
    for (ids, expected, why) in cases {
        let found = kustomization(json!({}), ids);
        assert!(found.reaches("library-web") && !found.reaches("archive"), "{ids:?}");
        let (verdict, said) = verdict(&found);
        assert_eq!(verdict, expected, "{ids:?}: {said}");
        assert!(said.contains(why), "{ids:?}: {said}");
    }
}

#[test]
fn inventory_entries_with_underscores_are_parsed_correctly() {
    let found = kustomization(json!({}), &["library-web_system__reader_rbac.authorization.k8s.io_Role"]);
    assert_eq!(found.into, ["library-web".to_owned()].into());
    // An entry that nobody can read: what it carries is not known.
    let found = kustomization(json!({"targetNamespace": "library-web"}), &["nonsense"]);
    assert_eq!(verdict(&found).0, GitOpsAction::Leave);
    let object = json!({"metadata": {"name": "web", "namespace": "library-web"}, "spec": {}});
    let found = GitOpsSource::from_object("HelmRelease", &object).unwrap();
    assert!(found.reaches("library-web"), "it installs where it is");
    let (verdict, said) = verdict(&found);
    assert_eq!(
        (verdict, said.as_str()),
        (GitOpsAction::Leave, "what it carries is not known: it lists nothing")
    );
}

#[test]
fn objects_that_deploy_to_another_cluster_are_ignored() {
    let remote = json!({
        "metadata": {"name": "web", "namespace": "argocd"},
        "spec": {"destination": {"server": "https://elsewhere.example", "namespace": "library-web"}},
    });
    assert_eq!(GitOpsSource::from_object("Application", &remote), None);
    let flux = json!({
        "metadata": {"name": "web", "namespace": "flux-system"},
        "spec": {"targetNamespace": "library-web", "kubeConfig": {"secretRef": {"name": "elsewhere"}}},
    });
    assert_eq!(GitOpsSource::from_object("Kustomization", &flux), None);
}

fn application(automated: Value) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "argocd", "annotations": {}},
        "spec": {
            "destination": {"server": "https://kubernetes.default.svc", "namespace": "library-web"},
            "syncPolicy": {"automated": automated},
        },
        "status": {"resources": [{"group": "apps", "kind": "Deployment", "namespace": "library-web", "name": "web"}]},
    })
}

#[test]
fn application_automation_is_removed_and_recorded() {
    let automated = json!({"prune": true, "selfHeal": true});
    let found = GitOpsSource::from_object("Application", &application(automated.clone())).unwrap();
    assert_eq!(verdict(&found).0, GitOpsAction::Suspend);
    let patch = found.suspend(Some("7"), "seal", "sha256:now");
    assert_eq!(patch["spec"], json!({"syncPolicy": {"automated": null}}));
    let was: Value =
        serde_json::from_str(patch["metadata"]["annotations"][WAS_ANNOTATION].as_str().unwrap()).unwrap();
    assert_eq!(was, json!({"automated": automated}));
    assert_eq!(patch["metadata"]["resourceVersion"], "7");
    for by_hand in [Value::Null, json!({"enabled": false})] {
        let found = GitOpsSource::from_object("Application", &application(by_hand)).unwrap();
        assert_eq!(
            verdict(&found),
            (GitOpsAction::Leave, "it deploys only when a person triggers it".to_owned())
        );
    }
}

#[test]
fn object_resumed_by_a_person_is_not_suspended_again() {
    let mut found = kustomization(json!({}), &[WEB]);
    found.mark = Some(("seal-of-library-db".into(), "sha256:now".into()));
    let (judged, said) = verdict(&found);
    assert_eq!(judged, GitOpsAction::Leave);
    assert!(said.contains("resumed by a person"), "{said}");
    for past in [("seal-of-library-db", "sha256:before"), ("another", "sha256:now")] {
        found.mark = Some((past.0.into(), past.1.into()));
        assert_eq!(verdict(&found).0, GitOpsAction::Suspend, "{past:?}: of an isolation that is over");
    }
    found.run = Automation::Suspended;
    assert_eq!(verdict(&found).0, GitOpsAction::Suspended);
    found.mark = None;
    assert_eq!(verdict(&found), (GitOpsAction::Suspended, "by a person".to_owned()));
}

#[test]
fn one_namespace_is_named_in_the_singular_and_many_are_counted() {
    let names = ["a", "b", "c", "d", "e", "f", "g"].map(str::to_owned);
    assert_eq!(some("namespace", names[..1].iter()), "namespace a");
    assert_eq!(some("namespace", names[..5].iter()), "namespaces a, b, c, d, e");
    assert_eq!(some("namespace", names.iter()), "namespaces a, b, c, d, e and 2 more");
}

#[test]
fn a_status_never_holds_more_than_it_may() {
    let one = |n: usize| kustomization(json!({}), &[WEB]).report(DelivererState::Denied, &n.to_string());
    let all = bounded((0..100).map(one).collect());
    assert_eq!(all.len(), 64);
    assert_eq!(all[63].message, "and 37 more, which this list has no room for");
    assert!(bounded((0..64).map(one).collect()).iter().all(|listed| listed.kind == "Kustomization"));
}
