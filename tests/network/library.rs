//! A real database and the web service that reads it, from isolation to recovery: what `cargo xtask demo --node` shows.

use control_plane::{ControlPlane, Identity};
use rehearsal::library::{CATALOGUE, DATABASE, Library, NAMESPACE, PLAN};
use rehearsal::{Helm, condition, eventually, kind, retry, text};
use serde_json::Value;

use super::{KINDS, PATIENCE, control, is_lacking, on_a_real_node};

#[test]
fn database_rows_survive_isolation_and_nothing_gets_in_between() {
    if is_lacking(&rehearsal::library::lacks()) {
        return;
    }
    on_a_real_node(async |cluster, kube_router| {
        let enforced = cluster.enforce_network_policies(kube_router).unwrap();
        from_isolation_to_recovery(cluster).await;
        enforced.stop().unwrap();
    });
}

async fn from_isolation_to_recovery(cluster: &ControlPlane) {
    let helm = Helm::new(cluster, &control_plane::part("helm").unwrap());
    let said = helm.test(Identity::PlatformAdministrator).await.unwrap();
    assert_eq!(said.lines().filter(|line| line.starts_with("refused ")).count(), 10, "{said}");

    let library = Library::lay_down(cluster).await.unwrap();
    library.add_book().await.unwrap();
    library.tamper().await.unwrap();
    let before = library.before().await.unwrap();

    library.isolate("Contained").await.unwrap();
    let isolated = library.is_contained(&before).await.unwrap();
    let said = helm.test(Identity::Upgrader).await.unwrap();
    assert!(said.contains("An incident is on"), "{said}");
    for quarantine in library.isolate("Sealed").await.unwrap() {
        for name in ["Lock", "Fence", "Network"] {
            assert_eq!(control(&quarantine, name, "state"), "Tested", "{name}: {quarantine:#}");
        }
        assert_ne!(text(&quarantine, "/status/capture/digest"), "", "{quarantine:#}");
    }
    library.is_stopped().await.unwrap();

    library.arm().await.unwrap();
    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    let records = kind(&lead, KINDS, "ServiceRecovery", Some(NAMESPACE));
    let back = |r: &Value| condition(r, "Recovered") == "True";
    let is_back = async |service: &str| {
        let (name, what) = (format!("{PLAN}.{service}"), format!("{service} to be back"));
        eventually(&records, &name, &what, PATIENCE, back).await.unwrap()
    };
    is_back(DATABASE).await;
    let asked = |r: &Value| text(r, "/status/decision/reason") == "GateFailed";
    let name = format!("{PLAN}.{CATALOGUE}");
    eventually(&records, &name, "the implant to be found", PATIENCE, asked).await.unwrap();

    library.repair().await.unwrap();
    retry(&lead, NAMESPACE, PLAN, CATALOGUE, "the approved image is back").await.unwrap();
    let record = is_back(CATALOGUE).await;
    assert_eq!(super::reason(&record, "Recovered"), "Recovered", "{record:#}");
    library.is_back(&before, isolated).await.unwrap();
}
