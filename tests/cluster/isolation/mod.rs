//! Isolation on a real API server, as the accounts that would do it, and as those who would undo it.

mod api_servers;
mod deliverers;
mod evidence;
mod guard;
mod identity;
mod inspection;
mod interrupted;
mod limits;
mod lists;
mod meanwhile;
mod node_network;
mod node_tried;
mod offline;
mod operate;
mod planted;
mod pods;
mod quotas;
mod races;
mod recovery;
mod release;
mod room;
mod s3;
mod snapshots;
mod static_manifests;
mod support;
mod unreadable_objects;
mod volumes;
mod webhooks;

use std::collections::BTreeMap;

use control_plane::Identity;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod, ReplicationController, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use resurgam::api::quarantine::{ControlName, ControlState};
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, RECORDED_ANNOTATION, SEALED_LABEL, conditions};
use resurgam::isolation::controls::pods::is_live;
use resurgam::isolation::workloads::{NOWHERE, recorded_nodes, recorded_replicas, recorded_suspend};
use resurgam::isolation::{OPERATOR, PROBER, PROBER_WITHIN, network, policies};
use serde_json::json;
use support::{
    allowing, alone, apply, client, controller, isolate, namespace, object, quarantine, ready, records_of,
    refused, rig, stopped, until,
};

fn api<K>(client: &Client, namespace: &str) -> Api<K>
where
    K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(client.clone(), namespace)
}

/// Fills a namespace with every kind of workload and waits until its pods run.
async fn fill(tenant: &Client, name: &str) {
    apply(tenant, &include_str!("workloads.yaml").replace("NAMESPACE", name)).await;
    let up = |status: Option<i32>, wanted| status == Some(wanted);
    object::<Deployment>(api(tenant, name), "web", "available", |d| {
        up(d.status.as_ref().and_then(|s| s.available_replicas), 2)
    })
    .await;
    object::<StatefulSet>(api(tenant, name), "db", "available", |s| {
        up(s.status.as_ref().and_then(|s| s.available_replicas), 1)
    })
    .await;
    object::<DaemonSet>(api(tenant, name), "agent", "available", |d| {
        up(d.status.as_ref().and_then(|s| s.number_available), 2)
    })
    .await;
    object::<Pod>(api(tenant, name), "bare", "running", |p| {
        p.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Running")
    })
    .await;
}

async fn live(tenant: &Client, name: &str) -> Vec<String> {
    let pods = api::<Pod>(tenant, name).list(&ListParams::default()).await.unwrap().items;
    pods.iter().filter(|pod| is_live(pod)).map(ResourceExt::name_any).collect()
}

fn control(quarantine: &Quarantine, name: ControlName) -> ControlState {
    let controls = &quarantine.status.as_ref().unwrap().controls;
    controls.iter().find(|control| control.name == name).unwrap().state
}

/// Wherever it was tried: whether that was everywhere depends on what the tests that share the control plane list.
fn was_refused(quarantine: &Quarantine, name: ControlName) {
    let controls = &quarantine.status.as_ref().unwrap().controls;
    let control = controls.iter().find(|control| control.name == name).unwrap();
    assert!(control.message.starts_with("tried, and refused by the policy at "), "{control:?}");
}

