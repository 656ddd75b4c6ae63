//! Step `restoreBackup` with the real Velero, its S3 plugin and a real S3 server; and with a stand-in for Velero, named as one, where a
//! Restore has to stand still.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use control_plane::{ControlPlane, Options};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use rehearsal::velero::{API_VERSION, NAMESPACE, Programs, Velero};
use rehearsal::{DEADLINE, End, Shared, eventually, field, kind, text};
use resurgam::access::{Access, late, manifests};
use resurgam::plan::Plan;
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS, Stage, binding, deployment, role};

/// Namespace of a Velero that no server watches: the test writes what a server would.
const STAND_IN: &str = "velero-stand-in";

struct World {
    stage: Stage,
    velero: Mutex<Option<Velero>>,
}

impl End for World {
    fn end(&self) {
        drop(self.velero.lock().unwrap_or_else(PoisonError::into_inner).take());
        self.stage.end();
    }
}

static WORLD: Shared<World> = Shared::new();

/// A control plane with Velero, or `None` where a part is missing.
async fn world() -> Option<&'static World> {
    let programs = Programs::if_built().unwrap()?;
    let start = async || {
        // Velero's plugin is started for each call, on a machine that is busy enough.
        let long = |options: &mut rehearsal::OperatorOptions| options.lease_seconds = 15;
        let stage = Stage::start(ControlPlane::start(Options::default()).await?, long).await?;
        let velero = Velero::start(&stage.cluster, &programs).await?;
        let admin = stage.cluster.client(control_plane::Identity::PlatformAdministrator).await?;
        let stand_in = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": STAND_IN}});
        rehearsal::apply(&admin, "platform", &[stand_in]).await?;
        anyhow::Ok(World { stage, velero: Mutex::new(Some(velero)) })
    };
    Some(WORLD.get(start).await.unwrap())
}

/// A plan that restores service `new` from a Backup of the namespace of `shop`, and proves it afterwards.
fn plan(bench: &Bench, backup: &str, velero: &str) -> Value {
    let mut service = bench.service("new", &[]);
    service["ungated"] = json!({"reason": "a test: nothing is there before the restore"});
    service["restore"] = json!([{"name": "restore", "restoreBackup": {
        "backupName": backup, "veleroNamespace": velero, "from": bench.namespace("shop")}}]);
    let mut plan = bench.plan("plan", json!([service]));
    let gates = &mut plan["spec"]["defaults"]["gates"];
    let images = gates["beforeRestore"][0].clone();
    gates["beforeRestore"] = json!([]);
    gates["beforeRelease"].as_array_mut().unwrap().push(images);
    plan
}

/// What Velero's account needs to write into a namespace, by name.
fn granted(velero: &str, namespace: &str) -> [Value; 2] {
    let name = format!("{velero}-recover-{namespace}");
    let rules = json!([{"apiGroups": ["resurgam.dev"], "resources": ["quarantines"], "resourceNames": [namespace], "verbs": ["recover"]}]);
    [role("ClusterRole", &name, "", &rules), everywhere(&name, &name, velero)]
}

/// A ClusterRole for Velero's account.
fn everywhere(name: &str, role: &str, velero: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "velero", "namespace": velero}],
    })
}

/// What runs in the namespace of `shop`, which is backed up.
fn shop(namespace: &str) -> Vec<Value> {
    let meta = |name: &str| json!({"name": name, "namespace": namespace});
    let account = json!([{"kind": "ServiceAccount", "name": "app", "namespace": namespace}]);
    let read = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        deployment(namespace),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("settings"), "data": {"colour": "green"}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("db"), "stringData": {"password": "canary-Xai2ohch"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta("app")}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"),
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        role("Role", "app", namespace, &read),
        binding("Role", "app", namespace, &account),
        json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": meta("allow-all"),
            "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]}}),
    ]
}

