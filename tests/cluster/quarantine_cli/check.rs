//! `resurgam check`, `version` and `completion`, as the real binary, on a cluster of their own: bare, installed, led, isolated.

use std::collections::BTreeMap;
use std::path::Path;

use control_plane::{ControlPlane, Identity, Options};
use kube::Api;
use kube::api::PostParams;
use resurgam::api::Quarantine;

use crate::quarantine_cli::support::{Ran, namespace, operator, ready, resurgam};

const ADMINISTRATOR: Identity = Identity::PlatformAdministrator;

/// Each check's result, by its id.
fn results(ran: &Ran) -> BTreeMap<String, String> {
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let found = ran.json();
    found["checks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|check| (text(&check["id"]), text(&check["result"])))
        .collect()
}

/// The ids of those that came to this.
fn those(ran: &Ran, result: &str) -> Vec<String> {
    results(ran).into_iter().filter(|(_, found)| found == result).map(|(id, _)| id).collect()
}

async fn check(cluster: &ControlPlane, who: Identity, arguments: &[&str]) -> Ran {
    let all = [&["check", "--output", "json"], arguments].concat();
    resurgam(cluster.kubeconfig(who), &all).await
}

#[tokio::test]
async fn check_tells_a_bare_an_installed_and_a_led_cluster_apart() {
    let nowhere = resurgam(Path::new("/nowhere"), &["check"]).await;
    assert_eq!(nowhere.code, 2, "{}{}", nowhere.out, nowhere.err);
    assert!(nowhere.err.contains("no cluster is configured"), "{}", nowhere.err);

    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    let before = check(&cluster, ADMINISTRATOR, &["--pre"]).await;
    assert_eq!((before.code, those(&before, "failed")), (0, vec![]), "{}", before.out);
    assert_eq!(results(&before)["controller-accounts"], "passed");
    assert!(!results(&before).contains_key("operator-leads"));
    // Of the rig here, somebody holds `release` before anything is installed.
    let of = ["release-holders", "storage-class", "plan-accounts"].map(|id| results(&before)[id].clone());
    assert_eq!(of, ["passed", "warning", "notApplicable"], "{}", before.out);
    // A namespace's own account may read next to nothing.
    let blind = check(&cluster, Identity::Operator, &["--pre"]).await;
    assert_eq!((blind.code, those(&blind, "failed")), (2, vec![]), "{}", blind.out);
    for id in ["wildcards", "release-holders"] {
        assert!(those(&blind, "unknown").contains(&id.to_owned()), "{}", blind.out);
    }
    let bare = check(&cluster, ADMINISTRATOR, &[]).await;
    assert_eq!(bare.code, 1, "{}", bare.out);
    let missing = ["isolation-lists", "kinds", "namespaces", "operator-leads", "operator-rights", "policies"];
    assert_eq!(
        those(&bare, "failed").iter().filter(|id| *id != "operator-account").collect::<Vec<_>>(),
        missing
    );

    rehearsal::install(&cluster).await.unwrap();
    let installed = check(&cluster, ADMINISTRATOR, &[]).await;
    assert_eq!(installed.code, 1, "{}", installed.out);
    assert_eq!(
        those(&installed, "failed"),
        ["isolation-lists", "operator-leads", "policies"],
        "{}",
        installed.out
    );
    let version = resurgam(cluster.kubeconfig(ADMINISTRATOR), &["version"]).await;
    assert_eq!(version.code, 1, "{}{}", version.out, version.err);
    rights_of_a_plan(&cluster).await;

    let _operator = operator(&cluster);
    let led = check(&cluster, ADMINISTRATOR, &["--wait", "60s"]).await;
    assert_eq!((led.code, those(&led, "unknown")), (0, vec![]), "{}{}", led.out, led.err);
    let found = results(&led);
    for id in ["kinds", "policies", "operator-leads", "operator-version", "evidence-store", "operator-rights"]
    {
        assert_eq!(found[id], "passed", "{id}: {}", led.out);
    }
    assert!(led.err.contains("waiting for"), "{}", led.err);
    let version = resurgam(cluster.kubeconfig(ADMINISTRATOR), &["version", "--output", "json"]).await;
    assert_eq!((version.code, version.json()["result"].as_str()), (0, Some("passed")), "{}", version.out);

    namespace(&cluster, "drill", "").await;
    let responder = cluster.client(Identity::Responder).await.unwrap();
    let quarantine =
        Quarantine::new("drill", serde_json::from_value(serde_json::json!({"reason": "a drill"})).unwrap());
    Api::all(responder).create(&PostParams::default(), &quarantine).await.unwrap();
    ready(&cluster, "drill", "Contained").await.unwrap();
    let isolated = check(&cluster, ADMINISTRATOR, &[]).await;
    assert_eq!(isolated.code, 0, "{}", isolated.out);
    assert!(isolated.out.contains("tried by a dry-run in namespace drill"), "{}", isolated.out);
    assert_eq!(results(&isolated)["network-enforced"], "warning", "no image to try it with");
}

/// A plan whose account is granted nothing yet, and then everything.
async fn rights_of_a_plan(cluster: &ControlPlane) {
    let admin = cluster.client(ADMINISTRATOR).await.unwrap();
    let mut plan = rehearsal::documents(&rehearsal::smallest().unwrap()).unwrap();
    // Nothing is isolated for it.
    plan.retain(|manifest| !["Incident", "Quarantine"].contains(&manifest["kind"].as_str().unwrap()));
    let grant = |manifest: &serde_json::Value| manifest["kind"].as_str().unwrap().starts_with("ClusterRole");
    let (grants, rest): (Vec<_>, Vec<_>) = plan.into_iter().partition(grant);
    rehearsal::apply(&admin, "platform", &rest).await.unwrap();
    let asked = ["--plan", "recovery/library"];
    let refused = check(cluster, ADMINISTRATOR, &asked).await;
    let plans = ["plan-accounts", "plan-recover", "plan-impersonation"];
    let found = |ran: &Ran| plans.map(|id| results(ran)[id].clone());
    assert_eq!(found(&refused), ["passed", "failed", "passed"], "{}", refused.out);
    assert!(refused.out.contains("may not recover library-db, library-web"), "{}", refused.out);
    rehearsal::apply(&admin, "platform", &grants).await.unwrap();
    let granted = check(cluster, ADMINISTRATOR, &asked).await;
    assert_eq!(found(&granted), ["passed"; 3], "{}", granted.out);
    let gone = check(cluster, ADMINISTRATOR, &["--plan", "recovery/gone"]).await;
    assert_eq!(found(&gone), ["failed"; 3], "{}", gone.out);
}

#[tokio::test]
async fn kubectl_finds_the_plugin_and_completes_its_words() {
    let (cluster, _alone) = crate::quarantine_cli::support::cluster().await;
    let folder = tempfile::tempdir().unwrap();
    let install = ["completion", "--install", folder.path().to_str().unwrap()];
    let ran = resurgam(Path::new("/nowhere"), &install).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let kubectl = async |arguments: &[&str]| {
        let mut command = tokio::process::Command::new(cluster.binary("kubectl").unwrap());
        let path = std::env::var("PATH").unwrap();
        command.args(arguments).env("PATH", format!("{}:{path}", folder.path().display()));
        let output = tokio::time::timeout(rehearsal::DEADLINE, command.output()).await.unwrap().unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert_eq!(
        kubectl(&["resurgam", "version", "--client"]).await,
        format!("command   {}\n", resurgam::version::full())
    );
    assert!(kubectl(&["resurgam", "check", "-h"]).await.contains("Usage: kubectl resurgam check"));
    let offered = kubectl(&["__complete", "resurgam", "che"]).await;
    assert!(offered.starts_with("check\t"), "{offered}");
}