#[tokio::test]
async fn contained_pods_live_and_sealing_stops_every_workload_kind() {
    let _running = controller().await;
    let tenant = namespace("whole").await;
    fill(&tenant, "whole").await;
    let alive = live(&tenant, "whole").await;

    isolate("whole", QuarantineLevel::Contained).await;
    let contained = ready("whole", Isolation::Contained).await;
    assert_eq!(live(&tenant, "whole").await, alive, "memory is evidence");
    was_refused(&contained, ControlName::Lock);
    was_refused(&contained, ControlName::Fence);
    assert_eq!(control(&contained, ControlName::Network), ControlState::Unverifiable);
    assert_eq!(control(&contained, ControlName::Workloads), ControlState::NotRequired);
    let status = contained.status.clone().unwrap();
    assert!(conditions::is_true(&status.conditions, conditions::FENCE_INTACT));
    attack(Identity::TenantAdministrator, "whole", "(contained)").await;
    attack(Identity::GitOps, "whole", "(contained)").await;
    assert_eq!(allowing(&tenant, "whole").await, [network::DEFAULT_DENY], "what allowed selects nothing");

    // Whoever is on call may tighten it.
    let quarantines: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    let tighten = Patch::Merge(json!({"spec": {"isolation": "Sealed"}}));
    quarantines.patch("whole", &PatchParams::default(), &tighten).await.unwrap();
    let sealed = ready("whole", Isolation::Sealed).await;
    assert_eq!(live(&tenant, "whole").await, Vec::<String>::new());
    assert_eq!(control(&sealed, ControlName::Workloads), ControlState::Tested);
    let seal = sealed.uid().unwrap();
    let web = api::<Deployment>(&tenant, "whole").get("web").await.unwrap();
    assert_eq!((web.spec.unwrap().replicas, recorded_replicas(&web.metadata, &seal)), (Some(0), Some(2)));
    let db = api::<StatefulSet>(&tenant, "whole").get("db").await.unwrap();
    assert_eq!(recorded_replicas(&db.metadata, &seal), Some(1));
    let lone = api::<ReplicaSet>(&tenant, "whole").get("lone").await.unwrap();
    assert_eq!(recorded_replicas(&lone.metadata, &seal), Some(1));
    let old = api::<ReplicationController>(&tenant, "whole").get("old").await.unwrap();
    assert_eq!(recorded_replicas(&old.metadata, &seal), Some(1));
    let agent = api::<DaemonSet>(&tenant, "whole").get("agent").await.unwrap();
    let nodes = BTreeMap::from([("kubernetes.io/os".to_owned(), "linux".to_owned())]);
    assert_eq!(recorded_nodes(&agent.metadata, &seal), Some(nodes));
    let selector = agent.spec.unwrap().template.spec.unwrap().node_selector.unwrap();
    assert!(selector.contains_key(NOWHERE));
    let nightly = api::<CronJob>(&tenant, "whole").get("nightly").await.unwrap();
    assert_eq!(nightly.spec.unwrap().suspend, Some(true));
    assert_eq!(recorded_suspend(&nightly.metadata, &seal), Some(false));
    let import = api::<Job>(&tenant, "whole").get("import").await.unwrap();
    assert_eq!(import.spec.unwrap().suspend, Some(true));

    // Evidence was taken of the processes before they went, without the password.
    let kept = sealed.status.unwrap().capture.unwrap();
    assert_ne!(Some(&kept), status.capture.as_ref(), "each sealing has its own");
    assert_eq!(kept.missing, Vec::<String>::new());
    let logs = i64::try_from(alive.len() - 1).unwrap();
    assert_eq!(kept.logs, Some(logs), "of each but that of the Job, which never starts");
    let evidence = evidence::manifests(rig().await.evidence.path(), "whole", &kept);
    let objects = evidence["objects"].as_array().unwrap();
    let of_kind = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).collect::<Vec<_>>();
    let pods: Vec<_> = of_kind("Pod").iter().map(|pod| pod["metadata"]["name"].as_str().unwrap()).collect();
    assert!(alive.iter().all(|name| pods.contains(&name.as_str())), "{alive:?} in {pods:?}");
    assert!(!of_kind("Event").is_empty());
    assert_eq!(of_kind("Secret").len(), 1);
    assert!(
        !evidence.to_string().contains("do-not-keep-me")
            && !evidence.to_string().contains("ZG8tbm90LWtlZXAtbWU")
    );
}

