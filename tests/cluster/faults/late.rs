//! What was right when it was asked for may be wrong by the time that it is done; and what could not be written is done again.

use std::time::Duration;

use control_plane::Identity;
use fault_proxy::{Fault, Profile, Schedule};
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use rehearsal::trial::Trial;
use rehearsal::trial::crew::Crew;
use rehearsal::{condition, kind, object};
use serde_json::{Value, json};

use crate::faults::{crew, stage};

/// From here on, the API server fails at what begins like this.
fn fails(crew: &Crew<'_>, only: String) {
    let profile = Profile { only, ..Profile::only(Fault::InternalError, 1.0) };
    crew.proxy(0).follow(Schedule { seed: 1, profile });
}

/// Leaves room for one pod in a namespace: scaled to two, a workload is not current until it is scaled back.
async fn outgrow(admin: &Client, namespace: &str) {
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "one", "namespace": namespace},
        "spec": {"hard": {"pods": "1"}}});
    rehearsal::apply(admin, "platform", &[quota]).await.unwrap();
    let quotas = kind(admin, "v1", "ResourceQuota", Some(namespace));
    let counts = |quota: &Value| quota["status"]["used"]["pods"] == "1";
    rehearsal::eventually(&quotas, "one", "it to count", rehearsal::DEADLINE, counts).await.unwrap();
}

async fn scale(databases: &Api<DynamicObject>, replicas: i32) {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    databases.patch("postgres", &PatchParams::default(), &patch).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_request_is_refused_once_its_dependency_is_unhealthy() {
    let stage = stage().await;
    let (cluster, _) = &*stage;
    let crew = crew(cluster, 1).await;
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let trial = Trial::lay_down(cluster, "late").await.unwrap();
    let [database, web] = trial.namespaces().clone();
    let databases = kind(&admin, "apps/v1", "StatefulSet", Some(&database));
    let play = async {
        trial.begin().await?;
        trial.quarantine(&web, "to be a clean room", |q| q["status"]["isolation"] == "CleanRoom").await?;
        // From here on it cannot be let out: the API server fails where its label would be taken off.
        fails(&crew, format!("PATCH /api/v1/namespaces/{web}"));
        trial.service(&web, "to ask to be let out", |r| r["spec"]["isolation"] == "Open").await?;
        crew.proxy(0).strikes(Fault::InternalError).await;
        outgrow(&admin, &database).await;
        scale(&databases, 2).await;
        trial.service(&database, "to be unhealthy", |r| condition(r, "Healthy") != "True").await?;
        crew.proxy(0).heal();
        let held = |q: &Value| q["status"].to_string().contains("but what it depends on is not");
        trial.quarantine(&web, "to be kept", held).await?;
        let namespace = object(&kind(&admin, "v1", "Namespace", None), &web).await?;
        assert_eq!(namespace["metadata"]["labels"]["resurgam.dev/isolation"], "clean-room");
        scale(&databases, 1).await;
        trial.recovered().await
    };
    crew.meanwhile(play).await.unwrap_or_else(|error| panic!("{error:#}\n{}", crew.said()));
    // The judge, too, looks at what stood when each namespace was loosened.
    trial.end().await.unwrap();
    trial.clear().await.unwrap();
}

/// Whoever wrote the label may die before that is told, and whoever comes next knows nothing of any gate for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_room_survives_an_operator_that_died_unreported() {
    let stage = stage().await;
    let (cluster, _) = &*stage;
    let crew = crew(cluster, 1).await;
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let trial = Trial::lay_down(cluster, "untold").await.unwrap();
    let [database, web] = trial.namespaces().clone();
    let databases = kind(&admin, "apps/v1", "StatefulSet", Some(&database));
    let namespaces = kind(&admin, "v1", "Namespace", None);
    let bears = async |label: &str| {
        let namespace = object(&namespaces, &web).await.unwrap();
        assert_eq!(namespace["metadata"]["labels"]["resurgam.dev/isolation"], label);
    };
    let play = async {
        trial.begin().await?;
        let sealed = |q: &Value| q["status"]["isolation"] == "Sealed" && condition(q, "Ready") == "True";
        trial.quarantine(&web, "to be sealed", sealed).await?;
        // Its label is tried to be written, and then written, and of the latter nothing is told.
        fails(&crew, format!("PATCH /api/v1/namespaces/{web}"));
        bears("sealed").await;
        crew.proxy(0).strikes(Fault::InternalError).await;
        fails(&crew, format!("PATCH /apis/resurgam.dev/v1alpha1/quarantines/{web}/status"));
        crew.proxy(0).strikes(Fault::InternalError).await;
        bears("clean-room").await;
        outgrow(&admin, &database).await;
        scale(&databases, 2).await;
        trial.service(&database, "to be unhealthy", |r| condition(r, "Healthy") != "True").await?;
        // The second one comes of a pass that began after that.
        crew.proxy(0).strikes(Fault::InternalError).await;
        crew.proxy(0).strikes(Fault::InternalError).await;
        bears("clean-room").await;
        crew.proxy(0).heal();
        trial.quarantine(&web, "to be a clean room", |q| q["status"]["isolation"] == "CleanRoom").await?;
        scale(&databases, 1).await;
        trial.recovered().await
    };
    crew.meanwhile(play).await.unwrap_or_else(|error| panic!("{error:#}\n{}", crew.said()));
    let outcome = trial.end().await.unwrap();
    assert_eq!(outcome.report.loosened[&web], 2, "let in and out, once each: {}", outcome.history);
    trial.clear().await.unwrap();
}

