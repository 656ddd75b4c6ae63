//! Claims, the clean room, and the way out; who may say what.

use control_plane::Identity;
use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use resurgam::api::service_recovery::{PlanRef, ServiceRecoverySpec};
use resurgam::api::{
    Action, Decision, DecisionSpec, DnsLabel, Isolation, Quarantine, QuarantineLevel, RecoveryPlan,
    ServiceRecovery, StepSpec, field_manager,
};
use resurgam::isolation::{Seal, network, policies};
use resurgam::steps::{self, StepClients, StepContext};
use serde_json::json;

use crate::isolation::support::{
    acting_as, allowing, alone, another, apply, client, controller, isolate, namespace, object, ready,
    refused, stopped, until, within,
};
use crate::isolation::{api, attack, fill, live};

/// Grants a verb on one Quarantine to an account, as the recovery lead: over what is isolated nobody else gives rights.
pub async fn grant(name: &str, verb: &str, namespace: &str, account: &str) {
    let manifest = format!(
        r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}-{verb}}}
rules:
- {{apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [{name}], verbs: [{verb}]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}-{verb}}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}-{verb}}}
subjects: [{{kind: ServiceAccount, name: {account}, namespace: {namespace}}}]
"#
    );
    apply(&client(Identity::RecoveryLead).await, &manifest).await;
}

