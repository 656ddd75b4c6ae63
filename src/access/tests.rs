use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;
use crate::api::RecoveryPlanSpec;
use crate::isolation::OPERATOR;

fn access(services: Value) -> Access {
    of(json!({"serviceAccountName": "recovery", "services": services}))
}

fn of(spec: Value) -> Access {
    let spec: RecoveryPlanSpec = serde_json::from_value(spec).unwrap();
    Access::from_plan(&Plan::compile("recovery", "library", "", &spec))
}

/// As RBAC names them, without what every list of this has.
fn rights(access: &Access) -> BTreeSet<String> {
    access.rights.keys().map(ToString::to_string).collect()
}

const KINDS: [&str; 7] = [
    "replicationcontrollers",
    "daemonsets.apps",
    "deployments.apps",
    "replicasets.apps",
    "statefulsets.apps",
    "cronjobs.batch",
    "jobs.batch",
];

fn lists(namespace: &str, pods: bool) -> BTreeSet<String> {
    let pods = pods.then_some("pods");
    KINDS.into_iter().chain(pods).map(|kind| format!("list {kind} in namespace {namespace}")).collect()
}

#[test]
fn gates_and_steps_require_their_rights() {
    let gate = |phase: &str, question: Value| {
        let mut gate = json!({"name": "gate"});
        gate.as_object_mut().unwrap().extend(question.as_object().unwrap().clone());
        json!([{"name": "db", "restore": [], "gates": {phase: [gate]}}])
    };
    let approved = format!("sha256:{}", "0".repeat(64));
    let images = json!({"imageDigests": {"approvedFrom": {"configMap": {"name": "approved"}}}});
    let list = "get configmaps/approved in namespace recovery".to_owned();
    let scale = |restore: Value| json!([{"name": "db", "restore": restore}]);
    let patches: BTreeSet<String> =
        KINDS[..5].iter().map(|kind| format!("patch {kind} in namespace db")).collect();
    let resume =
        json!([{"name": "db", "restore": [], "resume": [{"cronJob": "nightly"}, {"job": "import"}]}]);
    let table = [
        ("http", gate("beforeRelease", json!({"http": {"url": "http://example.org"}})), BTreeSet::new()),
        ("workloads", gate("beforeRelease", json!({"workloads": {}})), lists("db", true)),
        (
            "workloads before restore, which has no answer",
            gate("beforeRestore", json!({"workloads": {}})),
            BTreeSet::new(),
        ),
        (
            "digests in the plan",
            gate("beforeRestore", json!({"imageDigests": {"approved": [approved]}})),
            lists("db", true),
        ),
        (
            "digests elsewhere",
            gate("continuous", images),
            lists("db", true).into_iter().chain([list.clone()]).collect(),
        ),
        ("scale", scale(json!([{"name": "start", "scale": {}}])), &lists("db", false) | &patches),
        (
            "apply",
            scale(json!([{"name": "configure", "apply": {"configMaps": [{"name": "manifests"}]}}])),
            ["get configmaps/manifests in namespace recovery".to_owned()].into(),
        ),
        (
            "wait",
            scale(
                json!([{"name": "up", "wait": {"apiVersion": "example.org/v1", "kind": "Database", "name": "db"}}]),
            ),
            ["get databases.example.org/db in namespace db".to_owned()].into(),
        ),
        (
            "pinImages",
            scale(
                json!([{"name": "pin", "pinImages": {"approvedFrom": {"configMap": {"name": "approved"}}}}]),
            ),
            KINDS[..6]
                .iter()
                .flat_map(|kind| ["list", "patch"].map(|verb| format!("{verb} {kind} in namespace db")))
                .chain([list.clone()])
                .collect(),
        ),
        (
            "Flux",
            scale(json!([{"name": "back", "phase": "AfterRelease", "resume": {"flux": {
                "kind": "Kustomization", "namespace": "flux-system", "name": "shop", "revision": "sha1:0"}}}])),
            [
                "get kustomizations.kustomize.toolkit.fluxcd.io/shop in namespace flux-system",
                "patch kustomizations.kustomize.toolkit.fluxcd.io/shop in namespace flux-system",
                "get gitrepositories.source.toolkit.fluxcd.io in namespace flux-system",
                "get ocirepositories.source.toolkit.fluxcd.io in namespace flux-system",
                "get buckets.source.toolkit.fluxcd.io in namespace flux-system",
            ]
            .map(str::to_owned)
            .into(),
        ),
        (
            "Argo CD",
            scale(json!([{"name": "back", "phase": "AfterRelease", "resume": {"argocd": {
                "namespace": "argocd", "name": "shop", "revision": "0"}}}])),
            ["get", "patch"]
                .map(|verb| format!("{verb} applications.argoproj.io/shop in namespace argocd"))
                .into(),
        ),
        ("no step", scale(json!([])), BTreeSet::new()),
        ("the default step", json!([{"name": "db"}]), &lists("db", false) | &patches),
        (
            "resume",
            resume,
            [
                "list cronjobs.batch in namespace db",
                "list jobs.batch in namespace db",
                "patch cronjobs.batch/nightly in namespace db",
                "patch jobs.batch/import in namespace db",
            ]
            .map(str::to_owned)
            .into(),
        ),
    ];
    for (what, services, mut expected) in table {
        expected.insert("recover quarantines.resurgam.dev/db".to_owned());
        assert_eq!(rights(&access(services)), expected, "{what}");
    }
}