/// The network is ready before the label, and restored before that is taken off. Whoever comes in between asks the gates first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_way_transition_waits_for_the_first_gate_results() {
    let stage = stage().await;
    let (cluster, model) = &*stage;
    let crew = crew(cluster, 1).await;
    let trial = Trial::lay_down(cluster, "half-way").await.unwrap();
    let [database, web] = trial.namespaces().clone();
    let sealed = |q: &Value| q["status"]["isolation"] == "Sealed" && condition(q, "Ready") == "True";
    let play = async {
        trial.begin().await?;
        trial.quarantine(&web, "to be sealed", sealed).await?;
        for level in ["CleanRoom", "Open"] {
            fails(&crew, format!("PATCH /api/v1/namespaces/{web}"));
            crew.proxy(0).strikes(Fault::InternalError).await;
            crew.replace(0)?;
            // What the gate of the database looks at is told late, and within the gate's time.
            let only = format!("GET /apis/apps/v1/namespaces/{database}/statefulsets");
            let profile = Profile { only, delay: Duration::from_secs(5), ..Profile::only(Fault::Slow, 1.0) };
            crew.proxy(0).follow(Schedule { seed: 1, profile });
            trial.quarantine(&web, level, |q| q["status"]["isolation"] == level).await?;
            crew.proxy(0).heal();
        }
        trial.recovered().await
    };
    crew.meanwhile(play).await.unwrap_or_else(|error| panic!("{error:#}\n{}", crew.said()));
    let outcome = trial.end().await.unwrap();
    let differences = model.history.differences(&outcome.history);
    assert!(differences.is_empty(), "{}", differences.join("; "));
    trial.clear().await.unwrap();
}

/// Its gates are asked as soon as the claim stands. Until that is written, what they say is from before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_pass_after_a_claim_whose_first_write_failed() {
    let stage = stage().await;
    let (cluster, _) = &*stage;
    let crew = crew(cluster, 1).await;
    let trial = Trial::lay_down(cluster, "unwritten").await.unwrap();
    let database = trial.namespaces()[0].clone();
    let play = async {
        // Once it is refused the claim, everything before it has been written.
        fails(&crew, format!("PATCH /apis/resurgam.dev/v1alpha1/quarantines/{database}/status"));
        trial.begin().await?;
        trial.service(&database, "to be there", |r| r["status"]["stage"] == "Isolated").await?;
        crew.proxy(0).strikes(Fault::InternalError).await;
        let record = format!("/namespaces/unwritten-recovery/servicerecoveries/unwritten.{database}/status");
        fails(&crew, format!("PATCH /apis/resurgam.dev/v1alpha1{record}"));
        trial.quarantine(&database, "to be claimed", |q| !q["status"]["claimedBy"].is_null()).await?;
        crew.proxy(0).strikes(Fault::InternalError).await;
        crew.proxy(0).heal();
        trial.recovered().await
    };
    crew.meanwhile(play).await.unwrap_or_else(|error| panic!("{error:#}\n{}", crew.said()));
    // The judge holds that each gate has passed since the claim.
    trial.end().await.unwrap();
    trial.clear().await.unwrap();
}
