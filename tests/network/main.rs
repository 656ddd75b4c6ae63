//! The network as it is: processes in pods on a real node. On a network that ignores NetworkPolicies, and on one that enforces them.
//!
//! It takes root and some programs of the host. Where they are missing it says so and passes; with `RESURGAM_REAL_NODE=1`, as
//! in CI, it fails instead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

mod backup;
mod library;
mod restore;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use control_plane::{ControlPlane, Identity, Options};
use kube::Client;
use kube::api::{DeleteParams, ListParams};
use rehearsal::{Helm, condition, decide, documents, eventually, field, kind, object, text};
use serde_json::{Value, json};
use tokio::sync::{Mutex, OnceCell};

const KINDS: &str = "resurgam.dev/v1alpha1";
const IMAGE: &str = "localhost/resurgam:test";
/// How long a try, and what comes of it, may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(240);

static CLUSTER: OnceCell<ControlPlane> = OnceCell::const_new();
static STAGE: Mutex<()> = Mutex::const_new(());

/// Runs a test on a cluster whose one node is real, one test at a time, in a network of their own. The operator is installed there as its
/// users install it. The test is given kube-router as well.
fn on_a_real_node(test: impl AsyncFnOnce(&'static ControlPlane, &Path)) {
    let Some((helm, kube_router)) = can_have_a_real_node() else { return };
    control_plane::enter_private_network().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let _turn = STAGE.lock().await;
        let start = async || {
            let cluster =
                ControlPlane::start(Options { nodes: 0, real_node: true, ..Options::default() }).await?;
            let operator = Path::new(env!("CARGO_BIN_EXE_resurgam"));
            cluster.import_image(&rehearsal::operator_image(IMAGE, operator))?;
            Helm::new(&cluster, &helm).install_on_real_node(IMAGE, "5s").await?;
            anyhow::Ok(cluster)
        };
        let cluster = CLUSTER.get_or_try_init(start).await.unwrap();
        test(cluster, &kube_router).await;
        release_all(cluster).await;
        Helm::new(cluster, &helm).operator_never_ended().await.unwrap();
    });
}

/// Releases what a test isolated: the next one, whichever it is, begins without an incident.
async fn release_all(cluster: &ControlPlane) {
    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    let quarantines = kind(&lead, KINDS, "Quarantine", None);
    let released = async {
        loop {
            let left = quarantines.list(&ListParams::default()).await.unwrap().items;
            if left.is_empty() {
                return;
            }
            for quarantine in left.iter().filter(|q| q.metadata.deletion_timestamp.is_none()) {
                let name = quarantine.metadata.name.as_deref().unwrap();
                quarantines.delete(name, &DeleteParams::default()).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let in_time = tokio::time::timeout(PATIENCE, released).await;
    assert!(in_time.is_ok(), "a Quarantine was not released");
}

/// Helm and kube-router, where this machine can have a real node.
fn can_have_a_real_node() -> Option<(PathBuf, PathBuf)> {
    if is_lacking(&control_plane::real_node_lacks()) {
        return None;
    }
    // What is fetched is fetched now: a real node's network has no way out.
    control_plane::build_real_node().unwrap();
    let part = |name| match is_wanted() {
        true => Some(control_plane::part(name).unwrap()),
        false => control_plane::part_if_built(name).unwrap(),
    };
    Some((part("helm")?, part("kube-router")?))
}

/// Whether a real node has to be had.
fn is_wanted() -> bool {
    std::env::var("RESURGAM_REAL_NODE").is_ok_and(|value| value == "1")
}

/// Whether something is missing on this machine, which then is told.
fn is_lacking(lacks: &[String]) -> bool {
    if lacks.is_empty() {
        return false;
    }
    assert!(!is_wanted(), "RESURGAM_REAL_NODE=1, and this machine lacks {}", lacks.join(", "));
    // To stderr itself: a test runner captures the rest of what a test that passes says.
    let lacks = lacks.join(", ");
    let _ =
        writeln!(std::io::stderr(), "\nNOT TESTED: what a real node does, as this machine lacks {lacks}\n");
    true
}

/// A namespace with a process in a pod, quarantined by who is on call.
async fn quarantined(cluster: &ControlPlane, name: &str) -> Client {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{
                "name": "web", "image": IMAGE, "args": ["probe", "listen", "--port", "8080", "--say", "hello"],
            }]}},
        },
    });
    rehearsal::apply(&admin, "tenant", &[namespace, deployment]).await.unwrap();
    let deployments = kind(&admin, "apps/v1", "Deployment", Some(name));
    let up = |d: &Value| field(d, "/status/availableReplicas") == 1;
    eventually(&deployments, "web", "a process in a pod", PATIENCE, up).await.unwrap();
    let responder = cluster.client(Identity::Responder).await.unwrap();
    let quarantine = json!({
        "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": name},
        "spec": {"isolation": "Contained", "reason": "unusual activity"},
    });
    rehearsal::apply(&responder, "on-call", &[quarantine]).await.unwrap();
    admin
}

fn control<'a>(quarantine: &'a Value, name: &str, what: &str) -> &'a str {
    let controls = field(quarantine, "/status/controls").as_array();
    let found = controls.into_iter().flatten().find(|control| control["name"] == name);
    found.map_or("", |control| text(control, &format!("/{what}")))
}

fn reason<'a>(object: &'a Value, type_: &str) -> &'a str {
    let conditions = field(object, "/status/conditions").as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.map_or("", |condition| text(condition, "/reason"))
}