/// What the tenant and an account with every verb would do to get out.
async fn attack(who: Identity, name: &str, level: &str) {
    let attacker = client(who).await;
    let fence = policies::WRITE_FENCE;
    let params = PatchParams::default();
    let deployments = api::<Deployment>(&attacker, name);
    let up = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let message = refused("scale up", fence, deployments.patch("web", &params, &up).await).message;
    for word in [name, level, "unusual activity in the shared network", "nov-2025", "recovery lead"] {
        assert!(message.contains(word), "{word} in: {message}");
    }
    refused("scale", fence, deployments.patch_scale("web", &params, &up).await);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "implant"},
        "spec": {"containers": [{"name": "main", "image": "registry.example/implant"}]},
    }))
    .unwrap();
    refused("create a pod", fence, api::<Pod>(&attacker, name).create(&PostParams::default(), &pod).await);
    let policies = api::<NetworkPolicy>(&attacker, name);
    let deleted = policies.delete(network::DEFAULT_DENY, &DeleteParams::default()).await;
    refused("delete the NetworkPolicy", fence, deleted);
    let all = policies.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused("delete all NetworkPolicies", fence, all);
    let selecting = Patch::Merge(json!({"spec": {"podSelector": {"matchExpressions": null}}}));
    let selects = policies.patch("allow-front", &params, &selecting).await;
    refused("let a neutralised NetworkPolicy select again", fence, selects);

    let namespaces: Api<Namespace> = Api::all(attacker.clone());
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}}));
    refused("unlabel", policies::NAMESPACE_LOCK, namespaces.patch(name, &params, &unlabel).await);
    let unlabel = Patch::Merge(json!({"metadata": {"annotations": {"resurgam.dev/reason": "all is well"}}}));
    refused("another reason", policies::NAMESPACE_LOCK, namespaces.patch(name, &params, &unlabel).await);
    let relabel = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": "looser"}}}));
    let status = namespaces.patch_status(name, &params, &relabel).await;
    refused("relabel by the status", policies::NAMESPACE_LOCK, status);
    refused(
        "delete the namespace",
        policies::NAMESPACE_LOCK,
        namespaces.delete(name, &DeleteParams::default()).await,
    );
}

/// Where a policy is away, a try that was none would do what it tries.
#[tokio::test]
async fn whoever_tries_what_isolates_only_tries() {
    let _running = controller().await;
    namespace("tried").await;
    isolate("tried", QuarantineLevel::Sealed).await;
    ready("tried", Isolation::Sealed).await;
    let log = std::fs::read_to_string(rig().await.control_plane.audit_log()).unwrap();
    // Others write to it: its last line may be a part of one.
    let events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let within = format!("system:serviceaccount:tried:{PROBER_WITHIN}");
    let who = |event: &serde_json::Value| event["impersonatedUser"]["username"].as_str().map(str::to_owned);
    // Another test acts as it, too.
    let operator = |event: &serde_json::Value| event["user"]["username"] == OPERATOR;
    let tries = events
        .filter(|event| operator(event) && who(event).is_some_and(|who| who == PROBER || who == within));
    let tries: Vec<String> = tries.map(|event| event["requestURI"].to_string()).collect();
    assert!(tries.len() >= 4, "lock, fence, and the guard twice: {tries:?}");
    assert!(tries.iter().all(|uri| uri.contains("dryRun=All")), "{tries:?}");
}

#[tokio::test]
async fn with_the_operator_stopped_nobody_gets_out() {
    let _rig = alone().await;
    let running = controller().await;
    let tenant = namespace("locked").await;
    fill(&tenant, "locked").await;
    isolate("locked", QuarantineLevel::Sealed).await;
    ready("locked", Isolation::Sealed).await;
    let _nobody = stopped(running).await;

    attack(Identity::TenantAdministrator, "locked", "(sealed)").await;
    attack(Identity::GitOps, "locked", "(sealed)").await;

    // The right to delete anything is no right to release.
    let quarantines: Api<Quarantine> = Api::all(client(Identity::GitOps).await);
    let lock = policies::QUARANTINE_LOCK;
    let message =
        refused("delete", lock, quarantines.delete("locked", &DeleteParams::default()).await).message;
    assert!(message.contains("locked") && message.contains("recovery lead"), "{message}");
    let all = quarantines.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused("delete all", lock, all);
    let params = PatchParams::default();
    let eased = Patch::Merge(json!({"spec": {"isolation": "Contained"}}));
    refused("ease", lock, quarantines.patch("locked", &params, &eased).await);
    let stripped = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    refused("strip", lock, quarantines.patch("locked", &params, &stripped).await);
    let responder: Api<Quarantine> = Api::all(client(Identity::Responder).await);
    refused("ease on call", lock, responder.patch("locked", &params, &eased).await);
    let forged = Patch::Merge(json!({"status": {"isolation": "Open"}}));
    refused(
        "forge the status",
        policies::SINGLE_WRITER,
        quarantines.patch_status("locked", &params, &forged).await,
    );

    assert_eq!(live(&tenant, "locked").await, Vec::<String>::new());
}

