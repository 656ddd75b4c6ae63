//! What Pod Security `baseline` forbids is asked about before anything starts.

use rehearsal::{eventually, kind};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS};
use crate::ratchet::asked;

#[tokio::test]
async fn host_access_needs_the_plan_and_an_accepted_decision() {
    let bench = Bench::with("host", &["web"], |manifests| {
        for deployment in manifests.iter_mut().filter(|m| m["kind"] == "Deployment") {
            deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"] =
                json!({"privileged": true});
        }
    })
    .await;
    let mut service = bench.service("web", &[]);
    bench.apply(&bench.plan("plan", json!([service]))).await;
    let words = ["Deployment host-web/web: container web is privileged", "cleanRoom.hostAccess"];
    let record = asked(&bench, "plan", "web", "HostAccess", &words).await;
    assert_eq!(
        (&record["status"]["stage"], &record["spec"]["podSecurity"]),
        (&json!("PreChecks"), &json!("Baseline"))
    );
    bench.stays_sealed("web").await;

    service["cleanRoom"] = json!({"hostAccess": {"reason": "it mounts volumes"}});
    bench.apply(&bench.plan("plan", json!([service]))).await;
    let lost = "its pods may use what Pod Security baseline forbids: it mounts volumes";
    asked(&bench, "plan", "web", "Loosened", &[lost]).await;
    bench.stays_sealed("web").await;
    let lead = bench.lead().await;
    rehearsal::decide(&lead, "AcceptLoosening", "host", "plan", "web", "storage needs it").await.unwrap();
    let records = kind(&bench.admin, KINDS, "ServiceRecovery", Some("host"));
    let privileged =
        |o: &Value| o["spec"]["podSecurity"] == "Privileged" && o["spec"]["isolation"] == "CleanRoom";
    eventually(&records, "plan.web", "the clean room", rehearsal::DEADLINE, privileged).await.unwrap();
    let record = bench.recovers("plan", "web").await;
    assert_eq!(record["spec"]["podSecurity"], "Baseline", "open, it is asked for no more");
    assert!(record["status"]["exceptions"].to_string().contains(lost), "{record}");
}
