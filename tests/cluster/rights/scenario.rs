//! A recovery, and an isolation with every kind of thing in it, by the people and accounts that would do it.

use std::path::Path;
use std::process::Command;

use control_plane::{ControlPlane, Identity, Options};
use kube::api::{DeleteParams, Patch, PatchParams};
use rehearsal::{
    DEADLINE, Operator, OperatorOptions, condition, eventually, kind, object, text, three_boroughs,
};
use serde_json::{Value, json};

const KINDS: &str = "resurgam.dev/v1alpha1";
const ALL: &str = "everything";

pub async fn play() -> ControlPlane {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    lay_down(&cluster).await;
    // Before there is an operator: so the command does all that it can do.
    respond(&cluster);
    let options = OperatorOptions::within(&cluster, Path::new(env!("CARGO_BIN_EXE_resurgam")));
    let _operator = Operator::start(&cluster, &options).unwrap();
    crate::rights::kubectl(&cluster, Identity::PlatformAdministrator, &rehearsal::smallest().unwrap())
        .unwrap();
    let isolating = let_out(&cluster);
    let waiting = async {
        let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
        let plans = kind(&lead, KINDS, "RecoveryPlan", Some("recovery"));
        let back = |plan: &Value| condition(plan, "Recovered") == "True";
        eventually(&plans, "library", "the smallest plan to be recovered", DEADLINE, back).await.unwrap();
    };
    tokio::join!(isolating, waiting, crate::rights::plans::play(&cluster));
    cluster
}

/// Everything that can be in a namespace.
async fn lay_down(cluster: &ControlPlane) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let mut estate = vec![json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": ALL}})];
    let text_of = rehearsal::repository("tests/cluster/isolation/workloads.yaml");
    let workloads = std::fs::read_to_string(text_of).unwrap().replace("NAMESPACE", ALL);
    estate.extend(rehearsal::documents(&workloads).unwrap());
    rehearsal::apply(&admin, "platform", &estate).await.unwrap();
    let pods = kind(&admin, "v1", "Pod", Some(ALL));
    let runs = |pod: &Value| text(pod, "/status/phase") == "Running";
    eventually(&pods, "bare", "the bare pod to run", DEADLINE, runs).await.unwrap();
}

/// What was isolated is taken up, tampered with, and let out.
async fn let_out(cluster: &ControlPlane) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let sealed = three_boroughs::isolated(cluster, ALL).await.unwrap();
    assert_eq!(text(&sealed, "/status/isolation"), "Sealed");

    drift(cluster).await;

    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    let deployments = kind(&lead, "apps/v1", "Deployment", Some(ALL));
    let mend = Patch::Merge(json!({"metadata": {"annotations": {"mended-by": "the lead"}}}));
    deployments.patch("web", &PatchParams::default(), &mend).await.unwrap();
    let quarantines = kind(&lead, KINDS, "Quarantine", None);
    quarantines.delete(ALL, &DeleteParams::default()).await.unwrap();
    let namespaces = kind(&admin, "v1", "Namespace", None);
    let free = |namespace: &Value| namespace.pointer("/metadata/labels/resurgam.dev~1isolation").is_none();
    eventually(&namespaces, ALL, "the namespace to be let out", DEADLINE, free).await.unwrap();
}

/// On call: isolates by the command, which prepares all of it without the operator too.
fn respond(cluster: &ControlPlane) {
    let out = Command::new(env!("CARGO_BIN_EXE_resurgam"))
        .args([
            "quarantine",
            ALL,
            "--isolation",
            "sealed",
            "--incident",
            "nov-2025",
            "--reason",
            "Shared network compromised",
            "--yes",
        ])
        .env("KUBECONFIG", cluster.kubeconfig(Identity::Responder))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
}

/// What is ours is changed and taken away by an administrator, and comes back.
async fn drift(cluster: &ControlPlane) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    const POLICIES: &str = "admissionregistration.k8s.io/v1";
    let all = kind(&admin, POLICIES, "ValidatingAdmissionPolicy", None);
    let bindings = kind(&admin, POLICIES, "ValidatingAdmissionPolicyBinding", None);
    let name = "resurgam-decision";
    for api in [&all, &bindings] {
        let uid = |object: &Value| text(object, "/metadata/uid").to_owned();
        let before = uid(&object(api, name).await.unwrap());
        api.delete(name, &DeleteParams::default()).await.unwrap();
        eventually(api, name, "the policy to be back", DEADLINE, |object| uid(object) != before)
            .await
            .unwrap();
    }
    let never = json!([{"name": "never", "expression": "false"}]);
    let weaker = Patch::Merge(json!({"spec": {"matchConditions": never}}));
    all.patch(name, &PatchParams::default(), &weaker).await.unwrap();
    let whole = |policy: &Value| policy.pointer("/spec/matchConditions").is_none();
    eventually(&all, name, "the policy to be whole", DEADLINE, whole).await.unwrap();
}