/// A plan with its account, which may recover one namespace, or may not.
pub async fn plan(name: &str, may_scale: bool) -> RecoveryPlan {
    let administrator = client(Identity::PlatformAdministrator).await;
    let verbs = if may_scale { "get, list, watch, patch" } else { "get, list, watch" };
    let manifest = format!(
        r#"
apiVersion: v1
kind: Namespace
metadata: {{name: {name}-plan}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {{name: recovery, namespace: {name}-plan}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {{name: {name}-restore}}
rules:
- {{apiGroups: [apps, batch, ""], resources: [deployments, statefulsets, replicasets, daemonsets, jobs, cronjobs, replicationcontrollers], verbs: [{verbs}]}}
- {{apiGroups: [networking.k8s.io], resources: [networkpolicies], verbs: [get, list, patch, delete, deletecollection]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {{name: {name}-restore}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {name}-restore}}
subjects: [{{kind: ServiceAccount, name: recovery, namespace: {name}-plan}}]
---
apiVersion: resurgam.dev/v1alpha1
kind: RecoveryPlan
metadata: {{name: council, namespace: {name}-plan}}
spec:
  serviceAccountName: recovery
  services: [{{name: {name}}}]
"#
    );
    apply(&administrator, &manifest).await;
    grant(name, "recover", &format!("{name}-plan"), "recovery").await;
    api::<RecoveryPlan>(&administrator, &format!("{name}-plan")).get("council").await.unwrap()
}

/// Says, as the operator, what the claimant asks for.
pub async fn ask(name: &str, plan: &RecoveryPlan, isolation: Option<Isolation>, attempt: i64) {
    let recoveries: Api<ServiceRecovery> = api(&client(Identity::Operator).await, &format!("{name}-plan"));
    let spec = ServiceRecoverySpec {
        plan_ref: PlanRef { name: "council".into(), uid: plan.uid().unwrap() },
        service: name.into(),
        tier: None,
        namespaces: vec![DnsLabel(name.into())],
        attempt,
        isolation,
        reachable: vec![DnsLabel("shared-dns".into())],
        allow_egress: Vec::new(),
        allow_egress_to: Vec::new(),
        pod_security: resurgam::api::PodSecurity::Baseline,
        accepted: Vec::new(),
    };
    let recovery = ServiceRecovery::new(&format!("council.{name}"), spec);
    let params = PatchParams::apply(field_manager::PLAN).force();
    recoveries.patch(&recovery.name_any(), &params, &Patch::Apply(&recovery)).await.unwrap();
}

/// Claims a Quarantine, as the operator.
pub async fn claim(name: &str, plan: &RecoveryPlan) {
    let quarantines: Api<Quarantine> = Api::all(client(Identity::Operator).await);
    let claim = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": name},
        "status": {"claimedBy": {
            "planUid": plan.uid(), "planNamespace": format!("{name}-plan"), "plan": "council",
            "service": name, "attempt": 1, "display": format!("{name}-plan/council/{name}"),
        }},
    });
    let params = PatchParams::apply(field_manager::CLAIM);
    quarantines.patch_status(name, &params, &Patch::Apply(claim)).await.unwrap();
}

pub async fn scale(client: &Client, name: &str, seal: &Quarantine) -> Result<(), steps::StepError> {
    let step = StepSpec { name: "start".into(), scale: Some(Default::default()), ..StepSpec::default() };
    let seals = [(name.to_owned(), Seal { uid: seal.uid().unwrap(), ..Seal::default() })].into();
    let context = StepContext { namespaces: vec![name.into()], seals, ..StepContext::default() };
    steps::start(&StepClients::new(client.clone()), &step, &context).await.map(|_| ())
}

#[tokio::test]
async fn a_claimed_service_goes_through_the_clean_room_and_out() {
    let _running = controller().await;
    let tenant = namespace("library").await;
    fill(&tenant, "library").await;
    // What it is granted is granted before the day: afterwards only a lead may.
    let plan = plan("library", true).await;
    isolate("library", QuarantineLevel::Contained).await;
    ready("library", Isolation::Contained).await;
    let account = acting_as("library-plan", "recovery").await;
    ask("library", &plan, None, 1).await;
    claim("library", &plan).await;
    assert!(ready("library", Isolation::Contained).await.status.unwrap().claimed_by.is_some());

    ask("library", &plan, Some(Isolation::Sealed), 1).await;
    let sealed = ready("library", Isolation::Sealed).await;
    // The right to recover is good in the clean room only.
    let early = scale(&account, "library", &sealed).await.unwrap_err().to_string();
    let by_fence = policies::FENCES.iter().any(|fence| early.contains(fence));
    assert!(by_fence && early.contains("library"), "{early}");

    ask("library", &plan, Some(Isolation::CleanRoom), 1).await;
    ready("library", Isolation::CleanRoom).await;
    assert_eq!(allowing(&tenant, "library").await, [network::CLEAN_ROOM, network::DEFAULT_DENY]);
    let room = api::<NetworkPolicy>(&tenant, "library").get(network::CLEAN_ROOM).await.unwrap();
    let text = serde_json::to_string(&room.spec).unwrap();
    assert!(text.contains(r#"["library","shared-dns"]"#), "{text}");

    scale(&account, "library", &sealed).await.unwrap();
    object::<Deployment>(api(&tenant, "library"), "web", "available", |d| {
        d.status.as_ref().and_then(|s| s.available_replicas) == Some(2)
    })
    .await;
    scale(&account, "library", &sealed).await.unwrap();
    // The room is clean of everybody else, and the plan's account leaves the network alone.
    attack(Identity::TenantAdministrator, "library", "(clean-room)").await;
    attack(Identity::GitOps, "library", "(clean-room)").await;
    let network = api::<NetworkPolicy>(&account, "library");
    let selecting = Patch::Merge(json!({"spec": {"podSelector": {"matchExpressions": null}}}));
    let selects = network.patch("allow-front", &PatchParams::default(), &selecting).await;
    refused("let a neutralised policy select again", policies::WRITE_FENCE, selects);
    let one = network.delete(network::DEFAULT_DENY, &DeleteParams::default()).await;
    refused("delete the denial", policies::WRITE_FENCE, one);
    let all = network.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    refused("delete all policies", policies::WRITE_FENCE, all);

    ask("library", &plan, Some(Isolation::Open), 1).await;
    let open = ready("library", Isolation::Open).await;
    assert_eq!(allowing(&tenant, "library").await, ["allow-front"]);
    assert_eq!(open.status.unwrap().tested.as_deref(), Some("0/0"));
    let labels = Api::<Namespace>::all(tenant.clone()).get("library").await.unwrap().labels().clone();
    assert!(!labels.contains_key("resurgam.dev/isolation"));
    assert!(!live(&tenant, "library").await.is_empty());

    // Contained again: cut off, alive, and captured once more.
    ask("library", &plan, Some(Isolation::Contained), 1).await;
    ready("library", Isolation::Contained).await;
    assert!(!live(&tenant, "library").await.is_empty());
    assert_eq!(allowing(&tenant, "library").await, [network::DEFAULT_DENY]);
}

#[tokio::test]
async fn claim_of_another_attempt_or_without_plan_loosens_nothing() {
    let _running = controller().await;
    let tenant = namespace("museum").await;
    fill(&tenant, "museum").await;
    let plan = plan("museum", true).await;
    isolate("museum", QuarantineLevel::Sealed).await;
    ready("museum", Isolation::Sealed).await;
    ask("museum", &plan, Some(Isolation::CleanRoom), 2).await;
    claim("museum", &plan).await;
    let held = |quarantine: &Quarantine, word: &str| {
        let status = quarantine.status.clone().unwrap_or_default();
        let ready = resurgam::api::conditions::find(&status.conditions, "Ready").cloned();
        status.isolation == Some(Isolation::Sealed) && ready.is_some_and(|r| r.message.contains(word))
    };
    until("museum", "held for the attempt", |q| held(q, "attempt")).await;

    let administrator = client(Identity::PlatformAdministrator).await;
    let plans = api::<RecoveryPlan>(&administrator, "museum-plan");
    plans.delete("council", &Default::default()).await.unwrap();
    ask("museum", &plan, Some(Isolation::CleanRoom), 1).await;
    until("museum", "held for the plan", |q| held(q, "its plan is gone")).await;
    assert_eq!(live(&tenant, "museum").await, Vec::<String>::new());
}

/// A plan for one namespace, which depends on a service that the record of a leader before says to be healthy.
async fn depends_on_a_healthy_record(name: &str) -> RecoveryPlan {
    let plan = plan(name, true).await;
    let within = format!("{name}-plan");
    let plans = api::<RecoveryPlan>(&client(Identity::PlatformAdministrator).await, &within);
    let depends = json!({"spec": {"services": [{"name": "store"}, {"name": name, "dependsOn": ["store"]}]}});
    plans.patch("council", &PatchParams::default(), &Patch::Merge(depends)).await.unwrap();
    let recoveries: Api<ServiceRecovery> = api(&client(Identity::Operator).await, &within);
    let params = PatchParams::apply(field_manager::PLAN).force();
    let record = json!({"apiVersion": "resurgam.dev/v1alpha1", "kind": "ServiceRecovery", "metadata": {"name": "council.store"},
        "spec": {"planRef": {"name": "council", "uid": plan.uid()}, "service": "store", "namespaces": ["store"], "attempt": 1}});
    recoveries.patch("council.store", &params, &Patch::Apply(&record)).await.unwrap();
    let condition = |type_: &str| json!({"type": type_, "status": "True", "reason": "R", "message": "", "lastTransitionTime": "2025-11-24T00:00:00Z"});
    let mut said = record;
    said["status"] = json!({"stage": "Recovered", "attempt": 1, "conditions": [condition("Recovered"), condition("Healthy")]});
    let said = recoveries.patch_status("council.store", &params, &Patch::Apply(&said)).await.unwrap();
    assert!(said.satisfies_dependents());
    plan
}

/// There is nobody here who asks gates: what the record of the dependency says is the word of a leader that is gone.
#[tokio::test]
async fn nothing_is_let_in_on_the_word_of_a_leader_that_is_gone() {
    let _running = controller().await;
    namespace("depot").await;
    let plan = depends_on_a_healthy_record("depot").await;

    isolate("depot", QuarantineLevel::Sealed).await;
    ready("depot", Isolation::Sealed).await;
    ask("depot", &plan, Some(Isolation::CleanRoom), 1).await;
    claim("depot", &plan).await;
    let kept = until("depot", "kept", |q| {
        let status = q.status.clone().unwrap_or_default();
        let ready = resurgam::api::conditions::find(&status.conditions, "Ready").cloned();
        ready.is_some_and(|ready| ready.message.contains("is not known yet"))
    })
    .await;
    assert_eq!(kept.status.unwrap().isolation, Some(Isolation::Sealed));
}

/// Nobody asks gates here either: what is half way in is left so for as long as somebody may be heard, and no longer.
#[tokio::test]
async fn half_way_entry_is_reverted_once_health_stays_unknown() {
    let _rig = alone().await;
    let running = controller().await;
    let tenant = namespace("granary").await;
    let plan = depends_on_a_healthy_record("granary").await;
    isolate("granary", QuarantineLevel::Sealed).await;
    ready("granary", Isolation::Sealed).await;
    let _alone = stopped(running).await;
    ask("granary", &plan, Some(Isolation::CleanRoom), 1).await;
    claim("granary", &plan).await;
    // As an operator leaves it that dies before it writes the label.
    let operator = client(Identity::Operator).await;
    let namespace = Api::<Namespace>::all(tenant.clone()).get("granary").await.unwrap();
    let (uid, room) = (namespace.uid().unwrap(), network::CleanRoomAccess::default());
    network::isolate(&operator, "granary", &uid, Some(&room), network::Before::Isolated).await.unwrap();

    let began = std::time::Instant::now();
    let next = another().await;
    let policies = api::<NetworkPolicy>(&tenant, "granary");
    let gone = |policy: Option<&NetworkPolicy>| policy.is_none();
    let taken_back = rehearsal::await_condition(policies, network::CLEAN_ROOM, gone);
    within("it to be taken back", taken_back).await.unwrap();
    assert!(began.elapsed() >= std::time::Duration::from_secs(15), "after {:?}", began.elapsed());
    assert_eq!(allowing(&tenant, "granary").await, [network::DEFAULT_DENY]);
    tokio::task::spawn_blocking(move || drop(next)).await.unwrap();
}

#[tokio::test]
async fn namespace_is_open_only_once_its_fence_lets_writes_through() {
    let _running = controller().await;
    let tenant = namespace("atelier").await;
    fill(&tenant, "atelier").await;
    let plan = plan("atelier", true).await;
    isolate("atelier", QuarantineLevel::Contained).await;
    ready("atelier", Isolation::Contained).await;
    claim("atelier", &plan).await;
    ask("atelier", &plan, Some(Isolation::CleanRoom), 1).await;
    ready("atelier", Isolation::CleanRoom).await;
    // Nobody can say whether a pod would be let through: what is asked before it is, does not answer.
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(client(Identity::PlatformAdministrator).await);
    let hook = json!({"metadata": {"name": "atelier"}, "webhooks": [{
        "name": "pods.atelier.example", "clientConfig": {"url": "https://127.0.0.1:1/"}, "failurePolicy": "Fail",
        "sideEffects": "None", "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["atelier", "atelier-plan"]}]},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods", "podtemplates"]}],
    }]});
    hooks.create(&PostParams::default(), &serde_json::from_value(hook).unwrap()).await.unwrap();
    let pods = api::<Pod>(&tenant, "atelier-plan");
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let pod: Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main", "image": "registry.example/web"}]}})).unwrap();
    let asked = async |is: bool| {
        within("the API server to know of the webhook, or not to", async {
            let asked = |error: kube::Error| error.to_string().contains("failed calling webhook");
            while pods.create(&dry, &pod).await.is_err_and(asked) != is {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        })
        .await;
    };
    asked(true).await;

    ask("atelier", &plan, Some(Isolation::Open), 1).await;
    let held = until("atelier", "held up by its fence", |q| {
        let status = q.status.clone().unwrap_or_default();
        let ready = resurgam::api::conditions::find(&status.conditions, "Ready").cloned();
        let held = |message: &str| {
            message.contains("the fence was not seen to let go") && message.contains("failed calling webhook")
        };
        ready.is_some_and(|ready| ready.status != "True" && held(&ready.message))
    })
    .await;
    assert_ne!(held.status.unwrap().isolation, Some(Isolation::Open));
    hooks.delete("atelier", &DeleteParams::default()).await.unwrap();
    asked(false).await;
    // It is tried once a minute, and whenever somebody writes into the namespace.
    let note = Patch::Merge(json!({"metadata": {"annotations": {"note": "the webhook is gone"}}}));
    Api::<Namespace>::all(tenant.clone()).patch("atelier", &PatchParams::default(), &note).await.unwrap();
    ready("atelier", Isolation::Open).await;
    assert_eq!(allowing(&tenant, "atelier").await, ["allow-front"]);
}

#[tokio::test]
async fn a_step_says_what_its_account_may_not() {
    let _running = controller().await;
    let tenant = namespace("archive").await;
    fill(&tenant, "archive").await;
    plan("archive", false).await;
    isolate("archive", QuarantineLevel::Sealed).await;
    let sealed = ready("archive", Isolation::Sealed).await;
    let account = acting_as("archive-plan", "recovery").await;
    let error = scale(&account, "archive", &sealed).await.unwrap_err().to_string();
    assert!(error.starts_with("scale Deployment archive/web: "), "{error}");
    assert!(
        error.contains("system:serviceaccount:archive-plan:recovery") && error.contains("cannot patch"),
        "{error}"
    );

    namespace("archive-empty").await;
    let error = scale(&account, "archive-empty", &sealed).await.unwrap_err().to_string();
    assert_eq!(error, "no workload in namespace archive-empty");
}

#[tokio::test]
async fn a_decision_is_made_in_ones_own_name_by_who_may() {
    let _running = controller().await;
    let plan = plan("decided", true).await;
    let decision = |by: &str| {
        let spec = DecisionSpec {
            by: by.into(),
            action: Action::Retry,
            plan: plan.name_any(),
            service: "decided".into(),
            reason: "the approved image is back".into(),
            decided_on: format!("sha256:{}", "0".repeat(64)),
            group: None,
        };
        Decision::new(&format!("retry-{by}").replace(':', "-"), spec)
    };
    let make = async |who: Identity, by: &str| {
        let decisions: Api<Decision> = api(&client(who).await, "decided-plan");
        decisions.create(&PostParams::default(), &decision(by)).await
    };
    make(Identity::RecoveryLead, "recovery-lead").await.unwrap();
    let message =
        refused("another's name", policies::DECISION, make(Identity::RecoveryLead, "somebody").await).message;
    assert!(message.contains("spec.by is somebody, its creator is recovery-lead"), "{message}");
    // Cluster-admin holds every verb by a wildcard, which is no grant.
    let gitops = "system:serviceaccount:flux-system:kustomize-controller";
    let message = refused("by wildcard", policies::DECISION, make(Identity::GitOps, gitops).await).message;
    assert!(message.contains("may not retry recoveryplans/council in namespace decided-plan"), "{message}");
}

#[tokio::test]
async fn only_the_operator_says_what_the_operator_says() {
    let _running = controller().await;
    let plan = plan("forged", true).await;
    ask("forged", &plan, None, 1).await;
    let forger = client(Identity::GitOps).await;
    let recoveries: Api<ServiceRecovery> = api(&forger, "forged-plan");
    let params = PatchParams::default();
    let open = Patch::Merge(json!({"spec": {"isolation": "Open"}}));
    let single = policies::SINGLE_WRITER;
    // The operator that writes the policy may have begun just now.
    let tries = PatchParams { dry_run: true, ..Default::default() };
    within("the policy to be enforced", async {
        while recoveries.patch("council.forged", &tries, &open).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    })
    .await;
    refused("its spec", single, recoveries.patch("council.forged", &params, &open).await);
    let recovered = Patch::Merge(json!({"status": {"stage": "Recovered"}}));
    refused("its status", single, recoveries.patch_status("council.forged", &params, &recovered).await);
    let plans: Api<RecoveryPlan> = api(&forger, "forged-plan");
    let status = Patch::Merge(json!({"status": {"running": 0}}));
    refused("a plan's status", single, plans.patch_status("council", &params, &status).await);
    // People clear away history.
    let lead: Api<ServiceRecovery> = api(&client(Identity::RecoveryLead).await, "forged-plan");
    lead.delete("council.forged", &Default::default()).await.unwrap();
}