#[tokio::test]
async fn a_recovery_lead_repairs_what_is_sealed_but_starts_nothing() {
    let _running = controller().await;
    let tenant = namespace("repaired").await;
    fill(&tenant, "repaired").await;
    isolate("repaired", QuarantineLevel::Sealed).await;
    ready("repaired", Isolation::Sealed).await;
    let lead = client(Identity::RecoveryLead).await;
    let image = Patch::Strategic(json!({"spec": {"template": {"spec": {"containers": [
        {"name": "main", "image": "registry.example/web:approved"}]}}}}));
    api::<Deployment>(&lead, "repaired").patch("web", &PatchParams::default(), &image).await.unwrap();
    // Its status is still told: the Deployment's controller is heard.
    object::<Deployment>(api(&lead, "repaired"), "web", "observed", |d| {
        d.status.as_ref().and_then(|s| s.observed_generation) == d.metadata.generation
    })
    .await;
    assert_eq!(live(&tenant, "repaired").await, Vec::<String>::new());
}

#[tokio::test]
async fn what_somebody_with_rights_changed_is_put_back() {
    let _running = controller().await;
    let tenant = namespace("drifting").await;
    fill(&tenant, "drifting").await;
    isolate("drifting", QuarantineLevel::Sealed).await;
    let sealed = ready("drifting", Isolation::Sealed).await;
    let lead = client(Identity::RecoveryLead).await;
    let operator = client(Identity::Operator).await;
    let params = PatchParams::default();

    let up = Patch::Merge(json!({"spec": {"replicas": 3}}));
    api::<Deployment>(&lead, "drifting").patch("web", &params, &up).await.unwrap();
    let web = object::<Deployment>(api(&lead, "drifting"), "web", "back at zero", |d| {
        d.spec.as_ref().unwrap().replicas == Some(0) && d.metadata.generation > Some(2)
    })
    .await;
    assert_eq!(recorded_replicas(&web.metadata, &sealed.uid().unwrap()), Some(2), "not recorded again");

    let policies = api::<NetworkPolicy>(&operator, "drifting");
    let before = policies.get(network::DEFAULT_DENY).await.unwrap();
    policies.delete(network::DEFAULT_DENY, &DeleteParams::default()).await.unwrap();
    object(policies, network::DEFAULT_DENY, "back", |p| p.uid() != before.uid()).await;

    let namespaces: Api<Namespace> = Api::all(operator);
    let unlabel = Patch::Merge(json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}}));
    namespaces.patch("drifting", &params, &unlabel).await.unwrap();
    object(namespaces, "drifting", "labelled", |n| n.labels().contains_key("resurgam.dev/isolation")).await;
    ready("drifting", Isolation::Sealed).await;
}

#[tokio::test]
async fn a_policy_that_is_taken_away_or_weakened_comes_back() {
    let _rig = alone().await;
    let _running = controller().await;
    let administrator = client(Identity::PlatformAdministrator).await;
    let all: Api<ValidatingAdmissionPolicy> = Api::all(administrator);
    let name = policies::DECISION;
    let before = object(all.clone(), name, "there", |_| true).await;
    all.delete(name, &DeleteParams::default()).await.unwrap();
    let back = object(all.clone(), name, "back", |policy| policy.uid() != before.uid()).await;
    assert_eq!(back.spec, before.spec);

    // A condition that nobody meets: an apply would leave it in place.
    let weaker =
        Patch::Merge(json!({"spec": {"matchConditions": [{"name": "never", "expression": "false"}]}}));
    all.patch(name, &PatchParams::default(), &weaker).await.unwrap();
    let whole = |policy: &ValidatingAdmissionPolicy| policy.spec == before.spec;
    object(all, name, "as written", whole).await;
}

#[tokio::test]
async fn the_policies_type_check() {
    let _running = controller().await;
    let all: Api<ValidatingAdmissionPolicy> = Api::all(client(Identity::PlatformAdministrator).await);
    for policy in policies::all().unwrap() {
        let name = policy.policy.name_any();
        let checked = object(all.clone(), &name, "checked", |policy| {
            policy.status.as_ref().is_some_and(|s| s.observed_generation == policy.metadata.generation)
        })
        .await;
        let warnings = checked.status.unwrap().type_checking.and_then(|t| t.expression_warnings);
        assert_eq!(warnings.unwrap_or_default(), [], "{name}");
    }
}

