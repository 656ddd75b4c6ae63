//! An inspection namespace: sealed, empty, then a clean room in which a gate runs its program, and nobody else anything.

use control_plane::Identity;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use resurgam::api::gate::JobResultSpec;
use resurgam::api::quarantine::Purpose;
use resurgam::api::{
    DnsLabel, GateSpec, Isolation, Phase, Quarantine, QuarantineLevel, QuarantineSpec, Verdict,
};
use resurgam::gates::{Account, Asker, Question};
use resurgam::isolation::network;
use serde_json::json;

use crate::isolation::api;
use crate::isolation::support::{
    acting_as, apply, client, controller, isolate, namespace, object, ready, refused, until,
};

/// What `resurgam access` prints for the gate.
const RIGHTS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: inspecting-plan}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: recovery, namespace: inspecting-plan}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: inspecting}
rules:
- {apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [inspecting], verbs: [get, recover]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: inspecting}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: inspecting}
subjects: [{kind: ServiceAccount, name: recovery, namespace: inspecting-plan}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: inspecting, namespace: inspecting}
rules:
- {apiGroups: [batch], resources: [jobs], verbs: [create, get, list, delete]}
- {apiGroups: [""], resources: [pods], verbs: [list]}
- {apiGroups: [""], resources: [pods/log], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: inspecting, namespace: inspecting}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: inspecting}
subjects: [{kind: ServiceAccount, name: recovery, namespace: inspecting-plan}]
"#;

async fn isolate_for_inspection(name: &str) {
    let api: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let spec = QuarantineSpec {
        isolation: QuarantineLevel::Sealed,
        reason: "evidence is looked at here".into(),
        purpose: Purpose::Inspection,
        ..QuarantineSpec::default()
    };
    api.create(&PostParams::default(), &Quarantine::new(name, spec)).await.unwrap();
}

#[tokio::test]
async fn gate_runs_its_program_where_nobody_else_can() {
    let _running = controller().await;
    let tenant = namespace("inspecting").await;
    apply(&client(Identity::PlatformAdministrator).await, RIGHTS).await;
    let image = format!("registry.example/scanner@sha256:{}", "a".repeat(64));
    let pod = json!({"containers": [{"name": "scan", "image": image, "env": [{"name": "KWOK_RESULT", "value": "12 files"}]}]});
    let spec = JobResultSpec {
        inspection_namespace: DnsLabel("inspecting".into()),
        looks_at: vec![resurgam::api::Aspect::Volumes],
        pod: pod.as_object().unwrap().clone(),
        ..JobResultSpec::default()
    };
    let gate = GateSpec { name: "scan".into(), job_result: Some(spec), ..GateSpec::default() };
    let question = Question::new("inspecting-plan", vec!["shop".into()], Phase::BeforeRestore, gate);
    let account = Account {
        user: "system:serviceaccount:inspecting-plan:recovery".into(),
        client: acting_as("inspecting-plan", "recovery").await,
    };
    let asker = Asker::new(Vec::new()).unwrap();
    isolate_for_inspection("inspecting").await;
    ready("inspecting", Isolation::CleanRoom).await;

    let policies = api::<NetworkPolicy>(&tenant, "inspecting");
    let policy = object(policies, network::CLEAN_ROOM, "there", |_| true).await;
    let egress = policy.spec.unwrap().egress.unwrap();
    assert_eq!(egress.len(), 1, "it reaches itself alone: {egress:?}");
    let mine: Pod = serde_json::from_value(
        json!({"metadata": {"name": "mine"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    let outcome = api::<Pod>(&tenant, "inspecting").create(&PostParams::default(), &mine).await;
    refused("a pod of the tenant", "resurgam-write-fence", outcome);

    let answer = loop {
        let answer = asker.ask(&account, &question).await;
        if !["InProgress", "Forbidden", "NotIsolated"].contains(&answer.reason.as_str()) {
            break answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    };
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Pass, "NothingDetected"), "{answer:?}");

    // On call tightens it as any other; nothing is inspected any more.
    let quarantines: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let hold = json!({"spec": {"hold": "Sealed"}});
    quarantines.patch("inspecting", &PatchParams::default(), &Patch::Merge(&hold)).await.unwrap();
    until("inspecting", "sealed", |q| q.status.as_ref().unwrap().isolation == Some(Isolation::Sealed)).await;
    let answer = asker.ask(&account, &question).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NotIsolated"), "{answer:?}");
}

#[tokio::test]
async fn namespace_in_which_anything_ran_inspects_nothing() {
    let _running = controller().await;
    let tenant = namespace("inspected-before").await;
    let template = json!({"metadata": {"labels": {"app": "left"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    let left = json!({"metadata": {"name": "left"}, "spec": {"selector": {"matchLabels": {"app": "left"}}, "template": template}});
    let left: Deployment = serde_json::from_value(left).unwrap();
    api::<Deployment>(&tenant, "inspected-before").create(&PostParams::default(), &left).await.unwrap();
    isolate_for_inspection("inspected-before").await;
    let why = "something ran in it when it was isolated";
    let is_held = |q: &Quarantine| {
        let conditions = q.status.iter().flat_map(|status| &status.conditions);
        conditions.filter(|c| c.type_ == "Ready" && c.status == "True").any(|c| c.message.contains(why))
    };
    until("inspected-before", "kept from it", is_held).await;
    ready("inspected-before", Isolation::Sealed).await;

    // What is isolated is not turned into one, nor back.
    namespace("inspected-never").await;
    isolate("inspected-never", QuarantineLevel::Sealed).await;
    let quarantines: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    for (name, purpose) in [("inspected-never", "Inspection"), ("inspected-before", "Isolation")] {
        let patch = json!({"spec": {"purpose": purpose}});
        let outcome = quarantines.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        let error = outcome.unwrap_err().to_string();
        assert!(error.contains("when its Quarantine is created"), "{error}");
    }
    let spec =
        QuarantineSpec { reason: "a test".into(), purpose: Purpose::Inspection, ..QuarantineSpec::default() };
    let contained = Quarantine::new("inspected-contained", spec);
    let error = quarantines.create(&PostParams::default(), &contained).await.unwrap_err().to_string();
    assert!(error.contains("an inspection namespace is sealed first"), "{error}");
}