/// An estate with the rights that `resurgam access` prints for the plan, and a new namespace, isolated. `grants`: those of Velero.
async fn bench(
    world: &'static World,
    case: &'static str,
    backup: &str,
    velero: &str,
    grants: Vec<Value>,
) -> Bench {
    let bench = Bench::on(&world.stage.cluster, case, &["new"], |all| {
        all.retain(|object| object["kind"] != "Deployment");
        all.extend(shop(&format!("{case}-shop")));
        all.extend(grants);
    })
    .await;
    let plan = plan(&bench, backup, velero);
    let spec = serde_json::from_value(plan["spec"].clone()).unwrap();
    // Those of Velero's account are each test's own.
    let access =
        Access { writers: BTreeMap::new(), ..Access::from_plan(&Plan::compile(case, "plan", "u", &spec)) };
    let rights: Vec<Value> = manifests(&[access]).into_iter().map(|manifest| manifest.object).collect();
    rehearsal::apply(&bench.admin, "platform", &rights).await.unwrap();
    bench.isolate(&["new"]).await;
    bench
}

/// Backs the namespace of `shop` up, once it runs.
async fn back_up(bench: &Bench, name: &str) {
    let namespace = bench.namespace("shop");
    let deployments = kind(&bench.admin, "apps/v1", "Deployment", Some(&namespace));
    let runs = |object: &Value| field(object, "/status/readyReplicas") == 1;
    eventually(&deployments, "web", "the shop to run", DEADLINE, runs).await.unwrap();
    let backup = json!({"apiVersion": API_VERSION, "kind": "Backup", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"includedNamespaces": [namespace], "snapshotVolumes": false, "storageLocation": "default", "ttl": "1h0m0s"}});
    rehearsal::apply(&bench.admin, "platform", &[backup]).await.unwrap();
    let backups = kind(&bench.admin, API_VERSION, "Backup", Some(NAMESPACE));
    let done = |object: &Value| text(object, "/status/phase") == "Completed";
    eventually(&backups, name, "the Backup to be complete", DEADLINE, done).await.unwrap();
}

/// All Restores of the plan's step, by who created them in the audit log: user, and name.
fn created(world: &World, bench: &Bench) -> Vec<(String, String)> {
    let log = std::fs::read_to_string(world.stage.cluster.audit_log()).unwrap();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains("restores"));
    let events = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
    let user = format!("system:serviceaccount:{}:recovery", bench.case);
    let made = events.filter(|event| {
        text(event, "/verb") == "create"
            && text(event, "/objectRef/resource") == "restores"
            && text(event, "/stage") == "ResponseComplete"
            && field(event, "/responseStatus/code") == 201
            && text(event, "/impersonatedUser/username") == user
    });
    made.map(|event| (user.clone(), text(&event, "/responseObject/metadata/name").to_owned())).collect()
}

fn step(record: &Value) -> (&str, &str) {
    (text(record, "/status/steps/0/state"), text(record, "/status/steps/0/message"))
}

