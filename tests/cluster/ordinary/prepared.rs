//! A plan says what it lacks before the day, and notices what is created, without being edited.

use kube::api::{DeleteParams, Patch, PatchParams};
use rehearsal::{DEADLINE, condition, eventually, field, kind, text};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, DIGEST, KINDS, binding, role};

/// Waits until the plan's `Prepared` has this status and says these words, and none of the others.
async fn says(bench: &Bench, plan: &str, status: &str, words: &[&str], without: &[&str]) -> Value {
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some(bench.case));
    let what = format!("plan {plan} to be Prepared={status}: {words:?} without {without:?}");
    let said = |o: &Value| {
        let conditions = field(o, "/status/conditions").as_array();
        let prepared = conditions.into_iter().flatten().find(|c| c["type"] == "Prepared");
        prepared.is_some_and(|c| {
            let message = c["message"].as_str().unwrap_or_default();
            c["status"] == status
                && c["observedGeneration"] == o["metadata"]["generation"]
                && words.iter().all(|word| message.contains(word))
                && !without.iter().any(|word| message.contains(word))
        })
    };
    eventually(&plans, plan, &what, DEADLINE, said).await.unwrap()
}

/// Ready and Stalled are those of a sound Dormant plan.
fn is_sound_and_dormant(plan: &Value) {
    assert_eq!((condition(plan, "Ready"), condition(plan, "Stalled")), ("True", ""), "{plan}");
    assert_eq!(condition(plan, "Reconciling"), "", "{plan}");
}

/// Takes the manifests of these kinds.
fn take(all: &mut Vec<Value>, kinds: &[&str]) -> Vec<Value> {
    let (taken, left) = all.drain(..).partition(|m| kinds.contains(&m["kind"].as_str().unwrap()));
    *all = left;
    taken
}

#[tokio::test]
async fn dormant_plan_names_all_gaps_and_notices_each_closed() {
    let mut missing = Vec::new();
    // Nothing exists but the namespace of the plan.
    let bench = Bench::open("prepared", &["web"], |all| missing = all.split_off(1)).await;
    let mut plan = bench.plan("plan", json!([bench.service("web", &[])]));
    plan["spec"].as_object_mut().unwrap().remove("incidentRef");
    bench.apply(&plan).await;

    let account = "ServiceAccount prepared/recovery does not exist";
    let list = "ConfigMap prepared/approved-images does not exist (gate images)";
    let namespace = "namespace prepared-web (service web) does not exist";
    let impersonate = "the operator may not impersonate ServiceAccount prepared/recovery";
    let recover = "may not recover quarantines.resurgam.dev/prepared-web";
    let read = "may not get configmaps/approved-images in namespace prepared";
    let inventory = "in namespace prepared-web";
    let all = [account, list, namespace, impersonate, recover, read, "may not list", inventory];
    is_sound_and_dormant(&says(&bench, "plan", "False", &all, &[]).await);

    let create = async |manifests: Vec<Value>| {
        assert!(!manifests.is_empty());
        rehearsal::apply(&bench.admin, "platform", &manifests).await.unwrap();
    };
    create(take(&mut missing, &["ServiceAccount"])).await;
    says(&bench, "plan", "False", &[list, namespace, recover], &[account]).await;
    create(take(&mut missing, &["Namespace"])).await;
    says(&bench, "plan", "False", &[list, recover], &[account, namespace]).await;
    let mut lists = take(&mut missing, &["ConfigMap"]);
    lists[0]["data"]["images"] = json!("no-digest");
    create(lists.clone()).await;
    says(&bench, "plan", "False", &[read, recover], &[account, namespace, list]).await;
    // The rights, which are not watched. Only then can the list be read, and it cannot be used.
    let patch = json!({
        "apiGroups": ["", "apps"], "verbs": ["patch"],
        "resources": ["replicationcontrollers", "statefulsets", "daemonsets", "replicasets"],
    });
    let restores = |manifest: &&mut Value| {
        manifest["metadata"]["name"] == "prepared-restore" && manifest["kind"] == "ClusterRole"
    };
    let role = missing.iter_mut().find(restores).unwrap();
    role["rules"].as_array_mut().unwrap().push(patch);
    create(missing).await;
    let unusable = "ConfigMap prepared/approved-images, key images, line 1";
    says(&bench, "plan", "False", &["1 missing", unusable], &[recover, read]).await;
    lists[0]["data"]["images"] = json!(DIGEST);
    create(lists).await;
    let prepared = says(&bench, "plan", "True", &["recovery"], &[]).await;
    is_sound_and_dormant(&prepared);
    assert_eq!(prepared["metadata"]["generation"], 1, "nobody edited the plan");
    assert_eq!(text(&prepared, "/status/progress"), "0/1");

    // What is lost is noticed, too.
    let accounts = kind(&bench.admin, "v1", "ServiceAccount", Some(bench.case));
    accounts.delete("recovery", &DeleteParams::default()).await.unwrap();
    is_sound_and_dormant(&says(&bench, "plan", "False", &["1 missing", account], &[]).await);
}