#[tokio::test]
async fn deleted_quarantine_restores_the_network_and_starts_nothing() {
    let _running = controller().await;
    let tenant = namespace("released").await;
    fill(&tenant, "released").await;
    let before = api::<NetworkPolicy>(&tenant, "released").get("allow-front").await.unwrap();
    isolate("released", QuarantineLevel::Sealed).await;
    let sealed = ready("released", Isolation::Sealed).await;
    let lead: Api<Quarantine> = Api::all(client(Identity::RecoveryLead).await);
    lead.delete("released", &DeleteParams::default()).await.unwrap();
    let uid = sealed.uid().unwrap();
    let gone = kube::runtime::conditions::is_deleted(&uid);
    support::within("release", rehearsal::await_condition(lead, "released", gone)).await.unwrap();

    let after = api::<NetworkPolicy>(&tenant, "released").list(&ListParams::default()).await.unwrap().items;
    assert_eq!(after.len(), 1);
    assert_eq!((&after[0].metadata.labels, &after[0].spec), (&before.metadata.labels, &before.spec));
    assert_eq!(records_of(&client(Identity::Operator).await, "released").await, [""; 0]);
    let accounts = api::<ServiceAccount>(&tenant, "released").list(&ListParams::default()).await.unwrap();
    assert!(accounts.iter().all(|account| !account.labels().contains_key(SEALED_LABEL)), "{accounts:?}");
    let namespace = Api::<Namespace>::all(tenant.clone()).get("released").await.unwrap();
    assert!(!namespace.labels().contains_key("resurgam.dev/isolation"));
    assert!(!namespace.annotations().keys().any(|key| key.starts_with("resurgam.dev/")));
    let web = api::<Deployment>(&tenant, "released").get("web").await.unwrap();
    assert_eq!(web.spec.as_ref().unwrap().replicas, Some(0));
    assert_eq!(web.annotations()[RECORDED_ANNOTATION], "2");
}

#[tokio::test]
async fn what_cannot_be_isolated_says_why_and_holds_up_nobody() {
    let _running = controller().await;
    isolate("default", QuarantineLevel::Sealed).await;
    isolate("nowhere", QuarantineLevel::Sealed).await;
    for (name, reason) in [("default", "Protected"), ("nowhere", "NamespaceMissing")] {
        let found = until(name, "stalled", |q| {
            q.status.as_ref().is_some_and(|s| conditions::is_true(&s.conditions, conditions::STALLED))
        })
        .await;
        let status = found.status.unwrap();
        let ready = conditions::find(&status.conditions, conditions::READY).unwrap();
        assert_eq!((ready.status.as_str(), ready.reason.as_str()), ("False", reason));
        assert!(ready.message.contains(name));
        assert_eq!(conditions::find(&status.conditions, conditions::RECONCILING), None);
    }
    let namespaces: Api<Namespace> = Api::all(client(Identity::Responder).await);
    assert!(!namespaces.get("default").await.unwrap().labels().contains_key("resurgam.dev/isolation"));
    // As soon as it is there it is isolated.
    namespace("nowhere").await;
    let sealed = ready("nowhere", Isolation::Sealed).await;
    assert_eq!(quarantine("nowhere").await.uid(), sealed.uid());
}

/// `get` on a wildcard of resources is enough to run commands: the operator reads everything, and reaches into nothing.
#[tokio::test]
async fn operator_reads_what_it_captures_and_runs_no_commands() {
    use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
    let operator = client(Identity::Operator).await;
    let reviews: Api<SelfSubjectAccessReview> = Api::all(operator);
    for (verb, group, resource, subresource, expected) in [
        ("list", "", "pods", "", true),
        ("list", "", "secrets", "", true),
        ("get", "", "secrets", "", false),
        ("get", "", "pods", "log", true),
        ("get", "", "pods", "exec", false),
        ("get", "", "pods", "attach", false),
        ("get", "", "services", "proxy", false),
        ("get", "", "nodes", "proxy", false),
        ("delete", "admissionregistration.k8s.io", "validatingadmissionpolicies", "", false),
        ("update", "admissionregistration.k8s.io", "validatingadmissionpolicies", "", false),
    ] {
        let review = json!({"spec": {"resourceAttributes": {
            "verb": verb, "group": group, "resource": resource, "subresource": subresource, "namespace": "",
        }}});
        let answer = reviews.create(&PostParams::default(), &serde_json::from_value(review).unwrap()).await;
        let allowed = answer.unwrap().status.unwrap().allowed;
        assert_eq!(allowed, expected, "{verb} {resource}/{subresource} {group}");
    }
}