#[tokio::test]
async fn backup_comes_back_in_a_new_quarantined_namespace() {
    let Some(world) = world().await else { return };
    let grants = granted(NAMESPACE, "vback-new").to_vec();
    let bench = bench(world, "vback", "vback", NAMESPACE, grants).await;
    back_up(&bench, "vback").await;
    let plan = plan(&bench, "vback", NAMESPACE);
    bench.apply(&plan).await;
    let record = bench.recovers("plan", "new").await;
    assert_eq!(step(&record).0, "Done");

    let new = bench.namespace("new");
    let [(_, restore)] = &created(world, &bench)[..] else { panic!("not one Restore") };
    for (version, kind_, name) in [
        ("apps/v1", "Deployment", "web"),
        ("v1", "ConfigMap", "settings"),
        ("v1", "Secret", "db"),
        ("v1", "Service", "web"),
        ("v1", "ServiceAccount", "app"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding", "app"),
    ] {
        let object = rehearsal::object(&kind(&bench.admin, version, kind_, Some(&new)), name).await.unwrap();
        let label = text(&object, "/metadata/labels/velero.io~1restore-name");
        assert_eq!(label, restore, "{kind_} {name}");
    }
    let settings = kind(&bench.admin, "v1", "ConfigMap", Some(&new));
    assert_eq!(text(&rehearsal::object(&settings, "settings").await.unwrap(), "/data/colour"), "green");
    let policies = kind(&bench.admin, "networking.k8s.io/v1", "NetworkPolicy", Some(&new));
    assert!(policies.get_opt("allow-all").await.unwrap().is_none(), "the network follows from the plan");
    bench.judged(&plan).await;
}

#[tokio::test]
async fn backup_comes_back_beside_its_sealed_original() {
    let Some(world) = world().await else { return };
    let case = "vbeside";
    let bench = Bench::on(&world.stage.cluster, case, &["shop"], |all| {
        all.retain(|object| object["kind"] != "Deployment");
        all.extend(shop("vbeside-shop"));
        all.extend(granted(NAMESPACE, "vbeside-new"));
    })
    .await;
    back_up(&bench, case).await;
    bench.isolate(&["shop"]).await;
    let mut plan = plan(&bench, case, NAMESPACE);
    plan["spec"]["services"][0]["replaces"] = json!([bench.namespace("shop")]);
    // What grants them in a namespace that is not there yet.
    let spec = serde_json::from_value(plan["spec"].clone()).unwrap();
    let access = Access::from_plan(&Plan::compile(case, "plan", "u", &spec));
    let rights: Vec<Value> = late(&[access]).into_iter().map(|manifest| manifest.object).collect();
    rehearsal::apply(&bench.admin, "platform", &rights).await.unwrap();
    bench.apply(&plan).await;
    bench.recovers("plan", "new").await;
    bench.stays_sealed("shop").await;
    let settings = kind(&bench.admin, "v1", "ConfigMap", Some(&bench.namespace("new")));
    let restored = rehearsal::object(&settings, "settings").await.unwrap();
    assert_eq!(text(&restored, "/data/colour"), "green");
    assert_eq!(created(world, &bench).len(), 1);
    bench.judged(&plan).await;
}

#[tokio::test]
async fn partially_failed_restore_fails_the_step() {
    let Some(world) = world().await else { return };
    let grants = granted(NAMESPACE, "vpart-new").to_vec();
    let bench = bench(world, "vpart", "vpart", NAMESPACE, grants).await;
    // A name that the fence leaves to the operator alone.
    let refused = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "resurgam-notes", "namespace": bench.namespace("shop")}});
    rehearsal::apply(&bench.admin, "platform", &[refused]).await.unwrap();
    back_up(&bench, "vpart").await;
    bench.apply(&plan(&bench, "vpart", NAMESPACE)).await;
    let record = bench.says("plan", "new", "StepFailed", &["PartiallyFailed: 1 errors"]).await;
    assert_eq!(text(&record, "/status/decision/reason"), "StepFailed", "{record}");
    assert_eq!(step(&record).0, "Failed");
    assert_eq!(created(world, &bench).len(), 1);
}

/// A complete Backup, as a server would have written it.
async fn stand_in_backup(bench: &Bench, name: &str) {
    let backup = json!({"apiVersion": API_VERSION, "kind": "Backup", "metadata": {"name": name, "namespace": STAND_IN},
        "spec": {"includedNamespaces": [bench.namespace("shop")]}, "status": {"phase": "Completed"}});
    rehearsal::apply(&bench.admin, "velero-stand-in", &[backup]).await.unwrap();
}

/// Writes a Restore's status as the stand-in.
async fn stand_in_status(bench: &Bench, name: &str, status: Value) {
    let restores = kind(&bench.admin, API_VERSION, "Restore", Some(STAND_IN));
    let patch = json!({"status": status});
    restores.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
}

