//! The controller ends wherever it is, again and again; and has nothing to do when there is nothing to do.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

use control_plane::Identity;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, conditions};
use resurgam::isolation::workloads::recorded_replicas;
use resurgam::isolation::{OPERATOR, network};
use serde_json::{Value, json};

use crate::isolation::support::{
    allowing, alone, another, client, controller, isolate, namespace, quarantine, ready, records_of, rig,
    stopped, within,
};
use crate::isolation::{api, fill, live};

/// What the audit log says from here on.
struct Log {
    file: std::fs::File,
    rest: String,
}

impl Log {
    fn from_now(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let mut file = std::fs::File::open(path).unwrap();
        file.seek(SeekFrom::Start(whole as u64)).unwrap();
        Self { file, rest: String::new() }
    }

    /// What the operator did since, to one namespace and its Quarantine.
    fn more(&mut self, name: &str) -> Vec<Value> {
        self.file.read_to_string(&mut self.rest).unwrap();
        let whole = self.rest.rfind('\n').map_or(0, |end| end + 1);
        let lines: String = self.rest.drain(..whole).collect();
        let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let about = |event: &Value| {
            let object = &event["objectRef"];
            event["user"]["username"] == OPERATOR && (object["namespace"] == name || object["name"] == name)
        };
        events.filter(about).collect()
    }

    /// Waits for so many of something.
    async fn until(
        &mut self,
        name: &str,
        what: &str,
        count: usize,
        is: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let mut all = Vec::new();
        within(what, async {
            loop {
                all.extend(self.more(name));
                if all.iter().filter(|event| is(event)).count() >= count {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        all
    }
}

/// A write that took effect: no dry-run, no event.
fn is_write(event: &Value) -> bool {
    let verb = event["verb"].as_str().unwrap();
    ["create", "update", "patch", "delete"].contains(&verb)
        && !event["requestURI"].as_str().unwrap().contains("dryRun")
        && event["objectRef"]["resource"] != "events"
        && event["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300)
}

#[tokio::test]
async fn whenever_it_ends_nothing_is_lost_and_nothing_is_done_twice() {
    let _alone = alone().await;
    let name = "interrupted";
    let tenant = namespace(name).await;
    fill(&tenant, name).await;
    let before = api::<NetworkPolicy>(&tenant, name).get("allow-front").await.unwrap();
    let accounts: Api<ServiceAccount> = api(&tenant, name);
    let worker = accounts.get("worker").await.unwrap();
    isolate(name, QuarantineLevel::Sealed).await;
    let mut whole = Log::from_now(rig().await.control_plane.audit_log());
    let audit_log = rig().await.control_plane.audit_log();
    // Ended after its first write, and then after the first of each next life, until there is nothing left to write.
    let is_ready =
        async || conditions::is_true(&quarantine(name).await.status.unwrap_or_default().conditions, "Ready");
    let mut lives = 0;
    while !is_ready().await {
        let mut log = Log::from_now(audit_log);
        let one = another().await;
        tokio::select! {
            _ = log.until(name, "a write", 1, is_write) => {}
            _ = ready(name, Isolation::Sealed) => {}
        }
        tokio::task::spawn_blocking(move || drop(one)).await.unwrap();
        lives += 1;
        assert!(lives < 60, "it does not come to an end: {:#?}", quarantine(name).await.status);
    }
    assert!(lives > 3, "it was not interrupted: {lives}");
    let seal = quarantine(name).await.uid().unwrap();
    assert_eq!(live(&tenant, name).await, Vec::<String>::new());
    let web = api::<Deployment>(&tenant, name).get("web").await.unwrap();
    assert_eq!(recorded_replicas(&web.metadata, &seal), Some(2));
    let db = api::<StatefulSet>(&tenant, name).get("db").await.unwrap();
    assert_eq!(recorded_replicas(&db.metadata, &seal), Some(1));
    assert_eq!(allowing(&tenant, name).await, [network::DEFAULT_DENY]);
    let again = accounts.get("worker").await.unwrap();
    assert_ne!(again.uid(), worker.uid(), "its tokens are void");
    assert_eq!(
        (&again.labels()["team"], &again.image_pull_secrets, again.automount_service_account_token),
        (&worker.labels()["team"], &worker.image_pull_secrets, worker.automount_service_account_token)
    );
    assert_eq!(records_of(&client(Identity::Operator).await, name).await, [""; 0]);
    let is_renewal = |e: &&Value| e["verb"] == "delete" && e["objectRef"]["resource"] == "serviceaccounts";
    let all = whole.more(name);
    let mut renewed: Vec<_> = all
        .iter()
        .filter(|e| is_write(e))
        .filter(is_renewal)
        .map(|e| e["objectRef"]["name"].as_str())
        .collect();
    renewed.sort_unstable();
    // One whose answer did not come before the end is not among them.
    let told = renewed.len();
    renewed.dedup();
    assert_eq!(renewed.len(), told, "none twice: {renewed:?}");

    // And so on the way out.
    let quarantines: Api<Quarantine> = Api::all(client(Identity::RecoveryLead).await);
    quarantines.delete(name, &DeleteParams::default()).await.unwrap();
    while quarantines.get_opt(name).await.unwrap().is_some() {
        let mut log = Log::from_now(audit_log);
        let one = another().await;
        log.until(name, "a write", 1, is_write).await;
        tokio::task::spawn_blocking(move || drop(one)).await.unwrap();
    }
    let after = api::<NetworkPolicy>(&tenant, name).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(after.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["allow-front"]);
    assert_eq!(after[0].spec, before.spec);
}

#[tokio::test]
async fn a_restart_and_what_does_not_matter_write_nothing() {
    let _rig = alone().await;
    let running = controller().await;
    let name = "quiet";
    let tenant = namespace(name).await;
    fill(&tenant, name).await;
    isolate(name, QuarantineLevel::Sealed).await;
    ready(name, Isolation::Sealed).await;
    let _alone = stopped(running).await;
    let before = quarantine(name).await;

    let mut log = Log::from_now(rig().await.control_plane.audit_log());
    let one = another().await;
    let end_of_pass = |event: &Value| event["verb"] == "list" && event["objectRef"]["resource"] == "pods";
    let mut events = log.until(name, "the pass after a restart", 1, end_of_pass).await;
    // Passes of one Quarantine come one after another: when the next has read, the first has written what it would.
    let lead = client(Identity::RecoveryLead).await;
    let note = Patch::Merge(json!({"metadata": {"annotations": {"note": "looked at"}}}));
    api::<Deployment>(&lead, name).patch("web", &PatchParams::default(), &note).await.unwrap();
    events.extend(log.until(name, "the pass after a change", 1, end_of_pass).await);
    tokio::task::spawn_blocking(move || drop(one)).await.unwrap();
    events.extend(log.more(name));
    let writes: Vec<_> =
        events.iter().filter(|event| is_write(event)).map(|event| &event["requestURI"]).collect();
    assert_eq!(writes, Vec::<&Value>::new());
    assert_eq!(quarantine(name).await.metadata.resource_version, before.metadata.resource_version);
}
