//! What `resurgam access` prints is what a plan needs: enough to be recovered with, and nothing that is not used.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::process::{Command, Output};

use control_plane::{ControlPlane, Identity};
use rehearsal::{DEADLINE, condition, documents, eventually, kind, three_boroughs};
use resurgam::access::{Access, Right};
use resurgam::isolation::OPERATOR;
use resurgam::plan::Plan;
use serde_json::Value;

const KINDS: &str = "resurgam.dev/v1alpha1";
/// Granted beforehand.
const WARD: &str = "ward";
/// Granted by the recovery lead, once it was isolated.
const LATE: &str = "late";

fn text_of(name: &str) -> String {
    let digest = format!("sha256:{}", "a".repeat(64));
    let text = std::fs::read_to_string(rehearsal::repository("tests/cluster/rights/ward.yaml")).unwrap();
    text.replace("NAME", name)
        .replace("IMAGE", &format!("registry.example/any@{digest}"))
        .replace("DIGEST", &digest)
}

fn incident(name: &str) -> String {
    format!(
        "apiVersion: {KINDS}\nkind: Incident\nmetadata: {{name: {name}}}\nspec: {{title: A test, compromisedSince: \"2025-11-17T00:00:00Z\"}}\n"
    )
}

fn quarantine(name: &str) -> String {
    format!(
        "apiVersion: {KINDS}\nkind: Quarantine\nmetadata: {{name: {name}}}\nspec: {{isolation: Sealed, reason: A test}}\n"
    )
}

/// `resurgam access` on the plan of this name.
fn access(cluster: &ControlPlane, name: &str, arguments: &[&str]) -> Output {
    let file = cluster.dir().join(format!("{name}.yaml"));
    std::fs::write(&file, text_of(name)).unwrap();
    Command::new(env!("CARGO_BIN_EXE_resurgam"))
        .arg("access")
        .arg(file)
        .args(arguments)
        .env("KUBECONFIG", cluster.kubeconfig(Identity::PlatformAdministrator))
        .output()
        .unwrap()
}

fn printed(out: Output, code: i32) -> String {
    let text = String::from_utf8(out.stdout).unwrap();
    assert_eq!(out.status.code(), Some(code), "{text}{}", String::from_utf8_lossy(&out.stderr));
    text
}

/// Two recoveries under exactly what is printed.
pub async fn play(cluster: &ControlPlane) {
    let admin = |text: &str| crate::rights::kubectl(cluster, Identity::PlatformAdministrator, text);
    for name in [WARD, LATE] {
        admin(&text_of(name)).unwrap();
    }
    await_running(cluster).await;

    // Before the day: what is missing is printed so that it can be applied, and then nothing is.
    let missing = printed(access(cluster, WARD, &["--check"]), 1);
    assert_eq!(documents(&missing).unwrap(), documents(&printed(access(cluster, WARD, &[]), 0)).unwrap());
    admin(&missing).unwrap();
    assert!(printed(access(cluster, WARD, &["--check"]), 0).contains("rights are granted"));
    admin(&[incident(WARD), quarantine(WARD)].join("---\n")).unwrap();

    // On the day: nothing is granted but the account and who may act as it.
    let own = documents(&printed(access(cluster, LATE, &[]), 0)).unwrap();
    let (own, within): (Vec<Value>, Vec<Value>) = own.into_iter().partition(|object| {
        object["kind"] == "ServiceAccount" || object["metadata"]["name"] == "resurgam:impersonate:recovery"
    });
    admin(&yaml(&own)).unwrap();
    admin(&[quarantine(LATE), quarantine("late-annex")].join("---\n")).unwrap();
    for namespace in [LATE, "late-annex"] {
        three_boroughs::isolated(cluster, namespace).await.unwrap();
    }
    let inside: Vec<Value> =
        within.into_iter().filter(|object| object["metadata"]["namespace"] == LATE).collect();
    let refused = admin(&yaml(&inside)).unwrap_err();
    assert!(refused.contains("namespace late is quarantined"), "{refused}");
    let late = printed(access(cluster, LATE, &["--check", "--late"]), 1);
    crate::rights::kubectl(cluster, Identity::RecoveryLead, &late).unwrap();
    printed(access(cluster, LATE, &["--check", "--late"]), 0);
    admin(&incident(LATE)).unwrap();
    tokio::join!(recovered(cluster, WARD), recovered(cluster, LATE));
    verify_evidence(cluster);
}

/// What the operator kept of all this is there, unchanged, and what the Quarantines name.
fn verify_evidence(cluster: &ControlPlane) {
    let out = Command::new(env!("CARGO_BIN_EXE_resurgam"))
        .args(["evidence", "verify", "--cluster", "--output", "json", "--evidence"])
        .arg(cluster.dir().join("evidence"))
        .env("KUBECONFIG", cluster.kubeconfig(Identity::RecoveryLead))
        .output()
        .unwrap();
    let verified: Vec<Value> = serde_json::from_str(&printed(out, 0)).unwrap();
    for name in [WARD, LATE, "ward-annex", "late-annex"] {
        let found = verified.iter().find(|verified| verified["namespace"] == name);
        assert!(found.is_some_and(|found| found["sealings"].as_u64() > Some(0)), "{name}: {verified:?}");
    }
}