#[tokio::test]
async fn restore_that_does_not_end_runs_on_and_is_created_once() {
    let Some(world) = world().await else { return };
    let mut grants = granted(STAND_IN, "vlong-new").to_vec();
    // Who writes what is meanwhile written: the fence asks them for `repair` beside this.
    let write =
        json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "get", "patch"]}]);
    let lead = json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "recovery-lead"}]);
    grants.push(role("ClusterRole", "vlong-write", "", &write));
    grants.push(binding("ClusterRole", "vlong-write", "vlong-new", &lead));
    let bench = bench(world, "vlong", "vlong", STAND_IN, grants).await;
    stand_in_backup(&bench, "vlong").await;
    let mut plan = plan(&bench, "vlong", STAND_IN);
    // A grant to people is there besides.
    plan["spec"]["services"][0]["restore"][0]["restoreBackup"]["expected"] =
        json!([{"kind": "RoleBinding", "name": "vlong-write"}]);
    bench.apply(&plan).await;
    bench
        .says("plan", "new", "StepRunning", &["Restore velero-stand-in/step-restore-1-", "has not begun"])
        .await;
    let [(_, restore)] = &created(world, &bench)[..] else { panic!("not one Restore") };
    stand_in_status(
        &bench,
        restore,
        json!({"phase": "InProgress", "progress": {"itemsRestored": 3, "totalItems": 12}}),
    )
    .await;
    bench.says("plan", "new", "StepRunning", &["InProgress, 3 of 12 items"]).await;

    world.stage.restart_operator();
    stand_in_status(&bench, restore, json!({"phase": "Finalizing"})).await;
    let record = bench.says("plan", "new", "StepRunning", &["Finalizing"]).await;
    assert_eq!(step(&record).0, "Running");
    assert_eq!(created(world, &bench).len(), 1, "it is followed, and not created again");

    // It ends, and not all that is there is its own.
    let config = |name: &str, labels: Value| {
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": "vlong-new", "labels": labels}})
    };
    let written =
        [config("settings", json!({"velero.io/restore-name": restore})), config("planted", json!({}))];
    rehearsal::apply(&bench.lead().await, "repair", &written).await.unwrap();
    stand_in_status(&bench, restore, json!({"phase": "Completed"})).await;
    let words = ["was written meanwhile: ConfigMap vlong-new/planted"];
    let record = bench.says("plan", "new", "StepFailed", &words).await;
    assert!(!step(&record).1.contains("settings"), "{record}");
    assert_eq!(created(world, &bench).len(), 1);
}

#[tokio::test]
async fn account_of_velero_without_a_grant_is_named_before_the_step() {
    let Some(world) = world().await else { return };
    let bench = bench(world, "vgrant", "vgrant", STAND_IN, Vec::new()).await;
    stand_in_backup(&bench, "vgrant").await;
    bench.apply(&plan(&bench, "vgrant", STAND_IN)).await;
    let user = "system:serviceaccount:velero-stand-in:velero";
    let words = [user, "--resource-name=vgrant-new", "--serviceaccount=velero-stand-in:velero"];
    bench.says("plan", "new", "VeleroNotGranted", &words).await;
    // The plan says so before the day as well.
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some("vgrant"));
    let says = |plan: &Value| {
        let conditions = field(plan, "/status/conditions").as_array();
        let prepared = conditions.and_then(|all| all.iter().find(|c| c["type"] == "Prepared"));
        let message = prepared.map_or("", |c| text(c, "/message"));
        [user, "quarantines.resurgam.dev/vgrant-new", "step restore"]
            .iter()
            .all(|word| message.contains(word))
    };
    eventually(&plans, "plan", "Prepared to name Velero's account", DEADLINE, says).await.unwrap();
    let restores = kind(&bench.admin, API_VERSION, "Restore", Some(STAND_IN));
    let made = async || {
        let all = restores.list(&ListParams::default()).await.unwrap();
        all.items.iter().filter(|restore| json!(restore)["spec"]["backupName"] == "vgrant").count()
    };
    assert_eq!(made().await, 0, "nothing is asked of Velero");

    // A lead, who may release the namespace, grants it.
    let lead = bench.lead().await;
    for object in granted(STAND_IN, "vgrant-new") {
        let objects = kind(&lead, "rbac.authorization.k8s.io/v1", text(&object, "/kind"), None);
        objects.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    bench.says("plan", "new", "StepRunning", &["has not begun"]).await;
    assert_eq!(made().await, 1);
}

#[tokio::test]
async fn account_of_velero_with_a_wildcard_is_named_before_the_step() {
    let Some(world) = world().await else { return };
    let velero = "velero-as-installed";
    let mut grants = granted(velero, "vwild-new").to_vec();
    grants.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": velero}}));
    grants.push(everywhere("vwild-velero", "cluster-admin", velero));
    let bench = bench(world, "vwild", "vwild", velero, grants).await;
    bench.apply(&plan(&bench, "vwild", velero)).await;
    let words = ["system:serviceaccount:velero-as-installed:velero", "by a wildcard", "docs/steps.md"];
    bench.says("plan", "new", "WildcardHolder", &words).await;
    assert_eq!(created(world, &bench), []);
}