#[test]
fn quarantines_are_created_only_where_the_plan_says_so() {
    let create = "create quarantines.resurgam.dev";
    for (policy, services, needed) in [
        ("Create", json!([{"name": "db"}]), true),
        ("Create", json!([{"name": "mail", "namespaces": []}]), false),
        ("Require", json!([{"name": "db"}]), false),
    ] {
        let access = of(json!({"serviceAccountName": "a", "quarantinePolicy": policy, "services": services}));
        assert_eq!(rights(&access).contains(create), needed, "{policy} {services}");
    }
}

#[test]
fn an_external_system_needs_no_right_at_all() {
    let external = json!([{"name": "mail", "namespaces": [], "gates": {"beforeRelease": [
        {"name": "up", "http": {"url": "http://example.org"}}]}}]);
    assert_eq!(rights(&access(external)), BTreeSet::new());
}

/// All that the manifests grant, read back as RBAC would.
fn granted(manifests: &[Manifest]) -> BTreeSet<String> {
    let texts = |of: &Value| -> Vec<String> {
        of.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let mut all = BTreeSet::new();
    for role in manifests.iter().map(|m| &m.object).filter(|o| o["kind"].as_str().unwrap().ends_with("Role"))
    {
        let place = role["metadata"]["namespace"].as_str();
        for rule in role["rules"].as_array().unwrap() {
            let mut names = texts(&rule["resourceNames"]).into_iter().map(Some).collect::<Vec<_>>();
            if names.is_empty() {
                names.push(None);
            }
            for group in texts(&rule["apiGroups"]) {
                for resource in texts(&rule["resources"]) {
                    for verb in texts(&rule["verbs"]) {
                        for name in &names {
                            let right = Right {
                                namespace: place.map(str::to_owned),
                                group: group.clone(),
                                resource: resource.clone(),
                                verb: Box::leak(verb.clone().into_boxed_str()),
                                name: name.clone(),
                            };
                            all.insert(right.to_string());
                        }
                    }
                }
            }
        }
    }
    all
}

fn everything() -> Access {
    let images =
        json!({"name": "images", "imageDigests": {"approvedFrom": {"configMap": {"name": "approved"}}}});
    of(json!({
        "serviceAccountName": "recovery",
        "quarantinePolicy": "Create",
        "defaults": {"gates": {"beforeRestore": [images], "beforeRelease": [{"name": "up", "workloads": {}}]}},
        "services": [
            {"name": "db", "namespaces": ["db", "db-cache"]},
            {"name": "web", "restore": [], "resume": [{"cronJob": "nightly"}, {"cronJob": "hourly"}, {"job": "nightly"}]},
        ],
    }))
}

#[test]
fn manifests_grant_the_required_rights_only() {
    let access = everything();
    let mut needed = rights(&access);
    let late = needed.iter().map(|right| right.split(" in namespace ").next().unwrap().to_owned()).collect();
    assert_eq!(granted(&super::late(std::slice::from_ref(&access))), late, "late");
    needed.insert("impersonate serviceaccounts/recovery in namespace recovery".to_owned());
    assert_eq!(granted(&manifests(&[access])), needed);
}

#[test]
fn plans_sharing_an_account_have_their_own_roles() {
    let spec = json!({"serviceAccountName": "recovery", "services": [{"name": "db"}]});
    let spec: RecoveryPlanSpec = serde_json::from_value(spec).unwrap();
    let plans = ["one", "two"].map(|name| Access::from_plan(&Plan::compile("recovery", name, "", &spec)));
    let all = manifests(&plans);
    let count = |kind: &str| all.iter().filter(|m| m.object["kind"] == kind).count();
    let counts = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"].map(count);
    assert_eq!(counts, [1, 3, 3, 2, 2]);
}

#[test]
fn printed_manifests_are_readable_and_valid() {
    insta::assert_snapshot!("printed", yaml(&manifests(&[everything()])).unwrap());
    insta::assert_snapshot!("printed_late", yaml(&late(&[everything()])).unwrap());
}

#[test]
fn printed_manifests_parse_to_the_same_rights() {
    // Names that YAML takes for something else, and a list that is long.
    let services: Vec<Value> = ["no", "123", "1e3", "null", "0x1f", "on"]
        .into_iter()
        .map(str::to_owned)
        .chain((0..40).map(|n| format!("service-{n}")))
        .map(|name| json!({"name": name}))
        .collect();
    let all = manifests(&[access(json!(services))]);
    let text = yaml(&all).unwrap();
    let read: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
        .map(|document| serde::Deserialize::deserialize(document).unwrap())
        .collect();
    assert_eq!(read, all.into_iter().map(|manifest| manifest.object).collect::<Vec<_>>());
}

fn compared(missing: impl Fn(&CheckQuestion) -> Answer, isolated: bool) -> Comparison {
    let access =
        access(json!([{"name": "db", "gates": {"beforeRelease": [{"name": "up", "workloads": {}}]}}]));
    let answers = access.questions().into_iter().map(|question| {
        let answer = missing(&question);
        (question, answer)
    });
    access.compare(answers.collect(), isolated)
}

fn is_granted(question: &CheckQuestion) -> bool {
    !matches!(question, CheckQuestion::Wildcard { .. })
}

/// Kind and place of what is to be applied; of what is of the cluster, whether it is for all namespaces.
fn applied(found: &Comparison) -> Vec<(&str, &str)> {
    found
        .apply
        .iter()
        .map(|m| {
            let text = |at: &str| m.object.pointer(at).and_then(Value::as_str);
            let late = text("/metadata/name").is_some_and(|name| name.ends_with(":late"));
            let place = text("/metadata/namespace").unwrap_or(if late { "everywhere" } else { "" });
            (text("/kind").unwrap(), place)
        })
        .collect()
}

#[test]
fn only_manifests_of_missing_rights_are_returned() {
    let lacks = |verb: &'static str| {
        move |question: &CheckQuestion| match question {
            CheckQuestion::May { right, .. } => Ok(right.verb != verb),
            other => Ok(is_granted(other)),
        }
    };
    let no_account =
        |question: &CheckQuestion| Ok(*question != CheckQuestion::Account && is_granted(question));
    let all = |question: &CheckQuestion| Ok(is_granted(question));
    let in_db = vec![("Role", "db"), ("RoleBinding", "db")];
    let of_cluster = vec![("ClusterRole", ""), ("ClusterRoleBinding", "")];
    let everywhere = vec![("ClusterRole", "everywhere"), ("ClusterRoleBinding", "everywhere")];
    let own = vec![("Role", "recovery"), ("RoleBinding", "recovery")];
    type Case<'a> = (&'a str, Comparison, usize, Vec<(&'a str, &'a str)>);
    let cases: [Case; 8] = [
        ("nothing", compared(all, false), 0, vec![]),
        ("the account", compared(no_account, false), 1, vec![("ServiceAccount", "recovery")]),
        ("impersonation", compared(lacks("impersonate"), false), 1, own),
        ("recover", compared(lacks("recover"), false), 1, of_cluster.clone()),
        ("patches", compared(lacks("patch"), false), 5, in_db),
        ("recover, late", compared(lacks("recover"), true), 1, of_cluster),
        ("patches, late", compared(lacks("patch"), true), 5, everywhere),
        ("impersonation, late: not a lead's", compared(lacks("impersonate"), true), 1, vec![]),
    ];
    for (what, found, missing, to_apply) in cases {
        assert_eq!((found.missing.len(), applied(&found)), (missing, to_apply), "{what}");
        assert_eq!(found.is_complete(), missing == 0, "{what}");
        // The account, impersonation, recover, 8 lists and 5 patches.
        assert_eq!((found.needed, found.unknown.len(), found.wildcards.len()), (16, 0, 0), "{what}");
    }
}