#[tokio::test]
async fn armed_plan_says_what_it_lacks_and_goes_on() {
    let bench = Bench::open("prepared-armed", &["web"], |_| {}).await;
    let plans = kind(&bench.admin, KINDS, "RecoveryPlan", Some(bench.case));
    let mut plan = bench.plan(
        "plan",
        json!([bench.service("web", &[]), {"name": "gone", "namespaces": ["no-such-namespace"]}]),
    );
    plan["spec"].as_object_mut().unwrap().remove("incidentRef");
    bench.apply(&plan).await;
    let gone = "namespace no-such-namespace (service gone) does not exist";
    is_sound_and_dormant(&says(&bench, "plan", "False", &[gone], &["Incident"]).await);
    let arm = Patch::Merge(json!({"spec": {"incidentRef": {"name": "no-such-incident"}}}));
    plans.patch("plan", &PatchParams::default(), &arm).await.unwrap();
    let incident = "Incident no-such-incident does not exist";
    let armed = says(&bench, "plan", "False", &[gone, incident], &[]).await;
    assert_eq!((condition(&armed, "Ready"), condition(&armed, "Stalled")), ("False", "True"), "{armed}");

    // A gap of one service blocks no other.
    let plan = bench.plan(
        "other",
        json!([bench.service("web", &[]), {"name": "gone", "namespaces": ["no-such-namespace"]}]),
    );
    bench.isolate(&["web"]).await;
    bench.apply(&plan).await;
    says(&bench, "other", "False", &[gone], &[]).await;
    bench.recovers("other", "web").await;
}

#[tokio::test]
async fn party_that_may_not_approve_is_a_gap_before_the_day() {
    let bench = Bench::open("prepared-people", &["web"], |_| {}).await;
    let mut web = bench.service("web", &[]);
    web["gates"] = json!({"beforeRelease": [{"name": "councils", "approval": {"parties": [{"name": "wcc", "group": "wcc-leads"}]}}]});
    let mut plan = bench.plan("plan", json!([web]));
    plan["spec"].as_object_mut().unwrap().remove("incidentRef");
    bench.apply(&plan).await;
    let gap = "group wcc-leads of party wcc may not approve (gate councils): bind it to ClusterRole resurgam-approver";
    is_sound_and_dormant(&says(&bench, "plan", "False", &[gap], &[]).await);
    let bound = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "approvers", "namespace": "prepared-people"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "resurgam-approver"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "wcc-leads"}],
    });
    rehearsal::apply(&bench.admin, "platform", &[bound]).await.unwrap();
    // Roles are not watched: it is asked again after 30 s.
    says(&bench, "plan", "False", &[], &[gap]).await;
}

#[tokio::test]
async fn manifests_that_cannot_be_applied_are_a_gap_before_the_day() {
    let case = "prepared-apply";
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";
    let widget = "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: w}\n";
    let manifests = |documents: &[&str]| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop", "namespace": case},
            "data": {"all.yaml": documents.join("---\n")},
        })
    };
    let bench = Bench::open(case, &["web"], |all| {
        all.push(manifests(&[service, widget]));
        let read = json!([{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["shop"], "verbs": ["get"]}]);
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
        all.extend([role("Role", "read-shop", case, &read), binding("Role", "read-shop", case, &account)]);
    })
    .await;
    let mut web = bench.service("web", &[]);
    web["restore"] = json!([{"name": "configure", "apply": {"configMaps": [{"name": "shop"}]}}]);
    let mut plan = bench.plan("plan", json!([web]));
    plan["spec"].as_object_mut().unwrap().remove("incidentRef");
    bench.apply(&plan).await;
    let kind_missing = "Widget prepared-apply-web/w: the API server does not serve kind Widget in example.org/v1: install its CRD (step \
                        configure of web)";
    is_sound_and_dormant(&says(&bench, "plan", "False", &[kind_missing], &[]).await);
    rehearsal::apply(&bench.admin, "platform", &[manifests(&[service])]).await.unwrap();
    let right_missing = "system:serviceaccount:prepared-apply:recovery may not create services in namespace prepared-apply-web";
    says(&bench, "plan", "False", &[right_missing], &["Widget"]).await;
    let apply = json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["get", "create", "patch"]}]);
    let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
    let grant = [
        role("Role", "apply-shop", "prepared-apply-web", &apply),
        binding("Role", "apply-shop", "prepared-apply-web", &account),
    ];
    rehearsal::apply(&bench.admin, "platform", &grant).await.unwrap();
    says(&bench, "plan", "True", &["all "], &[]).await;
}