fn yaml(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

/// Waits until there is something to be stopped.
async fn await_running(cluster: &ControlPlane) {
    let client = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    for name in [WARD, LATE] {
        let agents = kind(&client, "apps/v1", "DaemonSet", Some(name));
        let runs = |set: &Value| set["status"]["numberReady"].as_i64() > Some(0);
        eventually(&agents, "agent", "the agents to run", DEADLINE, runs).await.unwrap();
    }
}

/// Waits until the plan is recovered, and what it resumes is resumed.
async fn recovered(cluster: &ControlPlane, name: &str) {
    let client = cluster.client(Identity::RecoveryLead).await.unwrap();
    let namespace = format!("{name}-recovery");
    let plans = kind(&client, KINDS, "RecoveryPlan", Some(&namespace));
    let is_back = |plan: &Value| condition(plan, "Recovered") == "True";
    eventually(&plans, name, "the plan to be recovered", DEADLINE, is_back).await.unwrap();
    let records = kind(&client, KINDS, "ServiceRecovery", Some(&namespace));
    let is_resumed = |record: &Value| {
        let resumes = record["status"]["resumes"].as_array();
        resumes.is_some_and(|all| all.len() == 2 && all.iter().all(|one| one["state"] == "Resumed"))
    };
    let record = format!("{name}.{name}");
    eventually(&records, &record, "its Jobs to be resumed", DEADLINE, is_resumed).await.unwrap();
}

/// By the audit log: nothing was lacking, and each right was used.
pub fn judge(cluster: &ControlPlane) {
    let smallest = rehearsal::smallest().unwrap();
    for (name, text) in [(WARD, text_of(WARD)), (LATE, text_of(LATE)), ("library", smallest)] {
        let plan = &resurgam::simulate::load(&text).unwrap()[0];
        let access = Access::from_plan(&Plan::from_object(plan));
        let (used, lacking) = used(cluster, &access);
        assert_eq!(lacking, [""; 0], "{name}");
        let idle: BTreeSet<String> = access
            .rights
            .keys()
            .filter(|right| !used.iter().any(|used| uses(used, right)))
            .map(ToString::to_string)
            .collect();
        // `recover` is asked about, by the operator and by the policies, and is no request. Without it nothing is recovered.
        let asked = access.rights.keys().filter(|right| right.verb == "recover").map(ToString::to_string);
        let mut expected: BTreeSet<String> = asked.collect();
        // Which kinds a namespace holds, nobody can tell from a plan.
        match name {
            "library" => {
                expected
                    .extend(absent("library-db", "statefulsets").chain(absent("library-web", "deployments")));
            }
            _ => expected.extend(absent(&format!("{name}-annex"), "deployments")),
        }
        // Its Quarantines were made by somebody else.
        if name == LATE {
            expected.insert("create quarantines.resurgam.dev".to_owned());
        }
        assert_eq!(idle, expected, "{name}");
    }
}

/// What `scale` would write where there were such a kind.
fn absent(namespace: &str, present: &str) -> impl Iterator<Item = String> {
    let all = [
        "replicationcontrollers",
        "daemonsets.apps",
        "deployments.apps",
        "replicasets.apps",
        "statefulsets.apps",
    ];
    let absent = all.into_iter().filter(move |kind| !kind.starts_with(present));
    absent.map(move |kind| format!("patch {kind} in namespace {namespace}"))
}

/// A request: group, resource, verb, namespace, name.
type Request = [String; 5];

fn uses([group, resource, verb, namespace, name]: &Request, right: &Right) -> bool {
    (group, resource, verb.as_str()) == (&right.group, &right.resource, right.verb)
        && right.namespace.as_ref().is_none_or(|wanted| wanted == namespace)
        && right.name.as_ref().is_none_or(|wanted| wanted == name)
}

/// What the account asked for, by the operator, and what of it was refused for want of rights.
fn used(cluster: &ControlPlane, access: &Access) -> (BTreeSet<Request>, Vec<String>) {
    let (mut used, mut lacking) = (BTreeSet::new(), Vec::new());
    for line in std::io::BufReader::new(std::fs::File::open(cluster.audit_log()).unwrap()).lines() {
        let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
        let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default().to_owned();
        if text("/impersonatedUser/username") != access.user() || text("/objectRef/resource").is_empty() {
            continue;
        }
        assert_eq!(text("/user/username"), OPERATOR);
        if text("/annotations/authorization.k8s.io~1decision") == "forbid" {
            lacking.push(format!("{} {}", text("/verb"), text("/requestURI")));
            continue;
        }
        used.insert(
            [
                "/objectRef/apiGroup",
                "/objectRef/resource",
                "/verb",
                "/objectRef/namespace",
                "/objectRef/name",
            ]
            .map(text),
        );
    }
    (used, lacking)
}