#[test]
fn wildcards_and_unknown_answers_are_no_grant() {
    let wildcard = compared(|_| Ok(true), false);
    assert_eq!((wildcard.wildcards.len(), wildcard.is_complete()), (1, false));
    let silent = compared(|_| Err("no answer within 15 s".to_owned()), false);
    assert_eq!((silent.unknown.len(), silent.missing.len()), (17, 0));
    assert!(silent.apply.is_empty(), "nothing is applied on a guess");
}

#[test]
fn the_operator_is_asked_about_as_the_account_that_it_runs_as() {
    let asked = access(json!([{"name": "db"}])).questions();
    let operators = asked.iter().filter(|question| {
        matches!(question, CheckQuestion::May { user, right, .. } if user == OPERATOR && right.verb == "impersonate")
    });
    assert_eq!(operators.count(), 1);
}

#[test]
fn account_that_restores_a_backup_is_granted_its_clean_room() {
    let restore = json!([{"name": "restore", "restoreBackup": {"backupName": "nightly", "veleroAccount": "backup-server"}}]);
    let access = access(json!([{"name": "db", "restore": restore}, {"name": "web", "restore": restore}]));
    let velero = "system:serviceaccount:velero:backup-server";
    let lacks = |question: &CheckQuestion| match question {
        CheckQuestion::May { user, .. } => Ok(user != velero),
        CheckQuestion::Wildcard { user, .. } => Ok(user == velero),
        CheckQuestion::Account => Ok(true),
    };
    let answers = access.questions().into_iter().map(|question| {
        let answer = lacks(&question);
        (question, answer)
    });
    let found = access.compare(answers.collect(), false);
    let named =
        |gaps: &[Gap]| gaps.iter().map(|gap| format!("{} {}", gap.user, gap.what)).collect::<Vec<_>>();
    let wants = |what: &str| vec![format!("{velero} {what}/db"), format!("{velero} {what}/web")];
    assert_eq!(named(&found.missing), wants("recover quarantines.resurgam.dev"));
    assert_eq!(named(&found.wildcards), wants("a wildcard on quarantines.resurgam.dev"));
    insta::assert_snapshot!("printed_writer", yaml(&found.apply).unwrap());
    let late = super::late(std::slice::from_ref(&access));
    assert!(
        found.apply.iter().all(|manifest| late.contains(manifest)),
        "a recovery lead can grant it on the day"
    );
}

