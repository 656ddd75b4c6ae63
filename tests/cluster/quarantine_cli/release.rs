//! `resurgam release`, as the people who may, and who may not.

use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Event;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use resurgam::api::{Quarantine, RELEASED_ANNOTATION, field_manager};
use serde_json::json;

use super::support::{Ran, api, client, cluster, namespace, operator, quarantine, ready, resurgam};
use crate::inventory::{as_before, inventory};

/// What runs, fires and is lost. NAMESPACE is replaced.
const ESTATE: &str = include_str!("estate.yaml");
const REASON: [&str; 2] = ["--reason", "the logins were a drill"];

/// `resurgam release ARGUMENTS`, as somebody.
async fn release(cluster: &ControlPlane, who: Identity, arguments: &[&str]) -> Ran {
    resurgam(cluster.kubeconfig(who), &[&["release"], arguments, &REASON].concat()).await
}

async fn seal(cluster: &ControlPlane, name: &str) {
    let ran = quarantine(cluster, Identity::Responder, &[name, "--isolation", "sealed"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    ready(cluster, name, "Sealed").await.unwrap();
}

async fn until_available(cluster: &ControlPlane, name: &str, replicas: i32) {
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let deployments = rehearsal::kind(&admin, "apps/v1", "Deployment", Some(name));
    rehearsal::eventually(&deployments, "web", "it to run", rehearsal::DEADLINE, |d| {
        d["status"]["availableReplicas"] == replicas
    })
    .await
    .unwrap();
}

/// Waits until a dry-run says this.
async fn foretold(cluster: &ControlPlane, name: &str, what: &str) -> Ran {
    let waiting = async {
        loop {
            let ran = release(cluster, Identity::RecoveryLead, &[name, "--start", "--dry-run"]).await;
            assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
            if ran.out.contains(what) {
                return ran;
            }
        }
    };
    tokio::time::timeout(rehearsal::DEADLINE * 2, waiting).await.unwrap()
}

/// Without times, which differ.
fn timeless(text: &str) -> String {
    let time = |word: &str| word.len() > 4 && word.starts_with("20") && word.contains('-');
    let clock = |word: &str| word.len() == 5 && word.as_bytes()[2] == b':';
    let words = |line: &str| {
        let words: Vec<_> = line
            .split(' ')
            .filter(|word| !clock(word))
            .map(|word| if time(word) { "TIME" } else { word })
            .collect();
        words.join(" ")
    };
    text.lines().map(words).collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn released_and_started_namespace_is_as_it_was() {
    let (cluster, _alone) = cluster().await;
    let _operator = operator(cluster);
    namespace(cluster, "false-alarm", ESTATE).await;
    until_available(cluster, "false-alarm", 2).await;
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let before = inventory(&admin, "false-alarm").await;
    seal(cluster, "false-alarm").await;

    let ran = foretold(cluster, "false-alarm", "missed").await;
    insta::assert_snapshot!("release_dry_run", timeless(&ran.out));
    assert!(Api::<Quarantine>::all(admin.clone()).get_opt("false-alarm").await.unwrap().is_some());

    let unasked = release(cluster, Identity::RecoveryLead, &["false-alarm", "--start"]).await;
    assert!(unasked.code == 2 && unasked.err.contains("--yes"), "{}{}", unasked.out, unasked.err);

    let ran = release(cluster, Identity::RecoveryLead, &["false-alarm", "--start", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("release_started", timeless(&ran.out));
    assert!(ran.err.contains("[1/1] false-alarm: released and started"), "{}", ran.err);
    until_available(cluster, "false-alarm", 2).await;
    assert!(Api::<Quarantine>::all(admin.clone()).get_opt("false-alarm").await.unwrap().is_none());
    let of_it = ListParams::default().fields("involvedObject.name=false-alarm,reason=Released");
    let told = api::<Event>(&admin, "default").list(&of_it).await.unwrap().items;
    let note = told[0].message.clone().unwrap_or_default();
    assert!(note.contains("released by recovery-lead: the logins were a drill"), "{note}");

    // The payroll would have started the run that it missed.
    let again = release(
        cluster,
        Identity::RecoveryLead,
        &["false-alarm", "--start", "--fire-missed-runs", "--yes", "--output", "json"],
    )
    .await;
    assert_eq!(again.code, 0, "{}{}", again.out, again.err);
    assert_eq!(again.json()["namespaces"][0]["already"], true);
    let started = again.json()["namespaces"][0]["result"]["started"].to_string();
    assert!(started.contains("CronJob payroll"), "{started}");
    as_before(&admin, "false-alarm", &before).await;

    let none = release(cluster, Identity::RecoveryLead, &["false-alarm", "--start", "--yes"]).await;
    assert!(
        none.code == 1 && none.out.contains("there is no Quarantine false-alarm"),
        "{}{}",
        none.out,
        none.err
    );
}

#[tokio::test]
async fn interrupted_release_is_started_later_and_sealed_anew() {
    let (cluster, _alone) = cluster().await;
    let _operator = operator(cluster);
    namespace(cluster, "twice", ESTATE).await;
    until_available(cluster, "twice", 2).await;
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let web: Api<Deployment> = api(&admin, "twice");
    seal(cluster, "twice").await;
    let ran = release(cluster, Identity::RecoveryLead, &["twice", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("run this again with --start"), "{}", ran.out);
    let stopped = web.get("web").await.unwrap();
    assert_eq!(stopped.spec.as_ref().unwrap().replicas, Some(0));
    assert_eq!(stopped.annotations().get(RELEASED_ANNOTATION).map(String::as_str), Some("true"));

    // Sealed again before anybody started it: what it was the first time is still recorded.
    seal(cluster, "twice").await;
    assert!(!web.get("web").await.unwrap().annotations().contains_key(RELEASED_ANNOTATION));
    let ran = release(cluster, Identity::RecoveryLead, &["twice", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let ran = release(cluster, Identity::RecoveryLead, &["twice", "--start", "--yes"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("already released") && ran.out.contains("Deployment web ×2"), "{}", ran.out);
    until_available(cluster, "twice", 2).await;
}

#[tokio::test]
async fn release_is_refused_in_one_sentence() {
    let (cluster, _alone) = cluster().await;
    namespace(cluster, "refused", ESTATE).await;
    let ran = quarantine(cluster, Identity::Responder, &["refused"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let admin = client(cluster, Identity::PlatformAdministrator).await;
    let quarantines: Api<Quarantine> = Api::all(admin.clone());
    let ran = release(cluster, Identity::RecoveryLead, &["refused", "--yes"]).await;
    assert!(ran.code == 1 && ran.out.contains("no operator holds Lease"), "{}{}", ran.out, ran.err);
    // One that leads, and has not taken up the Quarantine yet: without its finalizer it would be gone, and the namespace still isolated.
    let renewed = k8s_openapi::jiff::Timestamp::now();
    let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "resurgam", "namespace": "resurgam-system"},
        "spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 20, "renewTime": format!("{renewed:.6}")}});
    let leases = rehearsal::kind(&admin, "coordination.k8s.io/v1", "Lease", Some("resurgam-system"));
    let params = PatchParams::apply("a-test").force();
    leases.patch("resurgam", &params, &Patch::Apply(&lease)).await.unwrap();
    let ran = release(cluster, Identity::RecoveryLead, &["refused", "--yes"]).await;
    let untaken = "no operator has taken up Quarantine refused yet";
    assert!(ran.code == 1 && ran.out.contains(untaken), "{}{}", ran.out, ran.err);
    assert_eq!(quarantines.get("refused").await.unwrap().metadata.deletion_timestamp, None);
    for who in [Identity::Responder, Identity::PlatformAdministrator] {
        let ran = release(cluster, who, &["refused", "--yes"]).await;
        let lines: Vec<_> = ran.out.lines().collect();
        assert_eq!((ran.code, lines.len()), (1, 2), "{who:?}: {}{}", ran.out, ran.err);
        let right = "the verbs release and delete on quarantines.resurgam.dev/refused";
        assert!(lines[0].contains(right), "{who:?}: {}", lines[0]);
    }
    // One that is not isolated stops all: nothing is half done.
    let ran = release(cluster, Identity::RecoveryLead, &["refused", "elsewhere", "--yes"]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("there is no Quarantine elsewhere"), "{}", ran.out);
    assert!(ran.out.contains("Nothing was done"), "{}", ran.out);

    let claim = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "refused"},
        "status": {"claimedBy": {
            "planUid": "u", "planNamespace": "recovery", "plan": "council", "service": "library", "attempt": 1, "display": ""}},
    });
    let by_operator: Api<Quarantine> = Api::all(client(cluster, Identity::Operator).await);
    let params = PatchParams::apply(field_manager::CLAIM);
    by_operator.patch_status("refused", &params, &Patch::Apply(claim)).await.unwrap();
    let ran = release(cluster, Identity::RecoveryLead, &["refused", "--yes"]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    let claimed = "is claimed by plan recovery/council for its service library (attempt 1)";
    assert!(ran.out.contains(claimed), "{}", ran.out);
    assert_eq!(quarantines.get("refused").await.unwrap().metadata.deletion_timestamp, None);

    let _operator = operator(cluster);
    ready(cluster, "refused", "Contained").await.unwrap();
    let arguments = ["refused", "--even-if-claimed", "--yes", "--output", "json"];
    let ran = release(cluster, Identity::RecoveryLead, &arguments).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!((&ran.json()["outcome"], &ran.json()["by"]), (&json!("Released"), &json!("recovery-lead")));
}
