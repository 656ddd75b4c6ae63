//! The rehearsal of the three boroughs.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::estate::Estate;
use crate::wait::{DEADLINE, condition, eventually, field, is_running, kind, text};
use crate::{apply, documents, read, repository, retry};

/// Time limit of each step, with an operator that is killed repeatedly on a busy machine.
const LONG: Duration = Duration::from_secs(600);
const AT: &str = "examples/three-boroughs";
/// Namespace of the plan.
pub const NAMESPACE: &str = "recovery";
/// Name of the plan.
pub const PLAN: &str = "three-boroughs";
/// Services that the attacker changed: two images, and in payroll what image digests do not show. They fail once, and are retried after
/// the repair.
pub const TAMPERED: [&str; 3] = ["integration", "payroll", "rbkc-parking"];
/// What the attacker added to payroll: API version, kind, namespace and name.
const PLANTED: [[&str; 4]; 2] = [
    ["rbac.authorization.k8s.io/v1", "RoleBinding", "shared-payroll", "month-end-support"],
    ["batch/v1", "CronJob", "shared-payroll", "month-end"],
];

/// Deploys the estate as the attack left it, with RBAC and lists from before the day, and waits until it runs.
///
/// # Errors
/// The API server denied something, or a workload did not start.
pub async fn lay_down(cluster: &ControlPlane, tampered: bool) -> Result<usize> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    apply(&admin, "platform", &read(&format!("{AT}/namespaces.yaml"))?).await?;
    let mut estate = read(&format!("{AT}/estate"))?;
    if tampered {
        let same = |a: &Value, b: &Value| {
            ["/kind", "/metadata/name", "/metadata/namespace"].iter().all(|at| a.pointer(at) == b.pointer(at))
        };
        for bad in [read(&format!("{AT}/tampered"))?, read(&format!("{AT}/planted"))?].concat() {
            estate.retain(|good| !same(good, &bad));
            estate.push(bad);
        }
    }
    apply(&admin, "platform", &estate).await?;
    for file in ["access.yaml", "people.yaml", "approved-images.yaml", "payroll-baseline.yaml"] {
        apply(&admin, "platform", &read(&format!("{AT}/{file}"))?).await?;
    }
    run(&admin, &estate).await?;
    let jobs = kind(&admin, "batch/v1", "Job", Some("shared-files"));
    let complete = |job: &Value| condition(job, "Complete") == "True";
    eventually(&jobs, "reindex", "the Job of the estate to end", DEADLINE, complete).await?;
    Ok(estate.len())
}

/// Changes two images and payroll as the attacker, in an estate that was laid down untampered, and waits until that runs.
///
/// # Errors
/// The API server denied something, or a workload did not start.
pub async fn attack(cluster: &ControlPlane) -> Result<()> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let changed = [read(&format!("{AT}/tampered"))?, read(&format!("{AT}/planted"))?].concat();
    apply(&admin, "platform", &changed).await?;
    run(&admin, &changed).await
}

/// Waits until the workloads among some manifests run, and nothing of an earlier revision.
async fn run(client: &Client, manifests: &[Value]) -> Result<()> {
    for workload in manifests {
        let at = |field: &str| text(workload, field);
        let (kind_, name, namespace) = (at("/kind"), at("/metadata/name"), at("/metadata/namespace"));
        if ["Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Pod"]
            .contains(&kind_)
        {
            let api = kind(client, at("/apiVersion"), kind_, Some(namespace));
            let what = format!("{kind_} {namespace}/{name} to run");
            let runs = |object: &Value| {
                let of = |at: &str| field(object, at);
                is_running(kind_, object)
                    && (kind_ != "Deployment"
                        || ["/status/replicas", "/status/updatedReplicas"]
                            .iter()
                            .all(|at| of(at) == of("/spec/replicas")))
            };
            eventually(&api, name, &what, DEADLINE, runs).await?;
        }
    }
    Ok(())
}

/// Returns the namespaces that are isolated.
///
/// # Errors
/// Their Quarantines cannot be read.
pub fn namespaces() -> Result<Vec<String>> {
    let quarantines = read(&format!("{AT}/quarantines.yaml"))?;
    Ok(quarantines.iter().map(|q| text(q, "/metadata/name").to_owned()).collect())
}

/// Isolates everything as on-call staff, without waiting. Returns the namespaces.
///
/// # Errors
/// The API server refused something.
pub async fn isolate(cluster: &ControlPlane) -> Result<Vec<String>> {
    let responder = cluster.client(Identity::Responder).await?;
    let quarantines = read(&format!("{AT}/quarantines.yaml"))?;
    apply(&responder, "on-call", &quarantines).await?;
    namespaces()
}