/// Waits until a Quarantine says this of its network, because it was tried, and has come to rest.
async fn network_is(admin: &Client, name: &str, state: &str) -> Value {
    let quarantines = kind(admin, KINDS, "Quarantine", None);
    let is = |q: &Value| {
        let tried = control(q, "Network", "state") == state && !control(q, "Network", "tried").is_empty();
        tried && condition(q, "Ready") != "Unknown"
    };
    eventually(&quarantines, name, &format!("{name}'s network to be {state}"), PATIENCE, is).await.unwrap()
}

#[test]
fn unenforced_network_is_accepted_by_a_decision_only() {
    on_a_real_node(async |cluster, _| ignores_policies(cluster).await);
}

async fn ignores_policies(cluster: &ControlPlane) {
    // Rights are given before the day: nobody gives any over what is isolated.
    let of_the_day = |m: &Value| matches!(text(m, "/kind"), "Incident" | "RecoveryPlan");
    let (plan, rights): (Vec<Value>, Vec<Value>) =
        documents(include_str!("plan.yaml")).unwrap().into_iter().partition(of_the_day);
    let gitops = cluster.client(Identity::GitOps).await.unwrap();
    rehearsal::apply(&gitops, "gitops", &rights).await.unwrap();
    let admin = quarantined(cluster, "library").await;
    let leaks = network_is(&admin, "library", "NotEnforced").await;
    assert_eq!((condition(&leaks, "Ready"), reason(&leaks, "Ready")), ("False", "NetworkNotEnforced"));
    assert_eq!(condition(&leaks, "Stalled"), "True");
    assert!(control(&leaks, "Network", "message").contains("on node real-1"), "{leaks:#}");
    assert!(!control(&leaks, "Network", "tried").is_empty());
    assert_eq!((control(&leaks, "Lock", "state"), control(&leaks, "Fence", "state")), ("Tested", "Tested"));

    rehearsal::apply(&gitops, "gitops", &plan).await.unwrap();
    let records = kind(&admin, KINDS, "ServiceRecovery", Some("recovery"));
    let asked = |r: &Value| text(r, "/status/decision/reason") == "ControlNotEnforced";
    let waits = eventually(&records, "council.library", "a question", PATIENCE, asked).await.unwrap();
    assert_eq!(field(&waits, "/status/decision/actions"), &json!(["Override"]));
    assert_eq!((text(&waits, "/status/stage"), text(&waits, "/status/isolation")), ("Isolated", "Contained"));

    // Whoever holds every verb by a wildcard holds none of ours.
    let refused = decide(&gitops, "Override", "recovery", "council", "library", "go on").await.unwrap_err();
    assert!(format!("{refused:#}").contains("may not override recoveryplans/council"), "{refused:#}");

    let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
    decide(&lead, "Override", "recovery", "council", "library", "the router cuts it off").await.unwrap();
    let back = |r: &Value| condition(r, "Recovered") == "True";
    let record =
        eventually(&records, "council.library", "the library to be back", PATIENCE, back).await.unwrap();
    assert_eq!(
        (reason(&record, "Recovered"), reason(&record, "Ready")),
        ("WithExceptions", "WithExceptions")
    );
    let exceptions = field(&record, "/status/exceptions").to_string();
    for word in ["library/Network", "recovery-lead", "the router cuts it off"] {
        assert!(exceptions.contains(word), "{exceptions}");
    }
    assert_eq!(field(&record, "/spec/accepted"), &json!([{"namespace": "library", "control": "Network"}]));
    let open = object(&kind(&admin, KINDS, "Quarantine", None), "library").await.unwrap();
    assert_eq!((text(&open, "/status/isolation"), condition(&open, "Ready")), ("Open", "True"));

    // I8: nothing is isolated any more, so nothing is tried; and nothing of a try is left.
    for namespace in ["resurgam-probe", "resurgam-probe-denied"] {
        let pods = kind(&admin, "v1", "Pod", Some(namespace));
        let gone = async {
            while !pods.list(&ListParams::default()).await.unwrap().items.is_empty() {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone).await.unwrap_or_else(|_| panic!("pods are left in {namespace}"));
    }
}

#[test]
fn network_is_tested_while_kube_router_enforces_policies() {
    on_a_real_node(async |cluster, kube_router| {
        let admin = quarantined(cluster, "museum").await;
        let leaks = network_is(&admin, "museum", "NotEnforced").await;
        assert_eq!((condition(&leaks, "Ready"), reason(&leaks, "Ready")), ("False", "NetworkNotEnforced"));

        let enforced = cluster.enforce_network_policies(kube_router).unwrap();
        let held = network_is(&admin, "museum", "Tested").await;
        assert_eq!(condition(&held, "Ready"), "True", "{held:#}");
        let tested = text(&held, "/status/tested").split_once('/');
        assert!(tested.is_some_and(|(tested, all)| tested == all), "{held:#}");
        assert!(control(&held, "Network", "message").contains("on 1 of 1 nodes (real-1)"), "{held:#}");

        enforced.stop().unwrap();
        let leaks = network_is(&admin, "museum", "NotEnforced").await;
        assert_eq!((condition(&leaks, "Ready"), reason(&leaks, "Ready")), ("False", "NetworkNotEnforced"));
        assert_eq!(text(&leaks, "/status/isolation"), "Contained", "nothing is loosened by that");

        let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
        kind(&lead, KINDS, "Quarantine", None).delete("museum", &DeleteParams::default()).await.unwrap();
    });
}