#[tokio::test]
async fn namespace_with_its_old_content_is_not_restored_into() {
    let Some(world) = world().await else { return };
    let mut grants = granted(STAND_IN, "vold-new").to_vec();
    let planted = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "old", "namespace": "vold-new"}});
    grants.extend([planted, deployment("vold-new")]);
    let bench = bench(world, "vold", "vold", STAND_IN, grants).await;
    stand_in_backup(&bench, "vold").await;
    bench.apply(&plan(&bench, "vold", STAND_IN)).await;
    let words = ["is not empty", "new namespace", "ConfigMap vold-new/old", "Deployment vold-new/web"];
    bench.says("plan", "new", "StepFailed", &words).await;
    assert_eq!(created(world, &bench), []);
}

#[tokio::test]
async fn backup_that_is_missing_or_incomplete_is_not_restored() {
    let Some(world) = world().await else { return };
    let bench = bench(world, "vmiss", "vmiss", STAND_IN, granted(STAND_IN, "vmiss-new").to_vec()).await;
    bench.apply(&plan(&bench, "vmiss", STAND_IN)).await;
    bench.says("plan", "new", "StepFailed", &["Backup velero-stand-in/vmiss does not exist"]).await;
    stand_in_backup(&bench, "vmiss").await;
    let backups = kind(&bench.admin, API_VERSION, "Backup", Some(STAND_IN));
    let patch = json!({"status": {"phase": "PartiallyFailed"}});
    backups.patch("vmiss", &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    rehearsal::retry(&bench.lead().await, "vmiss", "plan", "new", "it is there").await.unwrap();
    bench.says("plan", "new", "StepFailed", &["is PartiallyFailed, and not Completed"]).await;
    assert_eq!(created(world, &bench), []);
}

#[tokio::test]
async fn account_without_rights_to_restores_is_named() {
    let Some(world) = world().await else { return };
    let bench = bench(world, "vdeny", "vdeny", STAND_IN, granted(STAND_IN, "vdeny-new").to_vec()).await;
    stand_in_backup(&bench, "vdeny").await;
    // All that `resurgam access` prints but to create Restores.
    let roles = kind(&bench.admin, "rbac.authorization.k8s.io/v1", "Role", Some(STAND_IN));
    for name in
        roles.list(&ListParams::default()).await.unwrap().items.into_iter().filter_map(|r| r.metadata.name)
    {
        let mut role = rehearsal::object(&roles, &name).await.unwrap();
        let bound = kind(&bench.admin, "rbac.authorization.k8s.io/v1", "RoleBinding", Some(STAND_IN));
        let bound = rehearsal::object(&bound, &name).await.unwrap();
        if text(&bound, "/subjects/0/namespace") != "vdeny" {
            continue;
        }
        for rule in role["rules"].as_array_mut().unwrap() {
            rule["verbs"].as_array_mut().unwrap().retain(|verb| verb != "create");
        }
        let patch = json!({"rules": role["rules"]});
        roles.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await.unwrap();
    }
    bench.apply(&plan(&bench, "vdeny", STAND_IN)).await;
    let words =
        ["create Restore velero-stand-in/step-restore-1-", "vdeny:recovery", "cannot create resource"];
    bench.says("plan", "new", "StepDenied", &words).await;
    assert_eq!(created(world, &bench), []);
}

#[tokio::test]
async fn cluster_without_velero_fails_the_step_and_says_so() {
    // On the control plane of other tests, which have no Velero.
    let bench = Bench::open("vnone", &["new"], |all| {
        all.retain(|object| object["kind"] != "Deployment");
        let rules = json!([{"apiGroups": ["velero.io"], "resources": ["restores", "backups"], "verbs": ["create", "get"]}]);
        all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}));
        all.push(role("Role", "vnone-restores", NAMESPACE, &rules));
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": "vnone"}]);
        all.push(binding("Role", "vnone-restores", NAMESPACE, &account));
    })
    .await;
    bench.isolate(&["new"]).await;
    bench.apply(&plan(&bench, "nightly", NAMESPACE)).await;
    bench
        .says("plan", "new", "StepFailed", &["does not serve Restores of velero.io/v1", "installs Velero"])
        .await;
}