/// Waits until a namespace is isolated.
///
/// # Errors
/// It is not isolated in time.
pub async fn isolated(cluster: &ControlPlane, namespace: &str) -> Result<Value> {
    let responder = cluster.client(Identity::Responder).await?;
    let quarantines = kind(&responder, "resurgam.dev/v1alpha1", "Quarantine", None);
    let what = format!("Quarantine {namespace} to be Ready");
    eventually(&quarantines, namespace, &what, DEADLINE, |object| condition(object, "Ready") == "True").await
}

/// Applies the Incident and the plan as GitOps, which arms the plan. The plan's `http` gates connect to `endpoint`. Returns the plan as
/// YAML, for the judge.
///
/// # Errors
/// The API server refused something.
pub async fn arm(cluster: &ControlPlane, endpoint: &str) -> Result<String> {
    let gitops = cluster.client(Identity::GitOps).await?;
    apply(&gitops, "gitops", &read(&format!("{AT}/incident.yaml"))?).await?;
    let text = plan(endpoint)?;
    apply(&gitops, "gitops", &documents(&text)?).await?;
    Ok(text)
}

/// Returns the plan as YAML. Its `http` gates connect to `endpoint`.
///
/// # Errors
/// It cannot be read.
pub fn plan(endpoint: &str) -> Result<String> {
    let text = std::fs::read_to_string(repository(&format!("{AT}/plan.yaml")))?;
    Ok(text.replace("http://127.0.0.1:8080/healthz", endpoint))
}

/// Restores the approved versions and deletes what was planted as the recovery lead, with the verb `repair`.
///
/// # Errors
/// The API server refused something.
pub async fn repair(cluster: &ControlPlane) -> Result<()> {
    let lead = cluster.client(Identity::RecoveryLead).await?;
    apply(&lead, "repair", &read(&format!("{AT}/repair"))?).await?;
    for [version, kind_, namespace, name] in PLANTED {
        let api = kind(&lead, version, kind_, Some(namespace));
        api.delete(name, &DeleteParams::default())
            .await
            .with_context(|| format!("delete {kind_} {namespace}/{name}"))?;
    }
    Ok(())
}

/// Acts as the recovery lead: waits until the tampered services need a decision, restores the approved versions, and retries them,
/// whether or not the operator is running.
///
/// # Errors
/// No decision is needed in time, or another one than expected; or the API server denied something.
pub async fn lead(cluster: &ControlPlane) -> Result<()> {
    let client = cluster.client(Identity::RecoveryLead).await?;
    let records = kind(&client, "resurgam.dev/v1alpha1", "ServiceRecovery", Some(NAMESPACE));
    for service in TAMPERED {
        let asked = |o: &Value| condition(o, "NeedsDecision") == "True";
        let what = format!("{service} to need a decision");
        let record = eventually(&records, &format!("{PLAN}.{service}"), &what, LONG, asked).await?;
        let (stage, reason) = (text(&record, "/status/stage"), text(&record, "/status/decision/reason"));
        ensure!(reason == "GateFailed", "{service} needs a decision: {reason}");
        ensure!(stage == "PreChecks", "{service} was tampered with, and is in {stage}");
    }
    repair(cluster).await?;
    for service in TAMPERED {
        retry(&client, NAMESPACE, PLAN, service, "what was approved is back").await?;
    }
    Ok(())
}

/// Returns the estate as it should be after the recovery: with approved images, without what was planted, and with Jobs and CronJobs
/// suspended.
///
/// # Errors
/// A repair concerns an object that does not exist, or was not tampered with.
pub fn as_it_should_be(mut estate: Estate) -> Result<Estate> {
    for [_, kind_, namespace, name] in PLANTED {
        estate.remove(&format!("{kind_} {namespace}/{name}"));
    }
    for repaired in read(&format!("{AT}/repair"))? {
        let at = |field| text(&repaired, field);
        let key = format!("{} {}/{}", at("/kind"), at("/metadata/namespace"), at("/metadata/name"));
        let tampered = estate.get_mut(&key).with_context(|| format!("{key} is not there"))?;
        let image = &repaired["spec"]["template"]["spec"]["containers"][0]["image"];
        if image.is_null() {
            continue;
        }
        ensure!(tampered["images"] != json!([image]), "{key} was not tampered with");
        tampered["images"] = json!([image]);
    }
    for (what, job) in &mut estate {
        // A Job that has ended starts nothing any more.
        if what.starts_with("CronJob ") || (what.starts_with("Job ") && job["complete"] == false) {
            job["suspend"] = json!(true);
        }
    }
    Ok(estate)
}
