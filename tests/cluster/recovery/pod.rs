//! The operator as a pod: what a kubelet, Prometheus and a log collector read of it, and how it ends.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::{DeleteParams, ListParams};
use rehearsal::{
    DEADLINE, Operator, OperatorOptions, condition, documents, eventually, kind, object, repository, text,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::recovery::{BINARY, KINDS, stage};

const NAMESPACE: &str = "pod-recovery";
const PLAN: &str = r#"plan="pod-recovery/pod""#;
const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";
/// What only the leader exports.
const STATE: [&str; 3] =
    ["resurgam_services{", "resurgam_decisions_needed{", "resurgam_quarantine_controls{"];
/// How often something that nobody tells of is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// One replica of the operator, which logs as JSON to a file of its own.
struct Replica {
    operator: Operator,
    log: PathBuf,
}

impl Replica {
    fn start(cluster: &ControlPlane, name: &str, arguments: &[&str]) -> Self {
        let log = cluster.dir().join(format!("operator-{name}.log"));
        let arguments = ["--log-format", "json"].iter().chain(arguments).map(|&a| a.to_owned()).collect();
        let within = OperatorOptions::within(cluster, BINARY.as_ref());
        let options = OperatorOptions { log: log.clone(), lease_seconds: 15, arguments, ..within };
        Self { operator: Operator::start(cluster, &options).unwrap(), log }
    }

    /// Whole lines of its log.
    fn lines(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(&self.log).unwrap();
        let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// The lines that say this.
    fn that_say(&self, message: &str) -> Vec<Value> {
        let found: Vec<_> = self.lines().into_iter().filter(|line| line["message"] == message).collect();
        assert!(!found.is_empty(), "no line says {message}");
        found
    }

    /// Status code and body.
    async fn get(&self, path: &str) -> (u16, String) {
        let address = in_time("an address", async || {
            let lines = self.lines();
            lines.iter().find_map(|line| line["address"].as_str().map(str::to_owned))
        });
        let mut stream = tokio::net::TcpStream::connect(address.await).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    async fn metrics(&self) -> String {
        self.get("/metrics").await.1
    }

    async fn ended(&mut self) -> ExitStatus {
        in_time("the operator to end", async || self.operator.ended().unwrap()).await
    }
}

/// Waits until there is something.
async fn in_time<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(DEADLINE, looking).await.unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// The sum of the samples whose names and labels begin so and contain this.
fn sum(metrics: &str, begins: &str, contains: &str) -> f64 {
    let fits = |line: &&str| line.starts_with(begins) && line.contains(contains);
    let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
    metrics.lines().filter(fits).map(value).sum()
}

/// What a line tells of its spans.
fn told(line: &Value, key: &str) -> Value {
    let spans = line["spans"].as_array().unwrap_or_else(|| panic!("no span: {line}"));
    spans.iter().rev().find_map(|span| span.get(key)).cloned().unwrap_or_default()
}

/// The smallest plan, with names of its own.
fn smallest() -> Vec<Value> {
    let text = rehearsal::smallest().unwrap();
    let text = text.replace("name: recovery\n---", &format!("name: {NAMESPACE}\n---"));
    documents(
        &text.replace("namespace: recovery", &format!("namespace: {NAMESPACE}")).replace("library", "pod"),
    )
    .unwrap()
}

async fn holder(admin: &Client) -> String {
    let leases = kind(admin, "coordination.k8s.io/v1", "Lease", Some("resurgam-system"));
    text(&object(&leases, "resurgam").await.unwrap(), "/spec/holderIdentity").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_tells_of_itself_and_gives_the_lease_back() {
    let cluster = &*stage().await;
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let mut leader = Replica::start(cluster, "leader", &[]);
    in_time("a leader", async || leader.metrics().await.contains("resurgam_leader 1").then_some(())).await;
    let mut follower = Replica::start(cluster, "follower", &[]);
    // What is granted within comes before what isolates.
    let (last, first): (Vec<_>, Vec<_>) = smallest().into_iter().partition(|m| m["kind"] == "Quarantine");
    rehearsal::apply(&admin, "platform", &first).await.unwrap();
    rehearsal::apply(&admin, "platform", &last).await.unwrap();
    let plans = kind(&admin, KINDS, "RecoveryPlan", Some(NAMESPACE));
    eventually(&plans, "pod", "it to recover", DEADLINE, |p| condition(p, "Ready") == "True").await.unwrap();

    is_measured(&leader, &admin).await;
    // A follower is ready, and exports what it did itself.
    in_time("a follower", async || (follower.get("/readyz").await.0 == 200).then_some(())).await;
    let metrics = follower.metrics().await;
    assert!(metrics.contains("resurgam_leader 0"), "{metrics}");
    assert!(sum(&metrics, "resurgam_api_requests_total", r#"verb="GET""#) > 0.0, "{metrics}");
    for state in STATE {
        assert_eq!(metrics.lines().find(|line| line.starts_with(state)), None);
    }
    for replica in [&leader, &follower] {
        assert_eq!(replica.get("/healthz").await, (200, "ok\n".to_owned()));
        assert_eq!(replica.get("/readyz").await, (200, "ok\n".to_owned()));
    }
    lines_say_what_they_are_about(&leader);

    plans.delete("pod", &DeleteParams::default()).await.unwrap();
    let gone = async || (!leader.metrics().await.contains(PLAN)).then_some(());
    in_time("the plan's series to go", gone).await;

    // Whoever stands by ends, and the leader does not notice.
    let held = holder(&admin).await;
    follower.operator.terminate().unwrap();
    assert_eq!(follower.ended().await.code(), Some(0));
    assert_eq!(holder(&admin).await, held);
    // The leader is stopped while it isolates something.
    let late = ["Namespace", "Quarantine"].map(|kind| {
        let (version, spec) = match kind {
            "Quarantine" => (KINDS, json!({"isolation": "Sealed", "reason": "a test"})),
            _ => ("v1", json!({})),
        };
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": "pod-late"}, "spec": spec})
    });
    rehearsal::apply(&admin, "platform", &late).await.unwrap();
    let quarantines = kind(&admin, KINDS, "Quarantine", None);
    let begun = |q: &Value| !q["metadata"]["finalizers"].is_null();
    eventually(&quarantines, "pod-late", "isolation to begin", DEADLINE, begun).await.unwrap();
    leader.operator.terminate().unwrap();
    assert_eq!(leader.ended().await.code(), Some(0));
    assert_eq!(holder(&admin).await, "");
    nothing_is_written_after_the_lease_is_given_back(cluster);

    // One that could not do its work says so before it asks for the lease.
    let mut broken = Replica::start(cluster, "broken", &["--probe-interval", "500ms"]);
    assert_eq!(broken.ended().await.code(), Some(2));
    // It says so in a line for people, and not as JSON.
    let log = std::fs::read_to_string(&broken.log).unwrap();
    assert!(log.contains("--probe-interval 500ms is too short") && !log.contains("serving"), "{log}");
    assert_eq!(holder(&admin).await, "");
}

/// The leader has counted the recovery, and exports where everything stands.
async fn is_measured(leader: &Replica, admin: &Client) {
    let metrics = leader.metrics().await;
    assert_eq!(sum(&metrics, "resurgam_services", PLAN), 2.0, "{metrics}");
    assert_eq!(
        sum(&metrics, &format!("resurgam_services{{{PLAN},stage=\"Recovered\""), ""),
        2.0,
        "{metrics}"
    );
    assert_eq!(sum(&metrics, "resurgam_time_to_fence_seconds_count", ""), 2.0, "{metrics}");
    let quarantines = kind(admin, KINDS, "Quarantine", None).list(&ListParams::default()).await.unwrap();
    let controls = sum(&metrics, "resurgam_quarantine_controls", r#"control="Fence""#);
    assert_eq!(controls as usize, quarantines.items.len(), "{metrics}");
    // What lives has to be on the page as well: the page's own test only has what it samples.
    let page = std::fs::read_to_string(repository("docs/metrics.md")).unwrap();
    for (name, type_) in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')) {
        let name = if type_ == "counter" { format!("{name}_total") } else { name.to_owned() };
        assert!(page.contains(&format!("| `{name}` | {type_} |")), "{name}");
    }
    for counted in [
        r#"resurgam_reconciles_total{controller="plan""#,
        r#"resurgam_reconciles_total{controller="quarantine""#,
        r#"resurgam_reconcile_duration_seconds_count{controller="plan""#,
        r#"resurgam_reconcile_duration_seconds_count{controller="quarantine""#,
        r#"resurgam_effect_duration_seconds_count{effect="Claim""#,
        r#"resurgam_gate_verdicts_total{gate="imageDigests",verdict="Pass""#,
        r#"resurgam_gate_duration_seconds_count{gate="workloads""#,
        r#"resurgam_api_requests_total{verb="PATCH",code="2xx""#,
        r#"resurgam_api_requests_total{verb="WATCH",code="2xx""#,
        r#"resurgam_api_request_duration_seconds_count{verb="GET""#,
    ] {
        assert!(sum(&metrics, counted, "") > 0.0, "{counted}\n{metrics}");
    }
}

/// Each line that is about a service says which, of which plan, in which attempt; each about a Quarantine names it.
fn lines_say_what_they_are_about(leader: &Replica) {
    let ours = |message: &str| -> Vec<Value> {
        let lines = leader.that_say(message);
        lines.into_iter().filter(|line| told(line, "plan") == "pod-recovery/pod").collect()
    };
    for message in ["effect carried out", "stage changed", "gate answered"] {
        let services: BTreeSet<String> = ours(message)
            .iter()
            .map(|line| {
                assert_eq!(told(line, "attempt"), 1, "{line}");
                told(line, "service").as_str().unwrap().to_owned()
            })
            .collect();
        assert_eq!(services.into_iter().collect::<Vec<_>>(), ["pod-db", "pod-web"], "{message}");
    }
    let gates: BTreeSet<String> = ours("gate answered").iter().map(|l| told(l, "gate").to_string()).collect();
    assert_eq!(gates.into_iter().collect::<Vec<_>>(), [r#""images""#, r#""up""#]);
    for line in leader.that_say("Ready changed") {
        assert!(told(&line, "quarantine").is_string(), "{line}");
    }
}

/// By the audit log, the operator sent no write after the one by which it gave the lease back.
fn nothing_is_written_after_the_lease_is_given_back(cluster: &ControlPlane) {
    let log = std::fs::read_to_string(cluster.audit_log()).unwrap();
    let lines = log.split_inclusive('\n').filter(|line| line.ends_with('\n') && line.contains(OPERATOR));
    let events: Vec<Value> = lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let writes = |event: &&Value| {
        event["user"]["username"] == OPERATOR && !["get", "list", "watch"].contains(&text(event, "/verb"))
    };
    let at = |event: &Value| text(event, "/requestReceivedTimestamp").to_owned();
    let gives_back = |event: &&Value| {
        event["responseObject"]["kind"] == "Lease"
            && event["responseObject"]["spec"]["holderIdentity"].as_str().is_none_or(str::is_empty)
    };
    let given = events.iter().filter(writes).filter(gives_back).map(at).max().unwrap();
    let late: Vec<&Value> = events.iter().filter(writes).filter(|event| at(event) > given).collect();
    assert!(late.is_empty(), "given back at {given}, and written after that: {late:#?}");
}
