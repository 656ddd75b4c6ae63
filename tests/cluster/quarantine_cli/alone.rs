//! Before anything of ours is installed but rights.

use control_plane::Identity;
use kube::Api;
use kube::api::DeleteParams;
use resurgam::api::Quarantine;
use serde_json::json;

use super::support::{allowing, bare, client, namespace, operator, quarantine, ready};
use super::{WORKLOADS, attack, labelled};

#[tokio::test]
async fn isolation_without_kinds_holds_and_is_adopted_later() {
    let cluster = bare().await;
    let tenant = namespace(&cluster, "early", WORKLOADS).await;

    // Who may not write policies is told who may, and nothing is done.
    let all = "gitops,evidence,webhook,apiservice,login,plan-account,leases,unknown";
    let ran = quarantine(&cluster, Identity::TenantAdministrator, &["early", "--accept-risk", all]).await;
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("resurgam-responder"), "{}", ran.out);
    assert!(ran.out.contains("cannot"), "{}", ran.out);
    assert_eq!(labelled(&cluster, "early").await, None);

    let ran = quarantine(&cluster, Identity::Responder, &["early"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    insta::assert_snapshot!("without_kinds", ran.out);
    attack(&cluster, Identity::TenantAdministrator, "early").await;
    assert_eq!(allowing(&tenant, "early").await, ["resurgam-default-deny"]);

    let admin = client(&cluster, Identity::PlatformAdministrator).await;
    rehearsal::install_kinds(&admin).await.unwrap();
    let ran = quarantine(&cluster, Identity::Responder, &["early", "--output", "json"]).await;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_eq!(ran.json()["namespaces"][0]["quarantine"], json!("made"));

    let _operator = operator(&cluster);
    ready(&cluster, "early", "Contained").await.unwrap();
    let lead = client(&cluster, Identity::RecoveryLead).await;
    let quarantines: Api<Quarantine> = Api::all(lead);
    quarantines.delete("early", &DeleteParams::default()).await.unwrap();
    let gone = rehearsal::await_condition(quarantines, "early", |q: Option<&Quarantine>| q.is_none());
    tokio::time::timeout(rehearsal::DEADLINE, gone).await.unwrap().unwrap();
    assert_eq!(allowing(&tenant, "early").await, ["allow-front"], "what allowed allows again");
    assert_eq!(labelled(&cluster, "early").await, None);
}