#[test]
fn a_baseline_gate_lists_everything_and_writes_nothing() {
    let baseline = json!({"configMaps": [{"name": "approved"}], "publicKeys": ["key"], "secretKeyFrom": {"secret": {"name": "digest-key"}, "key": "key"}});
    let access = access(
        json!([{"name": "db", "restore": [], "gates": {"beforeRestore": [{"name": "gate", "baseline": baseline}]}}]),
    );
    let all = rights(&access);
    for right in [
        "get configmaps/approved in namespace recovery",
        "get secrets/digest-key in namespace recovery",
        "get namespaces/db",
        "list *.* in namespace db",
        "list clusterroles.rbac.authorization.k8s.io",
        "list mutatingwebhookconfigurations.admissionregistration.k8s.io",
    ] {
        assert!(all.contains(right), "{right}: {all:?}");
    }
    // The fence refuses whoever holds every verb on Quarantines: only those that a recovery needs are granted.
    let verbs: BTreeSet<&str> = access.rights.keys().map(|right| right.verb).collect();
    assert_eq!(verbs, BTreeSet::from(["get", "list", "recover"]));
    let text = yaml(&manifests(&[access])).unwrap();
    assert!(text.contains("# In the whole cluster, for: gate gate, letting out of quarantine."), "{text}");
}
